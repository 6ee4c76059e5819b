"""What remote work may answer, and what that makes of an attempt: command + Outcome → attempt state + the fact for the scheduler.

Outcomes are a closed set of values, matched in one place. Exceptions never stand for what a host or a program did.
"""

from typing import TypeAlias

from msgspec import Struct

from app.messages.events import TaskFailed, TaskInDoubt, TaskSucceeded
from app.workflow.attempt import State

Detail: TypeAlias = dict[str, str | int | float | bool | None]


class StagedOutput(Struct, frozen=True):
    """One declared output after egress staging. `state`: STAGED, MISSING or FAILED; uri, size and hash only when STAGED."""

    name: str
    state: str
    uri: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None


class Succeeded(Struct, frozen=True, tag=True):
    detail: Detail = {}
    outputs: tuple[StagedOutput, ...] = ()


class Failed(Struct, frozen=True, tag=True):
    """`code`: an experiment outcome code. `transient`: a retry may help. `condition`: an outside state that blocks without burning an attempt."""

    code: str
    message: str
    raw_message: str = ""
    transient: bool = False
    condition: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    outputs: tuple[StagedOutput, ...] = ()


class InDoubt(Struct, frozen=True, tag=True):
    """Nobody knows whether the job was started. The same token will be asked again; never a second one."""

    message: str
    evidence: tuple[str, ...] = ()


class Submitted(Struct, frozen=True, tag=True):
    """The job's id is stored: from here the attempt has no owner, the host's watcher ends it."""

    scheduler_job_id: str


Outcome: TypeAlias = Succeeded | Failed | InDoubt | Submitted


def decide(outcome: Succeeded | Failed | InDoubt) -> tuple[State, TaskSucceeded | TaskFailed | TaskInDoubt]:
    """The attempt's next state and the fact to tell. Submitted is not an end and does not come here."""
    match outcome:
        case Succeeded(detail=detail):
            return State.SUCCEEDED, TaskSucceeded(detail)
        case Failed() as f:
            return State.FAILED, TaskFailed(f.code, f.message[:500], f.raw_message[:2000], f.transient, f.condition, f.exit_code, f.signal)
        case InDoubt(message=message, evidence=evidence):
            return State.IN_DOUBT, TaskInDoubt(message[:500], evidence[:20])
