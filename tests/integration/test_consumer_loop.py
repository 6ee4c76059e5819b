"""The consumer loop C0–C5 on real MySQL, MariaDB and Kafka: what was delivered is applied once, set aside, or read again; never lost, never twice."""

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import pytest
from msgspec import structs

from app import journal
from app.errors import Contention, Misconfigured, OutcomeUnknown, StoreUnavailable
from app.kafka import figures
from app.kafka.loop import ConsumerLoop
from app.kafka.producer import TransactionalProducer
from app.messages import codec
from app.messages.commands import RunTask
from app.messages.envelope import Envelope
from app.mysql import positions, timers
from app.mysql.unit_of_work import Transaction
from app.workflow.decision import Refused
from observability import metrics
from tests.support.builders import decoded
from tests.support.delivery import Delivery, until

WANTS = frozenset({"RetryDue"})


class Applied:
    """A handler that remembers what it was given, and does as the test says."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.batches: list[int] = []
        self.raises: list[Exception] = []
        self.poison: dict[bytes, Exception | None] = {}

    def __call__(self, tx: Transaction, messages: Sequence[Envelope], *, now: datetime) -> Sequence[Refused]:
        if self.raises:
            raise self.raises.pop(0)
        for each in messages:
            if isinstance(fault := self.poison.get(each.mid), Exception):
                raise fault
        good = [each for each in messages if each.mid not in self.poison]
        tx.exec_driver_sql("INSERT INTO audit (user, action, subject, request_id, at) VALUES (%s, %s, %s, %s, %s)", [("t", "applied", each.mid.hex(), "r", now) for each in good] or [("t", "none", "", "r", now)])
        self.seen += [each.mid for each in good]
        self.batches.append(len(messages))
        return [Refused(each, "Illegal", "no") for each in messages if each.mid in self.poison]


@pytest.fixture
def delivery(database: str, kafka_bootstrap: str, topic_prefix: str) -> Iterator[Delivery]:
    made = Delivery(database, kafka_bootstrap, f"c{os.getpid()}{topic_prefix}")
    yield made
    made.close()


@pytest.fixture
def made(delivery: Delivery) -> Iterator[list[ConsumerLoop]]:
    loops: list[ConsumerLoop] = []
    yield loops
    for each in loops:
        each.close()


def a_loop(delivery: Delivery, made: list[ConsumerLoop], handler: Applied, *, owner: str = "me", uuids: dict[str, str] | None = None) -> ConsumerLoop:
    loop = ConsumerLoop(
        component="scheduler", group=delivery.group, topics=[delivery.topics.scheduler], brokers=delivery.brokers, session_timeout_ms=1000, wants=WANTS, unit_of_work=delivery.unit,
        handler=handler, owner=owner, topic_uuids=lambda: uuids or delivery.uuids,
    )  # fmt: skip
    made.append(loop)
    until(lambda: loop.turn() or (loop.consumer.joined and len(loop.consumer.held) > 0), what="an assignment")
    return loop


def publish(delivery: Delivery, messages: Sequence[Envelope], *, raw: bytes | None = None, version: int = codec.SCHEMA_VERSION) -> None:
    producer = TransactionalProducer(delivery.brokers, f"{delivery.environment}.test")
    producer.begin()
    for each in messages:
        record = codec.encode(each, version=version)
        producer.produce(each.topic, each.partition, key=each.key.encode(), headers=codec.headers_of(record.headers), payload=record.payload if raw is None else raw)
    producer.commit()


def turn_until(loop: ConsumerLoop, condition, seconds: float = 60.0) -> None:
    until(lambda: (loop.turn(), condition())[1], seconds)


def next_offsets(delivery: Delivery) -> dict[int, int]:
    with delivery.unit("look") as tx:
        return {part: row.next_offset for group, topic, part, row in positions.all_rows(tx) if group == delivery.group and topic == delivery.topics.scheduler}


def test_C1_to_C4_a_poll_is_one_transaction_with_its_positions(delivery: Delivery, made: list[ConsumerLoop]) -> None:
    handler = Applied()
    loop = a_loop(delivery, made, handler)
    messages = delivery.names(200)
    publish(delivery, messages)
    turn_until(loop, lambda: len(handler.seen) == 200)
    assert sorted(handler.seen) == sorted(each.mid for each in messages)
    assert len(handler.batches) < 120, "batches, not messages"
    assert sum(next_offsets(delivery).values()) >= 200


def test_C0_starts_at_the_position_whatever_offset_kafka_remembers(delivery: Delivery, made: list[ConsumerLoop]) -> None:
    messages = delivery.names(40)
    publish(delivery, messages)
    first = Applied()
    loop = a_loop(delivery, made, first)
    turn_until(loop, lambda: len(first.seen) == 40)
    loop.close()
    made.clear()
    with delivery.unit("back") as tx:
        tx.exec_driver_sql("UPDATE positions SET next_offset = 0 WHERE consumer_group = %s", (delivery.group,))
    again = Applied()
    turn_until(a_loop(delivery, made, again), lambda: len(again.seen) == 40)


def test_C0_raises_the_epoch_and_the_owner_before_is_fenced(delivery: Delivery, made: list[ConsumerLoop]) -> None:
    handler = Applied()
    loop = a_loop(delivery, made, handler)
    places = list(loop.consumer.held)
    with delivery.unit("rival") as tx:
        rival = positions.claim(tx, delivery.group, places, owner="rival")
    publish(delivery, delivery.names(8))
    turn_until(loop, lambda: len(handler.seen) == 8)  # Still assigned to us: C0 again, once, and every message applied once.
    assert metrics.value("airavata_fenced_total", what="partition") >= 1
    assert all(loop.consumer.held[place].epoch > row.owner_epoch for place, row in rival.items() if place in loop.consumer.held and loop.consumer.held[place].read)


def test_C0_a_missing_row_halts_its_partition_loudly_and_the_others_go_on(delivery: Delivery, made: list[ConsumerLoop]) -> None:
    with delivery.unit("test") as tx:
        tx.exec_driver_sql("DELETE FROM positions WHERE consumer_group = %s AND topic = %s AND part = 1", (delivery.group, delivery.topics.scheduler))
    handler = Applied()
    loop = a_loop(delivery, made, handler)
    assert "admin topics" in str(loop.consumer.held[delivery.topics.scheduler, 1].halted)
    assert "halted" in str(loop.consumer.missing)
    told = [labels for name, value, labels in figures.readings(loop.consumer, 12) if name == "airavata_partition_halted" and value == 1]
    assert told == [{"topic": delivery.topics.scheduler, "reason": "unclaimed"}]
    publish(delivery, delivery.names(8))
    turn_until(loop, lambda: len(handler.seen) == 6)


def test_C0_a_topic_recreated_before_the_start_is_refused(delivery: Delivery, made: list[ConsumerLoop]) -> None:
    loop = a_loop(delivery, made, Applied(), uuids={delivery.topics.scheduler: "another"})
    with pytest.raises(Misconfigured, match="was recreated"):
        loop.turn()


def test_C2_copies_are_left_out_and_a_gap_is_read_again(delivery: Delivery, made: list[ConsumerLoop]) -> None:
    handler = Applied()
    loop = a_loop(delivery, made, handler)
    publish(delivery, delivery.names(20))
    turn_until(loop, lambda: len(handler.seen) == 20)
    with delivery.unit("back") as tx:  # A database that lost its memory: the position lies before what was applied.
        tx.exec_driver_sql("UPDATE positions SET next_offset = 0 WHERE consumer_group = %s AND topic = %s", (delivery.group, delivery.topics.scheduler))
    publish(delivery, [delivery.message(f"late{n}", n % 4) for n in range(4)])
    turn_until(loop, lambda: len(handler.seen) == 44)
    assert metrics.value("airavata_invariant_violations_total", invariant="position_gap") >= 1
    with delivery.unit("forward") as tx:
        tx.exec_driver_sql("UPDATE positions SET next_offset = next_offset + 2 WHERE consumer_group = %s AND topic = %s AND part = 0", (delivery.group, delivery.topics.scheduler))
    publish(delivery, [delivery.message("copy", 0)])
    turn_until(loop, lambda: metrics.value("airavata_messages_total", verdict="duplicate") == 1)


@pytest.mark.parametrize("fault", [Contention("1213"), ValueError("a bug")])
def test_C2_what_was_read_beyond_a_gap_is_not_applied_although_its_transaction_was_rolled_back(delivery: Delivery, made: list[ConsumerLoop], fault: Exception) -> None:
    """Partition 0 has a gap, partition 1 none: together in one batch, which is rolled back once."""
    handler = Applied()
    loop = a_loop(delivery, made, handler)
    publish(delivery, [delivery.message(f"first{n}", 0) for n in range(10)])
    turn_until(loop, lambda: len(handler.seen) == 10)
    with delivery.unit("back") as tx:
        tx.exec_driver_sql("UPDATE positions SET next_offset = 0 WHERE consumer_group = %s AND topic = %s AND part = 0", (delivery.group, delivery.topics.scheduler))
    handler.seen.clear()
    publish(delivery, [delivery.message(f"more{n}", n % 2) for n in range(4)])
    until(lambda: (loop.consumer.poll(100, 0.1), {each.partition for each in loop.consumer.pending} == {0, 1} and len(loop.consumer.pending) == 4)[1])
    handler.raises = [fault]
    turn_until(loop, lambda: len(handler.seen) >= 14)
    assert len(handler.seen) == len(set(handler.seen)) == 14, "everything from the position on, once"


@pytest.mark.parametrize("fault", [Contention("1213"), StoreUnavailable("2006")])
def test_C3_a_database_fault_rolls_back_and_the_batch_comes_again_without_requeue(delivery: Delivery, made: list[ConsumerLoop], fault: Exception) -> None:
    handler = Applied()
    loop = a_loop(delivery, made, handler)
    handler.raises = [fault, fault]
    messages = delivery.names(10)
    publish(delivery, messages)
    turn_until(loop, lambda: len(handler.seen) == 10)
    assert (metrics.value("airavata_messages_total", verdict="requeued"), metrics.value("airavata_messages_total", verdict="dead_letter")) == (0, 0)
    assert delivery.one("SELECT COUNT(*) FROM timers") == 0


def test_C4_an_unknown_outcome_is_resolved_by_the_positions_applied_or_not(delivery: Delivery, made: list[ConsumerLoop]) -> None:
    handler = Applied()
    loop = a_loop(delivery, made, handler)
    handler.raises = [OutcomeUnknown("2013")]  # Rolled back, but we do not know.
    publish(delivery, delivery.names(10))
    turn_until(loop, lambda: delivery.one("SELECT COUNT(DISTINCT subject) FROM audit WHERE action = 'applied'") == 10)
    assert delivery.one("SELECT COUNT(*) FROM audit WHERE action = 'applied'") == 10


def test_C0_a_partition_that_was_paused_when_it_was_lost_is_read_when_it_comes_back(delivery: Delivery, made: list[ConsumerLoop]) -> None:
    """The library keeps a pause beyond the assignment it was made in."""
    handler = Applied()
    loop = a_loop(delivery, made, handler)
    loop.capacity_full = True
    loop.turn()
    loop.consumer.rejoin = True
    loop.turn()
    assert (loop.consumer.paused, loop.consumer.held) == (True, {})
    loop.capacity_full = False
    publish(delivery, delivery.names(20))
    turn_until(loop, lambda: len(handler.seen) == 20)


def test_a_message_whose_handler_raises_is_set_aside_alone_and_comes_again_for_its_group_only(delivery: Delivery, made: list[ConsumerLoop]) -> None:
    handler = Applied()
    loop = a_loop(delivery, made, handler)
    messages = delivery.names(12)
    handler.poison = {messages[3].mid: ValueError("boom"), messages[7].mid: None}
    publish(delivery, messages)
    turn_until(loop, lambda: len(handler.seen) == 10 and metrics.value("airavata_messages_total", verdict="requeued") == 2)
    assert delivery.one("SELECT COUNT(*) FROM timers") == 2
    with delivery.unit("look") as tx:
        tx.exec_driver_sql("UPDATE timers SET due_at = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND")
        due = [decoded(each) for each in timers.take_due(tx, limit=10)]
    assert {each.only for each in due} == {delivery.group}
    assert {each.event_id for each in due} == {messages[3].event_id, messages[7].event_id}
    assert {each.origin.error for each in due if each.origin} == {"ValueError: boom", "Illegal: no"}
    publish(delivery, due)
    turn_until(loop, lambda: len(handler.seen) == 12)


def test_an_unreadable_record_is_a_dead_letter_at_once_and_so_is_one_after_five_tries(delivery: Delivery, made: list[ConsumerLoop]) -> None:
    handler = Applied()
    loop = a_loop(delivery, made, handler)
    publish(delivery, [delivery.message("junk", 0)], raw=b"\xff not json")
    turn_until(loop, lambda: metrics.value("airavata_messages_total", verdict="dead_letter") == 1)
    poison = delivery.message("poison", 1)
    wanted, message = 1, poison
    for _ in range(5):
        handler.poison = {message.mid: None}
        publish(delivery, [message])
        before = metrics.value("airavata_messages_total", verdict="requeued") + metrics.value("airavata_messages_total", verdict="dead_letter")
        turn_until(loop, lambda before=before: metrics.value("airavata_messages_total", verdict="requeued") + metrics.value("airavata_messages_total", verdict="dead_letter") > before)
        with delivery.unit("look") as tx:
            tx.exec_driver_sql("UPDATE timers SET due_at = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND")
            due = timers.take_due(tx, limit=1)
        if not due:
            break
        message = decoded(due[0])
    assert metrics.value("airavata_messages_total", verdict="dead_letter") == wanted + 1
    assert delivery.one("SELECT MAX(tries) FROM dead_letters") == 5
    assert delivery.one("SELECT COUNT(*) FROM dead_letters WHERE tries = 5 AND first_seen < created_at") == 1, "first seen is when it was first set aside"


def test_a_strangers_record_is_a_dead_letter_whatever_its_key_and_headers_are(delivery: Delivery, made: list[ConsumerLoop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the journal is on, which wants to name it."""
    monkeypatch.setattr(journal, "write", journal._Journal(tmp_path, "scheduler/1"))
    handler = Applied()
    loop = a_loop(delivery, made, handler)
    producer = TransactionalProducer(delivery.brokers, f"{delivery.environment}.test")
    producer.begin()
    producer.produce(delivery.topics.scheduler, 0, key="schlüssel".encode(), headers=[("mid", None)], payload=b"x")  # type: ignore[list-item]
    producer.produce(delivery.topics.scheduler, 0, key=b"k", headers=[("large", b"x" * 70_000)], payload=b"y")
    producer.commit()
    publish(delivery, [delivery.message("good", 0)])
    turn_until(loop, lambda: len(handler.seen) == 1)
    assert delivery.one("SELECT GROUP_CONCAT(k ORDER BY log_offset) FROM dead_letters") == "schl?ssel,k"
    assert metrics.value("airavata_messages_total", verdict="dead_letter") == 2


