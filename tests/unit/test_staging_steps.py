"""What is staged where, pure: inputs to the work directory, outputs back, and what each failure means."""

import pytest

from app.workflow.execution import Failed, Succeeded
from components.task_executors.plugin import Exec, OperationFailed, Ran, Transfer, Transferred
from components.task_executors.staging.steps import egress, ingress
from tests.support.remote_orders import a_snapshot, an_order

URI = "storage://sto_1/in/a.txt"


def drive(steps, answers):
    """Feeds results, or throws faults; what was asked, and the outcome."""
    asked, answers = [], list(answers)
    try:
        operation = next(steps)
        while True:
            asked.append(operation)
            answer = answers.pop(0)
            operation = steps.throw(answer) if isinstance(answer, OperationFailed) else steps.send(answer)
    except StopIteration as end:
        return asked, end.value


def order(inputs=None, outputs=(), values=None):
    snapshot = a_snapshot(interface={"inputs": inputs or [], "outputs": list(outputs)}, inputs=values or {})
    snapshot["output_storage"] = {"id": "sto_9"}
    return an_order("EGRESS_STAGING", snapshot=snapshot)


def test_every_uri_input_is_brought_under_its_safe_name_with_its_declared_hash():
    inputs = [{"name": "text", "type": "URI", "override_filename": "text.txt"}, {"name": "n", "type": "INTEGER"}, {"name": "many", "type": "URI_COLLECTION"}]
    given = order(inputs, values={"text": {"uri": URI, "sha256": "ab"}, "n": 3, "many": ["storage://sto_1/x/1", "storage://sto_1/x/2"]})
    asked, outcome = drive(ingress(given), [Transferred(5, "h")] * 3)
    assert {(each.source, each.target.rsplit("/", 1)[1], each.sha256) for each in asked} == {(URI, "text.txt", "ab"), ("storage://sto_1/x/1", "1", None), ("storage://sto_1/x/2", "2", None)}
    assert outcome == Succeeded({"files": 3, "bytes": 15})


@pytest.mark.parametrize(
    ("code", "transient", "condition"),
    [("NOT_FOUND", False, None), ("DECLARED_CHECKSUM", False, None), ("STORAGE_UNAVAILABLE", True, None), ("CHECKSUM", True, None), ("HOST_KEY_CHANGED", True, "HOST_KEY_CHANGED")],
)
def test_a_failed_input_is_named_and_tried_again_only_where_that_may_help(code, transient, condition):
    given = order([{"name": "text", "type": "URI"}], values={"text": URI})
    _, outcome = drive(ingress(given), [OperationFailed(code, "There is no file a.txt in the storage.", certain=True)])
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.transient, outcome.condition) == ("STAGING_IN_FAILED", transient, condition)
    assert outcome.message == "Input text: There is no file a.txt in the storage."


def test_outputs_come_back_by_stdout_name_and_pattern():
    given = order(outputs=[{"name": "log", "type": "STDOUT"}, {"name": "table", "type": "URI", "search_glob": "*.tbl"}, {"name": "plots", "type": "URI_COLLECTION", "search_glob": "*.png"}])
    answers = [Transferred(1, "a"), Ran(0, b"hits.tbl\0", b""), Transferred(2, "b"), Ran(0, b"1.png\x002.png\0", b""), Transferred(3, "c"), Transferred(4, "d")]
    asked, outcome = drive(egress(given), answers)
    assert [type(each) for each in asked] == [Transfer, Exec, Transfer, Exec, Transfer, Transfer]
    assert [(each.name, each.state, each.size_bytes) for each in outcome.outputs] == [("log", "STAGED", 1), ("table", "STAGED", 2), ("plots", "STAGED", 7)]
    assert outcome.outputs[1].uri == f"storage://sto_9/{given.subject.experiment}/table/hits.tbl"


def test_a_required_output_that_is_missing_fails_by_name_and_an_optional_one_is_only_missing():
    given = order(outputs=[{"name": "table", "type": "URI", "required": True}, {"name": "extra", "type": "URI"}])
    _, outcome = drive(egress(given), [Ran(0, b"", b""), Ran(0, b"", b"")])
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.transient) == ("STAGING_OUT_FAILED", False)
    assert "output table" in outcome.message
    assert [each.state for each in outcome.outputs] == ["MISSING", "MISSING"]
