"""Process states and phases. CREATED by the API's launch, VALIDATED by the generator, the rest by the scheduler (docs/state_machine.md)."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum


class State(StrEnum):
    CREATED = "CREATED"
    VALIDATED = "VALIDATED"
    STARTED = "STARTED"
    CANCELING = "CANCELING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


_S = State
NEXT: Mapping[State, AbstractSet[State]] = {
    _S.CREATED: {_S.VALIDATED, _S.CANCELING, _S.FAILED},
    _S.VALIDATED: {_S.STARTED, _S.CANCELING, _S.FAILED},
    _S.STARTED: {_S.COMPLETED, _S.FAILED, _S.CANCELING},
    _S.CANCELING: {_S.CANCELED},
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELED: frozenset(),
}
TERMINAL = frozenset(state for state in State if not NEXT[state])

PHASES: Mapping[str, str] = {  # Airavata's names, by the type of the first open task, in this order. MONITORING: a job id is stored.
    "ENV_SETUP": "CONFIGURING_WORKSPACE",
    "INGRESS_STAGING": "INPUT_DATA_STAGING",
    "JOB_SUBMISSION": "EXECUTING",
    "EGRESS_STAGING": "OUTPUT_DATA_STAGING",
    "ENV_CLEANUP": "POST_PROCESSING",
}


def phase(open_task_types: AbstractSet[str], *, job_id_stored: bool) -> str | None:
    """Computed from the open tasks when read; the first of several, plug-in types count as EXECUTING, null when none is open."""
    for task_type, name in PHASES.items():
        if task_type in open_task_types:
            return "MONITORING" if name == "EXECUTING" and job_id_stored else name
    return "EXECUTING" if open_task_types else None
