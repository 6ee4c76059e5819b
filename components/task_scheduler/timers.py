"""The scheduler's second loop: what is due. Due timers move to the outbox; attempts of silent instances are taken and told abandoned; old rows are purged.

Every part is one idempotent transaction over locked rows, so any number of schedulers may run it at once.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from app.errors import Transient
from app.messages import ids, trace
from app.messages.commands import AttemptAbandoned
from app.messages.envelope import Envelope, Subject
from app.messages.placement import Placement
from app.messages.topics import Topics
from app.mysql import attempts, instances, outbox, processes, purge, timers
from app.mysql.answering import Answering
from app.mysql.unit_of_work import UnitOfWork, after_commit, now
from components.task_scheduler import figures
from observability import logs

BATCH = 500


class TimerLoop:
    """Runs in a thread of its own with a connection of its own."""

    def __init__(self, *, unit_of_work: UnitOfWork, placement: Placement, topics: Topics, lease_seconds: int, purge_every_seconds: int = 3600) -> None:
        self.unit_of_work, self.placement, self.topics, self.lease_seconds, self.purge_every_seconds = Answering(unit_of_work, gap_seconds=lease_seconds / 2), placement, topics, lease_seconds, purge_every_seconds
        self.log = logs.logger("timers")
        self.purged, self.purged_to = time.monotonic(), purge.FIRST
        self.looked_for_silent = 0.0

    def run(self, stopped: Callable[[float], bool]) -> None:
        """Until stopped: moves what is due, at once again while much is due, else four times a second: no wait of a retry is shorter than that matters."""
        while True:
            try:
                busy = self.move_due() >= BATCH
                if time.monotonic() - self.looked_for_silent > 1.0:
                    self.looked_for_silent = time.monotonic()
                    if self.unit_of_work.for_as_long_as(self.lease_seconds):  # After an outage everybody is silent: a lease's time to beat again.
                        self.take_from_silent()
                    self.purge()
            except Transient as fault:
                self.log.warning("timers wait", fault=fault)
                busy = False
            if stopped(0.0 if busy else 0.25):
                return

    def move_due(self) -> int:
        """Due rows → outbox. Repeating it after an unknown outcome is harmless: the rows are there, or they are gone."""
        with self.unit_of_work("timer.move") as tx:
            due = timers.take_due(tx, limit=BATCH)
            if due:
                at = now(tx)
                outbox.append_records(tx, due, placement=self.placement, now=at)
                after_commit(tx, partial(figures.moved, due, at))
        return len(due)

    def take_from_silent(self) -> None:
        """Attempts of an instance silent for its lease: owner := NULL and AttemptAbandoned, together."""
        with self.unit_of_work("lease.expire") as tx:
            taken = attempts.take_from_silent(tx, silent_seconds=self.lease_seconds, limit=BATCH)
            if taken:
                found = processes.places(tx, [row[2] for row in taken])
                messages = [self.abandoned(row, found[row[2]]) for row in taken if row[2] in found]
                outbox.append(tx, messages, placement=self.placement, now=now(tx))
                types = attempts.models(tx, [row[0] for row in taken])
                after_commit(tx, partial(figures.abandoned, [kind for kind, _ in types.values()]))
                self.log.warning("took attempts from silent instances", count=len(taken), owners=sorted({row[5] for row in taken}))

    def abandoned(self, row: tuple[str, str, str, int, int, str], found: processes.Place) -> Envelope:
        attempt_id, task_id, process_id, number, epoch, _owner = row
        return Envelope(
            mid=ids.digest("abandoned", attempt_id, str(epoch)),
            topic=self.topics.scheduler,
            partition=found.part,
            subject=Subject(found.gateway_id, found.experiment_id, process_id, task_id, "", number, epoch),
            body=AttemptAbandoned(),
            traceparent=trace.belongs(found.trace_context, found.experiment_id, task_id, number),
        )

    def purge(self) -> None:
        """Hourly (by setting), in bounded bites: a bite a turn, until nothing is left to take."""
        if time.monotonic() - self.purged < self.purge_every_seconds:
            return
        with self.unit_of_work("purge") as tx:
            taken, to = purge.bite(tx, self.purged_to, now=now(tx))
            taken += instances.purge(tx, before=now(tx) - timedelta(hours=1), limit=BATCH)
        self.purged_to = to
        if taken == 0:
            self.purged = time.monotonic()
