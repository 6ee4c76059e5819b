"""The skeleton of a trace, drawn from rows: connected, ordered, the same each time, and complete at any moment of a run."""

import re
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import observability
from app.messages import trace
from app.workflow import skeleton
from observability import tracing
from tests.support.builders import NOON

ASKED = f"00-{'a' * 32}-{'b' * 16}-01"
RUN = {"id": "exp_1", "gateway_id": "gw_1", "state": "EXECUTING", "outcome": None, "launched_at": NOON, "finished_at": None}
PROCESS = {"id": "prc_1", "trace_context": ASKED}


def at(seconds: float) -> Any:
    return NOON + timedelta(seconds=seconds)


def a_task(name: str, state: str = "EXECUTING", *, attempt: int = 1, ended: float | None = None, **more: Any) -> dict[str, Any]:
    row = {"id": f"tsk_{name}", "name": name, "type": "INGRESS_STAGING", "state": state, "attempt": attempt, "doubt_since": None, "reason": "", "failure": None}
    return {**row, "finished_at": None if ended is None else at(ended), **more}


def an_attempt(task: str, number: int, state: str, begun: float, ended: float | None = None, **outcome: Any) -> dict[str, Any]:
    row = {"id": f"att_{task}_{number}", "task_id": f"tsk_{task}", "number": number, "state": state, "epoch": 1, "created_at": at(begun)}
    return {**row, "finished_at": None if ended is None else at(ended), "outcome": outcome or None}


def a_job(task: str, number: int, state: str, begun: float, ended: float | None = None, **more: Any) -> dict[str, Any]:
    row = {"attempt_id": f"att_{task}_{number}", "task_id": f"tsk_{task}", "state": state, "state_since": at(begun + 1), "scheduler_job_id": "4711", "compute_resource_id": "cmp_1", "exit_code": None}
    return {**row, "reason": "", "submitted_at": at(begun), "created_at": at(begun), "finished_at": None if ended is None else at(ended), **more}


def told(tasks: list[Any], attempts: list[Any], jobs: Any = (), **run: Any) -> list[skeleton.Span]:
    return skeleton.spans({**RUN, **run}, PROCESS, tasks, attempts, jobs)


def test_a_run_hangs_below_the_request_that_launched_it_and_goes_on() -> None:
    (root,) = told([a_task("a", "CREATED", attempt=0)], [])
    assert (root.name, root.parent_id, root.start, root.end, root.status) == ("experiment run", "b" * 16, NOON, None, "UNSET")
    assert root.span_id == trace.skeleton(ASKED, "experiment", "exp_1")[36:52]
    assert root.attributes["airavata.process.id"] == "prc_1"
    assert "airavata.outcome" not in root.attributes


def test_without_a_request_s_trace_it_has_no_parent() -> None:
    assert skeleton.spans(RUN, {**PROCESS, "trace_context": ""}, [], [], [])[0].parent_id is None
    own = trace.skeleton(ASKED, "experiment", "exp_1")
    assert skeleton.spans(RUN, {**PROCESS, "trace_context": own}, [], [], [])[0].parent_id is None


def test_a_retry_shows_both_attempts_and_the_wait_between_them() -> None:
    attempts = [an_attempt("a", 1, "FAILED", 1, 2, code="STAGING_IN_FAILED", message="no answer"), an_attempt("a", 2, "SUCCEEDED", 5, 6)]
    root, first, wait, second = told([a_task("a", "COMPLETED", attempt=2, ended=6)], attempts, state="COMPLETED", outcome="NORMAL_COMPLETION", finished_at=at(6))
    assert [each.name for each in (first, wait, second)] == ["task INGRESS_STAGING", "wait RETRY_WAIT", "task INGRESS_STAGING"]
    assert (first.status, first.attributes["error.type"], second.status) == ("ERROR", "STAGING_IN_FAILED", "OK")
    assert (wait.start, wait.end, wait.attributes["airavata.reason"]) == (at(2), at(5), "no answer")
    assert (first.retry_of, second.retry_of) == (None, first.span_id)
    assert {each.parent_id for each in (first, wait, second)} == {root.span_id}
    assert first.span_id == trace.skeleton(ASKED, "attempt", "tsk_a", 1)[36:52]
    assert (root.status, root.attributes["airavata.outcome"], root.attributes["airavata.failed"]) == ("OK", "NORMAL_COMPLETION", False)


def test_all_that_the_table_promises_of_a_task_stands_on_every_span_from_a_task_on() -> None:
    """Jaeger matches all tags of a search on one span."""
    promised = re.search(r"from a task on ((?:`[.\w]+`,? ?)+)", " ".join((observability.__doc__ or "").split()))
    assert promised is not None
    names = {each if each.startswith("airavata") else f"airavata{each}" for each in re.findall(r"`([.\w]+)`", promised[1])}
    assert names == tracing.about(["gw", "exp", "prc", "tsk", "NOOP", "1", "1"]).keys() - tracing.about(["gw", "exp", "prc", "", "", "", ""]).keys()
    tasks = [a_task("a", "EXECUTING", attempt=2), a_task("b", "BLOCKED"), a_task("c", "IN_DOUBT", doubt_since=at(3))]
    attempts = [an_attempt("a", 1, "FAILED", 1, 2), an_attempt("a", 2, "RUNNING", 3), an_attempt("b", 1, "FAILED", 1, 2, condition="AUTH_REQUIRED"), an_attempt("c", 1, "RUNNING", 1)]
    _, *below = told(tasks, attempts, [a_job("a", 2, "ACTIVE", 4), a_job("c", 1, "IN_DOUBT", 2)])
    assert {each.name for each in below} == {"task INGRESS_STAGING", "wait RETRY_WAIT", "wait BLOCKED", "wait IN_DOUBT", "job run"}
    assert [each.name for each in below if not names <= each.attributes.keys()] == []


