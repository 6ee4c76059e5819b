"""Inside a worker process: one warm connection, one order at a time. It drives the plug-in's steps, performs their operations, and may be killed at any instant.

It keeps no state that matters: what it did shows on the host, in storage, or in the parent's database. It speaks to its parent over one pipe, in this order for an order:
(`Began` an operation, `Did` one, `Commit` wanted → `bool` answered)*, then an outcome. It dies when the pipe ends, and by PDEATHSIG when the fork server does.
"""

import ctypes
import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple

from app import clock, failpoint, journal
from app.workflow.execution import Failed, InDoubt, Outcome
from components.task_executors import host as host_scripts
from components.task_executors.diary import Diary
from components.task_executors.plugin import Commit, Exec, Operation, OperationFailed, Sleep, Steps, TaskType, Transfer, WorkOrder, failed
from components.task_executors.remote_host import HostAddress

if TYPE_CHECKING:
    from components.task_executors.ssh import SshHost

IDLE_SECONDS = 5.0  # Then the connection is given back to the host's budget.
PR_SET_PDEATHSIG = 1


class Task(NamedTuple):
    """What the parent hands over; the type's steps travel by their module's and function's name. `storages`: what transfers need to open storage URIs."""

    order: WorkOrder
    task_type: TaskType
    address: HostAddress
    storages: Any


class Began(NamedTuple):
    """An operation has begun that may take this long; the parent kills when it takes longer."""

    seconds: float


class Cooled(NamedTuple):
    """The connection was closed: after IDLE_SECONDS, for another host's, or because `None` came in a task's stead."""


class Arming(NamedTuple):
    """Fail points and journal of workers, and of the scripts they stage; empty in production."""

    failpoints: str = ""
    environment: str = "production"
    struck_directory: str = ""
    journal: str = ""
    who: str = "worker"


RAISES: failpoint.Raises = {
    "unknown": lambda text: OperationFailed("FAIL_POINT", text, certain=False),
    "definite": lambda text: OperationFailed("FAIL_POINT", text, certain=True),
}


class NewerEpoch(Exception):
    """The parent may not commit any more: somebody else owns the attempt."""


