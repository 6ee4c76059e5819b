"""Leg 5: any event → one row of `events`, the one history clients read. Late facts are kept, marked, and move nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from app.messages.envelope import Envelope
from app.messages.events import ExperimentChanged, JobChanged, ProcessChanged, TaskChanged, TaskFailed, TaskInDoubt, TaskStarted, TaskSucceeded

RECORDED = frozenset(
    each.__name__ for each in (ExperimentChanged, ProcessChanged, TaskChanged, TaskStarted, TaskSucceeded, TaskFailed, TaskInDoubt, JobChanged)
)
_ATTEMPT_MOVES: Mapping[str, tuple[str, str]] = {  # What an executor's fact says of its attempt.
    "TaskStarted": ("DISPATCHED", "RUNNING"),
    "TaskSucceeded": ("RUNNING", "SUCCEEDED"),
    "TaskFailed": ("RUNNING", "FAILED"),
    "TaskInDoubt": ("RUNNING", "IN_DOUBT"),
}


@dataclass(frozen=True)
class Known:
    """What the database knows of a fact's subject: when its process ended; its task's last number, epoch and change."""

    gateway_id: str
    experiment_id: str
    finished_at: datetime | None = None
    attempt: int = 0
    epoch: int = 0
    task_since: datetime | None = None


def document(message: Envelope) -> dict[str, Any]:
    """The REST shape of an event (docs/api.md §4), with epoch; seq and late are given when it is stored."""
    kind, subject = type(message.body).__name__, message.subject
    data = msgspec.to_builtins(message.body)
    from_state, to_state = _ATTEMPT_MOVES.get(kind) or (data.pop("from_state", None), data.pop("to_state", None))
    reason = data.pop("reason", None) or data.get("message") or None
    return {
        "id": message.event_id,
        "type": kind,
        "occurred_at": message.at,
        "gateway_id": subject.gateway,
        "experiment_id": subject.experiment,
        "process_id": subject.process,
        "task_id": subject.task or None,
        "task_type": subject.task_type or None,
        "attempt": subject.attempt or None,
        "epoch": subject.epoch or None,
        "from_state": from_state,
        "to_state": to_state,
        "reason": reason,
        "data": data,
        "cause": message.cause or None,
        "traceparent": message.traceparent or None,
    }


def is_late(kind: str, *, occurred_at: datetime, attempt: int, epoch: int, known: Known) -> bool:
    """An executor's fact after the end of its process, or of an attempt or epoch the task had left behind before it happened."""
    if kind not in _ATTEMPT_MOVES:
        return False
    if known.finished_at is not None and occurred_at > known.finished_at:
        return True
    return (attempt, epoch) < (known.attempt, known.epoch) and known.task_since is not None and known.task_since < occurred_at
