"""What the end of a failed run means: whose fault it was, whether trying again may help, and what to do. One row per outcome."""

from collections.abc import Mapping
from dataclasses import dataclass

from app.workflow.experiment import Outcome


@dataclass(frozen=True, slots=True)
class Meaning:
    """`fault`: USER (the program or its inputs), SITE (host, batch system, storage), PLATFORM (us). `runbook`: a page of docs/runbooks, where operators have one."""

    fault: str
    retriable: bool
    hint: str
    runbook: str | None = None


_O = Outcome
MEANINGS: Mapping[str, Meaning] = {
    _O.APP_NONZERO_EXIT: Meaning("USER", False, "Read the end of the program's standard error; it ended by itself with this status."),
    _O.SCHEDULER_CANCELED: Meaning("SITE", True, "Somebody, or the site, canceled the job in its batch system. Ask the site if it was not you."),
    _O.SCHEDULER_TIMEOUT: Meaning("USER", True, "Ask for a longer wall time, or for less work in one run."),
    _O.SCHEDULER_OUT_OF_MEMORY: Meaning("USER", True, "Ask for more memory, or for less work in one run."),
    _O.SCHEDULER_DEADLINE: Meaning("USER", True, "The deadline of the experiment had passed: give it a later one."),
    _O.SCHEDULER_TERMINATED: Meaning("SITE", True, "The batch system ended the job; launch it again, and ask the site if it happens twice."),
    _O.STAGING_IN_FAILED: Meaning("SITE", True, "An input could not be brought to the host: look whether it is there and may be read."),
    _O.STAGING_OUT_FAILED: Meaning("SITE", True, "An output could not be brought back: look whether the program wrote it and the storage takes it."),
    _O.LAUNCH_FAILURE: Meaning("USER", False, "The plan of the run was refused: the message says what is wrong with it."),
    _O.MONITORING_TIMEOUT: Meaning("SITE", True, "Nothing was heard of the job for too long; look on the host before launching again."),
    _O.RECOVERY_TIMEOUT: Meaning("SITE", False, "It may have run: look on the host for its job before launching again.", "docs/runbooks/InDoubtTooLong.md"),
    _O.LOST_JOB: Meaning("SITE", False, "The job vanished from its host: look there before launching again.", "docs/runbooks/JobLost.md"),
    _O.INTERNAL: Meaning("PLATFORM", True, "This is a fault of the service: give the operators the id of the experiment."),
}  # fmt: skip
