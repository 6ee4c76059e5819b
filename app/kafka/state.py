"""The relay's memory in Kafka: a compacted topic, one partition per shard. The last committed record names exactly the rows published whose delete is not confirmed."""

import time

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from msgspec import Struct

from app.errors import StoreUnavailable

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


def last(bootstrap: str, topic: str, shard: int) -> StateRecord | None:
    """R2: the last committed record, looking at the last 16 offsets, doubled until one is found. None: there is none. Raises StoreUnavailable.

    Only after `init_transactions`: before it a predecessor's transaction may still be decided.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap, "group.id": "airavata-relay-state", "isolation.level": "read_committed", "enable.auto.commit": False,
            "enable.partition.eof": True, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 20,
        }
    )  # fmt: skip
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, shard), timeout=TIMEOUT_SECONDS)
        back = BACK_AT_FIRST
        while True:
            start = max(low, high - back)
            found = _last_from(consumer, topic, shard, start)
            if found is not None or start <= low:
                return found
            back *= 2
    except KafkaException as fault:
        raise StoreUnavailable(f"relay state: {fault}") from fault
    finally:
        consumer.close()


def _last_from(consumer: Consumer, topic: str, shard: int, start: int) -> StateRecord | None:
    consumer.assign([TopicPartition(topic, shard, start)])
    found, deadline = None, time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is None:
            continue
        error = message.error()
        if error is None:
            value = message.value()
            found = decode(value) if isinstance(value, bytes) else found
        elif error.code() == KafkaError._PARTITION_EOF:
            return found
        else:
            raise StoreUnavailable(f"relay state: {error.str()}")
    raise StoreUnavailable("relay state: the end of the partition was not reached in time")
