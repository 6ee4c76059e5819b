"""When a failed, blocked or doubtful task is tried again. Jitter derives from the message that causes the wait, so a repeated decision yields the same time."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from app.messages.events import TaskFailed
from app.workflow.task import State

ATTEMPTS: Mapping[str, int] = {"ENV_SETUP": 3, "ENV_CLEANUP": 3, "INGRESS_STAGING": 5, "EGRESS_STAGING": 5, "JOB_SUBMISSION": 1}
ATTEMPTS_OF_PLUG_INS = 3
FIRST_SECONDS, LONGEST_SECONDS = 2.0, 300.0
PROBE_SECONDS = 15.0
DOUBT_BOUND = timedelta(minutes=15)


def after(failure: TaskFailed, *, task_type: str, burned: int) -> State:
    """BLOCKED if it names a condition; RETRY_WAIT if transient and attempts remain; else FAILED. `burned` counts this attempt."""
    if failure.condition:
        return State.BLOCKED
    if failure.transient and burned < ATTEMPTS.get(task_type, ATTEMPTS_OF_PLUG_INS):
        return State.RETRY_WAIT
    return State.FAILED


def backoff(mid: bytes, tries: int, *, longest_seconds: float = LONGEST_SECONDS) -> timedelta:
    """Full jitter: uniform in [0, min(longest, 2 s × 2^(tries−1))), drawn from the message id. https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/"""
    ceiling = min(longest_seconds, FIRST_SECONDS * 2 ** (min(tries, 20) - 1))
    return timedelta(seconds=ceiling * share(mid))


def share(mid: bytes) -> float:
    """A number in [0, 1) that is a property of the message."""
    return int.from_bytes(mid[:4], "big") / 2**32


def probe_at(now: datetime, mid: bytes) -> datetime:
    """When a blocked task looks again: 15 s ± 50 %, so that a host that comes back is not stormed."""
    return now + timedelta(seconds=PROBE_SECONDS * (0.5 + share(mid)))


def look_again_at(now: datetime, mid: bytes, doubt_since: datetime) -> datetime | None:
    """When a doubt is asked again: soon at first, then as far apart as it is old, at most a minute; None once it has lasted 15 min."""
    age = now - doubt_since
    if age >= DOUBT_BOUND:
        return None
    return now + timedelta(seconds=min(60.0, max(1.0, age.total_seconds() / 2)) * (0.5 + share(mid)))
