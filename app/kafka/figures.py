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


def readings(consumer: Consumer, partitions: int) -> Iterator[metrics.Reading]:
    """By topic. Runs in the thread that is scraped: it copies, and asks nobody. Lag is what was polled and is not applied, and what lies before the last stable offset."""
    held, ends, group = dict(consumer.held), consumer.ends, consumer.group.rpartition(".")[2]
    for topic in consumer.topics:
        mine = {place: each for place, each in held.items() if place[0] == topic}
        unread = {place: max(0, ends.get(place, (0, 0))[1] - each.read) for place, each in mine.items() if each.quiet_since is None}
        waiting = [each.timestamp_ms for each in list(consumer.pending) if each.topic == topic]
        idle = [time.monotonic() - mine[place].moved for place, rows in unread.items() if rows]
        age = clock.utc_now().timestamp() - min(waiting) / 1000 if waiting else max(idle, default=0.0)
        yield "airavata_partitions_held", len(mine), {"topic": topic}
        yield "airavata_partitions_total", partitions, {"topic": topic}
        for reason in HALTED:
            yield "airavata_partition_halted", sum(each.halted is not None and each.reason == reason for each in mine.values()), {"topic": topic, "reason": reason}
        yield "airavata_consumer_lag_rows", len(waiting) + sum(unread.values()), {"group": group, "topic": topic}
        yield "airavata_consumer_oldest_age_seconds", max(0.0, age), {"group": group, "topic": topic}
        yield "airavata_consumer_blocked_offsets", sum(max(0, high - stable) for place, (high, stable) in ends.items() if place in mine), {"group": group, "topic": topic}