def test_a_wait_that_goes_on_is_open_and_names_its_condition() -> None:
    attempts = [an_attempt("a", 1, "FAILED", 1, 2, code="STAGING_IN_FAILED", condition="AUTH_REQUIRED", message="refused")]
    *_, wait = told([a_task("a", "BLOCKED")], attempts)
    assert (wait.name, wait.end, wait.attributes["airavata.condition"]) == ("wait BLOCKED", None, "AUTH_REQUIRED")


def test_a_deadline_ends_the_wait_it_met() -> None:
    attempts = [an_attempt("a", 1, "FAILED", 1, 2, code="X")]
    *_, wait = told([a_task("a", "FAILED", ended=9, failure={"code": "SCHEDULER_DEADLINE"})], attempts)
    assert (wait.name, wait.start, wait.end) == ("wait RETRY_WAIT", at(2), at(9))


def test_a_failure_for_good_waits_for_nothing() -> None:
    names = [each.name for each in told([a_task("a", "FAILED", ended=2.1, failure={"code": "X"})], [an_attempt("a", 1, "FAILED", 1, 2, code="X")])]
    assert names == ["experiment run", "task INGRESS_STAGING"]
    assert names == [each.name for each in told([a_task("a", "EXECUTING")], [an_attempt("a", 1, "FAILED", 1, 2, code="X")])], "the scheduler has not heard of it yet"


def test_a_doubt_lasts_from_its_beginning_to_the_end_of_its_attempt() -> None:
    *_, doubt = told([a_task("a", "IN_DOUBT", doubt_since=at(3), reason="no answer to the submission")], [an_attempt("a", 1, "IN_DOUBT", 1)])
    assert (doubt.name, doubt.start, doubt.end) == ("wait IN_DOUBT", at(3), None)
    *_, doubt = told([a_task("a", "COMPLETED", ended=8, doubt_since=at(3))], [an_attempt("a", 1, "SUCCEEDED", 1, 7)])
    assert doubt.end == at(7)


def test_a_job_hangs_below_its_attempt_with_what_it_did() -> None:
    _, first, job = told([a_task("a")], [an_attempt("a", 1, "RUNNING", 1)], [a_job("a", 1, "FAILED", 2, 9, exit_code=3, reason="exit status 3")])
    assert (job.name, job.parent_id, job.status, job.events) == ("job run", first.span_id, "ERROR", (("submitted", at(2)), ("failed", at(3))))
    assert {job.attributes[name] for name in ("airavata.job.id", "airavata.job.token", "process.exit.code")} == {"4711", "att_a_1", 3}


def test_take_overs_are_counted_and_long_values_cut() -> None:
    attempts = [{**an_attempt("a", 1, "RUNNING", 1), "epoch": 3}]
    root, first, job = told([a_task("a")], attempts, [a_job("a", 1, "ACTIVE", 2, reason="x" * 1000)])
    assert (root.attributes["airavata.takeovers"], first.attributes["airavata.attempt.epoch"], len(job.attributes["airavata.reason"])) == (2, 3, 256)


TIMES = st.floats(0, 100)
TASKS = st.lists(st.tuples(st.sampled_from(["RETRY_WAIT", "BLOCKED", "EXECUTING", "COMPLETED", "FAILED", "IN_DOUBT"]), st.integers(0, 4), st.booleans()), max_size=6)


@given(shapes=TASKS)
def test_whatever_the_rows_say_it_is_one_tree_of_known_parents_with_ids_of_their_own(shapes: Any) -> None:
    tasks = [a_task(f"t{n}", state, attempt=count, doubt_since=at(1) if doubt else None) for n, (state, count, doubt) in enumerate(shapes)]
    attempts = [an_attempt(f"t{n}", k, "FAILED" if k < count else "RUNNING", k, k + 0.5 if k < count else None, code="X") for n, (_, count, _) in enumerate(shapes) for k in range(1, count + 1)]
    jobs = [a_job(f"t{n}", count, "ACTIVE", count) for n, (_, count, _) in enumerate(shapes) if count]
    found = told(tasks, attempts, jobs)
    known = {each.span_id for each in found}
    assert len(known) == len(found)
    assert all(each.parent_id in known for each in found[1:])
    assert all(each.end is None or each.end >= each.start for each in found)
    assert found == told(tasks, attempts, jobs), "a second making is identical"
    root, below = skeleton.tree(found)
    assert 1 + sum(len(each) for each in below.values()) == len(found)
    assert root is found[0]
