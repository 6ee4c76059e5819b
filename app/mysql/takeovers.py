"""How long nobody did a dead instance's work: from its last heartbeat to its successor's first commit, by MySQL's clock.

Who claims a partition remembers whose it was. Whether that one is dead is seen some seconds after the first commit: its heartbeat has not moved. A partition on which nothing
happens within WAIT_SECONDS says nothing about a gap. One that left in good order has removed its row, and is no predecessor.
"""

import time
from collections.abc import Iterable, Mapping
from datetime import datetime

from app.errors import Transient
from app.mysql import instances
from app.mysql.positions import Partition
from app.mysql.unit_of_work import Transaction, UnitOfWork
from observability import metrics

DEAD_AFTER_SECONDS, WAIT_SECONDS = 3.0, 30.0


class Takeovers:
    """Of one consumer group, as this process sees them. Threads may use it at once: no step depends on another's."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.waiting: dict[Partition, tuple[str, datetime, float]] = {}
        self.committed_at: dict[str, tuple[datetime, datetime, float]] = {}  # Predecessor → its last heartbeat, the first commit; when we learned of it.

    def claimed(self, tx: Transaction, owners: Mapping[Partition, str]) -> None:
        """`owners`: who held these partitions until now."""
        beats = instances.heartbeats(tx, owners.values())
        self.waiting |= {place: (owner, beats[owner], time.monotonic()) for place, owner in owners.items() if owner in beats}

    def committed(self, places: Iterable[Partition], now: datetime) -> None:
        for place in places if self.waiting else ():
            owner, beat, claimed = self.waiting.pop(place, ("", now, 0.0))
            if owner and time.monotonic() - claimed < WAIT_SECONDS:
                self.committed_at.setdefault(owner, (beat, now, time.monotonic()))

    def settle(self, tx: Transaction) -> None:
        """Who has not moved since was dead."""
        old = {owner: told for owner, told in dict(self.committed_at).items() if time.monotonic() - told[2] > DEAD_AFTER_SECONDS}
        beats = instances.heartbeats(tx, old)
        for owner, (beat, first, _) in old.items():
            if self.committed_at.pop(owner, None) is not None and beats.get(owner, beat) == beat:
                metrics.count("airavata_takeovers_total", group=self.group)
                metrics.observe("airavata_takeover_gap_seconds", (first - beat).total_seconds(), group=self.group)

    def settle_soon(self, unit_of_work: UnitOfWork) -> None:
        """`settle` in a unit of its own, if there is something to settle."""
        if any(time.monotonic() - told[2] > DEAD_AFTER_SECONDS for told in list(self.committed_at.values())):
            try:
                with unit_of_work("takeover.read") as tx:
                    self.settle(tx)
            except Transient:
                return  # Asked again in the next turn.
