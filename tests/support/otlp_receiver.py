"""An OTLP/HTTP receiver: what a collector would get, decoded from the protobuf, kept in memory. Every assertion about a trace is made on what it got.

It has bad days too: it may answer late, never, with a fault, or not at all.
"""

import gzip
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

BAD_DAYS: Mapping[str, Mapping[str, Any]] = {  # For `manners`.
    "slow": {"delay_seconds": 2.5}, "black hole": {"delay_seconds": 3600.0}, "refusing": {"answer": 503}, "gone": {"gone": True},
}  # fmt: skip
KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")


@dataclass(frozen=True)
class Span:
    """Ids in hex; `parent` is empty for a root; times in nanoseconds; `links`: (trace id, span id)."""

    service: str
    instance: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    error: bool
    attributes: Mapping[str, Any]
    links: tuple[tuple[str, str], ...]
    events: tuple[str, ...]


@dataclass
class Receiver:
    """`spans`: in the order in which they came, if they are to be kept. `answer` is the status it gives after `delay_seconds`, `requests` what was posted."""

    server: ThreadingHTTPServer
    spans: list[Span] = field(default_factory=list)
    requests: int = 0
    answer: int = 200
    keeps: bool = True
    delay_seconds: float = 0.0
    gone: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1/traces"

    @contextmanager
    def manners(self, **manners: Any) -> Iterator[None]:
        """For a while: `answer`, `delay_seconds`, `keeps`; or `gone`: every connection is refused, and nobody else gets the port."""
        before = {name: getattr(self, name) for name in manners}
        vars(self).update(manners)
        try:
            with self._away() if self.gone else nullcontext():
                yield
        finally:
            vars(self).update(before)

    @contextmanager
    def _away(self) -> Iterator[None]:
        address, handler = self.server.server_address, self.server.RequestHandlerClass
        try:
            with socket.socket() as reserved:
                reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self.server.shutdown()
                self.server.server_close()
                reserved.bind(address)  # Bound, never listening.
                yield
        finally:
            self.server = _serving(address, handler)

    def take(self, body: bytes) -> None:
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _plain(of_resource.resource.attributes)
            told = [_span(each, resource) for scope in of_resource.scope_spans for each in scope.spans]
            self.spans.extend(told)

    def trace(self, trace_id: str) -> list[Span]:
        """Each span once: one that was sent twice is the same twice."""
        return list({each.id: each for each in list(self.spans) if each.trace == trace_id}.values())


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def _span(each: Any, resource: Mapping[str, Any]) -> Span:
    return Span(
        resource["service.name"], resource["service.instance.id"], each.name, KINDS[each.kind], each.trace_id.hex(), each.span_id.hex(), each.parent_span_id.hex(), each.start_time_unix_nano,
        each.end_time_unix_nano, each.status.code == 2, _plain(each.attributes), tuple((link.trace_id.hex(), link.span_id.hex()) for link in each.links), tuple(event.name for event in each.events),
    )  # fmt: skip


def _serving(address: Any, handler: Any) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer(address, handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), name="otlp", daemon=True).start()
    return server


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Listening on a free port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if made.gone:  # One that was connected before.
                self.close_connection = True
                return
            made.requests += 1
            made.ended.wait(made.delay_seconds)
            if made.answer == 200 and made.keeps:
                made.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            answer = ExportTraceServiceResponse().SerializeToString()
            with suppress(ConnectionError):  # Who waited too long is gone.
                self.send_response(made.answer)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        def log_message(self, *_args: object) -> None:
            pass

    made = Receiver(_serving(("127.0.0.1", 0), Handler))
    try:
        yield made
    finally:
        made.ended.set()
        made.server.shutdown()
        made.server.server_close()