def test_a_strangers_message_that_is_set_aside_comes_back_without_what_no_timer_can_hold(delivery: Delivery, made: list[ConsumerLoop]) -> None:
    handler = Applied()
    loop = a_loop(delivery, made, handler)
    odd = structs.replace(delivery.message("odd", 0), traceparent="x" * 5000, at="2026" * 1000)
    handler.poison = {odd.mid: ValueError("boom")}
    publish(delivery, [odd, delivery.message("good", 0)])
    turn_until(loop, lambda: len(handler.seen) == 1)
    with delivery.unit("test") as tx:
        tx.exec_driver_sql("UPDATE timers SET due_at = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND")
        (copy,) = (decoded(each) for each in timers.take_due(tx, limit=10))
    assert (copy.event_id, copy.traceparent, copy.only) == (odd.event_id, "", delivery.group)
    assert metrics.value("airavata_context_invalid_total", from_="message") > 0


def test_what_failed_before_is_forgotten_once_its_messages_are_applied_also_one_by_one(delivery: Delivery, made: list[ConsumerLoop]) -> None:
    """Else the next deadlock, an hour later, would look like an hour of trying, and leave the group."""
    handler = Applied()
    loop = a_loop(delivery, made, handler)
    handler.raises = [StoreUnavailable("away"), ValueError("a bug")]
    publish(delivery, delivery.names(4))
    turn_until(loop, lambda: len(handler.seen) == 4 and not handler.raises)
    assert (loop.failing_since, loop.tries) == (None, 0)


