"""What a task type is: a name and pure `steps`, registered by the entry point group `airavata.task_types` (a package exports TASK_TYPES, a tuple).

`steps` is a generator that does nothing itself: it yields operations, is sent their results, and returns an Outcome. A worker process performs the
operations over SSH and storage; the executor performs `Commit`. A failed operation is *thrown* into the generator as OperationFailed, whose `certain` says whether
the act surely did not happen; what the steps do not catch becomes a transient Failed by the worker (workers.py). So a plug-in is tested without any server.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from msgspec import Struct

from app.messages.envelope import Subject
from app.workflow.execution import Failed, Outcome


class WorkOrder(Struct, frozen=True):
    """All a task needs to know. `token` = the attempt's id, fixed before any I/O; it names the job. `snapshot`: the process's frozen interface, deployment, host, inputs."""

    token: str
    epoch: int
    number: int
    subject: Subject
    task_type: str
    model: dict[str, Any]
    snapshot: dict[str, Any]
    traceparent: str = ""


# ---- operations: what steps may ask for -------------------------------------------------------------------------------------------------------------
class Exec(Struct, frozen=True):
    """Run one POSIX sh script on the compute host, fed on stdin to `sh -s`-free argv; result: Ran. `timeout_seconds` bounds it from outside."""

    argv: tuple[str, ...]
    stdin: bytes = b""
    timeout_seconds: float = 30.0
    verb: str = "sh"  # What it is called in the journal.


class Ran(Struct, frozen=True):
    """What came back. Output is bounded (1 MiB each, cut and said so)."""

    exit_status: int
    stdout: bytes
    stderr: bytes


class Transfer(Struct, frozen=True):
    """Bring one file from `source` to `target`; each is a storage URI (storage://, s3://, data:) or `host:/absolute/path`. Result: Transferred.

    Checked: size and SHA-256 at the target equal the source (and `sha256` when given). Part file of this attempt and epoch, fsync, rename; a finished equal target is kept.
    """

    source: str
    target: str
    sha256: str | None = None
    timeout_seconds: float = 3600.0


class Transferred(Struct, frozen=True):
    size_bytes: int
    sha256: str
    reused: bool = False
    resumed: bool = False  # It went on where an earlier epoch had got to.


class Commit(Struct, frozen=True):
    """Ask the executor to commit a change of this attempt's job row, guarded by epoch; result: None, or the generator is closed because a newer epoch exists.

    `change` is one of PREPARED → SUBMITTING (`script_sha256`, `work_dir`, `document`), SUBMITTED (`scheduler_job_id`, receipt in `document`), IN_DOUBT (`evidence`).
    """

    state: str
    values: dict[str, Any]


class Sleep(Struct, frozen=True):
    """Wait without a worker (the no-op only)."""

    seconds: float


Operation: TypeAlias = Exec | Transfer | Commit | Sleep
Steps: TypeAlias = Generator[Operation, Any, Outcome]


class OperationFailed(Exception):
    """An operation did not end well. `certain`: it surely had no effect. `code`: e.g. SSH_CONNECT, SSH_TIMEOUT, AUTH_REQUIRED, HOST_KEY_CHANGED, HOST_DISK_FULL, NOT_FOUND, CHECKSUM."""

    def __init__(self, code: str, message: str, *, certain: bool, raw: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.certain, self.raw = code, message, certain, raw


@dataclass(frozen=True)
class TaskType:
    """`local`: runs inside the executor, may only yield Sleep. `deadline_seconds`: outside wall-clock bound of one attempt's work; the worker is killed then.

    `failure_code`: what an operation's failure that the steps did not catch means. `once`: must not happen twice, so an attempt of unknown outcome is in doubt, not failed.
    """

    name: str
    steps: Callable[[WorkOrder], Steps]
    deadline_seconds: float = 600.0
    local: bool = False
    failure_code: str = "INTERNAL"
    once: bool = False


CONDITIONS: Mapping[str, str] = {
    "HOST_DISK_FULL": "QUOTA",
    "AUTH_REQUIRED": "AUTH_REQUIRED",
    "HOST_KEY_CHANGED": "HOST_KEY_CHANGED",
    "SSH_CONNECT": "HOST_CIRCUIT_OPEN",
}
FOR_GOOD = frozenset({"NOT_FOUND", "NOT_SAFE", "HOST_FORBIDS"})


def failed(fault: OperationFailed, code: str) -> Failed:
    """An operation's failure as an outcome: a condition of the host burns no attempt, the rest may be tried again unless it will be the same next time."""
    return Failed(code, fault.message, raw_message=f"{fault.code}: {fault.raw}", transient=fault.code not in FOR_GOOD, condition=CONDITIONS.get(fault.code))
