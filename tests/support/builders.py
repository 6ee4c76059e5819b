"""Values for tests: `a_process(...)`, `a_fact(...)`. Names of tasks stand for their ids."""

from datetime import datetime, timedelta

from app.messages import codec, ids
from app.messages.commands import AttemptAbandoned, DeadlineDue, RetryDue
from app.messages.envelope import Envelope, Record, Subject
from app.messages.events import ProcessPlanned, TaskFailed
from app.messages.placement import Placement
from app.messages.topics import Topics
from app.workflow import experiment, process, scheduling, task
from app.workflow.decision import Decision
from app.workflow.graph import Edge, Experiment, Loaded, Process, Task

NOON = datetime(2026, 11, 23, 12, 0, 0)
SECOND = timedelta(seconds=1)
TOPICS, PLACEMENT = Topics(), Placement()
JITTER_ONE_HALF = b"\x80" + bytes(15)
GATEWAY, EXPERIMENT, PROCESS = "gw_1", "exp_1", "prc_1"


def decoded(record: Record) -> Envelope:
    """An outbox row, timer or dead letter."""
    return codec.decode(record.topic, record.partition, codec.headers_of(record.headers), record.payload)


def loaded(edges: str = "a", *, state: process.State = process.State.STARTED, task_type: str = "NOOP", **states: task.State) -> Loaded:
    """A process whose graph is `a>b b=c` (`=`: ENDED). `states`: of tasks by name; open ones were dispatched as attempt 1 epoch 1."""
    found = Loaded()
    names: list[str] = []
    links = []
    for word in edges.split():
        left, _, right = word.replace("=", ">").partition(">")
        names += [each for each in (left, right) if each and each not in names]
        if right:
            links.append(Edge(left, right, "ENDED" if "=" in word else "SUCCESS"))
    waiting = {name: sum(1 for edge in links if edge.to_task == name and states.get(edge.from_task, task.State.CREATED) not in task.TERMINAL) for name in names}
    rows = [a_task(name, states.get(name, task.State.CREATED), waiting[name], task_type) for name in names]
    found.add_tasks(rows)
    found.add_edges(links)
    still_open = sum(1 for row in rows if row.state not in task.TERMINAL)
    found.processes[PROCESS] = Process(PROCESS, EXPERIMENT, GATEWAY, 7, state, 3, len(rows), still_open, 0, "", NOON, NOON)
    of_process = {process.State.COMPLETED: experiment.State.COMPLETED, process.State.FAILED: experiment.State.FAILED}
    begun = experiment.State.EXECUTING if state is process.State.STARTED else experiment.State.LAUNCHED
    found.experiments[EXPERIMENT] = Experiment(EXPERIMENT, of_process.get(state, begun), 2)
    return found


def a_task(name: str, state: task.State, waiting_for: int = 0, task_type: str = "NOOP") -> Task:
    dispatched = state not in {task.State.CREATED, task.State.SKIPPED}
    finished_at = NOON if state in task.TERMINAL else None
    return Task(name, PROCESS, name, task_type, state, NOON, waiting_for, 1, int(dispatched), int(dispatched), finished_at=finished_at)


def a_message(body: object, task_name: str = "", *, attempt: int = 1, epoch: int = 1, mid: bytes | None = None) -> Envelope:
    subject = Subject(GATEWAY, EXPERIMENT, PROCESS, task_name, "NOOP" if task_name else "", attempt if task_name else 0, epoch if task_name else 0)
    return Envelope(mid=mid or ids.digest(type(body).__name__, task_name, str(attempt), str(epoch)), topic="t", partition=7, subject=subject, body=body)


def a_failure(task_name: str, *, transient: bool = False, condition: str | None = None, attempt: int = 1, mid: bytes | None = None) -> Envelope:
    return a_message(TaskFailed("INTERNAL", "It failed.", transient=transient, condition=condition), task_name, attempt=attempt, mid=mid)


def decide(found: Loaded, *messages: Envelope) -> Decision:
    return scheduling.decide(found, messages, now=NOON, topics=TOPICS, placement=PLACEMENT)


def planned() -> Envelope:
    return a_message(ProcessPlanned())


COMMANDS = {each.__name__: each for each in (RetryDue, AttemptAbandoned, DeadlineDue)}
