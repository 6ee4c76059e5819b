"""Task states and the table of moves: every (state, message) pair is a move, *late* (kept in history, moves nothing) or an error (no entry).

Written by the scheduler alone. An older attempt or epoch is always late, whatever the table says: scheduling.py looks first.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum

from msgspec import Struct

from app.messages.commands import AttemptAbandoned, DeadlineDue, RetryDue
from app.messages.events import TaskFailed, TaskInDoubt, TaskStarted, TaskSucceeded


class State(StrEnum):
    CREATED = "CREATED"
    SCHEDULED = "SCHEDULED"
    EXECUTING = "EXECUTING"
    RETRY_WAIT = "RETRY_WAIT"
    BLOCKED = "BLOCKED"
    IN_DOUBT = "IN_DOUBT"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    SKIPPED = "SKIPPED"


_S = State
TERMINAL = frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELED, _S.SKIPPED})
LATE: AbstractSet[State] = frozenset()  # Kept in history, moves nothing. A pair that is missing is an error.
AFTER_FAILURE = frozenset({_S.BLOCKED, _S.RETRY_WAIT, _S.FAILED})  # retry.py says which.
AFTER_DOUBT = frozenset({_S.IN_DOUBT, _S.FAILED})  # The same: once it has lasted too long.
_RUNNING: Mapping[type[Struct], AbstractSet[State]] = {
    TaskStarted: {_S.EXECUTING},
    TaskSucceeded: {_S.COMPLETED},
    TaskFailed: AFTER_FAILURE,
    TaskInDoubt: AFTER_DOUBT,
    RetryDue: LATE,
    DeadlineDue: {_S.FAILED},
}
_WAITING: Mapping[type[Struct], AbstractSet[State]] = {
    TaskStarted: LATE,
    TaskSucceeded: LATE,
    TaskFailed: LATE,
    TaskInDoubt: LATE,
    RetryDue: {_S.SCHEDULED},
    AttemptAbandoned: LATE,
    DeadlineDue: {_S.FAILED},
}
_ENDED: Mapping[type[Struct], AbstractSet[State]] = dict.fromkeys(_WAITING, LATE)
MOVES: Mapping[State, Mapping[type[Struct], AbstractSet[State]]] = {
    _S.CREATED: {DeadlineDue: {_S.FAILED}},
    _S.SCHEDULED: {**_RUNNING, AttemptAbandoned: {_S.SCHEDULED}},  # Stays; the attempt is dispatched again.
    _S.EXECUTING: {**_RUNNING, AttemptAbandoned: {_S.EXECUTING}},
    _S.RETRY_WAIT: _WAITING,
    _S.BLOCKED: _WAITING,
    _S.IN_DOUBT: {
        TaskStarted: LATE,
        TaskSucceeded: {_S.COMPLETED},
        TaskFailed: AFTER_FAILURE,
        TaskInDoubt: AFTER_DOUBT,
        RetryDue: {_S.SCHEDULED},  # Look again: same attempt, epoch + 1.
        AttemptAbandoned: LATE,
        DeadlineDue: {_S.FAILED},
    },
    **dict.fromkeys(TERMINAL, _ENDED),
}
NEXT: Mapping[State, AbstractSet[State]] = {  # With what the graph does besides messages: dispatch and skip from CREATED, cancel from anywhere open.
    state: frozenset().union(*moves.values()) | ({_S.SCHEDULED, _S.SKIPPED} if state is _S.CREATED else frozenset()) | (frozenset() if state in TERMINAL else {_S.CANCELED})
    for state, moves in MOVES.items()
}
