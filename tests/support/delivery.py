"""Delivery on real servers, without the microservices: a schema with topics and positions of its own, messages put into its outbox, a reader that sees what Kafka shows."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from app.errors import StoreUnavailable
from app.kafka import topics as kafka_topics
from app.messages import ids
from app.messages.commands import RetryDue
from app.messages.envelope import Envelope, Subject
from app.messages.placement import Placement
from app.messages.topics import Topics
from app.mysql import engine, outbox, shards
from app.mysql.unit_of_work import UnitOfWork, now, unit_of_work

ROOT = Path(__file__).parents[2]
PARTITIONS, SHARDS = 4, 2
SUBJECT = Subject("gw_1", "exp_1", "prc_1", "tsk_1", "NOOP", 1, 1)


@dataclass
class Delivery:
    """`prefix` is topic prefix and environment at once."""

    url: str
    kafka: str
    prefix: str
    replication: int = 1
    unit: UnitOfWork = field(init=False)

    def __post_init__(self) -> None:
        self.engine = engine.connect(self.url, size=4, idle_seconds=60)
        self.unit = unit_of_work(self.engine)
        self.brokers = {"bootstrap.servers": self.kafka}
        self.topics, self.placement = Topics(self.prefix), Placement(PARTITIONS, PARTITIONS, SHARDS)
        self.environment = self.prefix.rstrip(".")
        self.group = kafka_topics.full_group(self.environment, kafka_topics.SCHEDULER_GROUP)
        self.prepare()

    def prepare(self) -> None:
        wanted = kafka_topics.desired(self.topics, environment=self.environment, partitions=PARTITIONS, shards=SHARDS, task_types=["NOOP"])
        client = kafka_topics.Admin(self.brokers)
        assert kafka_topics.apply(client, wanted, self.unit, replication=self.replication).none
        self.uuids = {name: uuid for name, (uuid, _) in kafka_topics.described(client, [each.name for each in wanted]).items()}
        with self.unit("test.shards") as tx:
            shards.ensure(tx, SHARDS)

    def close(self) -> None:
        self.engine.dispose()

    # ---- messages -----------------------------------------------------------------------------------------------------------------------------------
    def message(self, name: str, partition: int = 0, *, topic: str = "", body: Any = None) -> Envelope:
        return Envelope(mid=ids.digest(name), topic=topic or self.topics.scheduler, partition=partition, subject=SUBJECT, body=body or RetryDue(), step="test")

    def put(self, *messages: Envelope) -> None:
        with self.unit("test.put") as tx:
            outbox.append(tx, messages, placement=self.placement, now=now(tx))

    def names(self, count: int, *, partitions: int = PARTITIONS) -> list[Envelope]:
        return [self.message(f"m{n}", n % partitions) for n in range(count)]

    def waiting(self) -> int:
        return int(self.one("SELECT COUNT(*) FROM outbox"))

    def one(self, statement: str, *values: Any) -> Any:
        with self.unit("test.look") as tx:
            return tx.exec_driver_sql(statement, values).scalar()

    def visible(self, topic: str = "", *, committed: bool = True) -> list[bytes]:
        """The mids a reader sees, read_committed or not, partition by partition to their ends."""
        name, found = topic or self.topics.scheduler, []
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka, "group.id": "test-reader", "isolation.level": "read_committed" if committed else "read_uncommitted", "enable.partition.eof": True,
                "enable.auto.commit": False, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 20,
            }
        )  # fmt: skip
        try:
            consumer.assign([TopicPartition(name, part, 0) for part in range(PARTITIONS)])
            ended: set[int] = set()
            deadline = time.monotonic() + 60
            while len(ended) < PARTITIONS:
                assert time.monotonic() < deadline, "the ends were not reached"
                message = consumer.poll(0.2)
                if message is None:
                    continue
                error = message.error()
                if error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    ended.add(message.partition())
                elif (mid := dict(message.headers()).get("mid")) is not None:  # What only ends a transaction has none.
                    found.append(mid)
        finally:
            consumer.close()
        return found

    def shows(self, messages: Sequence[Envelope], topic: str = "") -> None:
        """Exactly these, once each: waits for the commit markers, which follow the commit by milliseconds."""
        wanted = sorted(each.mid for each in messages)
        deadline = time.monotonic() + 60
        while (found := sorted(self.visible(topic))) != wanted:
            assert len(found) <= len(wanted), f"{len(found) - len(set(found))} messages are visible twice, {len(set(found) - set(wanted))} are strangers"
            assert time.monotonic() < deadline, f"{len(set(wanted) - set(found))} of {len(wanted)} messages are not visible"

    # ---- a relay process -----------------------------------------------------------------------------------------------------------------------------
    def relay(self, directory: Path, name: str = "relay", *, failpoints: str = "", kafka: str = "", ports: Callable[[], int]) -> "subprocess.Popen[bytes]":
        environ = {
            **os.environ, "AIRAVATA_MYSQL_URL": self.url.replace("mysql+pymysql", "mysql"), "AIRAVATA_KAFKA": kafka or self.kafka, "AIRAVATA_TOPIC_PREFIX": self.prefix,
            "AIRAVATA_ENVIRONMENT": self.environment, "AIRAVATA_PARTITIONS": str(PARTITIONS), "AIRAVATA_PLACEMENT_WIDTH": str(PARTITIONS), "AIRAVATA_RELAY_SHARDS": str(SHARDS),
            "AIRAVATA_ADMIN_LISTEN": f"127.0.0.1:{ports()}", "AIRAVATA_NUDGE_LISTEN": f"127.0.0.1:{ports()}", "AIRAVATA_FAILPOINTS": failpoints,
            "AIRAVATA_STRUCK_DIRECTORY": str(directory / "struck") if failpoints else "",
        }  # fmt: skip
        with (directory / f"{name}.log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "outbox_relay"], cwd=ROOT, env=environ, stdout=log, stderr=log)


def until(condition: Callable[[], Any], seconds: float = 60.0, what: str = "") -> Any:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := condition():
                return found
        except StoreUnavailable:
            pass
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(0.03)
