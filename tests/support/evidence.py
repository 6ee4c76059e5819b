"""What a run left behind, read from Kafka and MySQL: the records a read_committed reader sees, and the invariants every chaos test ends with."""

import time
from collections import Counter
from collections.abc import Iterator

from confluent_kafka import Consumer, TopicPartition

from app.messages import codec
from app.messages.envelope import Envelope
from tests.support.system import System


def records(system: System, topic: str) -> Iterator[Envelope]:
    """Every record of a topic from its beginning to the end offsets asked for now, read_committed. `topic` without the prefix."""
    name, partitions = system.settings["TOPIC_PREFIX"] + topic, int(system.settings["PARTITIONS"])
    consumer = Consumer(
        {
            "bootstrap.servers": system.kafka, "group.id": f"evidence-{name}", "isolation.level": "read_committed", "enable.auto.commit": False, "auto.offset.reset": "error",
            "enable.partition.eof": True, "log_level": 0,
        }
    )  # fmt: skip
    try:
        consumer.assign([TopicPartition(name, part, 0) for part in range(partitions)])
        open_parts, deadline = set(range(partitions)), time.monotonic() + 120.0
        while open_parts:
            assert time.monotonic() < deadline, f"{name}: no end seen of partitions {sorted(open_parts)}"
            for each in consumer.consume(1000, 0.25):
                if each.error() is None:
                    yield codec.decode(name, each.partition(), each.headers() or [], each.value())
                elif each.error().name() == "_PARTITION_EOF":
                    open_parts.discard(each.partition())
                else:
                    raise AssertionError(each.error())
    finally:
        consumer.close()


def none_twice(system: System, task_types: list[str]) -> dict[str, int]:
    """Nothing is visible twice, nothing dispatched twice, nothing waits, nothing was set aside. Returns what was counted."""
    mids = Counter((each.topic, each.mid) for topic in ("airavata-launch", "airavata-scheduler", "event-sink") for each in records(system, topic))
    commands: Counter[tuple[str, int, int]] = Counter()
    for task_type in task_types:
        for each in records(system, task_type.lower().replace("_", "-") + "-task"):
            mids[each.topic, each.mid] += 1
            commands[each.subject.task, each.subject.attempt, each.subject.epoch] += 1
    assert [key for key, count in mids.items() if count > 1] == [], "records seen twice by a read_committed reader"
    assert [key for key, count in commands.items() if count > 1] == [], "commands given twice"
    assert system.one("SELECT COUNT(*) FROM attempts") == len({(task, number) for task, number, _ in commands})
    assert system.rows("SELECT task_id, COUNT(*) FROM attempts WHERE state = 'SUCCEEDED' GROUP BY task_id HAVING COUNT(*) > 1") == []
    assert system.outbox_rows() == 0
    assert system.dead_letters() == []
    return {"records": len(mids), "commands": len(commands), "rescues": int(system.rescues())}


def history_is_whole(system: System, seconds: float = 120.0) -> None:
    """Every event that Kafka carries is in the one history, once, and no seq is left out."""
    wanted = Counter(each.subject.experiment for each in records(system, "event-sink"))
    system.until(lambda: system.one("SELECT COUNT(*) FROM events") >= sum(wanted.values()), seconds, lambda: (system.one("SELECT COUNT(*) FROM events"), sum(wanted.values())))
    found = {row[0]: row[1:] for row in system.rows("SELECT experiment_id, COUNT(*), MIN(seq), MAX(seq) FROM events GROUP BY experiment_id")}
    assert found == {experiment: (count, 1, count) for experiment, count in wanted.items()}
