"""Experiment states: which moves are legal. The API writes them up to LAUNCHED, then the scheduler alone (docs/state_machine.md)."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum


class State(StrEnum):
    CREATED = "CREATED"
    VALIDATED = "VALIDATED"
    LAUNCHED = "LAUNCHED"
    EXECUTING = "EXECUTING"
    CANCELING = "CANCELING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class Outcome(StrEnum):
    """What the end meant; null until terminal. Set apart from the state: a job that exits 3 ran perfectly well for us."""

    NORMAL_COMPLETION = "NORMAL_COMPLETION"
    CANCELED_BY_USER = "CANCELED_BY_USER"
    FINISHED_BEFORE_CANCEL = "FINISHED_BEFORE_CANCEL"
    APP_NONZERO_EXIT = "APP_NONZERO_EXIT"
    SCHEDULER_CANCELED = "SCHEDULER_CANCELED"
    SCHEDULER_TIMEOUT = "SCHEDULER_TIMEOUT"
    SCHEDULER_OUT_OF_MEMORY = "SCHEDULER_OUT_OF_MEMORY"
    SCHEDULER_DEADLINE = "SCHEDULER_DEADLINE"
    SCHEDULER_TERMINATED = "SCHEDULER_TERMINATED"
    STAGING_IN_FAILED = "STAGING_IN_FAILED"
    STAGING_OUT_FAILED = "STAGING_OUT_FAILED"
    LAUNCH_FAILURE = "LAUNCH_FAILURE"
    MONITORING_TIMEOUT = "MONITORING_TIMEOUT"
    RECOVERY_TIMEOUT = "RECOVERY_TIMEOUT"
    LOST_JOB = "LOST_JOB"
    INTERNAL = "INTERNAL"


_S = State
NEXT: Mapping[State, AbstractSet[State]] = {
    _S.CREATED: {_S.VALIDATED, _S.LAUNCHED},
    _S.VALIDATED: {_S.CREATED, _S.LAUNCHED},
    _S.LAUNCHED: {_S.EXECUTING, _S.CANCELING, _S.FAILED},
    _S.EXECUTING: {_S.COMPLETED, _S.FAILED, _S.CANCELING},
    _S.CANCELING: {_S.CANCELED},
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELED: frozenset(),
}
TERMINAL = frozenset(state for state in State if not NEXT[state])
EDITABLE = frozenset({State.CREATED, State.VALIDATED})
LIVE = frozenset(set(State) - TERMINAL - EDITABLE)
