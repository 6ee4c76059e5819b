"""The outermost layer: every request is bounded, named and answered here. URL, headers, body and time have limits; whatever happens inside, the answer is a problem document.

Plain ASGI (BaseHTTPMiddleware gets in the way of streams and context variables). The body is read whole, so that a slow sender holds no worker thread.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import Any
from urllib.parse import unquote

import anyio

from app import instance
from app.api import spans
from app.api.problems import Problem
from app.messages import trace
from observability import logs, metrics, tracing

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

URL_BYTES_MAX, HEADER_BYTES_MAX = 8192, 16_384
BODIES_BYTES_MAX = 32 << 20  # Of a face: its bodies that arrive, wait or are at work. They are read before anybody knows who sends.
BODY_SECONDS = 10.0
STREAMS_MAX, STREAM_THREADS, STREAM_SECONDS = 100, 16, 3600.0
AT_WORK_MAX, QUEUE_SECONDS = 32, 2.0
PROBES = frozenset({"/livez", "/readyz"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_WAITS = re.compile(r"(?:^|&)wait_seconds=0*[1-9]")


class Gate:
    """`inner(request) -> response` does the work; `body_bytes_max(path)` is the limit of the operation it will reach."""

    def __init__(self, inner: Callable[["Request"], Awaitable["Response"]], *, body_bytes_max: Callable[[str], int]) -> None:
        self.inner, self.body_bytes_max = inner, body_bytes_max
        self.at_work = asyncio.Semaphore(AT_WORK_MAX)
        self.streams, self.active, self.bodies, self.reading = 0, 0, 0, anyio.CapacityLimiter(STREAM_THREADS)
        self.log = logs.logger("api")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        self.active += 1
        try:
            await self._answer(request, receive, send)
        finally:
            self.active -= 1

    async def _answer(self, request: "Request", receive: Receive, send: Send) -> None:
        try:
            self._check_size(request.scope)
            await self._read(request, receive, self.body_bytes_max(request.path))
            response = await self._work(request)
            if response.pieces is not None and self.streams >= STREAMS_MAX:
                raise Problem("too_many_streams", f"{STREAMS_MAX} downloads run from this copy: try again")
        except Problem as problem:
            response = Response.of_problem(problem, request)
            close = problem.code in {"body_too_large", "request_timeout", "headers_too_large", "uri_too_long"}
            response.headers |= {"Connection": "close"} if close else {}
            request.refused = problem.code
        except Exception as fault:
            self.log.error("bug", request=request.id, path=request.path, gateway_id=request.gateway or None, exc_info=fault)
            response = Response.of_problem(Problem("internal", "A bug on our side; the request id finds it in our logs"), request)
        self._drop_body(request)
        _measure(request, response.status, (tracing.now_ns() - request.began) / 1e9, replayed="Idempotency-Replayed" in response.headers)
        try:
            if response.pieces is None or request.method == "HEAD":
                await response.send(request, send)
            else:
                await self._stream(request, response, response.pieces, receive, send)
        finally:
            if request.under_way is not None and request.path not in PROBES:
                spans.tell(request, response)

    async def _work(self, request: "Request") -> "Response":
        if request.waits or request.path in PROBES:  # Long-polls hold no place and no body, they wait for a shared reader; and a busy copy is alive.
            self._drop_body(request)
            return await self.inner(request)
        try:
            async with asyncio.timeout(QUEUE_SECONDS):  # Not wait_for, which makes a task of what mostly needs no wait.
                await self.at_work.acquire()
        except TimeoutError:
            metrics.count("airavata_overloads_total", bound="work")
            raise Problem("overloaded", f"{AT_WORK_MAX} requests are at work in this copy: try again") from None
        try:
            return await self.inner(request)
        finally:
            self.at_work.release()

    async def _stream(self, request: "Request", response: "Response", pieces: Iterator[bytes], receive: Receive, send: Send) -> None:
        """Each piece is read in a thread when the client has taken the one before; a client that goes away ends it."""
        self.streams += 1
        gone = asyncio.ensure_future(receive())
        try:
            await send(response.start(request))
            async with asyncio.timeout(STREAM_SECONDS):
                while not gone.done() and (piece := await anyio.to_thread.run_sync(next, pieces, b"", limiter=self.reading)):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except Exception as fault:  # Half an answer is out: breaking off is all that is left to say it, and the server does so.
            self.log.warning("download broken off", request=request.id, gateway_id=request.gateway or None, fault=fault)
        finally:
            self.streams -= 1
            gone.cancel()
            if isinstance(pieces, Generator):
                await anyio.to_thread.run_sync(pieces.close, limiter=self.reading)

    @staticmethod
    def _check_size(scope: Scope) -> None:
        if len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"]) > URL_BYTES_MAX:
            raise Problem("uri_too_long", f"at most {URL_BYTES_MAX} bytes")
        if sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > HEADER_BYTES_MAX:
            raise Problem("headers_too_large", f"at most {HEADER_BYTES_MAX} bytes")

    def _drop_body(self, request: "Request") -> None:
        self.bodies -= request.held
        request.body, request.held = b"", 0

    async def _read(self, request: "Request", receive: Receive, most: int) -> None:
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Problem("request_timeout", "the client went away")
                    body.extend(piece := message.get("body", b""))
                    self.bodies, request.held = self.bodies + len(piece), request.held + len(piece)
                    more = message.get("more_body", False)
                    if len(body) > most:
                        raise Problem("body_too_large", f"at most {most} bytes")
                    if piece and self.bodies > BODIES_BYTES_MAX:
                        metrics.count("airavata_overloads_total", bound="bodies")
                        raise Problem("overloaded", "too much is being sent to this copy: try again", headers={"Connection": "close"})
        except TimeoutError:
            raise Problem("request_timeout", f"the body must arrive within {BODY_SECONDS:.0f} s") from None
        request.body = bytes(body)


class Request:
    """A request as it came, with its id and its place in a trace."""

    def __init__(self, scope: Scope) -> None:
        self.scope, self.method = scope, str(scope["method"])
        self.path: str = scope["path"]
        self.query: str = scope["query_string"].decode("latin-1")
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        self.body, self.held = b"", 0
        self.route, self.gateway, self.launches, self.refused = "", "", False, ""  # Found on the way, for whoever measures.
        given = self.headers.get("x-request-id", "")
        self.id = given if _REQUEST_ID.fullmatch(given) else instance.fresh_id("req")
        self.parent = ""  # The caller's span, once we know who calls.
        self.traceparent = tracing.fresh()
        self.client = scope["client"][0] if scope.get("client") else ""
        self.began = tracing.now_ns()
        self.under_way: tracing.Current | None = None
        self._flag(sampled=tracing.decide(self.trace_id))
        self.waits = self.method in {"GET", "HEAD"} and _WAITS.search(unquote(self.query)) is not None  # As the parameters are read later.

    def join(self, role: str) -> None:
        """Now that we know who calls: below the span that he names. What operators do is always sampled; our own services have decided already, and what they send without a trace is a heartbeat."""
        self.parent = tracing.given(self.headers)
        if self.parent:
            self.traceparent = self.parent[:36] + self.traceparent[36:]
        wished = self.method == "POST" and trace.sampled(self.parent)  # Launches: a gateway that polls must not use up what they are granted.
        if role == "service":
            sampled = tracing.wanted(self.parent)
        else:
            sampled = tracing.decide(self.trace_id, always=role == "operator" and self.method not in {"GET", "HEAD"}, wished=wished)
        self._flag(sampled=sampled)

    def _flag(self, *, sampled: bool) -> None:
        self.traceparent = self.traceparent[:53] + ("01" if sampled else "00")
        self.under_way = tracing.Current(self.traceparent) if sampled else None

    @property
    def trace_id(self) -> str:
        return self.traceparent[3:35]


CONFLICTS = frozenset({"idempotency_key_reused", "idempotency_in_flight", "illegal_state"})


@metrics.measuring
def _measure(request: Request, status: int, seconds: float, *, replayed: bool) -> None:
    """Rate, errors, duration. Probes are no traffic, and how long a long poll waits is its client's choice."""
    if request.path in PROBES:
        return
    method, route = request.method if request.route else "other", request.route or "none"
    metrics.count("airavata_http_responses_total", code=str(status), method=method, route=route)
    if not request.waits:
        metrics.observe("http_server_request_duration_seconds", seconds, traceparent=request.traceparent, method=method, route=route)
    if request.launches:
        metrics.count("airavata_launches_total", outcome=("replayed" if replayed else "accepted") if status < 300 else "conflict" if request.refused in CONFLICTS else "refused")
    if status == 429:
        metrics.count("airavata_rate_limited_total", gateway=request.gateway or "none")


