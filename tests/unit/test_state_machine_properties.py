"""Properties of the state tables and of the walk over random graphs, by hypothesis (a failure prints how to repeat it)."""

from hypothesis import given, settings
from hypothesis import strategies as st

from app.messages.commands import AttemptAbandoned, DeadlineDue, RetryDue, RunTask
from app.messages.events import TaskFailed, TaskInDoubt, TaskStarted, TaskSucceeded
from app.workflow import attempt, experiment, job, process, task
from tests.support.builders import PROCESS, a_message, decide, loaded, planned

FACTS = [TaskStarted(), TaskSucceeded(), TaskFailed("X", "x"), TaskFailed("X", "x", transient=True), TaskFailed("X", "x", condition="AUTH_REQUIRED"), TaskInDoubt("?"), RetryDue(), AttemptAbandoned()]


def test_every_state_has_a_row_also_the_last_ones():
    for states, table in ((experiment.State, experiment.NEXT), (process.State, process.NEXT), (task.State, task.MOVES), (attempt.State, attempt.NEXT), (job.State, job.NEXT)):
        assert set(table) == set(states)


@given(state=st.sampled_from(task.State), fact=st.sampled_from(FACTS))
def test_every_pair_is_a_move_or_late_or_an_error(state, fact):
    found = loaded("a>b", a=state)
    decision = decide(found, a_message(fact, "a", attempt=found.tasks["a"].attempt, epoch=found.tasks["a"].epoch))
    allowed = task.MOVES[state].get(type(fact))
    if allowed is None:
        assert decision.refused
        assert found.tasks["a"].state is state
    elif not allowed:
        assert (len(decision.late), found.tasks["a"].state, decision.messages) == (1, state, [])
    else:
        assert found.tasks["a"].state in allowed


@given(state=st.sampled_from(sorted(task.TERMINAL)), facts=st.lists(st.sampled_from(FACTS), max_size=5))
def test_terminal_states_absorb(state, facts):
    found = loaded("a", state=process.State.FAILED, a=state)
    for fact in facts:
        decide(found, a_message(fact, "a", attempt=found.tasks["a"].attempt, epoch=found.tasks["a"].epoch))
    assert found.tasks["a"].state is state


@st.composite
def graphs(draw):
    size = draw(st.integers(1, 7))
    words = [f"t{i}" for i in range(size)]
    for i in range(size):
        for j in range(i + 1, size):
            link = draw(st.sampled_from(["", "", ">", "="]))
            if link:
                words.append(f"t{i}{link}t{j}")
    return " ".join(words)


@settings(max_examples=150)
@given(edges=graphs(), data=st.data())
def test_any_graph_under_any_facts_copies_and_disorder_ends_with_everything_terminal(edges, data):
    found = loaded(edges, state=process.State.VALIDATED)
    waiting = [m for m in decide(found, planned()).messages if isinstance(m.body, RunTask)]
    seen, starts = [], 0
    while waiting and starts < 200:
        command = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
        starts += 1
        name, number, epoch = command.subject.task, command.subject.attempt, command.subject.epoch
        fact = data.draw(st.sampled_from(FACTS[:6] if starts < 60 else FACTS[1:3]))
        batch = [a_message(TaskStarted(), name, attempt=number, epoch=epoch), a_message(fact, name, attempt=number, epoch=epoch)]
        if seen and data.draw(st.booleans()):
            batch.append(data.draw(st.sampled_from(seen)))  # A copy of something old.
        decision = decide(found, *batch)
        seen += batch[:2]
        assert not decision.refused
        waiting += [m for m in decision.messages if isinstance(m.body, RunTask)]
        for timer in decision.timers:
            waiting += [m for m in decide(found, timer.message).messages if isinstance(m.body, RunTask)]
        if isinstance(fact, TaskStarted):  # The executor dies: its attempt is taken and dispatched again.
            again = decide(found, a_message(AttemptAbandoned(), name, attempt=number, epoch=epoch))
            waiting += [m for m in again.messages if isinstance(m.body, RunTask)]
    whole = found.processes[PROCESS]
    assert whole.state in process.TERMINAL
    assert whole.tasks_open == 0
    assert all(t.state in task.TERMINAL for t in found.tasks.values())
    assert (whole.tasks_failed > 0) == (whole.state is process.State.FAILED)


@given(states=st.sampled_from([(experiment.State, experiment.NEXT), (process.State, process.NEXT), (attempt.State, attempt.NEXT), (job.State, job.NEXT)]))
def test_every_state_reaches_an_end(states):
    kinds, table = states
    ends = {s for s in kinds if not table[s]}
    reaching = set(ends)
    while more := {s for s in kinds if s not in reaching and table[s] & reaching}:
        reaching |= more
    assert reaching == set(kinds)


def test_deadline_moves_every_open_state_to_failed():
    for state in set(task.State) - task.TERMINAL:
        found = loaded("a", a=state)
        decide(found, a_message(DeadlineDue()))
        assert found.tasks["a"].state is task.State.FAILED
