"""What the scheduler measures comes from the stamps of its messages, once per fact, and never from its own clock."""

from datetime import timedelta

from msgspec import structs

from app.messages import codec
from app.messages.envelope import Envelope
from app.messages.events import TaskInDoubt, TaskStarted, TaskSucceeded
from app.workflow import process
from app.workflow.task import State
from components.task_scheduler.figures import Figures
from observability import metrics
from tests.support.builders import NOON, SECOND, a_failure, a_message, decide, loaded


def at(message: Envelope, milliseconds: int) -> Envelope:
    return structs.replace(message, at=codec.wire_time(NOON + timedelta(milliseconds=milliseconds)))


def applied(figures: Figures, found: object, *messages: Envelope) -> None:
    figures.decided(messages, decide(found, *messages), found, NOON)


def hops(le: str) -> float:
    text = metrics.exposition()[0].decode()
    return next((float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("airavata_task_hop_seconds_bucket") and f'le="{le}"' in line), 0.0)


def test_a_hop_lasts_from_the_committed_end_to_the_next_committed_start() -> None:
    figures, found = Figures(), loaded("a>b", a=State.EXECUTING)
    applied(figures, found, at(a_message(TaskSucceeded(), "a"), 0))
    applied(figures, found, at(a_message(TaskStarted(), "b"), 42))
    assert (hops("0.04"), hops("0.06")) == (0, 1)


def test_a_start_that_nobodys_end_caused_is_no_hop_and_a_copy_counts_once() -> None:
    figures, found = Figures(), loaded("a>b", a=State.SCHEDULED)
    applied(figures, found, at(a_message(TaskStarted(), "a"), 0), at(a_message(TaskSucceeded(), "a"), 10))
    start = at(a_message(TaskStarted(), "b"), 20)
    applied(figures, found, start)
    applied(figures, found, start)
    assert metrics.value("airavata_task_hop_seconds") == 1


def test_an_experiment_is_counted_by_outcome_for_its_gateway_with_its_duration() -> None:
    found = loaded("a", a=State.EXECUTING)
    applied(Figures(), found, a_failure("a"))
    (whole,) = found.processes.values()
    assert whole.state is process.State.FAILED
    assert metrics.value("airavata_experiments_finished_total", outcome=str(whole.outcome)) == 1
    assert metrics.value("airavata_gateway_experiments_total", gateway=whole.gateway_id, result="failed") == 1
    assert metrics.value("airavata_experiment_seconds", result="failed") == 1


def test_a_late_fact_says_whether_a_newer_epoch_made_it_late() -> None:
    found = loaded("a", a=State.EXECUTING)
    found.tasks["a"].epoch = 2
    applied(Figures(), found, a_message(TaskSucceeded(), "a", epoch=1), a_message(TaskSucceeded(), "a", epoch=2), a_message(TaskStarted(), "a", epoch=2))
    assert metrics.value("airavata_transitions_refused_total", entity="task", reason="stale_epoch") == 1
    assert metrics.value("airavata_transitions_refused_total", entity="task", reason="late") == 1


def test_a_doubt_that_is_given_up_is_counted_as_lost() -> None:
    found = loaded("a", a=State.EXECUTING, task_type="JOB_SUBMISSION")
    found.tasks["a"].doubt_since = NOON - 3600 * SECOND
    applied(Figures(), found, a_message(TaskInDoubt("no answer"), "a"))
    assert metrics.value("airavata_in_doubt_resolved_total", result="lost") == 1
