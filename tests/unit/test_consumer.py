"""What a consumer holds in memory, and how it leaves it: without a broker, the library's client replaced by one that remembers what it was told."""

import time
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from app.errors import StoreUnavailable
from app.kafka.consumer import Claim, Consumer, Held, Partition, Received

ONE, OTHER = ("t", 1), ("t", 2)


class Client:
    """Pauses, resumes and seeks, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def pause(self, places: list[TopicPartition]) -> None:
        self.told += [("pause", each.partition) for each in places]

    def resume(self, places: list[TopicPartition]) -> None:
        self.told += [("resume", each.partition) for each in places]

    def seek(self, at: TopicPartition) -> None:
        self.told.append((f"seek {at.offset}", at.partition))


@pytest.fixture
def claims() -> dict[Partition, Claim]:
    """What C0 will answer; empty: nothing, now."""
    return {}


@pytest.fixture
def consumer(claims: dict[Partition, Claim], monkeypatch: pytest.MonkeyPatch) -> Consumer:
    def claim(_places: list[Partition]) -> dict[Partition, Claim]:
        if not claims:
            raise StoreUnavailable("away")
        return claims

    made = Consumer(component="c", bootstrap="127.0.0.1:9", group="g", topics=["t"], session_timeout_ms=1000, wants=frozenset(), claim=claim)
    made.client.close()
    client: Any = Client()
    made.client = client
    made.held = {ONE: Held(1, 5, 9), OTHER: Held(1, 5, 9)}
    made.pending = [Received(*place, offset, "k", None, b"", 0) for place in (ONE, OTHER) for offset in (5, 6)]
    monkeypatch.setattr("app.instance.jitter", lambda _low, _high: 0.0)
    return made


def places(consumer: Consumer) -> set[Partition]:
    return {each.place for each in consumer.pending}


def test_what_was_read_of_a_partition_leaves_memory_when_it_is_read_again(consumer: Consumer) -> None:
    consumer.seek(ONE, 2)
    assert places(consumer) == {OTHER}
    assert (consumer.held[ONE].applied, consumer.held[OTHER].applied) == (2, 5)


def test_a_fenced_partition_that_is_still_ours_is_claimed_anew_and_read_from_where_the_claim_says(consumer: Consumer, claims: dict[Partition, Claim]) -> None:
    claims[ONE] = Claim(7, 3)
    consumer.fenced = {ONE, ("t", 3)}  # The other one was lost meanwhile.
    consumer.reclaim()
    assert (consumer.held[ONE].epoch, consumer.held[ONE].applied, consumer.fenced, places(consumer)) == (7, 3, set(), {OTHER})


def test_a_fenced_partition_that_cannot_be_claimed_yet_stays_fenced_and_nothing_of_it_in_memory(consumer: Consumer) -> None:
    consumer.fenced = {ONE}
    consumer.reclaim()
    assert (consumer.fenced, places(consumer), consumer.held[ONE].epoch) == ({ONE}, {OTHER}, 1)


def test_a_halted_partition_that_is_claimed_anew_is_read_again(consumer: Consumer, claims: dict[Partition, Claim]) -> None:
    """Halting paused it in the library, which would keep the pause for ever while nothing said so."""
    claims[ONE] = Claim(7, 3)
    consumer.held[ONE].halted, consumer.fenced = "not in the log", {ONE}
    consumer.reclaim()
    assert consumer.missing == "joining group g"
    consumer.joined = True
    client: Any = consumer.client
    assert (consumer.missing, client.told) == (None, [("resume", 1), ("seek 3", 1)])


def test_a_partition_lost_to_another_takes_what_was_read_of_it_along(consumer: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "commit_offsets", lambda **_: 0)
    client: Any = consumer.client
    client.incremental_unassign = lambda _places: None
    consumer.fenced = {ONE}
    consumer._revoked(client, [TopicPartition(*ONE)])
    assert (places(consumer), consumer.fenced, set(consumer.held)) == ({OTHER}, set(), {OTHER})


def test_a_number_is_quiet_when_the_end_was_seen_in_every_topic_and_nothing_waits(consumer: Consumer) -> None:
    long_ago = time.monotonic() - 60
    consumer.held = {(topic, part): Held(1, 5, 5, quiet_since=long_ago) for topic in ("t", "u") for part in (1, 2, 3)}
    consumer.held["t", 2].quiet_since, consumer.held["u", 3].quiet_since = None, time.monotonic()
    assert consumer.quiet(30) == []
    consumer.pending.clear()
    assert consumer.quiet(30) == [1]
