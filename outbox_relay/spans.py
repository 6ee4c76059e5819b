"""Spans of sending: one for each sampled row, below what its message is about, and one for the Kafka transaction that carried it, a trace of its own that they are linked with.

A row that was certainly not sent has none: it will be sent again.
"""

from collections.abc import Sequence
from typing import Any

from app.messages import codec
from observability import metrics, tracing

SENT = frozenset({"committed", "unknown"})


@metrics.measuring
def tell(rows: Sequence[Any], *, shard: int, outcome: str, began: int) -> None:
    """A transaction has ended, as far as we know. `began`: ns, when the rows had been read."""
    if not tracing.on():
        return
    sampled = [(row, dict(codec.headers_of(row.headers)), parent) for row in rows if tracing.wanted(parent := codec.traceparent_of(row.headers))]
    if not sampled:
        return
    end, batch, error = tracing.now_ns(), tracing.fresh(), "" if outcome == "committed" else outcome
    sends = []
    for row, headers, parent in sampled if outcome in SENT else ():
        sends.append(tracing.child(parent))
        told = {
            "messaging.system": "kafka", "messaging.operation.type": "send", "messaging.destination.name": row.topic, "messaging.destination.partition.id": str(row.part),
            "messaging.message.id": row.mid.hex(), "messaging.kafka.message.key": row.k, "airavata.message.type": headers["type"].decode(), **tracing.about(headers["subject"].decode().split("/")),
        }  # fmt: skip
        tracing.tell(f"send {row.topic}", sends[-1], parent=parent, start=began, end=end, kind=tracing.CLIENT, attributes=told, links=[batch], error=error)
    told = {
        "messaging.system": "kafka", "messaging.operation.type": "send", "messaging.batch.message_count": len(rows), "airavata.relay.shard": shard,
        "airavata.relay.partitions": len({(row.topic, row.part) for row in rows}), "airavata.transaction.outcome": outcome,
    }  # fmt: skip
    tracing.tell("send batch", batch, start=began, end=end, kind=tracing.CLIENT, attributes=told, links=sends, error=error)
