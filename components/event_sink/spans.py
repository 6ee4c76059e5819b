"""Spans of the sink: one for each sampled event, which ends when the API has answered, and one for the request that carried them, a trace of its own that goes on in the API."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.kafka import spans
from app.kafka.consumer import Partition, Received
from components.event_sink.api_client import EVENTS_PATH
from observability import metrics, tracing

VERDICTS = {"applied": "applied", "behind": "duplicate"}


class Post:
    """One request. `context` is empty where nothing in it is sampled, and for the heartbeat."""

    def __init__(self, batch: Sequence[Received], *, group: str) -> None:
        self.group, self.began = group, tracing.now_ns()
        self.sampled = [(each, headers) for each in batch if (headers := spans.sampled(each)) is not None] if tracing.on() else []
        self.context = tracing.fresh() if self.sampled else ""

    @metrics.measuring
    def answered(self, answers: Mapping[Partition, Mapping[str, Any]], *, polled: int) -> None:
        end, told = tracing.now_ns(), []
        for received, headers in self.sampled:
            parent, result = headers["traceparent"].decode(), answers.get(received.place, {}).get("result")
            if result not in VERDICTS:
                continue  # Fenced: another owner hands it over, and tells.
            told.append(tracing.child(parent))
            attributes = spans.about(received, headers, self.group) | {"airavata.verdict": VERDICTS[result]}
            links = [self.context, *spans.cause(headers)]
            tracing.tell(f"process {received.topic}", told[-1], parent=parent, start=polled, end=end, kind=tracing.CONSUMER, attributes=attributes, links=links)
        self._tell(end, told, "")

    @metrics.measuring
    def failed(self, fault: Exception) -> None:
        self._tell(tracing.now_ns(), [], type(fault).__name__)

    def _tell(self, end: int, links: Sequence[str], error: str) -> None:
        if self.sampled:
            told = {"http.request.method": "POST", "http.route": EVENTS_PATH, "messaging.batch.message_count": len(self.sampled)}
            tracing.tell(f"POST {EVENTS_PATH}", self.context, start=self.began, end=end, kind=tracing.CLIENT, attributes=told, links=links, error=error)
