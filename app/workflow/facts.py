"""What the rows say of one run, as values: read by app/mysql/explaining.py, judged by explanation.py, drawn by skeleton.py. Times are MySQL's, naive UTC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.workflow import attempt, experiment, graph, job, process, task

LEASE = timedelta(seconds=10)  # Silent for longer: an instance has lost what it held.


@dataclass(frozen=True, slots=True)
class Message:
    """A row of the outbox. `topic` without the installation's prefix; `relayed`: a relay holds the lease of its shard."""

    topic: str
    key: str
    since: datetime
    shard: int
    relayed: bool


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter that nobody has settled."""

    id: str
    group: str
    topic: str
    text: str
    tries: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Host:
    """`slots`: how many connections it allows us, 0 if unknown."""

    id: str
    name: str
    slots: int = 0
    slots_taken: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """`watched`: an instance holds the watch of its host."""

    id: str
    state: job.State
    since: datetime
    reason: str = ""
    scheduler_job_id: str | None = None
    evidence: tuple[str, ...] = ()
    looked_at: datetime | None = None
    watched: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last one of a task. `heartbeat_at`: of the instance that owns it, None if that is gone."""

    number: int
    state: attempt.State
    since: datetime
    owner: str | None = None
    heartbeat_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """An open task. `after`: names of the open tasks it waits for; `executor`: the component that serves its type."""

    id: str
    name: str
    type: str
    state: task.State
    since: datetime
    executor: str
    reason: str = ""
    burned: int = 0
    doubt_since: datetime | None = None
    next_attempt_at: datetime | None = None
    after: tuple[str, ...] = ()
    attempt: Attempt | None = None
    job: Job | None = None

    @property
    def remote(self) -> bool:
        """Its executor speaks to a host: the plug-in types that run inside their executor have a component of their own."""
        return self.executor in {"executor-environment", "executor-data", "executor-job"}


@dataclass(frozen=True, slots=True)
class Process:
    id: str
    state: process.State
    since: datetime


@dataclass(frozen=True)
class Facts:
    """Of one experiment. `tasks`: the open ones, once its process has started; `living`: component → its youngest heartbeat; `timers`: ids of the tasks that have one."""

    now: datetime
    id: str
    state: experiment.State
    since: datetime
    reason: str = ""
    outcome: str | None = None
    failure: graph.Failure | None = None
    process: Process | None = None
    tasks: Sequence[Task] = ()
    messages: Sequence[Message] = ()
    timers: frozenset[str] = frozenset()
    letters: Sequence[Letter] = ()
    host: Host | None = None
    paused: bool = False
    live: int = 0
    live_max: int = 0
    living: Mapping[str, datetime] = field(default_factory=dict)

    def alive(self, component: str) -> bool:
        return component in self.living and self.now - self.living[component] <= LEASE

    def message(self, topic: str, key: str) -> Message | None:
        """The oldest that waits for this topic under this key."""
        return min((each for each in self.messages if (each.topic, each.key) == (topic, key)), key=lambda each: each.since, default=None)
