"""Units of work of one thread that know whether MySQL answers: a loop that serves Kafka must not wait for it again and again, and who takes from the silent must know who was cut off."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import OutcomeUnknown, StoreUnavailable
from app.mysql.unit_of_work import Transaction, UnitOfWork

PAUSE_SECONDS = 0.5
LONG_AGO = float("-inf")


class Answering:
    """A UnitOfWork. When MySQL did not answer one, those of the next moment fail at once: a turn waits for one time-out, however many units it has, and polls in between.

    `gap_seconds`: half of the lease in question, so that a shorter pause leaves an owner time to renew it.
    """

    def __init__(self, unit_of_work: UnitOfWork, *, gap_seconds: float = 5.0) -> None:
        self.unit_of_work, self.gap_seconds, self.away_until = unit_of_work, gap_seconds, LONG_AGO
        self.since = self.answered_at = time.monotonic()

    @contextmanager
    def __call__(self, name: str) -> Iterator[Transaction]:
        if time.monotonic() < self.away_until:
            raise StoreUnavailable("MySQL did not answer a moment ago")
        try:
            with self.unit_of_work(name) as tx:
                yield tx
        except (StoreUnavailable, OutcomeUnknown):
            self.away_until, self.answered_at = time.monotonic() + PAUSE_SECONDS, LONG_AGO
            raise
        now = time.monotonic()
        if now - self.answered_at > self.gap_seconds:
            self.since = now
        self.answered_at = now

    def for_as_long_as(self, seconds: float) -> bool:
        """It has answered us all that time: else a lease that ran out may be that of an owner who could not renew it."""
        now = time.monotonic()
        return now - self.answered_at < self.gap_seconds and now - self.since > seconds
