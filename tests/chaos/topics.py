"""Topics as a stranger reads them: a consumer that joins no group, commits nothing, and begins and ends where it is told."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from confluent_kafka import Consumer, Message, TopicPartition


def reader(kafka: str, group: str, *, isolation: str = "read_committed", **more: Any) -> Consumer:
    """To be closed by the caller. `more`: further settings of the library, by their names."""
    return Consumer(
        {
            "bootstrap.servers": kafka, "group.id": group, "isolation.level": isolation, "enable.auto.commit": False, "auto.offset.reset": "error", "enable.partition.eof": True, "log_level": 0,
            **more,
        }
    )  # fmt: skip


def records(kafka: str, group: str, places: Sequence[TopicPartition], seconds: float) -> Iterator[Message]:
    """From these offsets to where each partition ends. Raises AssertionError if not all ends were seen in time."""
    consumer = reader(kafka, group)
    try:
        consumer.assign(list(places))
        waiting, deadline = len(places), time.monotonic() + seconds
        while waiting:
            assert time.monotonic() < deadline, f"{waiting} of {len(places)} partitions were not read to their end within {seconds:.0f} s"
            for each in consumer.consume(1000, 0.2):
                if each.error() is None:
                    yield each
                else:
                    waiting -= 1
    finally:
        consumer.close()
