"""The API server's two faces, public and internal, made from the operations of the resource modules.

An operation's life: route (Starlette) → token → scope → parameters, headers, body → one unit of work in a worker thread: idempotency row, handler, commit → answer.
How to add an endpoint: operations.py. What every request suffers before it comes here: gate.py.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import anyio
import msgspec
from starlette.routing import compile_path

from app.api import reading
from app.api.access import Tokens
from app.api.gate import Gate, Request, Response
from app.api.operations import Answer, Call, Cursors, Operation, Parameter, Principal
from app.api.problems import Problem
from app.api.waiting import Waiter
from app.errors import Contention, InvariantViolated, Misconfigured, OutcomeUnknown, Transient
from app.messages import trace
from app.messages.placement import Placement
from app.messages.topics import Topics
from app.mysql import idempotency
from app.mysql.faults import NameTaken
from app.mysql.takeovers import Takeovers
from app.mysql.unit_of_work import UnitOfWork, now
from app.workflow.inputs import Fault
from app.workflow.planners import Planner
from observability import metrics, tracing

T = TypeVar("T")
TRIES = 4
DEADLINE_SECONDS = 10.0
_encode = msgspec.json.Encoder().encode
UNKNOWN = "repeat with the same key; without one, read first"
PROBE_THREADS = 4
LARGE_BYTES = 65_536  # Beyond, reading a body holds up the loop.
_KEY = range(0x21, 0x7F)
MEDIA_TYPES = {"application/json", "application/merge-patch+json"}


@dataclass
class Services:
    """What handlers may use, built once by __main__."""

    unit_of_work: UnitOfWork
    tokens: Tokens
    cursors: Cursors
    placement: Placement
    topics: Topics
    planners: Mapping[str, Planner]
    master_key: bytes
    token_key: bytes
    live_experiments_max: int
    posix_roots: Sequence[str] = ("/",)
    ready: Callable[[], str | None] = lambda: None  # What is missing.
    stuck: Callable[[], str | None] = lambda: None  # What no longer turns.
    draining: Callable[[], bool] = lambda: False
    waiter: Waiter | None = None
    takeovers: Takeovers = field(default_factory=lambda: Takeovers("event-sink"))
    live: dict[str, Any] = field(default_factory=dict)  # By gateway: what limits its launches, as it was a moment ago (launching.py).


class Face:
    """One listener's application."""

    def __init__(self, services: Services, operations: Sequence[Operation], *, threads: int) -> None:
        self.services = services
        self.limiter = anyio.CapacityLimiter(threads)
        self.probing = anyio.CapacityLimiter(PROBE_THREADS)
        self.operations = {(each.method, each.path): each for each in operations}
        self.routes = {each.path: compile_path(each.path)[0] for each in operations}
        for each in operations:
            metrics.expect("http_server_request_duration_seconds", method=each.method, route=each.path)
            for code in {each.status, 500, 503}:
                metrics.expect("airavata_http_responses_total", method=each.method, route=each.path, code=str(code))
        self.gate = Gate(self.handle, body_bytes_max=self._body_bytes_max)

    def _body_bytes_max(self, path: str) -> int:
        return max((each.body_bytes_max for each in self.operations.values() if each.path == path), default=1 << 20)

    def _route(self, request: Request) -> tuple[Operation, dict[str, str]]:
        for path, shape in self.routes.items():
            if found := shape.match(request.path):
                operation = self.operations.get(("GET" if request.method == "HEAD" else request.method, path))
                if operation is None:
                    allowed = sorted(method for method, known in self.operations if known == path)
                    raise Problem("method_not_allowed", f"{path} answers {', '.join(allowed)}", headers={"Allow": ", ".join([*allowed, *(["HEAD"] if "GET" in allowed else [])])})
                return operation, found.groupdict()
        raise Problem("route_not_found", "There is no such path; /openapi.json lists them")

    async def handle(self, request: Request) -> Response:
        operation, path = self._route(request)
        request.route = operation.path
        _check_accept(request, operation)
        if operation.public:
            call = Call(request, operation, ANONYMOUS, self.services, path, _query(request.query, operation.parameters))
            return _response(operation, await self._without_store(call))
        principal = await self._principal(request)
        request.join(principal.role)
        tracing.current.set(request.under_way)  # Of this request's task, and of the threads it uses.
        if operation.scope and operation.scope not in principal.scopes:
            raise Problem("forbidden", f"this needs the scope {operation.scope}")
        request.gateway = principal.gateway_id or ""
        query = _query(request.query, operation.parameters)
        read = partial(_read, request, operation)
        raw, body = read() if len(request.body) <= LARGE_BYTES else await self._in_thread(read)
        request.launches = operation.key == "must" or (operation.key == "launch" and raw.get("launch") is True)
        key = _idempotency_key(request, operation)
        call = Call(request, operation, principal, self.services, path, query, raw, body)
        if operation.waits and query["wait_seconds"] and self.services.waiter is not None:
            answer = await self.services.waiter.hold(partial(self._in_thread, self._run, call, None), call)
        else:
            answer = await self._in_thread(self._run, call, key, late="outcome_unknown" if operation.writes else "unavailable")
        if answer.then is not None:
            answer = await self._in_thread(answer.then)
        return _response(operation, answer)

    async def _in_thread(self, work: Callable[..., T], *arguments: Any, late: str = "unavailable") -> T:
        """`late`: what is answered when the time is up; the thread goes on, and nobody knows what it will have done."""
        try:
            with anyio.fail_after(DEADLINE_SECONDS):
                return await anyio.to_thread.run_sync(work, *arguments, abandon_on_cancel=True, limiter=self.limiter)
        except TimeoutError:
            raise Problem(late, f"not done within {DEADLINE_SECONDS:.0f} s: {UNKNOWN if late == 'outcome_unknown' else 'try again'}") from None
        except Transient:  # Where no unit of work of an operation is: the token's look-up.
            raise Problem("unavailable", "the database is out of reach: try again") from None

    async def _without_store(self, call: Call) -> Answer:
        """Probes and documents: no unit of work, threads of their own, so that a store that is away or slow changes nothing here."""
        return await anyio.to_thread.run_sync(call.operation.handle, call, abandon_on_cancel=True, limiter=self.probing)

    async def _principal(self, request: Request) -> Principal:
        given = request.headers.get("authorization", "")
        found = self.services.tokens.cached(given) or await self._in_thread(self.services.tokens.find, given)
        if found is None:
            raise Problem("unauthenticated", "Send Authorization: Bearer <token>; this one is missing, unknown, expired or revoked")
        return found

    def _run(self, call: Call, key: str | None) -> Answer:
        """One unit of work, repeated after contention; an unknown COMMIT is resolved by the idempotency row."""
        scope = _scope(call, key) if key else None
        for attempt in range(TRIES):
            try:
                return self._unit(call, scope)
            except idempotency.InFlight:
                raise Problem("idempotency_in_flight", "the first request with this key is still running") from None
            except NameTaken:
                raise Problem("name_taken") from None
            except Contention:
                if attempt == TRIES - 1:
                    raise Problem("unavailable", "the rows are contended: try again") from None
            except OutcomeUnknown:
                return self._resolve(call, scope)
            except (Transient, Misconfigured):
                raise Problem("unavailable", "the database is out of reach: try again") from None
        raise InvariantViolated("unreachable")

    def _unit(self, call: Call, scope: bytes | None) -> Answer:
        operation, gateway_id = call.operation, call.principal.gateway_id
        with self.services.unit_of_work(operation.unit_of_work) as tx:
            if scope is not None:
                fingerprint = _fingerprint(call)
                stored = idempotency.begin(tx, scope, fingerprint)
                if stored is not None:
                    return _replay(stored, fingerprint)
            if gateway_id and operation.writes and self.services.tokens.inactive(tx, gateway_id):
                raise Problem("gateway_inactive")
            answer = operation.handle(replace(call, tx=tx, at=now(tx)))
            answer = replace(answer, body=reading.wire(answer.body), stored=reading.wire(answer.stored))
            if scope is not None:
                status = answer.status or operation.status
                idempotency.remember(tx, scope, status=status, headers=dict(answer.headers), body=answer.body if answer.stored is None else answer.stored)
            return answer

    def _resolve(self, call: Call, scope: bytes | None) -> Answer:
        if scope is not None:
            try:
                with self.services.unit_of_work("api.resolve.read") as tx:
                    stored = idempotency.find(tx, scope)
                if stored is not None:
                    return _replay(stored, _fingerprint(call))
            except Transient:
                pass
        raise Problem("outcome_unknown", f"the connection broke while committing: {UNKNOWN}")