def test_a_batch_without_a_culprit_does_not_keep_the_loop_from_turning_while_it_is_applied_one_by_one(
    delivery: Delivery, made: list[ConsumerLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.kafka.loop.ONE_BY_ONE_SECONDS", 0.001)
    whole: list[int] = []

    class OnlyAlone(Applied):
        def __call__(self, tx: Transaction, messages: Sequence[Envelope], *, now: datetime) -> Sequence[Refused]:
            if len(messages) > 1:
                whole.append(len(messages))
                raise ValueError("not together")
            return super().__call__(tx, messages, now=now)

    handler = OnlyAlone()
    loop = a_loop(delivery, made, handler)
    publish(delivery, [delivery.message(f"m{n}", 0) for n in range(12)])
    turn_until(loop, lambda: len(handler.seen) == 12)
    assert len(whole) > 2, "between them it polls, and its heart beats"


def test_records_for_others_are_passed_over_by_header(delivery: Delivery, made: list[ConsumerLoop]) -> None:
    handler = Applied()
    loop = a_loop(delivery, made, handler)
    publish(delivery, [delivery.message("other", 0, body=RunTask("att_1")), delivery.message("mine", 0)])
    turn_until(loop, lambda: len(handler.seen) == 1)
    assert metrics.value("airavata_messages_total", verdict="not_mine") == 1


def test_a_message_from_the_future_is_set_aside_with_its_reason_even_if_its_type_is_for_others(delivery: Delivery, made: list[ConsumerLoop]) -> None:
    loop = a_loop(delivery, made, Applied())
    publish(delivery, [delivery.message("later", 0, body=RunTask("att_1"))], version=codec.SCHEMA_VERSION + 1)
    turn_until(loop, lambda: metrics.value("airavata_messages_total", verdict="dead_letter") == 1)
    assert delivery.one("SELECT error_text FROM dead_letters") == f"schema_version {codec.SCHEMA_VERSION + 1} is newer than {codec.SCHEMA_VERSION}: upgrade this component"


def test_C5_offsets_lie_behind_the_end_so_that_lag_tools_reach_zero(delivery: Delivery, made: list[ConsumerLoop]) -> None:
    from confluent_kafka import TopicPartition

    handler = Applied()
    loop = a_loop(delivery, made, handler)
    publish(delivery, delivery.names(20))
    turn_until(loop, lambda: len(handler.seen) == 20 and all(held.quiet_since for held in loop.consumer.held.values()))

    def lag() -> int:
        loop.consumer.commit_offsets()
        loop.turn()
        places = [TopicPartition(*place) for place in loop.consumer.held]
        committed = loop.consumer.client.committed(places, timeout=30)
        return sum(loop.consumer.client.get_watermark_offsets(TopicPartition(each.topic, each.partition), timeout=30)[1] - each.offset for each in committed)

    turn_until(loop, lambda: lag() == 0)
    assert loop.consumer.commit_offsets() == 0, "an idle group tells Kafka nothing"


def test_C5_tells_kafka_no_offset_beyond_what_is_applied_while_a_batch_waits_for_the_store(delivery: Delivery, made: list[ConsumerLoop]) -> None:
    handler = Applied()
    loop = a_loop(delivery, made, handler)
    publish(delivery, delivery.names(20))
    turn_until(loop, lambda: len(handler.seen) == 20)
    handler.raises = [StoreUnavailable("away") for _ in range(1000)]
    publish(delivery, [delivery.message(f"more{n}", n % 4) for n in range(8)])
    turn_until(loop, lambda: bool(loop.consumer.pending))
    loop.consumer.pause(False)  # The end of a partition may come with the poll that brought its last records, too.
    until(lambda: (loop.consumer.poll(10, 0.1), all(held.quiet_since for held in loop.consumer.held.values()))[1])
    loop.consumer.commit_offsets()
    ahead = {place: (held.committed, held.applied) for place, held in loop.consumer.held.items() if held.committed > held.applied and held.given > held.applied}
    assert not ahead, "a copy of the offset is ahead of what was applied"
    handler.raises.clear()
    turn_until(loop, lambda: len(handler.seen) == 28)


def test_two_instances_share_and_a_closed_one_is_taken_over(delivery: Delivery, made: list[ConsumerLoop]) -> None:
    first, second = Applied(), Applied()
    one = a_loop(delivery, made, first, owner="one")
    two = ConsumerLoop(
        component="scheduler", group=delivery.group, topics=[delivery.topics.scheduler], brokers=delivery.brokers, session_timeout_ms=1000, wants=WANTS, unit_of_work=delivery.unit,
        handler=second, owner="two", topic_uuids=lambda: delivery.uuids,
    )  # fmt: skip
    made.append(two)
    until(lambda: (one.turn(), two.turn(), len(one.consumer.held) == len(two.consumer.held) == 2)[2], what="two partitions each")
    publish(delivery, delivery.names(40))
    until(lambda: (one.turn(), two.turn(), len(first.seen) + len(second.seen) == 40)[2])
    made.remove(one)
    one.close()
    publish(delivery, [delivery.message(f"more{n}", n % 4) for n in range(8)])
    turn_until(two, lambda: len(first.seen) + len(second.seen) == 48)
    assert len(set(first.seen) | set(second.seen)) == 48
