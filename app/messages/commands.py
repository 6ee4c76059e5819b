"""Orders and timers: what is asked of a component. Facts are in events.py. The subject (which task, attempt, epoch) is in the envelope."""

from msgspec import Struct


class RunTask(Struct, frozen=True):
    """Scheduler → executor: run this attempt at this epoch."""

    attempt_id: str


class RetryDue(Struct, frozen=True):
    """Timer → scheduler: a retry, the next probe of a blocked task, or the next look at a doubt."""


class DeadlineDue(Struct, frozen=True):
    """Timer → scheduler: the process's deadline passed."""


class AttemptAbandoned(Struct, frozen=True):
    """Timer → scheduler: the instance that ran this attempt at this epoch has been silent for its whole lease."""
