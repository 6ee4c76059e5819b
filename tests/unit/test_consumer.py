"""What a consumer holds in memory, and how it leaves it: without a broker, the library's client replaced by one that remembers what it was told."""

import json
import time
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from app.errors import StoreUnavailable
from app.kafka import figures
from app.kafka.consumer import Claim, Consumer, Held, Partition, Received
from components.event_sink.handler import Sink

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

    made = Consumer(component="c", brokers={"bootstrap.servers": "127.0.0.1:9"}, group="g", topics=["t"], session_timeout_ms=1000, wants=frozenset(), claim=claim)
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


def told(high: int, stable: int, place: Partition = ONE) -> str:
    """As the library tells it every few seconds."""
    return json.dumps({"topics": {place[0]: {"partitions": {str(place[1]): {"hi_offset": high, "ls_offset": stable}}}}})


def shown(consumer: Consumer) -> dict[str, float]:
    return {name: value for name, value, labels in figures.readings(consumer, 2) if "reason" not in labels}


@pytest.fixture
def alone(consumer: Consumer, monkeypatch: pytest.MonkeyPatch) -> Consumer:
    """One partition, nothing polled that waits; an hour after the start."""
    consumer.held, consumer.pending = {ONE: Held(1, 5, 5, moved=0.0)}, []
    monkeypatch.setattr("time.monotonic", lambda: 3600.0)
    return consumer


def test_a_partition_whose_end_was_seen_has_lag_again_when_rows_come_that_are_not_polled(alone: Consumer) -> None:
    """As while a batch waits for its store: fetching is paused, and no record tells that there are more."""
    alone.held[ONE].quiet_since, alone.held[ONE].end_seen = 1.0, 6  # Behind the last record, at 4, lies a mark.
    alone._on_statistics(told(6, 6))
    assert (shown(alone)["airavata_consumer_lag_rows"], shown(alone)["airavata_consumer_oldest_age_seconds"]) == (0, 0.0)
    alone._on_statistics(told(9, 9))
    assert shown(alone)["airavata_consumer_lag_rows"] == 3


def test_rows_on_a_partition_that_was_idle_are_not_as_old_as_its_idleness(alone: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    alone._on_statistics(told(5, 5))  # Idle for an hour.
    monkeypatch.setattr("time.monotonic", lambda: 3605.0)
    alone._on_statistics(told(7, 7))
    assert (shown(alone)["airavata_consumer_lag_rows"], shown(alone)["airavata_consumer_oldest_age_seconds"]) == (2, 5.0)


def test_what_the_library_does_not_know_yet_after_a_rebalance_is_no_figure(alone: Consumer) -> None:
    for high, stable in ((-1001, -1001), (9, -1001), (-1001, 9)):
        alone._on_statistics(told(high, stable))
        assert (shown(alone)["airavata_consumer_lag_rows"], shown(alone)["airavata_consumer_blocked_offsets"]) == (0, 0)
    alone._on_statistics(told(9, 7))
    assert (shown(alone)["airavata_consumer_lag_rows"], shown(alone)["airavata_consumer_blocked_offsets"]) == (2, 2)


def test_what_is_read_again_counts_again(alone: Consumer) -> None:
    alone.held[ONE].read, alone.held[ONE].quiet_since, alone.held[ONE].end_seen = 9, 1.0, 9
    alone._on_statistics(told(9, 9))
    alone.seek(ONE, 2)
    assert shown(alone)["airavata_consumer_lag_rows"] == 7


def test_the_sink_tells_the_api_the_lag_that_it_shows(alone: Consumer) -> None:
    sink = object.__new__(Sink)
    sink.consumer, sink.topic = alone, "t"
    alone._on_statistics(told(5, 5))
    alone._on_statistics(told(8, 8))
    assert sink._lag() == {"topic": "t", "rows": 3, "oldest_age_seconds": 0.0}
    alone.held[ONE].quiet_since, alone.pending = 1.0, [Received(*ONE, 5, "k", None, b"", 0)]
    assert sink._lag()["rows"] == 4
    assert sink._lag()["oldest_age_seconds"] > 1_000_000_000, "its record says since when it waits"
