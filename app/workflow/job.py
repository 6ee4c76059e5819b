"""Job states: what was done and seen of one remote job. Written by executors and the host's watcher."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum


class State(StrEnum):
    PREPARED = "PREPARED"
    SUBMITTING = "SUBMITTING"
    IN_DOUBT = "IN_DOUBT"
    HELD = "HELD"
    SUBMITTED = "SUBMITTED"
    QUEUED = "QUEUED"
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    UNKNOWN = "UNKNOWN"
    NON_CRITICAL_FAIL = "NON_CRITICAL_FAIL"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    LOST = "LOST"


_S = State
SEEN = frozenset({_S.HELD, _S.SUBMITTED, _S.QUEUED, _S.ACTIVE, _S.SUSPENDED, _S.UNKNOWN, _S.NON_CRITICAL_FAIL})
TERMINAL = frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELED, _S.LOST})


def _after_seen(state: State) -> frozenset[State]:
    """Any other seen state (SUBMITTED only from HELD: released), or an end."""
    others = SEEN - {state} - (frozenset() if state is _S.HELD else {_S.SUBMITTED})
    return frozenset(others | TERMINAL)


NEXT: Mapping[State, AbstractSet[State]] = {
    _S.PREPARED: {_S.SUBMITTING, _S.CANCELED},
    _S.SUBMITTING: {_S.HELD, _S.SUBMITTED, _S.FAILED, _S.IN_DOUBT},
    _S.IN_DOUBT: SEEN | TERMINAL | {_S.PREPARED},
    **{state: _after_seen(state) for state in SEEN},
    **dict.fromkeys(TERMINAL, frozenset()),
}
