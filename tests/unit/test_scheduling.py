"""Leg 3, pure: what facts make of a process."""

import pytest

from app.messages.commands import AttemptAbandoned, DeadlineDue, RetryDue, RunTask
from app.messages.events import ProcessPlanned, TaskChanged, TaskInDoubt, TaskStarted, TaskSucceeded
from app.workflow import attempt, experiment, process, retry, scheduling
from app.workflow.task import MOVES, State
from tests.support.builders import EXPERIMENT, JITTER_ONE_HALF, NOON, PROCESS, SECOND, a_failure, a_message, decide, loaded, planned


def commands(decision):
    return [(m.subject.task, m.subject.attempt, m.subject.epoch) for m in decision.messages if isinstance(m.body, RunTask)]


def test_a_planned_process_starts_and_its_roots_are_dispatched():
    found = loaded("a>c b>c", state=process.State.VALIDATED)
    decision = decide(found, planned())
    assert commands(decision) == [("a", 1, 1), ("b", 1, 1)]
    assert found.processes[PROCESS].state is process.State.STARTED
    assert found.experiments[EXPERIMENT].state is experiment.State.EXECUTING
    assert {a.state for a in decision.attempts} == {attempt.State.DISPATCHED}


def test_a_planners_refusal_ends_the_experiment_with_launch_failure():
    found = loaded("a", state=process.State.CREATED)
    decide(found, a_message(ProcessPlanned("the edges contain a cycle")))
    assert (found.processes[PROCESS].state, found.processes[PROCESS].outcome) == (process.State.FAILED, "LAUNCH_FAILURE")
    assert found.experiments[EXPERIMENT].state is experiment.State.FAILED


def test_a_join_waits_for_its_last_predecessor():
    found = loaded("a>c b>c", a=State.EXECUTING, b=State.EXECUTING)
    assert commands(decide(found, a_message(TaskSucceeded(), "a"))) == []
    assert commands(decide(found, a_message(TaskSucceeded(), "b"))) == [("c", 1, 1)]


def test_start_and_success_in_one_batch_move_through_both_states():
    found = loaded("a>b", a=State.SCHEDULED)
    decision = decide(found, a_message(TaskStarted(), "a"), a_message(TaskSucceeded(), "a"))
    moves = [(m.body.from_state, m.body.to_state) for m in decision.messages if isinstance(m.body, TaskChanged) and m.subject.task == "a"]
    assert moves == [("SCHEDULED", "EXECUTING"), ("EXECUTING", "COMPLETED")]


def test_the_last_task_ends_process_and_experiment_in_the_same_decision():
    found = loaded("a", a=State.EXECUTING)
    decide(found, a_message(TaskSucceeded(), "a"))
    assert found.processes[PROCESS].state is process.State.COMPLETED
    assert found.experiments[EXPERIMENT].outcome == "NORMAL_COMPLETION"


def test_a_failed_task_is_tried_again_while_attempts_remain():
    found = loaded("a>b", a=State.EXECUTING)
    decision = decide(found, a_failure("a", transient=True, mid=JITTER_ONE_HALF))
    assert found.tasks["a"].state is State.RETRY_WAIT
    assert [(type(t.message.body), t.due_at) for t in decision.timers] == [(RetryDue, NOON + 1 * SECOND)]
    decision = decide(found, a_message(RetryDue(), "a"))
    assert commands(decision) == [("a", 2, 1)]


def test_attempts_run_out_and_the_failure_skips_what_waits_for_success_but_not_what_waits_for_the_end():
    found = loaded("job>publish job=egress egress>cleanup", job=State.EXECUTING)
    found.tasks["job"].burned = found.tasks["job"].attempt = 3
    decision = decide(found, a_failure("job", transient=True, attempt=3))
    assert (found.tasks["job"].state, found.tasks["publish"].state) == (State.FAILED, State.SKIPPED)
    assert commands(decision) == [("egress", 1, 1)]
    decide(found, a_message(TaskSucceeded(), "egress"))
    decide(found, a_message(TaskSucceeded(), "cleanup"))
    assert found.processes[PROCESS].state is process.State.FAILED
    assert found.processes[PROCESS].outcome == "INTERNAL"


