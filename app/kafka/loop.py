"""The consumer loop C0–C5 of every component with a database: what one poll brought is applied in one MySQL transaction together with the positions, or not at all.

Invariant: a delivered message leaves memory only by being applied, set aside in the same transaction as the position advance, or by `seek(next_offset)`.
The shell owns C0, C1, C2, C4, C5; the handler it is given is C3.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Protocol

from app import failpoint, instance, journal
from app.errors import Contention, Misconfigured, OutcomeUnknown, StoreUnavailable, Transient, Unreadable
from app.kafka import aside, figures
from app.kafka.consumer import Claim, Consumer, Partition, Received
from app.kafka.spans import Batch
from app.messages.envelope import Envelope
from app.mysql import positions
from app.mysql.positions import Locked
from app.mysql.takeovers import Takeovers
from app.mysql.unit_of_work import Transaction, UnitOfWork, after_commit, carries, judged, tell
from app.workflow.decision import Refused
from observability import logs, metrics, tracing

BATCH = 1000
LEAVE_AFTER_SECONDS = 60.0
ONE_BY_ONE_SECONDS = 5.0


class Handler(Protocol):
    """C3: load the aggregates under lock, decide, save states, append outbox rows and timers. Returns the messages it refuses; what it raises rolls everything back."""

    def __call__(self, tx: Transaction, messages: Sequence[Envelope], *, now: datetime) -> Sequence[Refused]: ...


def _refuse(fault: Exception, _tx: Transaction, messages: Sequence[Envelope], *, now: datetime) -> Sequence[Refused]:
    """The handler for a message whose handler raised: sets it aside."""
    return [Refused(message, type(fault).__name__, str(fault)) for message in messages]


class ConsumerLoop:
    """One per component instance, one thread. `topic_uuids`: full topic name → UUID as Kafka has it now; a position made for another is refused. `commit`: C4's own name."""

    def __init__(
        self,
        *,
        component: str,
        group: str,
        topics: Sequence[str],
        brokers: Mapping[str, str],
        session_timeout_ms: int,
        wants: frozenset[str],
        unit_of_work: UnitOfWork,
        handler: Handler,
        owner: str,
        topic_uuids: Callable[[], Mapping[str, str]],
        commit: str = "commit",
    ) -> None:
        self.component, self.group, self.unit_of_work, self.handler, self.owner, self.topic_uuids = component, group, unit_of_work, handler, owner, topic_uuids
        self.commit = f"{component}.{commit}"
        self.batch_size, self.poll_seconds, self.capacity_full = BATCH, 0.2, False
        self.takeovers = Takeovers(group.rpartition(".")[2])
        self.failing_since: float | None = None
        self.retry_at, self.tries, self.polled = 0.0, 0, 0
        self.log = logs.logger("loop")
        self.consumer = Consumer(component=component, brokers=brokers, group=group, topics=topics, session_timeout_ms=session_timeout_ms, wants=wants, claim=self._claim)

    # ---- the round ------------------------------------------------------------------------------------------------------------------------------
    def run(self, stop: threading.Event, each_turn: Callable[[], None]) -> None:
        while not stop.is_set():
            self.turn()
            each_turn()

    def turn(self) -> None:
        """One C1–C5. Transient faults are waited out while polling goes on; what must end the process is raised."""
        consumer = self.consumer
        consumer.pause(self.capacity_full or bool(consumer.pending))
        received = consumer.poll(self.batch_size, 0.0 if consumer.pending and time.monotonic() >= self.retry_at else self.poll_seconds)
        if received:
            self.polled = tracing.now_ns() if len(received) == len(consumer.pending) else self.polled
            failpoint.hit(f"{self.component}.poll.after")
        consumer.reclaim()
        if consumer.pending and time.monotonic() >= self.retry_at:
            self._try()
        consumer.tick()
        self.takeovers.settle_soon(self.unit_of_work)

    def _try(self) -> None:
        try:
            if (fault := self._bug(self.consumer.pending)) is not None:
                self.log.error("the batch raised: applying it message by message", exc_info=fault, count=len(self.consumer.pending))
                self._one_by_one()
        except OutcomeUnknown:
            self._lost_track()
        except Transient as fault:
            self._back_off(fault)

    def _bug(self, batch: Sequence[Received]) -> Exception | None:
        """Applies it, or returns what was raised on its account; what stops us is raised."""
        try:
            self._apply(batch, self.handler)
        except (Transient, Misconfigured):
            raise
        except Exception as fault:
            return fault
        return None

    def _one_by_one(self) -> None:
        """A database error without a culprit, or a handler that raised: each message in a transaction of its own; who raises again is set aside in its own.

        What is left after a while is tried again as one: nobody polls meanwhile, nor beats the heart.
        """
        until = time.monotonic() + ONE_BY_ONE_SECONDS
        while self.consumer.pending and time.monotonic() < until:
            each = self.consumer.pending[0]
            if (fault := self._bug([each])) is not None:
                self.log.error("set aside", topic=each.topic, partition=each.partition, offset=each.offset, message_id=each.mid.hex(), exc_info=fault, **logs.of_key(each.key))
                self._apply([each], partial(_refuse, fault))

    def _back_off(self, fault: Transient) -> None:
        """MySQL is away or contended: the whole batch again, with everything it read. Beyond the bound, leave, so that another instance takes over."""
        self.tries += 1
        now = time.monotonic()
        self.failing_since = self.failing_since or now
        waited = now - self.failing_since
        self.retry_at = now + (instance.jitter(0.005, 0.05) if isinstance(fault, Contention) else min(2.0, 0.1 + waited / 4))
        if isinstance(fault, StoreUnavailable):
            self.log.warning("batch waits for MySQL", fault=fault, seconds=round(waited, 1))
        if waited > LEAVE_AFTER_SECONDS:
            self.log.warning("leaving the group until MySQL is back", seconds=round(waited))
            self.failing_since, self.consumer.rejoin = None, True

    def _lost_track(self) -> None:
        """COMMIT's answer was lost: the position row, read under lock by C0, says whether what is pending was applied."""
        places = {each.place for each in self.consumer.pending}
        self.log.warning("commit outcome unknown: asking the positions", partitions=len(places))
        self.consumer.fenced |= places

    # ---- C2–C4 ------------------------------------------------------------------------------------------------------------------------------------
    def _apply(self, batch: Sequence[Received], handler: Handler) -> None:
        """A batch of what is pending; what raises leaves all of it pending, but what was sought back to."""
        told = Batch(batch, group=self.group, polled=self.polled)
        with told.under_way(), self.unit_of_work(self.commit) as tx:
            locked = positions.lock(tx, self.group, {each.place for each in batch})
            failpoint.hit(f"{self.component}.position.after")
            fresh = self._fresh(tx, batch, locked)
            told.decided(tx, fresh, locked.now)
            carries(tx, "in", ((each.mid, each.key) for each in fresh))
            decoded, refused = _decode(fresh)
            if decoded:
                came_as = {id(message): each for message, each in decoded}
                for each in handler(tx, [message for message, _ in decoded], now=locked.now):
                    refused.append(aside.Culprit(came_as[id(each.message)], each.error, each.text, each.message))
            if refused:
                judged(tx, aside.set_aside(tx, refused, group=self.group, now=locked.now))
                for culprit in refused:
                    after_commit(tx, partial(journal.write, "aside", group=self.group, **culprit.told))
                failpoint.hit(f"{self.component}.aside.after")
            ends = {each.place: each.offset + 1 for each in fresh}
            verdicts = tx.info["verdicts"]
            positions.advance(tx, self.group, ends, locked)
        self._applied(batch, ends)
        told.applied(self.consumer.held, without=self.consumer.fenced, tries=self.tries)
        self.failing_since, self.tries = None, 0
        if fresh:
            self.takeovers.committed(ends, locked.now)
            samples = {each.topic: message.traceparent for message, each in decoded}
            figures.committed(fresh, refused, verdicts, seconds=(tracing.now_ns() - self.polled) / 1e9, samples=samples)

    def _fresh(self, tx: Transaction, batch: Sequence[Received], locked: Locked) -> list[Received]:
        """Leaves out copies and lost partitions; a gap is sought back to and counted."""
        fresh, refused = [], set()
        for each in batch:
            held, row = self.consumer.held.get(each.place), locked.rows.get(each.place)
            if held is None or row is None or row.owner_epoch != held.epoch:
                if each.place not in refused and held is not None:
                    refused.add(each.place)
                    metrics.count("airavata_fenced_total", what="partition")
                    tell(tx, group=self.group, fenced=[(*each.place, each.offset, held.epoch)])
                    self.consumer.fenced.add(each.place)
            elif row.next_offset < held.applied:
                if each.place not in refused:
                    refused.add(each.place)
                    metrics.count("airavata_invariant_violations_total", invariant="position_gap")
                    journal.write("violation", what="position_gap", group=self.group, topic=each.topic, partition=each.partition, position=row.next_offset, applied=held.applied)
                    self.log.error("position lies before what was applied: reading again", topic=each.topic, partition=each.partition, position=row.next_offset, applied=held.applied)
                    self.consumer.seek(each.place, row.next_offset)
            elif each.offset < row.next_offset:
                metrics.count("airavata_messages_total", topic=each.topic, verdict="duplicate")
                journal.write("late", why="below the position", group=self.group, topic=each.topic, partition=each.partition, offset=each.offset, position=row.next_offset)
            elif each.place not in refused:
                fresh.append(each)
        return fresh

    def _applied(self, batch: Sequence[Received], ends: Mapping[Partition, int]) -> None:
        done = {id(each) for each in batch}
        self.consumer.pending = [each for each in self.consumer.pending if id(each) not in done]
        for place, end in ends.items():
            held = self.consumer.held.get(place)
            if held is not None:
                held.applied, held.moved = end, time.monotonic()

    # ---- C0 -------------------------------------------------------------------------------------------------------------------------------------
    def _claim(self, places: list[Partition]) -> dict[Partition, Claim]:
        uuids = self.topic_uuids()
        with self.unit_of_work(f"{self.component}.claim") as tx:
            rows = positions.claim(tx, self.group, places, owner=self.owner)
            self.takeovers.claimed(tx, {place: row.owner for place, row in rows.items() if row.owner and row.owner != self.owner})
        claims = {}
        for place in places:
            row = rows.get(place)
            if row is None:
                claims[place] = Claim(0, 0, fault="no position row: run `airavata admin topics --apply`")
            elif row.topic_uuid and uuids.get(place[0]) not in {None, row.topic_uuid}:
                claims[place] = Claim(row.owner_epoch, row.next_offset, row.topic_uuid, f"topic {place[0]} was recreated: its UUID is not the position's", recreated=True)
            else:
                claims[place] = Claim(row.owner_epoch, row.next_offset, row.topic_uuid)
        return claims

    # ---- what others ask ----------------------------------------------------------------------------------------------------------------------------
    def facts(self) -> dict[str, object]:
        """For the instance row: what operators see."""
        held = self.consumer.held
        return {"group": self.group, "partitions": len(held), "behind": sum(1 for each in held.values() if each.quiet_since is None)}

    def close(self) -> None:
        self.consumer.close()


def _decode(fresh: Sequence[Received]) -> tuple[list[tuple[Envelope, Received]], list[aside.Culprit]]:
    decoded, refused = [], []
    for each in fresh:
        try:
            decoded.append((each.decode(), each))
        except Unreadable as fault:
            refused.append(aside.Culprit(each, "Unreadable", str(fault)))
    return decoded, refused
