"""The one kind of producer there is: transactional, one per relay shard, used from one thread. Errors become ours by the flags fatal, retriable, abort, never by text.

librdkafka lacks the per-transaction epoch of KIP-890, so after any outcome that is not definitely known the object is dropped and a new one made (R1). The same after a commit
in which the client may have sent EndTxn twice: the first copy may still be on its way, and would end a later transaction (docs/decisions/0006-repeated-end-of-transaction.md).
And after every broker was gone: one that starts again may have ended a transaction without marking it (docs/decisions/0011-ended-and-never-marked.md), and nothing may be sent
behind its records before R1 has looked.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as Client

from app.errors import Fenced, OutcomeUnknown, StoreUnavailable
from observability import logs

INIT_SECONDS, COMMIT_SECONDS, ABORT_SECONDS = 20.0, 30.0, 1.0
TRANSACTION_TIMEOUT_MS = 10_000
RETRY_BACKOFF_MS = 300  # Before any request is repeated, less a fifth by chance: a shorter EndTxn was sent once.
SENT_ONCE_SECONDS, LOOK_SECONDS = 0.2, 0.1
MESSAGE_BYTES_MAX = 1_000_000
ALONE = KafkaError._ALL_BROKERS_DOWN


def configuration(brokers: Mapping[str, str], transactional_id: str) -> dict[str, object]:
    """Checked by the tests against docs/protocol.md."""
    return {
        **brokers,
        "transactional.id": transactional_id,
        "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": 0,
        "compression.type": "lz4",
        "retry.backoff.ms": RETRY_BACKOFF_MS,
        "queue.buffering.max.messages": 100_000,
        "topic.metadata.refresh.interval.ms": 30_000,
        "allow.auto.create.topics": False,
    }


def _translated(fault: KafkaException) -> Fenced | OutcomeUnknown | StoreUnavailable:
    error: KafkaError = fault.args[0]
    if error.code() in {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}:
        return Fenced(error.str())
    if error.fatal():
        return OutcomeUnknown(f"fatal: {error.str()}")
    if error.retriable() or error.txn_requires_abort():
        return StoreUnavailable(error.str())
    return OutcomeUnknown(error.str())


class TransactionalProducer:
    """R1, R5, R6. Every method raises Fenced, StoreUnavailable or OutcomeUnknown; after any of them, and when it is `worn`, the object must be dropped."""

    def __init__(self, brokers: Mapping[str, str], transactional_id: str) -> None:
        """Fences predecessors and settles their open transaction; repeats while that is retriable, at most 20 s."""
        self.heard = heard = set[int]()  # Not ourselves: the threads of a client that refers to itself live until the garbage collector comes by.
        self.client = Client(configuration(brokers, transactional_id), logger=logs.library("rdkafka"), error_cb=lambda error: heard.add(error.code()))
        self.known: dict[str, int] = {}
        self.known_at = float("-inf")
        self.slow = self.under_way = False
        deadline = time.monotonic() + INIT_SECONDS
        while True:
            try:
                self.client.init_transactions(max(1.0, deadline - time.monotonic()))
                self.client.poll(0)
                heard.clear()  # That was before this.
                return
            except KafkaException as fault:
                if not fault.args[0].retriable() or time.monotonic() > deadline:
                    raise _translated(fault) from fault
                time.sleep(0.05)

    @property
    def worn(self) -> bool:
        """Settled, and not to be used again."""
        self.client.poll(0)
        return self.slow or ALONE in self.heard

    def refusal(self, topic: str, partition: int, size: int) -> str | None:
        """Why Kafka will never take such a record; asked before the transaction begins, since an unknown topic waits 30 s inside it."""
        if size > MESSAGE_BYTES_MAX:
            return f"{size} bytes are more than a record may have ({MESSAGE_BYTES_MAX})"
        if (topic not in self.known or partition >= self.known[topic]) and time.monotonic() - self.known_at > 1.0:
            self._refresh()
        if topic not in self.known:
            return f"topic {topic} does not exist"
        return None if 0 <= partition < self.known[topic] else f"topic {topic} has no partition {partition}"

    def _refresh(self) -> None:
        try:
            told = self.client.list_topics(timeout=10.0)
        except KafkaException as fault:
            raise StoreUnavailable(f"Kafka: {fault}") from fault
        self.known = {name: len(each.partitions) for name, each in told.topics.items()}
        self.known_at = time.monotonic()

    def begin(self) -> None:
        try:
            self.client.begin_transaction()
            self.under_way = True
        except KafkaException as fault:
            raise _translated(fault) from fault

    def produce(self, topic: str, partition: int, *, key: bytes, headers: Sequence[tuple[str, bytes]], payload: bytes, timestamp_ms: int = 0) -> None:
        try:
            self.client.produce(topic, payload, key, partition, headers=list(headers), timestamp=timestamp_ms)
        except BufferError as fault:
            raise StoreUnavailable("the producer's queue is full") from fault
        except KafkaException as fault:
            raise _translated(fault) from fault

    def commit(self) -> None:
        """Flushes first, so that what is timed is EndTxn alone. What no broker has taken when all are gone is taken back, not left for one that starts again."""
        deadline = time.monotonic() + COMMIT_SECONDS
        try:
            while self.client.flush(LOOK_SECONDS) and ALONE not in self.heard and time.monotonic() < deadline:
                pass
            if ALONE in self.heard:
                self.client.purge()
                raise StoreUnavailable("all brokers went away while records were on their way")
            self.under_way, began = False, time.monotonic()
            self.client.commit_transaction(max(1.0, deadline - began))
            self.slow = time.monotonic() - began > SENT_ONCE_SECONDS
        except KafkaException as fault:
            raise _translated(fault) from fault

    def close(self) -> None:
        """Without flushing. What is under way is aborted, so that nothing is being registered when the client goes: that would end the process (docs/decisions/0015-dropped-while-registering.md)."""
        if self.under_way:
            with suppress(KafkaException):  # Where Kafka does not answer soon, the successor's R1 aborts it.
                self.client.abort_transaction(LOOK_SECONDS if ALONE in self.heard else ABORT_SECONDS)
        del self.client
