"""Facts: what happened, in the past tense. All of them are history; those of executors also move tasks."""

from msgspec import Struct


class ExperimentLaunched(Struct, frozen=True):
    """API → generator: the process row (CREATED) is there, with its snapshot."""


class ProcessPlanned(Struct, frozen=True):
    """Generator → scheduler: tasks and edges are there; or the planner refused, and `fault` says why."""

    fault: str | None = None


class TaskStarted(Struct, frozen=True):
    """Executor: the attempt is RUNNING in this epoch."""

    owner: str = ""


class TaskSucceeded(Struct, frozen=True):
    """Executor: the attempt SUCCEEDED. `detail` is what a person may see (bytes staged, files, exit code)."""

    detail: dict[str, str | int | float | bool | None] = {}


class TaskFailed(Struct, frozen=True):
    """Executor: the attempt FAILED.

    `code` is an outcome code of the experiment (STAGING_IN_FAILED, APP_NONZERO_EXIT, …), `message` a sentence a scientist understands, `raw_message` what the
    outside said. `transient`: trying again may help. `condition`: an outside state that holds the task (AUTH_REQUIRED, HOST_KEY_CHANGED, …): blocked, burns no attempt.
    """

    code: str
    message: str
    raw_message: str = ""
    transient: bool = False
    condition: str | None = None
    exit_code: int | None = None
    signal: int | None = None


class TaskInDoubt(Struct, frozen=True):
    """Executor: nobody knows whether the job was started. `since_seconds` is how long the doubt has lasted."""

    message: str
    evidence: tuple[str, ...] = ()


class JobChanged(Struct, frozen=True):
    """Executor or watcher: the remote job was seen in another state. Moves no task."""

    job_id: str
    from_state: str
    to_state: str
    reason: str = ""
    scheduler_job_id: str | None = None


class ExperimentChanged(Struct, frozen=True):
    from_state: str
    to_state: str
    reason: str = ""
    outcome: str | None = None


class ProcessChanged(Struct, frozen=True):
    from_state: str
    to_state: str
    reason: str = ""
    outcome: str | None = None


class TaskChanged(Struct, frozen=True):
    from_state: str
    to_state: str
    reason: str = ""
