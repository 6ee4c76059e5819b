"""The one module that reads a wall clock. Decisions take `now` from MySQL; this one is for logs, file names and certificates' ages."""

import time
from datetime import UTC, datetime


def utc_now() -> datetime:
    """This machine's time, aware, UTC. Never a bound of an interval that crosses processes."""
    return datetime.now(UTC)  # noqa: TID251  The one place.


def ns() -> int:
    """The same in nanoseconds since 1970: bounds of spans that begin and end in this process."""
    return time.time_ns()
