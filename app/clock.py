"""The one module that reads a wall clock. Decisions take `now` from MySQL; this one is for logs, file names and certificates' ages."""

from datetime import UTC, datetime


def utc_now() -> datetime:
    """This machine's time, aware, UTC. Never a bound of an interval that crosses processes."""
    return datetime.now(UTC)  # noqa: TID251  The one place.
