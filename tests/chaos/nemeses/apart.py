"""Questions to Kafka's coordinator, asked in a process of their own: the library's admin client ends its process, by an assertion, when the coordinator dies under one.

`python -m tests.chaos.nemeses.apart QUESTION`: a JSON list of arguments on stdin, the answer as JSON on stdout.
"""

import json
import subprocess
import sys
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from app.dev.servers import ROOT

SECONDS = 60.0


def apart(question: str, *arguments: Any) -> Any:
    """Raises OSError when nobody answered."""
    try:
        told = subprocess.run([sys.executable, "-m", __name__, question], cwd=ROOT, input=json.dumps(arguments), capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as fault:
        raise OSError(f"{question} was not answered within {SECONDS:.0f} s") from fault
    if told.returncode:
        raise OSError(f"{question} was not answered: exit {told.returncode}: {told.stderr[-300:]}")
    return json.loads(told.stdout)


def _client(kafka: str) -> AdminClient:
    """To be kept until its answer is there: with the client goes the thread that would bring it."""
    return AdminClient({"bootstrap.servers": kafka, "log_level": 0, "socket.timeout.ms": 10_000})


def move_offsets(kafka: str, group: str, wanted: list[tuple[str, int, int]]) -> bool:
    """Whether Kafka took all of them."""
    asking, asked = _client(kafka), ConsumerGroupTopicPartitions(group, [TopicPartition(*each) for each in wanted])
    (future,) = asking.alter_consumer_group_offsets([asked], request_timeout=10.0).values()
    return all(each.error is None for each in future.result(20.0).topic_partitions)


def offsets(kafka: str, group: str) -> list[tuple[str, int, int]]:
    asking = _client(kafka)
    (future,) = asking.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=10.0).values()
    return [(each.topic, each.partition, each.offset) for each in future.result(20.0).topic_partitions]


def delete_group(kafka: str, group: str) -> bool:
    """Whether it is gone."""
    known = _client(kafka)
    known.delete_consumer_groups([group])[group].result(15.0)
    return group not in {each.group_id for each in known.list_consumer_groups().result(15.0).valid}


QUESTIONS = {each.__name__: each for each in (move_offsets, offsets, delete_group)}


def main() -> int:
    try:
        print(json.dumps(QUESTIONS[sys.argv[1]](*json.load(sys.stdin))))
    except KafkaException as fault:
        print("false" if sys.argv[1] != "offsets" else "[]")
        print(fault, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
