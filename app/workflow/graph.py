"""The rows the scheduler decides upon, as mutable values of one decision: experiment, process, task, edge, attempt. Loaded under lock, saved whole."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from app.workflow import attempt, experiment, process, task

Failure = dict[str, object]


@dataclass(slots=True)
class Experiment:
    id: str
    state: experiment.State
    version: int
    reason: str = ""
    outcome: str | None = None
    failure: Failure | None = None
    state_since: datetime | None = None
    finished_at: datetime | None = None


@dataclass(slots=True)
class Process:
    """`trace_keep`: why its trace is worth keeping whatever the sampler said; empty while nothing went wrong."""

    id: str
    experiment_id: str
    gateway_id: str
    part: int
    state: process.State
    version: int
    tasks_total: int
    tasks_open: int
    tasks_failed: int
    trace_context: str
    created_at: datetime
    state_since: datetime
    reason: str = ""
    outcome: str | None = None
    failure: Failure | None = None
    deadline_at: datetime | None = None
    finished_at: datetime | None = None
    trace_keep: str = ""


@dataclass(slots=True)
class Task:
    """`attempt`: number of the last dispatched; `burned`: how many of them count against the type's limit; `epoch`: of that attempt, the scheduler's word."""

    id: str
    process_id: str
    name: str
    type: str
    state: task.State
    state_since: datetime
    waiting_for: int
    version: int
    attempt: int = 0
    epoch: int = 0
    burned: int = 0
    reason: str = ""
    doubt_since: datetime | None = None
    next_attempt_at: datetime | None = None
    failure: Failure | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """`on_end` SUCCESS: the predecessor COMPLETED, else the successor is SKIPPED; ENDED: it is terminal in whatever way."""

    from_task: str
    to_task: str
    on_end: str


@dataclass(slots=True)
class Attempt:
    """`fresh`: insert it. Otherwise its row is moved to this state and epoch, its owner taken away."""

    id: str
    task_id: str
    process_id: str
    number: int
    state: attempt.State
    epoch: int
    fresh: bool


@dataclass
class Loaded:
    """What was locked for one batch: every process named, the tasks named and their direct successors (all tasks where a failure may cascade)."""

    experiments: dict[str, Experiment] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    successors: dict[str, list[Edge]] = field(default_factory=lambda: defaultdict(list))
    by_process: dict[str, list[Task]] = field(default_factory=lambda: defaultdict(list))

    def add_tasks(self, tasks: Iterable[Task]) -> None:
        for each in tasks:
            if each.id not in self.tasks:
                self.tasks[each.id] = each
                self.by_process[each.process_id].append(each)

    def add_edges(self, edges: Iterable[Edge]) -> None:
        for each in edges:
            self.successors[each.from_task].append(each)
