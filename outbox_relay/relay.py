"""Waiting rows → Kafka: R0–R7 of docs/protocol.md, for one shard, in one thread; R7 overlaps the next batch in a second one (settler.py).

Invariant: a row is deleted only if the state record of the transaction that published it is committed. Whatever the crash, R2 and R3 of the successor delete exactly
the rows that were published, and R4 sends exactly the others. Safety comes from Kafka's fencing alone; the lease only prevents churn.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, timedelta
from functools import partial
from typing import Any, TypeVar

from app import clock, failpoint, instance, journal
from app.errors import Fenced, Misconfigured, StoreUnavailable, Transient
from app.kafka import state, unmarked
from app.kafka.producer import TransactionalProducer
from app.kafka.state import StateRecord
from app.messages import codec, ids
from app.messages.placement import Placement
from app.mysql import dead_letters, outbox, shards
from app.mysql.dead_letters import DeadLetter
from app.mysql.unit_of_work import UnitOfWork, after_commit, now, tell
from observability import logs, metrics, tracing
from outbox_relay import spans
from outbox_relay.settler import FEW_ROWS, Settler

ROWS_MAX, BYTES_MAX = 2000, 1 << 20
IN_FLIGHT_MAX = 2 * ROWS_MAX  # While batches are full. Else the delete of more than a few rows paces the next batch: fewer and larger ones cost the broker half.
LEASE_SECONDS, RENEW_SECONDS = 2, 0.8
RENEWED_BUSY_SECONDS = 10.0  # The transaction's own time-out: who takes longer is not merely slow.
BUSY_SECONDS, IDLE_SECONDS = 0.002, 0.2  # The nudge ends the wait; only a lost one costs an interval.
FENCED_MAX = 3
LOOK_AGAIN_SECONDS, MARKED_SECONDS = 1.0, 10.0
T = TypeVar("T")
NOTHING = [("type", b"Nothing")]  # Every group passes over it by its type.


class ShardRelay:
    """`run` holds the shard whenever it can get it; raises Fenced after three fencings without a batch while the lease was its own, Misconfigured where Kafka has lost its memory or a stranger writes to our partitions."""

    def __init__(
        self, *, shard: int, environment: str, brokers: Mapping[str, str], state_topic: str, topics: Sequence[str], placement: Placement, unit_of_work: UnitOfWork, owner: str, nudged: threading.Event
    ) -> None:
        self.shard, self.brokers, self.state_topic, self.unit_of_work, self.owner, self.nudged = shard, brokers, state_topic, unit_of_work, owner, nudged
        self.topology = f"{placement.partitions}/{placement.shards}"
        self.places = [(state_topic, shard), *((topic, part) for topic in topics for part in range(placement.partitions) if placement.shard(part) == shard)]
        self.transactional_id = f"{environment}.relay.{shard}"
        self.role = "spare"
        self.busy_since: float | None = None  # In R5–R6, or waiting for one answer of R1–R3: each ends by itself before the watchdog would end it, all of them together need not.
        self.log = logs.logger("relay")
        self.ahead = timedelta()  # Our clock before MySQL's.
        self.fenced_by_strangers = 0
        self.renewed = 0.0
        self.seq = self.producers = 0

    def run(self, stop: threading.Event) -> None:
        """R0 → R7 until stop, or a fault that ends the process. Either way the lease is given up: who settles by hand need not wait for its end."""
        try:
            self.hold_again(stop)
        finally:
            self.give_up()

    def hold_again(self, stop: threading.Event) -> None:
        delay = 0.1
        while not stop.is_set():
            try:
                if not self.lease():
                    self.role = "spare"
                    stop.wait(0.5)
                    continue
                self.role = "leasing"
                self.hold(stop)
                delay = 0.1
            except Fenced as fault:
                self.fenced(fault, stop)
            except Transient as fault:
                metrics.count("airavata_relay_producer_resets_total", reason="unavailable")
                self.log.warning("shard starts again", shard=self.shard, fault=fault)
                stop.wait(delay)
                delay = min(delay * 2, 2.0)

    def fenced(self, fault: Fenced, stop: threading.Event) -> None:
        """A newer producer holds the shard: give the lease up, wait 1–5 s. One of ours that took the lease, as when MySQL was away, is no stranger."""
        metrics.count("airavata_fenced_total", what="relay")
        metrics.count("airavata_relay_producer_resets_total", reason="fenced")
        self.fenced_by_strangers = self.fenced_by_strangers + 1 if self.give_up() else 0
        self.log.warning("fenced", shard=self.shard, transactional_id=self.transactional_id, fault=fault, by_strangers=self.fenced_by_strangers)
        if self.fenced_by_strangers >= FENCED_MAX:
            raise Fenced(f"fenced {FENCED_MAX} times though the lease was ours: another installation uses the transactional id {self.transactional_id}; is AIRAVATA_ENVIRONMENT unique?") from fault
        stop.wait(instance.jitter(1.0, 5.0))

    # ---- R0 -------------------------------------------------------------------------------------------------------------------------------------
    def lease(self) -> bool:
        self.renewed = time.monotonic()
        with self.unit_of_work("relay.lease") as tx:
            tell(tx, shard=(self.shard,))
            self.ahead = clock.utc_now().replace(tzinfo=None) - now(tx)
            return shards.lease(tx, self.shard, owner=self.owner, seconds=LEASE_SECONDS)

    def renew_while_busy(self) -> None:
        """From another thread: Kafka being slow is no reason to give a rival the lease, who would fence us and be as slow."""
        busy_since = self.busy_since
        if busy_since is None or time.monotonic() - busy_since > RENEWED_BUSY_SECONDS or time.monotonic() - self.renewed < RENEW_SECONDS:
            return
        try:
            self.lease()
        except Transient as fault:
            self.log.debug("lease not renewed", shard=self.shard, fault=fault)

    def give_up(self) -> bool:  # Whether it was surely ours.
        try:
            with self.unit_of_work("relay.give_up") as tx:
                return shards.give_up(tx, self.shard, owner=self.owner)
        except Transient as fault:
            self.log.debug("lease runs out by itself", fault=fault)
            return False

    # ---- R1–R3 ----------------------------------------------------------------------------------------------------------------------------------
    def hold(self, stop: threading.Event) -> None:
        """From a new producer on, until the lease is lost or something is not definitely known."""
        began = self.busy_since = time.monotonic()
        try:
            failpoint.hit("relay.init.before", shard=self.shard)
            with closing(TransactionalProducer(self.brokers, self.transactional_id)) as producer:
                self.producers += 1
                metrics.observe("airavata_relay_init_seconds", time.monotonic() - began)
                failpoint.hit("relay.init.after", shard=self.shard)
                self.end_unmarked(producer, stop)
                self.settle(self.ask(state.last, self.state_topic, self.shard))
                with closing(Settler(self.delete, name=f"settler-{self.shard}")) as settler:
                    self.pump(producer, settler, stop)
                if producer.worn:
                    metrics.count("airavata_relay_producer_resets_total", reason="worn")
                    self.log.info("new producer: the end of a transaction may have been sent twice", shard=self.shard)
        finally:
            self.busy_since = None

    def ask(self, question: Callable[..., T], *about: Any) -> T:
        self.busy_since = time.monotonic()
        try:
            return question(self.brokers, *about)
        finally:
            self.busy_since = None

    def end_unmarked(self, producer: TransactionalProducer, stop: threading.Event) -> None:
        """R1, its other half: what the broker ended without marking it is committed, and its rows are named like any other batch's.

        After R1 nobody has a transaction open in our partitions, and nothing that lies hidden there was sent a second time, since every R1 looks before anything is sent. So
        whatever the broker made of it, to commit it and to delete those of its rows that still wait is right. Where Kafka remembers less than MySQL has settled, R3 refuses.
        """
        hidden = self.ask(unmarked.ranges, self.places)
        if not hidden:
            return
        stop.wait(LOOK_AGAIN_SECONDS)
        if self.ask(unmarked.ranges, self.places) != hidden:
            raise StoreUnavailable("last stable offsets still move: looking again")
        records = self.ask(unmarked.records, hidden)
        last, states = self.ask(state.last, self.state_topic, self.shard), [state.decode(each.value) for each in records if each.topic == self.state_topic]
        with self.unit_of_work("relay.unmarked.read") as tx:
            rows = outbox.named(tx, shard=self.shard, mids={each.mid for each in records})
            settled = shards.settled(tx, self.shard)
        known = max((each.seq for each in (*states, *filter(None, [last]))), default=0)
        if known < settled:
            return
        record = StateRecord(known + 1, [*(last.ids if last else ()), *(row.id for row in rows)], [*(last.mids if last else ()), *(row.mid for row in rows)], self.topology)
        self.log.error("Kafka ended transactions without marking them: committing what they hid", shard=self.shard, partitions=len(hidden), records=len(records), rows_waiting=len(rows))
        producer.begin()
        for topic, part in hidden:
            if topic != self.state_topic:
                producer.produce(topic, part, key=b"", headers=NOTHING, payload=b"")
                failpoint.hit("relay.produce.after")
        self.commit(producer, record)
        deadline = time.monotonic() + MARKED_SECONDS
        while left := self.ask(unmarked.ranges, hidden):
            if time.monotonic() > deadline:
                (topic, part), (since, _) = min(left.items())
                raise Misconfigured(
                    f"a transaction that is not the relay's hides what is behind offset {since} of {topic}[{part}]: "
                    "find it with `kafka-transactions.sh find-hanging`, end it with `kafka-transactions.sh abort`"
                )
            stop.wait(0.05)

    def settle(self, record: StateRecord | None) -> None:
        """R3: delete what the last record names; refuse when Kafka remembers less than MySQL knows it did."""
        failpoint.hit("relay.read_state.after", shard=self.shard)
        with self.unit_of_work("relay.settle") as tx:
            tell(tx, shard=(self.shard,))
            if not shards.lease(tx, self.shard, owner=self.owner, seconds=LEASE_SECONDS):
                raise StoreUnavailable("the lease was lost while the state was read")
            settled = shards.settled(tx, self.shard)
            if (record is None and settled > 0) or (record is not None and record.seq < settled):
                known = "no record" if record is None else f"record {record.seq}"
                metrics.count("airavata_invariant_violations_total", invariant="relay_state")
                journal.write("violation", what="relay_state", shard=self.shard, known=known, settled=settled)
                raise Misconfigured(
                    f"relay state of shard {self.shard}: Kafka has {known}, MySQL has settled {settled}: Kafka lost memory. Compare and settle with `airavata admin relay-state`"
                )
            if record is not None:
                recovered = outbox.delete(tx, record.ids, record.mids)
                after_commit(tx, partial(metrics.count, "airavata_relay_recovered_rows_total", recovered))
                shards.settle(tx, self.shard, record.seq)
            self.seq = record.seq if record is not None else 0

    # ---- R4–R7 ----------------------------------------------------------------------------------------------------------------------------------
    def pump(self, producer: TransactionalProducer, settler: Settler, stop: threading.Event) -> None:
        turn, idle, full, woken = 0, BUSY_SECONDS, False, ""
        while not stop.is_set() and not producer.worn:
            if time.monotonic() - self.renewed > RENEW_SECONDS and not self.lease():
                return
            in_flight = settler.in_flight(IN_FLIGHT_MAX if full else FEW_ROWS)  # Before the select starts, not after.
            if in_flight is None:
                continue
            found = self.select(turn, in_flight)
            rows = self.without_poison(producer, found)
            if rows:
                if woken:
                    metrics.count("airavata_relay_wakeups_total", by=woken)
                    woken = ""
                with self.recorded(rows):
                    self.publish(producer, rows, in_flight)
                settler.published({row.id: row.mid for row in rows}, self.seq)
                idle = BUSY_SECONDS
            elif not turn:
                woken = "nudge" if self.nudged.wait(idle) else "poll"
                self.nudged.clear()
                idle = min(idle * 1.5, IDLE_SECONDS)
            full = len(found) == ROWS_MAX
            turn = found[-1].part + 1 if full else 0  # Behind the last partition: start over.

    def select(self, turn: int, in_flight: Mapping[int, bytes]) -> Sequence[Any]:
        """R4: partition-major, a plain read, without what is in flight; cut at 1 MiB."""
        with self.unit_of_work("relay.read") as tx:  # Not `relay.select`: that is the fail point between R4 and R5.
            rows = outbox.waiting(tx, shard=self.shard, turn=turn, size=ROWS_MAX, without=in_flight)
        size = 0
        for index, row in enumerate(rows):
            size += len(row.payload) + len(row.headers)
            if size > BYTES_MAX and index:
                return rows[:index]
        return rows

    def without_poison(self, producer: TransactionalProducer, rows: Sequence[Any]) -> Sequence[Any]:
        """A row Kafka will never take becomes a dead letter and does not block its shard."""
        poison = {row.id: why for row in rows if (why := producer.refusal(row.topic, row.part, len(row.payload) + len(row.headers) + 200)) is not None}
        if poison:
            self.set_aside([row for row in rows if row.id in poison], poison)
        return [row for row in rows if row.id not in poison] if poison else rows

    def publish(self, producer: TransactionalProducer, rows: Sequence[Any], in_flight: Mapping[int, bytes]) -> None:
        """R5 and R6: every row to its stored partition, then the state record, in one Kafka transaction. The record names what is in flight as well."""
        failpoint.hit("relay.select.after", shard=self.shard)
        self.busy_since = time.monotonic()
        producer.begin()
        for row in rows:
            at = int(row.created_at.replace(tzinfo=UTC).timestamp() * 1000)
            producer.produce(row.topic, row.part, key=row.k.encode(), headers=codec.headers_of(row.headers), payload=row.payload, timestamp_ms=at)
            failpoint.hit("relay.produce.after")
        self.commit(producer, StateRecord(self.seq + 1, [*in_flight, *(row.id for row in rows)], [*in_flight.values(), *(row.mid for row in rows)], self.topology))
        self.busy_since = None
        self.fenced_by_strangers = 0
        self.measured(rows)

    def commit(self, producer: TransactionalProducer, record: StateRecord) -> None:
        """The state record, last in its transaction, and R6."""
        self.busy_since = time.monotonic()
        failpoint.hit("relay.record.before", shard=self.shard)
        producer.produce(self.state_topic, self.shard, key=b"%d" % self.shard, headers=(), payload=state.encode(record))
        self.seq = record.seq
        failpoint.hit("relay.commit.before", shard=self.shard)
        producer.commit()
        failpoint.hit("relay.commit.after", shard=self.shard)

    @metrics.measuring
    def measured(self, rows: Sequence[Any]) -> None:
        """Rows of one writer's transaction are of one age. Ages are by MySQL's clock, from which ours was so far ahead at the last lease."""
        at = clock.utc_now().replace(tzinfo=None) - self.ahead
        metrics.observe("airavata_relay_batch_rows", len(rows))
        metrics.observe("airavata_relay_batch_partitions", len({(row.topic, row.part) for row in rows}))
        samples = {row.topic: row.headers for row in rows}  # One exemplar a topic is enough.
        for (topic, created_at), many in Counter((row.topic, row.created_at) for row in rows).items():
            metrics.count("airavata_relay_rows_total", many, topic=topic, outcome="published")
            metrics.observe("airavata_relay_publish_delay_seconds", (at - created_at).total_seconds(), times=many, traceparent=codec.traceparent_of(samples[topic]), topic=topic)

    @contextmanager
    def recorded(self, rows: Sequence[Any]) -> Iterator[None]:
        """The journal's line of a Kafka transaction, and its spans: how it ended, as far as we know."""
        outcome, began = "unknown", time.monotonic()
        try:
            yield
            outcome = "committed"
        except (Fenced, StoreUnavailable) as fault:
            outcome = "fenced" if isinstance(fault, Fenced) else "aborted"
            raise
        finally:
            metrics.observe("airavata_relay_transaction_seconds", time.monotonic() - began, outcome=outcome)
            journal.write("relay.transaction", shard=self.shard, producer=self.producers, seq=self.seq, outcome=outcome, ids=[row.id for row in rows])
            spans.tell(rows, shard=self.shard, outcome=outcome, began=tracing.at(began))

    def delete(self, rows: Mapping[int, bytes], seq: int) -> None:
        """R7: exactly these, by name."""
        with self.unit_of_work("relay.delete") as tx:
            tell(tx, shard=(self.shard,), ids=rows)
            outbox.delete(tx, list(rows), list(rows.values()))
            shards.settle(tx, self.shard, seq)

    def set_aside(self, rows: Sequence[Any], why: dict[int, str]) -> None:
        with self.unit_of_work("relay.set_aside") as tx:
            tell(tx, shard=(self.shard,), ids=(row.id for row in rows))
            at = now(tx)
            letters = [
                DeadLetter(
                    id=ids.derived("dlt", "relay", row.mid), group="relay", topic=row.topic, partition=row.part, offset=None, mid=row.mid, key=row.k, headers=row.headers,
                    payload=row.payload, experiment_id=None, error_class="NeverTaken", error_text=why[row.id], tries=1, first_seen=row.created_at,
                )
                for row in rows
            ]  # fmt: skip
            dead_letters.set_aside(tx, letters, now=at)
            outbox.delete(tx, [row.id for row in rows], [row.mid for row in rows])
        for row in rows:
            metrics.count("airavata_relay_rows_total", topic=row.topic, outcome="dead_letter")
            journal.write("aside", group="relay", topic=row.topic, partition=row.part, id=row.id, mid=row.mid.hex(), error="NeverTaken", text=why[row.id])
        self.log.error("set aside rows that Kafka will never take", shard=self.shard, why=sorted(set(why.values())))
