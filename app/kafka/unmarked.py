"""What the broker ended and never marked: records between a partition's last stable offset and its end, though nobody has a transaction open there.

Kafka 4.4 skips the markers of a partition that has no leader at that moment (`TransactionMarkerChannelManager`: "likely deleted already"), as when all its brokers were killed
and start again. Readers of committed records then wait there for ever (docs/decisions/0011-ended-and-never-marked.md). The next commit of the same producer id marks all of it.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, cast

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from app.errors import StoreUnavailable
from app.kafka import state, topics
from app.kafka.consumer import Partition

Ranges: TypeAlias = Mapping[Partition, tuple[int, int]]
TIMEOUT_SECONDS = 10.0  # Of each of three questions.


def ranges(brokers: Mapping[str, str], places: Iterable[Partition]) -> Ranges:
    """Partition → (last stable offset, end) of those where they differ; a topic that does not exist has none. Raises StoreUnavailable."""
    client = topics.Admin(brokers)  # A new one each time: it keeps a leader's epoch from before a restart, and is refused by it for ever.

    def ends(isolation: IsolationLevel) -> dict[Partition, int]:
        futures = client.list_offsets(asked, isolation_level=isolation, request_timeout=TIMEOUT_SECONDS)
        return {(each.topic, each.partition): future.result(TIMEOUT_SECONDS).offset for each, future in futures.items()}

    try:
        there = client.list_topics(timeout=TIMEOUT_SECONDS).topics  # Asked for by itself: a client that has just been made waits 3 s when it must find leaders before it is connected.
        asked = {TopicPartition(*place): OffsetSpec.latest() for place in places if place[0] in there}  # type: ignore[no-untyped-call]
        stable, whole = ends(IsolationLevel.READ_COMMITTED), ends(IsolationLevel.READ_UNCOMMITTED)
    except (KafkaException, TimeoutError) as fault:
        raise StoreUnavailable(f"ends of partitions: {fault}") from fault
    return {place: (stable[place], end) for place, end in whole.items() if stable[place] < end}


@dataclass(frozen=True)
class Hidden:
    """A record that no reader of committed records sees."""

    topic: str
    mid: bytes
    value: bytes


def records(brokers: Mapping[str, str], within: Ranges) -> list[Hidden]:
    """All records of these ranges, whatever became of their transaction. Raises StoreUnavailable."""
    found = []
    with state.reader(brokers, isolation="read_uncommitted", reset="error") as consumer:
        for message in state.to_the_end(consumer, {place: stable for place, (stable, _) in within.items()}, by=time.monotonic() + state.TIMEOUT_SECONDS):
            headers = cast("list[tuple[str, bytes]]", message.headers() or [])
            found.append(Hidden(str(message.topic()), dict(headers).get("mid", b""), message.value() or b""))
    return found