def test_a_condition_blocks_without_burning_an_attempt():
    found = loaded("a", a=State.EXECUTING)
    decide(found, a_failure("a", condition="AUTH_REQUIRED"))
    assert (found.tasks["a"].state, found.tasks["a"].burned) == (State.BLOCKED, 0)


def test_an_abandoned_attempt_is_dispatched_again_under_the_next_epoch_and_the_old_owner_is_late():
    found = loaded("a>b", a=State.EXECUTING)
    decision = decide(found, a_message(AttemptAbandoned(), "a"))
    assert commands(decision) == [("a", 1, 2)]
    assert found.tasks["a"].state is State.EXECUTING
    assert decide(found, a_message(TaskSucceeded(), "a", epoch=1)).late
    assert commands(decide(found, a_message(TaskSucceeded(), "a", epoch=2))) == [("b", 1, 1)]


def test_a_doubt_is_asked_again_with_the_same_attempt_and_ends_after_its_bound():
    found = loaded("a", a=State.EXECUTING)
    decide(found, a_message(TaskInDoubt("no answer"), "a"))
    assert found.tasks["a"].state is State.IN_DOUBT
    assert commands(decide(found, a_message(RetryDue(), "a"))) == [("a", 1, 2)]
    found.tasks["a"].doubt_since = NOON - 900 * SECOND
    decide(found, a_message(TaskInDoubt("no answer"), "a", epoch=2))
    assert (found.tasks["a"].state, found.processes[PROCESS].outcome) == (State.FAILED, "RECOVERY_TIMEOUT")


def test_whatever_may_fail_a_task_is_decided_with_all_tasks_at_hand_since_it_may_skip_far_down_the_graph() -> None:
    """The door loads the named task and its direct successors alone, but for these; what is not loaded is not skipped, and its process would never end."""
    found = loaded("a>b b>c", a=State.IN_DOUBT)
    found.tasks["a"].doubt_since, message = NOON - retry.DOUBT_BOUND, a_message(TaskInDoubt("no answer"), "a")
    if not isinstance(message.body, scheduling.CASCADING):
        del found.tasks["c"], found.successors["b"]
    decide(found, message)
    assert [(each.id, each.state) for each in found.tasks.values()] == [("a", State.FAILED), ("b", State.SKIPPED), ("c", State.SKIPPED)]
    assert {each for moves in MOVES.values() for each, states in moves.items() if State.FAILED in states} == set(scheduling.CASCADING)
    assert found.processes[PROCESS].state is process.State.FAILED



def test_a_deadline_ends_every_open_task_and_cancels_its_attempt():
    found = loaded("a>b", a=State.EXECUTING)
    decision = decide(found, a_message(DeadlineDue()))
    assert {t.state for t in found.tasks.values()} == {State.FAILED}
    assert [(a.state, a.epoch) for a in decision.attempts] == [(attempt.State.CANCELED, 2)]
    assert found.processes[PROCESS].outcome == "SCHEDULER_DEADLINE"


@pytest.mark.parametrize("message", [a_message(TaskSucceeded(), "a", attempt=2), a_message(TaskSucceeded(), "zzz"), a_message(TaskStarted(), "b")])
def test_what_cannot_be_is_refused_and_moves_nothing(message):
    found = loaded("a>b", a=State.EXECUTING)
    decision = decide(found, message)
    assert [r.message for r in decision.refused] == [message]
    assert not decision.tasks
    assert not decision.messages


def test_a_repeated_decision_yields_the_same_message_ids():
    first, second = (decide(loaded("a>b", a=State.EXECUTING), a_message(TaskSucceeded(), "a")) for _ in range(2))
    assert [m.mid for m in first.messages] == [m.mid for m in second.messages]
