"""Attempt states. DISPATCHED and CANCELED are the scheduler's, the rest the executor's. Epoch + 1: owner silent, or a doubt asked again; same number, same token."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum


class State(StrEnum):
    DISPATCHED = "DISPATCHED"
    RUNNING = "RUNNING"
    IN_DOUBT = "IN_DOUBT"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


_S = State
NEXT: Mapping[State, AbstractSet[State]] = {
    _S.DISPATCHED: {_S.RUNNING, _S.CANCELED, _S.DISPATCHED},
    _S.RUNNING: {_S.SUCCEEDED, _S.FAILED, _S.IN_DOUBT, _S.DISPATCHED, _S.CANCELED},
    _S.IN_DOUBT: {_S.SUCCEEDED, _S.FAILED, _S.DISPATCHED, _S.CANCELED},
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELED: frozenset(),
}
TERMINAL = frozenset(state for state in State if not NEXT[state])
