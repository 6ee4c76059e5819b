"""The pool of worker processes, seen from the executor's loop: start orders, poll for what happened, never block, kill what takes too long.

Workers come from a fork server that loaded paramiko before any thread (sockets and threads do not survive a fork). One that overruns its order's or its operation's deadline
is killed, and so is the order's certainty: a task type that must happen `once` is then IN_DOUBT, any other has failed for now. One thread uses a Pool.
"""

import multiprocessing
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import connection, forkserver
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

from app.workflow.execution import Failed, InDoubt, Outcome
from components.task_executors import figures, spans, worker
from components.task_executors.diary import Did
from components.task_executors.plugin import Commit, TaskType, WorkOrder
from components.task_executors.remote_host import HostAddress
from components.task_executors.worker import Arming, Began, Cooled, Task
from observability import metrics

GRACE_SECONDS = 5.0  # A worker ends its operations by itself; this is for those that hang below Python.


@dataclass(frozen=True)
class CommitRequested:
    """The worker waits until `answer(True)`, or `answer(False)` for a zombie, is called; its deadlines wait with it."""

    token: str
    change: Commit
    answer: Callable[[bool], None] = field(repr=False)


@dataclass(frozen=True)
class Finished:
    """`killed`: by us at a deadline, or it died."""

    token: str
    outcome: Outcome
    killed: bool = False


WorkerEvent: TypeAlias = CommitRequested | Finished


@dataclass
class _Job:
    task: Task
    ends_at: float = 0.0
    operation_ends_at: float = float("inf")

    @property
    def overdue(self) -> bool:
        return time.monotonic() > min(self.ends_at, self.operation_ends_at)


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    address: HostAddress | None = None  # Of the connection it holds, or is about to hold.
    job: _Job | None = None


class Pool:
    def __init__(self, size: int, *, arming: Arming = Arming()) -> None:  # noqa: B008  Immutable.
        self.size, self.arming = size, arming
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["paramiko", worker.__name__])
        forkserver.ensure_running()
        self.workers: list[_Worker] = []
        self.waiting: deque[_Job] = deque()  # Bounded by the executor's capacity.
        self.events: list[WorkerEvent] = []

    def start(self, order: WorkOrder, task_type: TaskType, address: HostAddress, storages: Any = None) -> None:
        """Run the order as soon as a worker is free, preferably one with a warm connection to this address."""
        self.waiting.append(_Job(Task(order, task_type, address, storages)))
        self._dispatch()

    def poll(self) -> list[WorkerEvent]:
        """What happened since the last call."""
        readable = set(connection.wait([each.pipe for each in self.workers], 0)) if self.workers else set()
        for each in [each for each in self.workers if each.pipe in readable]:
            self._hear(each)
        for each in [each for each in self.workers if each.job is not None and each.job.overdue]:
            metrics.count("airavata_ssh_worker_kills_total", reason="overdue")
            self._end(each, "It took longer than it may; its worker was ended.")
        self._dispatch()
        events, self.events = self.events, []
        return events

    def abandon(self, token: str) -> None:
        """Forget an order, whatever it is doing; it is never heard of again."""
        self.waiting = deque(each for each in self.waiting if each.task.order.token != token)
        for each in [each for each in self.workers if each.job and each.job.task.order.token == token]:
            each.job = None
            self._discard(each)

    def is_warm(self, address: HostAddress) -> bool:
        """An idle worker holds a connection to this address: starting there opens no new one."""
        return any(each.job is None and each.address == address for each in self.workers)

    def connections(self) -> Counter[str]:
        """host:port → connections that are open or being opened, for the host's budget."""
        return Counter(f"{each.address.host}:{each.address.port}" for each in self.workers if each.address is not None)

    def close(self, timeout_seconds: float = 1.0) -> None:
        """Idle workers leave when their pipe ends; busy ones are killed. What they did shows on the host."""
        ends_at = time.monotonic() + timeout_seconds
        self.waiting.clear()
        for each in self.workers:
            each.pipe.close()
            if each.job is not None:
                each.process.kill()
        for each in self.workers:
            each.process.join(max(0.0, ends_at - time.monotonic()))
            if each.process.is_alive():
                each.process.kill()
                each.process.join(1.0)
            each.process.close()
        self.workers.clear()

    # ---- within --------------------------------------------------------------------------------------------------------------------------------------
    def _dispatch(self) -> None:
        while self.waiting and (free := self._free_for(self.waiting[0].task.address)) is not None:
            job = self.waiting.popleft()
            job.ends_at = time.monotonic() + job.task.task_type.deadline_seconds
            free.job, free.address = job, job.task.address
            try:
                free.pipe.send(job.task)
            except OSError:  # It died while idle: nothing was begun.
                free.job = None
                self._discard(free)
                self.waiting.appendleft(job)

    def _free_for(self, address: HostAddress) -> _Worker | None:
        idle = [each for each in self.workers if each.job is None]
        warm = next((each for each in idle if each.address == address), None) or next((each for each in idle if each.address is None), None)
        if warm is not None:
            return warm
        if len(self.workers) < self.size:
            return self._new()
        return idle[0] if idle else None

    def _new(self) -> _Worker:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=worker.main, args=(theirs, self.arming), daemon=True)
        process.start()
        theirs.close()
        self.workers.append(_Worker(process, ours))
        return self.workers[-1]

    def _hear(self, each: _Worker) -> None:
        try:
            told = each.pipe.recv()
        except (EOFError, OSError):
            metrics.count("airavata_ssh_worker_kills_total", reason="died")
            self._end(each, "Its worker died.")
            return
        job = each.job
        if isinstance(told, Cooled):
            if job is None:  # Else it has just been given a new order, and connects again.
                each.address = None
        elif job is None:
            return
        elif isinstance(told, Began):
            job.operation_ends_at = time.monotonic() + told.seconds + GRACE_SECONDS
        elif isinstance(told, Did):
            figures.did(told)
            if told.span:
                spans.tell(job.task.order, job.task.address, told)
        elif isinstance(told, Commit):
            self._ask(each, job, told)
        else:
            each.job = None
            self.events.append(Finished(job.task.order.token, told))

    def _ask(self, each: _Worker, job: _Job, change: Commit) -> None:
        left = job.ends_at - time.monotonic()
        job.ends_at = job.operation_ends_at = float("inf")

        def answer(yes: bool) -> None:
            job.ends_at = time.monotonic() + left
            try:
                each.pipe.send(yes)
            except OSError:  # It died meanwhile: `poll` will find out.
                return

        self.events.append(CommitRequested(job.task.order.token, change, answer))

    def _end(self, each: _Worker, why: str) -> None:
        """Its order's outcome is unknown."""
        job, each.job = each.job, None
        self._discard(each)
        if job is not None:
            order = job.task.order
            unknown = InDoubt(f"It is not known whether the job was started. {why}", (why,))
            failed = Failed(job.task.task_type.failure_code, f"The work was cut off. {why}", transient=True)
            self.events.append(Finished(order.token, unknown if job.task.task_type.once else failed, killed=True))

    def _discard(self, each: _Worker) -> None:
        self.workers.remove(each)
        if each.process.is_alive():
            each.process.kill()
        each.pipe.close()
        each.process.join(1.0)
        if not each.process.is_alive():
            each.process.close()
