"""Spans of the sink: one for each sampled event, which ends when the API has answered, and one for the request that carried them, a trace of its own that goes on in the API."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.kafka.consumer import Partition
from app.kafka.spans import Together
from components.event_sink.api_client import EVENTS_PATH
from observability import metrics, tracing

VERDICTS = {"applied": "applied", "behind": "duplicate"}


class Post(Together):
    """One request. Nothing is sampled in the heartbeat."""

    @metrics.measuring
    def answered(self, answers: Mapping[Partition, Mapping[str, Any]], *, polled: int) -> None:
        end, told = tracing.now_ns(), []
        for received, headers in self.sampled:
            result = answers.get(received.place, {}).get("result")
            if result not in VERDICTS:
                continue  # Fenced: another owner hands it over, and tells.
            told.append(tracing.child(headers["traceparent"].decode()))
            self.tell(received, headers, told[-1], {"airavata.verdict": VERDICTS[result]}, start=polled, end=end)
        self._posted(end, told, "")

    @metrics.measuring
    def failed(self, fault: Exception) -> None:
        self._posted(tracing.now_ns(), [], type(fault).__name__)

    def _posted(self, end: int, links: Sequence[str], error: str) -> None:
        if self.sampled:
            told = {"http.request.method": "POST", "http.route": EVENTS_PATH, "messaging.batch.message_count": len(self.sampled)}
            tracing.tell(f"POST {EVENTS_PATH}", self.context, start=self.start, end=end, kind=tracing.CLIENT, attributes=told, links=links, error=error)