def main(pipe: Connection, arming: Arming) -> None:
    """The process's life. Runs in its main thread, whose parent is the fork server."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent decides what a terminal's Ctrl-C means.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    journal.begin(arming.journal, environment=arming.environment, who=arming.who, role="worker", parent=os.getppid())
    failpoint.arm(arming.failpoints, environment=arming.environment, struck_directory=arming.struck_directory, raises=RAISES)
    try:
        Worker(pipe).serve()
    except (EOFError, OSError):
        os._exit(0)  # The parent is gone or has let go; threads of paramiko must not keep us.


class Worker:
    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe
        self.host: SshHost | None = None
        self.diary: Diary | None = None

    def serve(self) -> None:
        from components.task_executors.ssh import SshHost  # Loaded by the fork server; an executor that does without paramiko takes 0.4 s of CPU less to start.

        while True:
            if self.host is not None and not self.pipe.poll(IDLE_SECONDS):
                self.let_go()
            task = self.pipe.recv()
            if task is None or (self.host is not None and self.host.address != task.address):
                self.let_go()
            if task is None:
                continue
            self.host = self.host or SshHost(task.address, connected=self.connected)
            self.diary = Diary(task.order, self.pipe.send)
            outcome = self.run(task)
            self.diary.close()
            self.pipe.send(outcome)

    def connected(self, began: int, fault: OperationFailed | None) -> None:
        if self.diary is not None:
            self.diary.write("ssh connect", began, fault=fault)

    def let_go(self) -> None:
        """One `Cooled` for each host that was held: the parent counts by them."""
        if self.host is not None:
            self.host.close()
            self.host = None
            self.pipe.send(Cooled())

    def run(self, task: Task) -> Outcome:
        """The order's outcome, also when its steps or a driver did what nobody foresaw."""
        task_type = task.task_type
        failpoint.about.update(token=task.order.token, task=task.order.subject.task, process=task.order.subject.process)
        host_scripts.arm(failpoint.entries(), failpoint.about)
        try:
            return self.drive(task_type.steps(task.order), task)
        except OperationFailed as fault:
            if task_type.once and not fault.certain:
                return InDoubt(fault.message, (f"{fault.code}: {fault.raw}"[:500],))
            return failed(fault, task_type.failure_code)
        except NewerEpoch:
            return Failed("INTERNAL", "This attempt, or its job, had ended elsewhere.", transient=True)  # Of a newer epoch told to nobody: E3's guard drops it.
        except (EOFError, BrokenPipeError):
            raise
        except Exception as fault:
            traceback.print_exc()  # For our log; clients are told the fault, never a trace.
            last = repr(fault)[:300]
            if self.host is not None:
                self.host.close()
            if task_type.once:
                return InDoubt("The task's own code failed; whether it had any effect is asked of the host.", (last,))
            return Failed("INTERNAL", "The task's own code failed.", raw_message=last, transient=True)

    def drive(self, steps: Steps, task: Task) -> Outcome:
        try:
            operation = next(steps)
            while True:
                try:
                    result = self.perform(operation, task)
                except OperationFailed as fault:
                    operation = steps.throw(fault)
                else:
                    operation = steps.send(result)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        finally:
            steps.close()

    def perform(self, operation: Operation, task: Task) -> Any:
        assert self.host is not None
        match operation:
            case Exec(argv, stdin, seconds, verb):
                self.pipe.send(Began(seconds))
                with self.recorded(verb, f"ssh exec {verb}", task, seconds) as told:
                    ran = self.host.run(argv, stdin, timeout_seconds=seconds)
                    told["status"] = ran.exit_status
                return ran
            case Transfer():
                from components.task_executors.staging.transfer import scheme, transfer  # Late: brings boto3 where S3 is used.

                self.pipe.send(Began(operation.timeout_seconds))
                with self.recorded("transfer", "ssh put" if operation.target.startswith("host:") else "ssh get", task, operation.timeout_seconds) as told:
                    told["scheme"] = scheme(operation, task.storages)
                    done = transfer(operation, self.host, task.storages, task.order.token, task.order.epoch)
                    told.update(status=0, target=operation.target, bytes=done.size_bytes, sha256=done.sha256, reused=done.reused, resumed=done.resumed)
                return done
            case Commit():
                self.pipe.send(operation)
                if not self.pipe.recv():
                    raise NewerEpoch
                return None
            case Sleep():
                raise OperationFailed("NOT_SUPPORTED", "Only local task types may sleep.", certain=True)

    @contextmanager
    def recorded(self, verb: str, span: str, task: Task, seconds: float) -> Iterator[dict[str, Any]]:
        """The journal's line before remote work and the one after it: an exit status, the code of what surely did not happen, or `unknown`. And its span."""
        assert self.host is not None
        began, failure = clock.ns(), None
        call = {"host": f"{self.host.address.host}:{self.host.address.port}", "token": task.order.token, "epoch": task.order.epoch, "verb": verb}
        told: dict[str, Any] = {"status": "unknown"}
        journal.write("remote.call", **call, deadline_seconds=seconds)
        try:
            yield told
        except OperationFailed as fault:
            failure = fault
            told.update(status=fault.code if fault.certain else "unknown", code=fault.code)
            raise
        finally:
            journal.write("remote.return", **call, **told)
            if self.diary is not None:
                status = told["status"] if isinstance(told["status"], int) and verb != "transfer" else None
                self.diary.write(span, began, fault=failure, **{"process.exit.code": status, "airavata.bytes": told.get("bytes"), "airavata.reused": told.get("reused"), "airavata.storage": told.get("scheme"), "airavata.resumed": told.get("resumed")})