ANONYMOUS = Principal("", None, "", "anonymous", frozenset(), datetime.max)


# ---- what a request must be ---------------------------------------------------------------------------------------------------------------------------
def _check_accept(request: Request, operation: Operation) -> None:
    accept = request.headers.get("accept", "*/*")
    kinds = {operation.content, "application/problem+json", "*/*", f"{operation.content.split('/')[0]}/*"}
    ranges = [part.split(";") for part in accept.split(",")]
    if not any(part[0].strip().lower() in kinds and "q=0" not in [p.strip().removesuffix(".0") for p in part[1:]] for part in ranges if part[0].strip()):
        raise Problem("not_acceptable", f"this answers {operation.content}")


def _query(query: str, parameters: Sequence[Parameter]) -> dict[str, Any]:
    known = {each.name: each for each in parameters}
    found: dict[str, Any] = {each.name: each.default for each in parameters}
    seen = set()
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict", max_num_fields=50)
    except ValueError:
        raise Problem("invalid_parameter", "the query cannot be read") from None
    for name, value in pairs:
        if name not in known:
            raise Problem("invalid_parameter", f"unknown parameter {name[:64]!r}; known are {', '.join(known) or 'none'}")
        if name in seen:
            raise Problem("invalid_parameter", f"{name} is given twice")
        seen.add(name)
        try:
            found[name] = known[name].read(value)
        except ValueError as fault:
            raise Problem("invalid_parameter", f"{name}: {fault} is wanted") from None
    return found


