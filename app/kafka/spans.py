"""Spans of consuming: one for each sampled message, below what it is about, and one for the batch that applied them, a trace of its own that they are linked with.

A `process` span lasts from the poll to the COMMIT of its batch. Its id is computed from the step and the message, so that what it causes can name it as its cause.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any

from app.kafka.consumer import Held, Partition, Received
from app.messages import trace
from app.mysql.unit_of_work import Transaction
from observability import metrics, tracing

_NEEDED = ("mid", "cause", "subject", "type")


class Together:
    """What is handed over at once, from before it is to after it was. `context`: its own span's; empty, and nothing is told, where no message of it is sampled."""

    def __init__(self, batch: Sequence[Received], *, group: str) -> None:
        self.group, self.start = group, tracing.now_ns()
        self.sampled = [(each, headers) for each in batch if (headers := sampled(each)) is not None] if tracing.on() else []
        self.context = tracing.fresh() if self.sampled else ""

    def tell(self, received: Received, headers: Mapping[str, bytes], context: str, more: Mapping[str, Any], *, start: int, end: int) -> None:
        """The `process` span of one of its messages."""
        parent, links = headers["traceparent"].decode(), [self.context, *_cause(headers)]
        told = {**_about(received, headers, self.group), **more}
        tracing.tell(f"process {received.topic}", context, parent=parent, start=start, end=end, kind=tracing.CONSUMER, attributes=told, links=links)


class Batch(Together):
    """One transaction of a consumer, from before its BEGIN to after its COMMIT."""

    def __init__(self, batch: Sequence[Received], *, group: str, polled: int) -> None:
        super().__init__(batch, group=group)
        self.polled = polled

    def under_way(self) -> AbstractContextManager[Any]:
        """Statements in here hang below the batch."""
        return tracing.within(self.context) if self.sampled else nullcontext()

    @metrics.measuring
    def decided(self, tx: Transaction, fresh: Sequence[Received], now: datetime) -> None:
        """What the transaction will have done, once it commits. `now`: MySQL's."""
        if self.sampled:
            self.fresh, self.step, self.verdicts, self.now = fresh, tx.info["step"], tx.info["verdicts"], now

    @metrics.measuring
    def applied(self, held: Mapping[Partition, Held], *, without: Collection[Partition], tries: int) -> None:
        """It has surely committed. Copies below the position were dropped with it; what another owner holds is his to tell."""
        if not self.sampled:
            return
        end, taken, applied = tracing.now_ns(), {id(each) for each in self.fresh}, []
        for received, headers in self.sampled:
            if received.place in without or received.place not in held:
                continue
            context = trace.processing(headers["traceparent"].decode(), self.step, headers["mid"].hex())
            applied.append(context)
            verdict = self.verdicts.get(headers["mid"], "applied") if id(received) in taken else "duplicate"
            more = {"airavata.verdict": verdict, "airavata.owner.epoch": held[received.place].epoch, "airavata.wait_ms": _waited_ms(headers, self.now)}
            self.tell(received, headers, context, more, start=self.polled, end=end)
        told = {
            "messaging.batch.message_count": len(self.fresh), "airavata.partitions": len({each.place for each in self.fresh}), "messaging.consumer.group.name": self.group,
            "airavata.tries": tries + 1,
        }  # fmt: skip
        tracing.tell("apply batch", self.context, start=self.start, end=end, attributes=told, links=applied)


def _about(received: Received, headers: Mapping[str, bytes], group: str) -> dict[str, Any]:
    """Attributes of any `process` span."""
    return {
        "messaging.system": "kafka", "messaging.operation.type": "process", "messaging.destination.name": received.topic, "messaging.destination.partition.id": str(received.partition),
        "messaging.consumer.group.name": group, "messaging.kafka.offset": received.offset, "messaging.kafka.message.key": received.key, "messaging.message.id": headers["mid"].hex(),
        "airavata.message.type": headers["type"].decode(), **tracing.about(headers["subject"].decode().split("/")),
    }  # fmt: skip


def _cause(headers: Mapping[str, bytes]) -> list[str]:
    """The `process` span that sent this. What an API call replays names a step that processed nothing."""
    step, _, mid = headers["cause"].decode().partition(":")
    return [trace.processing(headers["traceparent"].decode(), step, mid)] if mid and not step.startswith("api.") else []


def sampled(received: Received) -> dict[str, bytes] | None:
    """Its headers, if it is to be told."""
    came = next((value for name, value in received.headers or () if name == "traceparent"), None) or b""  # A header may be null.
    if not (tracing.wanted(context := came.decode(errors="replace")) and trace.parse(context)):
        return None
    found = dict(received.headers or ())
    return found if all(found.get(name) for name in _NEEDED) and found["subject"].count(b"/") == 6 else None


def _waited_ms(headers: Mapping[str, bytes], now: datetime) -> float | None:
    """From the writing transaction to this one, by the clock of both: MySQL's."""
    try:
        return round((now - datetime.fromisoformat(headers["at"].decode().rstrip("Z"))).total_seconds() * 1000, 1)
    except (KeyError, ValueError):
        return None
