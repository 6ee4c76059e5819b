"""Submission, purely: which answer of a host makes which outcome, and what is committed before anything leaves."""

from collections.abc import Iterable
from typing import Any

import pytest

from app.workflow.execution import Failed, InDoubt, Outcome, Submitted
from components.task_executors import host
from components.task_executors.plugin import Commit, Exec, OperationFailed, Ran, WorkOrder
from components.task_executors.submission.steps import nonce_of, steps
from tests.support.remote_orders import a_snapshot, an_order

RECEIPT = "pid=71 start=9 boot=b1 host=h/1 began=5"
LOST = OperationFailed("SSH_LOST", "The connection broke.", certain=False)
UNREACHABLE = OperationFailed("SSH_CONNECT", "It cannot be reached.", certain=True)


def said(order: WorkOrder, text: str, purpose: str = "submit") -> Ran:
    nonce = nonce_of(order, purpose)
    return Ran(0, f"Welcome!\n{nonce} {text} {nonce}\n".encode(), b"")


def answered(order: WorkOrder, answers: Iterable[Ran | OperationFailed]) -> tuple[Outcome, list[str], list[Exec]]:
    """Outcome, states committed in order, commands run. `answers` are to the commands, in order."""
    remaining, committed, asked = list(answers), [], []
    generator = steps(order)
    result: Any = None
    fault: OperationFailed | None = None
    try:
        while True:
            operation = generator.throw(fault) if fault else generator.send(result)
            result, fault = None, None
            if isinstance(operation, Commit):
                committed.append(operation.state)
            else:
                assert isinstance(operation, Exec)
                asked.append(operation)
                answer = remaining.pop(0)
                result, fault = (None, answer) if isinstance(answer, OperationFailed) else (answer, None)
    except StopIteration as end:
        assert not remaining
        return end.value, committed, asked


def test_a_receipt_is_stored_before_the_attempt_is_let_go() -> None:
    order = an_order()
    outcome, committed, asked = answered(order, [said(order, f"RECEIPT {RECEIPT}")])
    assert outcome == Submitted("71@b1")
    assert committed == ["SUBMITTING", "SUBMITTED"]
    assert asked[0].argv[4] == host.path("/scratch", "submit")


def test_a_host_without_the_helpers_is_given_them() -> None:
    order, missing, done = an_order(), Ran(host.MISSING, b"", b""), Ran(0, b"", b"")
    outcome, _, asked = answered(order, [missing, done, done, said(order, f"RECEIPT {RECEIPT}")])
    assert outcome == Submitted("71@b1")
    assert [each.stdin for each in asked[1:3]] == [host.text("job"), host.text("submit")]


@pytest.mark.parametrize("noise", ["RECEIPT pid=1 boot=x", "", "{nonce} RECEIPT pid=1 boot=x", "sh submit {nonce} RECEIPT pid=1 boot=x {nonce}"])
def test_what_is_not_framed_is_not_believed(noise: str) -> None:
    order = an_order()
    outcome, committed, _ = answered(order, [Ran(0, noise.format(nonce=nonce_of(order, "submit")).encode(), b""), Ran(0, b"", b"")])
    assert isinstance(outcome, InDoubt)
    assert committed == ["SUBMITTING", "IN_DOUBT"]


FORGED = [
    "", "pid=71", "pid=1 start=9 boot=b1 host=h/1 began=5", "pid=-71 start=9 boot=b1 host=h/1 began=5", "pid=71 start=9 boot=b\u00e91 host=h/1 began=5", f"{RECEIPT} began={9 * 10**40}",
    f"pid=71 start=9 boot={'b' * 200} host=h/1 began=5", "pid=\u0662 start=9 boot=b1 host=h/1 began=5", '{"pid": 71}',
]  # fmt: skip


@pytest.mark.parametrize("receipt", FORGED)
def test_a_receipt_that_no_wrapper_of_ours_wrote_is_refused_by_name_and_believed_by_nobody(receipt: str) -> None:
    order = an_order()
    outcome, committed, _ = answered(order, [said(order, f"RECEIPT {receipt}")])
    assert isinstance(outcome, InDoubt)
    assert outcome.message == "The receipt of the job on its host is broken or forged, and is not believed."
    assert committed == ["SUBMITTING", "IN_DOUBT"]


def test_a_lost_answer_is_asked_for_and_what_is_found_is_adopted() -> None:
    order = an_order()
    seen = said(order, "att_1 boot=b1 here=h/1 now=9 pid=71 start=9 began=5 host=h/1 receipt_boot=b1 alive=yes", "look")
    outcome, committed, _ = answered(order, [LOST, seen])
    assert outcome == Submitted("71@b1")
    assert committed == ["SUBMITTING", "SUBMITTED"]


@pytest.mark.parametrize("second", [LOST, UNREACHABLE, Ran(1, b"", b"")])
def test_a_lost_answer_that_cannot_be_asked_for_is_a_doubt_with_evidence(second: Ran | OperationFailed) -> None:
    outcome, committed, _ = answered(an_order(), [LOST, second])
    assert isinstance(outcome, InDoubt)
    assert "SSH_LOST" in outcome.evidence[0]
    assert committed == ["SUBMITTING", "IN_DOUBT"]


def test_a_host_never_reached_is_a_definite_refusal_only_in_the_first_epoch() -> None:
    first, committed, _ = answered(an_order(), [UNREACHABLE])
    assert isinstance(first, Failed)
    assert (first.condition, committed) == ("HOST_CIRCUIT_OPEN", ["SUBMITTING"])
    later, committed, _ = answered(an_order(epoch=2), [UNREACHABLE, UNREACHABLE])
    assert isinstance(later, InDoubt)
    assert committed == ["SUBMITTING", "IN_DOUBT"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ABSENT mkdir: cannot create directory: No space left on device", Failed),
        ("ABSENT there is no directory /scratch/airavata/prc_1", Failed),
        ("ABSENT the job did not start within 10 s", InDoubt),
        ("ABSENT the script arrived damaged", InDoubt),
        ("REFUSED CANCELLED", Failed),
    ],
)
def test_what_is_proved_absent_is_refused_or_tried_again_with_the_same_token(text: str, expected: type[Outcome]) -> None:
    order = an_order(epoch=2)
    outcome, committed, _ = answered(order, [said(order, text)])
    assert isinstance(outcome, expected)
    assert committed[1:] == ([] if expected is Failed else ["IN_DOUBT"])  # A refusal ends the job with its attempt, not before it.


@pytest.mark.parametrize("text", ["CANNOT_TELL the lock is held by h/1:7:9:b1", "REFUSED NEWER_EPOCH 4"])
def test_what_the_host_cannot_tell_stays_in_doubt(text: str) -> None:
    order = an_order()
    outcome, _, _ = answered(order, [said(order, text), said(order, "att_1 boot=b1 here=h/1 now=9 guard=h/1:7:9:b1", "look")])
    assert isinstance(outcome, InDoubt)
    assert outcome.evidence[1:3] == ("receipt: none", "guard: h/1:7:9:b1")


def test_a_batch_system_is_refused_before_anything_is_committed() -> None:
    outcome, committed, _ = answered(an_order(snapshot=a_snapshot(host={"job_manager": {"type": "SLURM"}})), [])
    assert isinstance(outcome, Failed)
    assert committed == []


def test_a_control_path_never_leaves_the_scratch_directory_of_the_host() -> None:
    order = an_order()
    _, _, asked = answered(order, [said(order, f"RECEIPT {RECEIPT}")])
    assert all(each.startswith("/scratch/") for each in (asked[0].argv[4], asked[0].argv[5], *asked[0].argv[9:]))
