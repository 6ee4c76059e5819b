"""How the context of a trace crosses from row to message to message: what each carries is the skeleton span it belongs to, whatever sent it."""

from typing import Any

import pytest

from app.kafka import aside
from app.kafka.consumer import Received
from app.messages import codec, trace
from app.messages.envelope import Envelope
from app.messages.events import ExperimentLaunched, TaskSucceeded
from app.mysql import processes, sweeping
from app.workflow import generation, process, submission
from app.workflow.graph import Loaded
from app.workflow.planners import batch_application
from app.workflow.task import State
from components.task_scheduler import sweeper, timers
from tests.support.builders import COMMANDS, EXPERIMENT, NOON, PLACEMENT, PROCESS, TOPICS, a_failure, a_message, decide, decoded, loaded, planned

REQUEST = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
RUN = trace.skeleton(REQUEST, "experiment", EXPERIMENT)


def traced(*arguments: Any, **states: Any) -> Loaded:
    found = loaded(*arguments, **states)
    found.processes[PROCESS].trace_context = REQUEST
    return found


def attempt(task: str, number: int) -> str:
    return trace.skeleton(REQUEST, "attempt", task, number)


def test_the_process_row_keeps_the_requests_own_span_and_the_messages_name_the_run_below_it() -> None:
    launch = submission.launch(gateway_id="gw_1", experiment_id=EXPERIMENT, from_state="CREATED", snapshot={}, traceparent=REQUEST, placement=PLACEMENT, topics=TOPICS)
    assert launch.trace_context == REQUEST
    assert {each.traceparent for each in launch.messages} == {RUN}


def test_the_generators_messages_name_the_run_although_the_one_it_answers_came_without_a_context() -> None:
    """A broken header heals: the trace comes from the process row."""
    message = a_message(ExperimentLaunched())
    assert message.traceparent == ""
    decided = generation.decide(
        message, state=process.State.CREATED, part=7, trace_context=REQUEST, snapshot={"interface": {"planner": "none"}}, planners={"other": batch_application.PLANNER}, topics=TOPICS
    )
    assert {each.traceparent for each in decided.messages} == {RUN}


@pytest.mark.parametrize(
    ("states", "message", "expected"),
    [
        ({}, planned(), {"RunTask": attempt("a", 1), "TaskChanged": attempt("a", 1), "ProcessChanged": RUN, "ExperimentChanged": RUN}),
        ({"a": State.EXECUTING}, a_message(TaskSucceeded(), "a"), {"RunTask": attempt("b", 1)}),
        ({"a": State.EXECUTING}, a_failure("a", transient=True), {"TaskChanged": attempt("a", 1)}),
        ({"a": State.RETRY_WAIT}, a_message(COMMANDS["RetryDue"](), "a"), {"RunTask": attempt("a", 2)}),
        ({"a": State.EXECUTING}, a_message(COMMANDS["AttemptAbandoned"](), "a"), {"RunTask": attempt("a", 1)}),
    ],
    ids=["planned", "the next task", "failed", "again", "taken over"],
)
def test_what_the_scheduler_sends_names_the_attempt_it_is_about_or_the_run(states: dict[str, State], message: Envelope, expected: dict[str, str]) -> None:
    decision = decide(traced("a>b", state=process.State.STARTED if states else process.State.VALIDATED, **states), message)
    sent = {type(each.body).__name__: each.traceparent for each in decision.messages if each.subject.task in {"", *({each.subject.task} if each.subject.attempt else set())}}
    assert {name: sent[name] for name in expected} == expected
    assert all(trace.sampled(each.message.traceparent) for each in decision.timers)


def test_a_retry_timer_waits_with_the_context_of_the_attempt_that_failed() -> None:
    (timer,) = decide(traced("a", a=State.EXECUTING), a_failure("a", transient=True)).timers
    assert timer.message.traceparent == attempt("a", 1)


def test_what_is_set_aside_comes_back_with_its_context_and_names_the_one_that_was_set_aside_as_its_cause() -> None:
    message = a_message(TaskSucceeded(), "a")
    record = codec.encode(Envelope(**{name: getattr(message, name) for name in message.__struct_fields__} | {"traceparent": attempt("a", 1)}), at=NOON, step="s#1")
    received = Received("t", 7, 3, record.key, codec.headers_of(record.headers), record.payload, 0)
    culprit = aside.Culprit(received, "Illegal", "why", decoded(record))
    timer, letter = aside._copy(culprit, "group", NOON), aside._dead(culprit, "group", NOON)
    assert timer is not None
    assert (timer.message.traceparent, timer.message.cause) == (attempt("a", 1), record.mid.hex())
    assert codec.traceparent_of(letter.headers) == attempt("a", 1)


@pytest.mark.parametrize(("keep", "states", "message"), [
    ("", {"a": State.EXECUTING}, a_message(TaskSucceeded(), "a")),
    ("retried", {"a": State.EXECUTING}, a_failure("a", transient=True)),
    ("retried", {"a": State.EXECUTING}, a_failure("a", condition="QUOTA")),
    ("taken_over", {"a": State.EXECUTING}, a_message(COMMANDS["AttemptAbandoned"](), "a")),
    ("failed", {"a": State.EXECUTING}, a_failure("a")),
    ("failed", {"a": State.EXECUTING}, a_message(COMMANDS["DeadlineDue"]())),
])  # fmt: skip
def test_the_decision_that_met_something_unclean_says_so_on_the_process_row(keep: str, states: dict[str, State], message: Envelope) -> None:
    found = traced("a", **states)
    decision = decide(found, message)
    assert found.processes[PROCESS].trace_keep == keep
    assert not keep or found.processes[PROCESS] in decision.processes, "it is saved"


def test_pushes_and_takings_name_the_attempt_too() -> None:
    stuck = sweeping.Stuck("prc_1", EXPERIMENT, "gw_1", 7, REQUEST, "tsk_1", "NOOP", 2, 1)
    swept = sweeper.Sweeper.push(object.__new__(_Sweeper), stuck, NOON)
    taken = timers.TimerLoop.abandoned(object.__new__(_Timers), ("att_1", "tsk_1", "prc_1", 2, 1, "who"), processes.Place(EXPERIMENT, "gw_1", 7, REQUEST))
    assert swept.traceparent == taken.traceparent == attempt("tsk_1", 2)


class _Sweeper(sweeper.Sweeper):
    topics = TOPICS


class _Timers(timers.TimerLoop):
    topics = TOPICS
