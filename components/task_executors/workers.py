"""The pool of worker processes, seen from the executor's loop: start orders, poll for what happened, never block, kill what takes too long.

Workers come from a fork server that loaded paramiko before any thread (sockets and threads do not survive a fork). One that overruns its order's deadline, or has not said in time
what comes next, is killed, and so is the order's certainty: a task type that must happen `once` is then IN_DOUBT, any other has failed for now. One thread uses a Pool.
"""

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection, forkserver
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

from app.workflow.execution import Failed, InDoubt, Outcome
from components.task_executors import figures, spans, worker
from components.task_executors.diary import Did
from components.task_executors.plugin import Commit, TaskType, WorkOrder
from components.task_executors.remote_host import HostAddress
from components.task_executors.worker import IDLE_SECONDS, Arming, Began, Cooled, Task
from observability import metrics

GRACE_SECONDS = 5.0  # A worker ends its operations and its idle connection by itself; this is for those that hang below Python, or are frozen.
START_SECONDS = 30.0  # From an order, or an answer, to the next operation: a moment, but on a machine that does too much.
NEVER = float("inf")


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
class _Worker:
    process: Any
    pipe: Connection
    address: HostAddress | None = None  # Of the connection it holds, or is about to hold.
    parting: HostAddress | None = None  # Of the one it was told to end, until it says so.
    job: Task | None = None
    ends_at: float = NEVER  # When its order must be done.
    speaks_by: float = NEVER  # When the next word of it is due: while it has an order or a connection.

    @property
    def overdue(self) -> bool:
        return time.monotonic() > min(self.speaks_by, self.ends_at)

    @property
    def slots(self) -> set[str]:
        return {each.slot for each in (self.address, self.parting) if each is not None}


class Pool:
    def __init__(self, size: int, *, arming: Arming = Arming()) -> None:  # noqa: B008  Immutable.
        self.size, self.arming = size, arming
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["components.task_executors.ssh", worker.__name__])
        forkserver.ensure_running()
        self.workers: list[_Worker] = []
        self.freed = False  # Since the user last looked, and said so, a worker or a connection became free.
        self.events: list[WorkerEvent] = []

    def start(self, order: WorkOrder, task_type: TaskType, address: HostAddress, storages: Any = None, *, connect: bool = True) -> bool:
        """Begin the order on a free worker, preferably one with a warm connection to this address; `connect`: one more to its host may be opened. False: there is none."""
        while (free := self._free_for(address, connect)) is not None:
            job = Task(order, task_type, address, storages)
            try:
                free.pipe.send(job)
            except OSError:  # It died while idle: nothing was begun.
                self._discard(free)
                continue
            if free.address != address:
                free.address, free.parting = address, free.address or free.parting
            now = time.monotonic()
            free.job, free.ends_at, free.speaks_by = job, now + task_type.deadline_seconds, now + START_SECONDS
            return True
        return False

    def poll(self) -> list[WorkerEvent]:
        """What happened since the last call."""
        while readable := set(connection.wait([each.pipe for each in self.workers], 0)):
            for each in [each for each in self.workers if each.pipe in readable]:
                self._hear(each)
        for each in [each for each in self.workers if each.overdue]:
            metrics.count("airavata_ssh_worker_kills_total", reason="overdue")
            self._end(each, "It took longer than it may; its worker was ended.")
        events, self.events = self.events, []
        return events

    def abandon(self, token: str) -> None:
        """Forget an order, whatever it is doing; it is never heard of again."""
        for each in [each for each in self.workers if each.job and each.job.order.token == token]:
            each.job = None
            self._discard(each)

    def keep(self, slot: str, most: int, *, end_busy: bool = False) -> None:
        """Leave at most so many workers with a connection to this host: idle ones let go, and busy ones end where they must."""
        here = sorted((each for each in self.workers if each.address is not None and each.address.slot == slot), key=lambda each: each.job is None)
        for each in here[max(0, most) :]:
            if each.job is not None:
                if end_busy:
                    self._end(each, "Its connection had become another's; its worker was ended.")
                continue
            each.address, each.parting, each.speaks_by = None, each.address, time.monotonic() + GRACE_SECONDS
            with suppress(OSError):  # It died while idle: `poll` will find out.
                each.pipe.send(None)

    @property
    def free(self) -> int:
        return self.size - sum(each.job is not None for each in self.workers)

    def connections(self) -> Counter[str]:
        """host:port → connections that are open, being opened or not yet ended, for the host's budget."""
        return Counter(slot for each in self.workers for slot in each.slots)

    def busy(self) -> Counter[str]:
        """Of those, the ones that no further order can use."""
        return Counter(slot for each in self.workers for slot in each.slots if each.job is not None or each.address is None)

    def close(self, timeout_seconds: float = 1.0) -> None:
        """Idle workers leave when their pipe ends; busy ones are killed. What they did shows on the host."""
        ends_at = time.monotonic() + timeout_seconds
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
    def _free_for(self, address: HostAddress, connect: bool) -> _Worker | None:
        """Where none may be opened, a worker of the same host as another user: it ends that connection first."""
        idle = [each for each in self.workers if each.job is None]
        warm = [each for each in idle if each.address == address]
        if warm or not connect:
            return next(iter(warm or [each for each in idle if each.address is not None and each.address.slot == address.slot]), None)
        return next((each for each in idle if each.address is None), None) or (self._new() if len(self.workers) < self.size else next(iter(idle), None))

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
            self.freed = True
            if each.parting is not None:
                each.parting = None
            elif job is None:  # Else it has just been given a new order, and connects again.
                each.address = None
            if job is None:
                each.speaks_by = NEVER
        elif job is None:
            return
        elif isinstance(told, Began):
            each.speaks_by = time.monotonic() + told.seconds + GRACE_SECONDS
        elif isinstance(told, Did):
            figures.did(told)
            if told.span:
                spans.tell(job.order, job.address, told)
        elif isinstance(told, Commit):
            self._ask(each, job, told)
        else:
            each.job, each.ends_at, each.speaks_by, self.freed = None, NEVER, time.monotonic() + IDLE_SECONDS + GRACE_SECONDS, True
            self.events.append(Finished(job.order.token, told))

    def _ask(self, each: _Worker, job: Task, change: Commit) -> None:
        left = each.ends_at - time.monotonic()
        each.ends_at = each.speaks_by = NEVER

        def answer(yes: bool) -> None:
            each.ends_at, each.speaks_by = time.monotonic() + left, time.monotonic() + START_SECONDS
            try:
                each.pipe.send(yes)
            except OSError:  # It died meanwhile: `poll` will find out.
                return

        self.events.append(CommitRequested(job.order.token, change, answer))

    def _end(self, each: _Worker, why: str) -> None:
        """Its order's outcome is unknown."""
        job, each.job = each.job, None
        self._discard(each)
        if job is not None:
            unknown = InDoubt(f"It is not known whether the job was started. {why}", (why,))
            failed = Failed(job.task_type.failure_code, f"The work was cut off. {why}", transient=True)
            self.events.append(Finished(job.order.token, unknown if job.task_type.once else failed, killed=True))

    def _discard(self, each: _Worker) -> None:
        self.workers.remove(each)
        self.freed = True
        if each.process.is_alive():
            each.process.kill()
        each.pipe.close()
        each.process.join(1.0)
        if not each.process.is_alive():
            each.process.close()
