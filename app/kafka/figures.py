"""A consumer's work in numbers: what became of a batch when it is committed; ownership, lag and age when somebody scrapes."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from app import clock
from app.kafka.aside import Culprit, mark
from app.kafka.consumer import Consumer, Received
from observability import metrics

HALTED = ("recreated", "truncated", "retention", "unclaimed")
REASONS: Mapping[str, str] = {"Illegal": "illegal", "Unreadable": "unreadable"}  # Why something was set aside; anything else is what a handler raised.


@metrics.measuring
def committed(fresh: Sequence[Received], refused: Sequence[Culprit], verdicts: Mapping[bytes, str], *, seconds: float, samples: Mapping[str, str]) -> None:
    """A batch has surely committed, `seconds` after its poll. `verdicts`: of what was not simply applied; `samples`: a traceparent of each topic."""
    told = Counter((each.topic, verdicts.get(mark(each), "applied") if verdicts else "applied") for each in fresh)
    for (topic, verdict), many in told.items():
        metrics.count("airavata_messages_total", many, topic=topic, verdict=verdict)
        outcome = verdict if verdict in {"requeued", "dead_letter"} else "applied"
        metrics.observe("messaging_process_duration_seconds", seconds, times=many, traceparent=samples.get(topic, ""), topic=topic, outcome=outcome)
    for each in refused:
        if verdicts.get(mark(each.received)) == "requeued":
            metrics.count("airavata_requeues_total", topic=each.received.topic, reason=REASONS.get(each.error, "raised"))
    metrics.observe("airavata_batch_messages", len(fresh))


def lag(consumer: Consumer, topic: str) -> tuple[int, float]:
    """How many messages are not applied, and the age of the oldest: what was polled and is not applied, and what lies before the last stable offset. It copies, and asks nobody: any thread may ask."""
    ends, now = consumer.ends, time.monotonic()
    waiting = [each.timestamp_ms for each in list(consumer.pending) if each.topic == topic]
    unread = [(rows, now - each.moved) for place, each in dict(consumer.held).items() if place[0] == topic and (rows := each.unread(ends.get(place, (0, 0))[1]))]
    age = clock.utc_now().timestamp() - min(waiting) / 1000 if waiting else max((age for _, age in unread), default=0.0)
    return len(waiting) + sum(rows for rows, _ in unread), max(0.0, age)


def readings(consumer: Consumer, partitions: int) -> Iterator[metrics.Reading]:
    """By topic. Runs in the thread that is scraped."""
    held, ends, group = dict(consumer.held), consumer.ends, consumer.group.rpartition(".")[2]
    for topic in consumer.topics:
        mine = {place: each for place, each in held.items() if place[0] == topic}
        rows, age = lag(consumer, topic)
        yield "airavata_partitions_held", len(mine), {"topic": topic}
        yield "airavata_partitions_total", partitions, {"topic": topic}
        for reason in HALTED:
            yield "airavata_partition_halted", sum(each.halted is not None and each.reason == reason for each in mine.values()), {"topic": topic, "reason": reason}
        yield "airavata_consumer_lag_rows", rows, {"group": group, "topic": topic}
        yield "airavata_consumer_oldest_age_seconds", age, {"group": group, "topic": topic}
        yield "airavata_consumer_blocked_offsets", sum(max(0, high - stable) for place, (high, stable) in ends.items() if place in mine), {"group": group, "topic": topic}
