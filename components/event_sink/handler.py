"""The sink's loop: what one poll brought goes to the API server as slices, one per partition; the answer moves on, seeks back, or takes the partition anew.

No database, no producer. It starts from MySQL's position alone (as the API tells it); Kafka's offsets are for lag tools.
"""

import base64
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from app import failpoint
from app.errors import Transient, Unreadable
from app.kafka import figures
from app.kafka.consumer import Claim, Consumer, Partition, Received
from app.messages import codec
from app.workflow import history
from components.event_sink.api_client import ApiClient, Recreated
from components.event_sink.spans import Post
from observability import logs, metrics, tracing

BATCH = 500
BYTES_MAX = 3 << 20  # Of the 4 MiB a request may have: a record is estimated, not encoded twice.
HEADERS_MAX = 65_536  # As a request takes them of a record that cannot be read.


class Sink:
    def __init__(self, *, api: ApiClient, group: str, topic: str, brokers: Mapping[str, str], session_timeout_ms: int, topic_uuids: Callable[[], Mapping[str, str]]) -> None:
        self.api, self.group, self.topic, self.topic_uuids = api, group, topic, topic_uuids
        self.retry_at = self.beaten = self.polled_at = 0.0
        self.delay = 0.1
        self.log = logs.logger("sink")
        self.consumer = Consumer(component="sink", brokers=brokers, group=group, topics=[topic], session_timeout_ms=session_timeout_ms, wants=history.RECORDED, claim=self._claim)

    def turn(self) -> None:
        """One poll and one POST. Transient faults are waited out while polling goes on."""
        consumer = self.consumer
        consumer.pause(bool(consumer.pending))
        waiting, empty = time.monotonic() < self.retry_at, not consumer.pending
        consumer.poll(BATCH, 0.2 if waiting or empty else 0.0)
        self.polled_at = time.monotonic() if empty else self.polled_at
        consumer.reclaim()
        if (consumer.pending or time.monotonic() - self.beaten > 1.0) and time.monotonic() >= self.retry_at:
            self._post()
        consumer.tick()

    def _post(self) -> None:
        by_partition: dict[Partition, list[Received]] = defaultdict(list)
        batch, left = self._fitting()
        for each in batch:
            if each.place in self.consumer.held:
                by_partition[each.place].append(each)
        if by_partition:
            metrics.observe("airavata_batch_messages", sum(map(len, by_partition.values())))
        slices = [self._slice(place, records) for place, records in by_partition.items()]
        told = {each.key.partition("-")[0] for each in self.consumer.pending} if failpoint.on() else ()
        began = time.monotonic()
        post = Post([each for each in batch if each.place in by_partition], group=self.group)
        try:
            failpoint.hit("sink.post.before", process=told)
            answers = self.api.store(self.group, slices, [self._lag()], traceparent=post.context)
            failpoint.hit("sink.post.after", process=told)
        except Transient as fault:
            metrics.observe("airavata_sink_post_seconds", time.monotonic() - began, outcome="failed")
            self.log.warning("events wait for the API server", fault=fault, count=len(self.consumer.pending))
            self.retry_at, self.delay = time.monotonic() + self.delay, min(self.delay * 2, 2.0)
            post.failed(fault)
            return
        self.consumer.pending, self.delay, self.beaten = left, 0.1, time.monotonic()
        told_off = {answer["result"] for answer in answers} - {"applied"}
        metrics.observe("airavata_sink_post_seconds", time.monotonic() - began, outcome=min(told_off, default="applied"))
        post.answered(dict(zip(by_partition, answers, strict=True)), polled=tracing.at(self.polled_at))
        for place, sent, answer in zip(by_partition, slices, answers, strict=True):
            self._answered(place, sent, answer)

    def _fitting(self) -> tuple[list[Received], list[Received]]:
        """What one request takes, and what the next ones do: a request beyond its limit would be refused for ever."""
        size, pending = 0, self.consumer.pending
        for index, each in enumerate(pending):
            size += 1536 + 2 * (len(each.value or b"") + sum(len(value or b"") for _, value in each.headers or ()))  # Its ids and names; a reason stands in it twice.
            if index and (size > BYTES_MAX or index == BATCH):
                return pending[:index], pending[index:]
        return pending, []

    def _answered(self, place: Partition, told: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        held = self.consumer.held[place]
        match answer["result"]:
            case "applied":
                held.applied, held.moved = answer["next_offset"], time.monotonic()
                self._measured(len(told["events"]) - len(answer["set_aside"]), "applied")
                self._measured(len(answer["set_aside"]), "dead_letter")
            case "behind":
                self.consumer.seek(place, answer["next_offset"])  # They come again, from where MySQL says.
            case _:
                metrics.count("airavata_fenced_total", what="partition")
                self.consumer.fenced.add(place)

    def _slice(self, place: Partition, records: list[Received]) -> dict[str, Any]:
        held = self.consumer.held[place]
        return {
            "topic": place[0], "partition": place[1], "owner_epoch": held.epoch, "position": held.applied, "next_offset": records[-1].offset + 1,
            "events": [self._event(each) for each in records],
        }  # fmt: skip

    @staticmethod
    def _event(record: Received) -> dict[str, Any]:
        """The event as history keeps it; what cannot be read travels as it is."""
        try:
            envelope = record.decode()
        except Unreadable as fault:
            return {
                "offset": record.offset, "raw": base64.b64encode(record.value or b"").decode(), "headers": base64.b64encode(codec.pack_headers(record.headers or [])).decode()[:HEADERS_MAX],
                "error": str(fault)[:2000], "key": record.key[:256],
            }  # fmt: skip
        return {"offset": record.offset, "event": history.document(envelope)}

    def _lag(self) -> dict[str, Any]:
        rows, age = figures.lag(self.consumer, self.topic)
        return {"topic": self.topic, "rows": rows, "oldest_age_seconds": age}

    def _claim(self, places: list[Partition]) -> dict[Partition, Claim]:
        failpoint.hit("sink.claim.before")
        try:
            uuids = self.topic_uuids()
            told = self.api.claim(self.group, places, dict(uuids))
        except Recreated as fault:
            return {place: Claim(0, 0, fault=str(fault), recreated=True) for place in places}
        failpoint.hit("sink.claim.after")
        return {place: Claim(*told[place], uuids.get(place[0], "")) for place in places}

    def _measured(self, many: int, verdict: str) -> None:
        metrics.count("airavata_messages_total", many, topic=self.topic, verdict=verdict)
        metrics.observe("messaging_process_duration_seconds", time.monotonic() - self.polled_at, times=many, topic=self.topic, outcome=verdict)
