"""The relay's memory in Kafka: a compacted topic, one partition per shard. The last committed record names exactly the rows published whose delete is not confirmed.

And how partitions are read once, to their ends, which looking for what was never marked (unmarked.py) needs as well.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from msgspec import Struct

from app.errors import StoreUnavailable
from app.kafka.consumer import Partition

BACK_AT_FIRST = 16
TIMEOUT_SECONDS = 20.0


class StateRecord(Struct, frozen=True):
    """`seq` rises by one per Kafka transaction of the shard; `topology`: partitions and shards when it was written."""

    seq: int
    ids: list[int]
    mids: list[bytes]
    topology: str


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(StateRecord).decode


def last(brokers: Mapping[str, str], topic: str, shard: int) -> StateRecord | None:
    """R2: the last committed record, looking at the last 16 offsets, doubled until one is found. None: there is none. Raises StoreUnavailable.

    Only after `init_transactions`: before it a predecessor's transaction may still be decided.
    """
    with reader(brokers, isolation="read_committed", reset="earliest") as consumer:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, shard), timeout=TIMEOUT_SECONDS)
        back, by = BACK_AT_FIRST, time.monotonic() + TIMEOUT_SECONDS
        while True:
            start = max(low, high - back)
            values = [message.value() for message in to_the_end(consumer, {(topic, shard): start}, by=by)]
            if (found := [each for each in values if each is not None]) or start <= low:
                return decode(found[-1]) if found else None
            back *= 2


@contextmanager
def reader(brokers: Mapping[str, str], *, isolation: str, reset: str) -> Iterator[Consumer]:
    """For who reads partitions once and keeps nothing: it joins no group. Raises StoreUnavailable."""
    consumer = Consumer(
        {
            **brokers, "group.id": "airavata-relay-state", "isolation.level": isolation, "enable.auto.commit": False,
            "enable.partition.eof": True, "auto.offset.reset": reset, "fetch.wait.max.ms": 20,
        }
    )  # fmt: skip
    try:
        yield consumer
    except KafkaException as fault:
        raise StoreUnavailable(f"Kafka: {fault}") from fault
    finally:
        consumer.close()


def to_the_end(consumer: Consumer, starts: Mapping[Partition, int], *, by: float) -> Iterator[Message]:
    """What these partitions hold from these offsets on. Raises StoreUnavailable, also where their ends are not reached `by` then."""
    consumer.assign([TopicPartition(*place, start) for place, start in starts.items()])
    left = set(starts)
    while left:
        if time.monotonic() > by:
            raise StoreUnavailable(f"Kafka: the ends of {len(left)} partitions were not reached in time")
        message = consumer.poll(0.2)
        if message is None:
            continue
        error = message.error()
        if error is None:
            yield message
        elif error.code() == KafkaError._PARTITION_EOF:
            left.discard((str(message.topic()), int(message.partition() or 0)))
        else:
            raise StoreUnavailable(f"Kafka: {error.str()}")