class Response:
    """Bytes with their headers. Every answer carries the request id, our span, and the headers that keep browsers from guessing.

    `pieces`: a body that streams, its Content-Length among the headers.
    """

    def __init__(self, status: int, body: bytes = b"", *, content_type: str = "application/json", headers: dict[str, str] | None = None, pieces: Iterator[bytes] | None = None) -> None:
        self.status, self.body, self.content_type, self.headers, self.pieces = status, body, content_type, dict(headers or {}), pieces

    @classmethod
    def of_problem(cls, problem: Problem, request: Request) -> "Response":
        body = json.dumps(problem.document(instance=request.id, trace_id=request.trace_id), ensure_ascii=False, default=str).encode()
        return cls(problem.status, body, content_type="application/problem+json", headers=problem.headers)

    def start(self, request: Request) -> dict[str, Any]:
        headers = {"X-Request-Id": request.id, "traceparent": request.traceparent, "X-Content-Type-Options": "nosniff", "Cache-Control": "private, no-cache"} | self.headers
        if self.status not in {204, 304}:
            headers = {"Content-Type": self.content_type, "Content-Length": str(len(self.body))} | headers
        raw = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        return {"type": "http.response.start", "status": self.status, "headers": raw}

    async def send(self, request: Request, send: Send) -> None:
        await send(self.start(request))
        await send({"type": "http.response.body", "body": b"" if request.method == "HEAD" or self.status in {204, 304} else self.body})