def _read(request: Request, operation: Operation) -> tuple[Any, Any]:
    """The body as it was said, and as its model; a patch is checked when it is merged."""
    raw = _body(request, operation)
    return raw, reading.validate(operation.body, raw, trusted=operation.internal) if operation.body is not None and operation.method != "PATCH" else raw


def _body(request: Request, operation: Operation) -> Any:
    if operation.body is None:
        return None
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("unsupported_encoding", "send the body as it is, without Content-Encoding")
    kind, _, rest = request.headers.get("content-type", "").partition(";")
    charset = rest.lower().replace(" ", "").removeprefix("charset=").strip('"')
    if kind.strip().lower() not in MEDIA_TYPES or charset not in {"", "utf-8"}:
        raise Problem("unsupported_media_type", "Content-Type must be application/json")
    value = reading.parse_trusted(request.body) if operation.internal else reading.parse(request.body)
    if not isinstance(value, dict):
        raise Problem("validation_failed", "an object is wanted", errors=[Fault("", "wrong_type", "an object is wanted")])
    return value


def _idempotency_key(request: Request, operation: Operation) -> str | None:
    given: str | None = request.headers.get("idempotency-key")
    if given is None:
        if request.launches:
            raise Problem("idempotency_key_missing", "send an Idempotency-Key of your own making, and keep it over retries")
        return None
    if not operation.key:
        return None
    bare = given[1:-1] if len(given) > 1 and given[0] == given[-1] == '"' else given
    if not 1 <= len(bare) <= 255 or any(ord(each) not in _KEY for each in bare):
        raise Problem("invalid_header", "Idempotency-Key: 1 to 255 visible ASCII characters")
    return bare


def _scope(call: Call, key: str) -> bytes:
    parts = [call.principal.gateway_id or "", call.principal.user, call.operation.method, call.operation.path.format(**call.path), key]
    return hashlib.sha256("\0".join(parts).encode()).digest()


def _fingerprint(call: Call) -> bytes:
    query = {name: str(value) for name, value in call.query.items()}
    return hashlib.sha256(json.dumps([call.raw, query], sort_keys=True, ensure_ascii=True).encode()).digest()


def _replay(stored: idempotency.Stored, fingerprint: bytes) -> Answer:
    """The first answer again; a launch's trace is linked to the one that it repeats."""
    if stored.fingerprint != fingerprint:
        raise Problem("idempotency_key_reused", "this key was used for another body or query; the first effect stands")
    under_way, body = tracing.current.get(), stored.body
    if under_way is not None and isinstance(body, dict) and body.get("trace_id"):
        under_way.links.append(trace.skeleton(f"00-{body['trace_id']}-{'0' * 16}-01", "experiment", body["id"]))
    return Answer(stored.body, stored.status, {**stored.headers, "Idempotency-Replayed": "true"})


def _response(operation: Operation, answer: Answer) -> Response:
    made = partial(Response, answer.status or operation.status, content_type=answer.content_type, headers=dict(answer.headers))
    match answer.body:
        case None:
            return made()
        case bytes():
            return made(answer.body)
        case Iterator():
            return made(pieces=answer.body)
        case document:
            return made(_encode(document))
