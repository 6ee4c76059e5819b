"""Spans on their way out: a bounded queue, one thread, OTLP over HTTP. Telling a span appends to the queue and never waits; what does not fit or cannot be sent is lost and counted.

The SDK's own batch processor drops the oldest span, counts neither that nor a failed export, and its shutdown takes as long as a dead collector pleases
(docs/decisions/0009-spans-told-when-over.md).
"""

import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from observability import logs, metrics

QUEUE_MAX, BATCH = 4096, 512
REQUEST_SECONDS, CLOSE_SECONDS = 3.0, 2.0
LINKS_MAX, VALUE_CHARACTERS_MAX = 128, 256
_KINDS = {kind.name: kind for kind in SpanKind}
_FIELDS = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value", bytes: "bytes_value"}
_REMOTE_OR_NOT = trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_SAMPLED, _WELL, _FAILED = TraceFlags(TraceFlags.SAMPLED), Status(StatusCode.UNSET), Status(StatusCode.ERROR)
logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # A line for each request that failed; we say it when it begins and when it ends.


class Exporter(OTLPSpanExporter):
    """The SDK's, with its headers, certificates and second tries, but for the encoding."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS if self._client.export(encoded(spans)).success else SpanExportResult.FAILURE


class Exporting:
    """One per process. `delay_seconds`: how long a span may wait for company."""

    def __init__(self, endpoint: str, *, delay_seconds: float) -> None:
        self.exporter = Exporter(endpoint, timeout=REQUEST_SECONDS)
        self.delay_seconds = delay_seconds
        self.queue: deque[ReadableSpan] = deque()
        self.wake, self.closing, self.arriving = threading.Event(), False, True
        self.log = logs.logger("spans")
        self.thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self.thread.start()

    def full(self) -> bool:
        """Asked before a span is made: where there is no room for it, it is counted and costs nothing more. A rival may put the last one in at the same moment."""
        if len(self.queue) < QUEUE_MAX:
            return False
        metrics.count("airavata_spans_total", outcome="queue_full")
        return True

    def put(self, span: ReadableSpan) -> None:
        self.queue.append(span)
        if len(self.queue) >= BATCH and not self.wake.is_set():
            self.wake.set()

    def export(self, spans: Sequence[ReadableSpan]) -> bool:
        """Now, in the caller's thread, within about 3 s; whether the collector took them."""
        try:
            sent = self.exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception:  # Whatever a client library does: counted, and no reason to stop.
            sent = False
        metrics.count("airavata_spans_total", len(spans), outcome="exported" if sent else "export_failed")
        if sent != self.arriving:
            self.arriving = sent
            (self.log.info if sent else self.log.warning)("spans arrive again" if sent else "spans do not arrive: they are dropped and counted")
        return sent

    def close(self) -> None:
        """What is queued has 2 s; then it is abandoned with its thread."""
        self.closing = True
        self.wake.set()
        self.thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while not self.closing or self.queue:
            self.wake.wait(self.delay_seconds)
            self.wake.clear()
            more = bool(self.queue)
            while more:
                self.export([self.queue.popleft() for _ in range(min(BATCH, len(self.queue)))])
                more = len(self.queue) >= BATCH or (self.closing and bool(self.queue))


def made(
    name: str, context: str, resource: Resource | None, *, start: int, end: int, parent: str = "", kind: str = "INTERNAL", attributes: Mapping[str, Any] | None = None,
    links: Sequence[str] = (), events: Sequence[tuple[str, int]] = (), error: str = "",
) -> ReadableSpan:  # fmt: skip
    """Text is cut, whatever no field is for is told as text; links beyond what the SDK keeps are counted."""
    told = {key: value if isinstance(value, (int, float, bytes)) else str(value)[:VALUE_CHARACTERS_MAX] for key, value in (attributes or {}).items() if value is not None and value != ""}
    if len(links) > LINKS_MAX:
        told["airavata.links.left_out"] = len(links) - LINKS_MAX
    if error:
        told["error.type"] = error
    return ReadableSpan(
        name, _new(context), _known(parent) if parent else None, resource, told, [Event(each, timestamp=at) for each, at in events], [Link(_known(each), {}) for each in links[:LINKS_MAX]],
        _KINDS[kind], status=_FAILED if error else _WELL, start_time=start, end_time=max(start, end),
    )  # fmt: skip


def _new(traceparent: str) -> SpanContext:
    return SpanContext(int(traceparent[3:35], 16), int(traceparent[36:52], 16), is_remote=False, trace_flags=_SAMPLED)


_known = lru_cache(maxsize=1024)(_new)  # Parents and links come again and again.


# ---- encoding -----------------------------------------------------------------------------------------------------------------------------------------
def encoded(spans: Sequence[ReadableSpan]) -> bytes:
    """An ExportTraceServiceRequest: what the SDK's encoder makes of them, in a sixth of its time. It makes each attribute and link anew; most were in the span before.

    Protocol Buffers concatenate (https://protobuf.dev/programming-guides/encoding/), so fields are encoded once and joined.
    """
    by_resource: dict[int, tuple[Resource, list[bytes]]] = {}  # A resource's hash is made of its JSON.
    for span in spans:
        by_resource.setdefault(id(span.resource), (span.resource, []))[1].append(_span(span))
    return b"".join(_field(1, _field(1, _attributes(1, of.attributes)) + _field(2, b"".join([_field(1, b""), *found]))) for of, found in by_resource.values())


def _span(span: Any) -> bytes:
    own = trace_pb2.Span(
        trace_id=span.context.trace_id.to_bytes(16), span_id=span.context.span_id.to_bytes(8), parent_span_id=span.parent.span_id.to_bytes(8) if span.parent else b"", name=span.name,
        kind=span.kind.value + 1, start_time_unix_nano=span.start_time, end_time_unix_nano=span.end_time, flags=_REMOTE_OR_NOT,
        events=[trace_pb2.Span.Event(name=each.name, time_unix_nano=each.timestamp) for each in span.events], status=trace_pb2.Status(code=span.status.status_code.value),
    )  # fmt: skip
    links = [_link(each.context.trace_id, each.context.span_id) for each in span.links]
    return _field(2, b"".join([own.SerializeToString(), _attributes(9, span.attributes), *links]))


def _attributes(number: int, told: Mapping[str, Any]) -> bytes:
    return b"".join([_attribute(number, key, value) for key, value in told.items()])


@lru_cache(maxsize=4096, typed=True)
def _attribute(number: int, key: str, value: Any) -> bytes:
    told: dict[str, Any] = {next(field for kind, field in _FIELDS.items() if isinstance(value, kind)): value}  # A bool is an int as well: it stands before.
    return _field(number, KeyValue(key=key, value=AnyValue(**told)).SerializeToString())


@lru_cache(maxsize=4096)
def _link(trace_id: int, span_id: int) -> bytes:
    return _field(13, trace_pb2.Span.Link(trace_id=trace_id.to_bytes(16), span_id=span_id.to_bytes(8), flags=_REMOTE_OR_NOT).SerializeToString())


def _field(number: int, data: bytes) -> bytes:
    """Of the wire type LEN: its tag, the length as a varint, the bytes."""
    length, size = len(data), b""
    while length > 127:
        size, length = size + bytes((length & 127 | 128,)), length >> 7
    return bytes((number << 3 | 2,)) + size + bytes((length,)) + data
