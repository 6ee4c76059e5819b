"""Traces: a span is a fact, told when it is over, and named by a `traceparent` of its own. Nothing is held open, so a crash loses leaves and never branches.

Invariants: watching never stops the work (telling appends to a bounded queue); unsampled or switched off means that no span is made at all: whoever tells one has tested
`on()` and the flag first. What happens inside a request or a batch finds its parent in `current`. The table of all spans is the package's docstring.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from app import clock, instance
from app.messages import trace
from observability import metrics

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

    from observability.exporting import Exporting

GRANTS_PER_SECOND = 5
INTERNAL, SERVER, CLIENT, CONSUMER = "INTERNAL", "SERVER", "CLIENT", "CONSUMER"
EXPERIMENTS = "airavata-experiments"
Attributes: TypeAlias = Mapping[str, Any]


@dataclass
class Current:
    """What is under way in this thread or task: its span, and what more is found out about it meanwhile."""

    context: str
    attributes: dict[str, Any] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)


current: ContextVar[Current | None] = ContextVar("current", default=None)


def under_way() -> str:
    """The traceparent of the span under way here; empty where none is."""
    here = current.get()
    return here.context if here is not None else ""


@dataclass
class _Process:
    """This process's way out: None until `begin`, and for ever where no endpoint is set."""

    exporting: "Exporting | None" = None
    resource: "Resource | None" = None
    of_experiments: "Resource | None" = None
    ratio: float = 0.0
    granted: float = GRANTS_PER_SECOND
    granted_at: float = 0.0


_process = _Process()


# ---- life ---------------------------------------------------------------------------------------------------------------------------------------------
def begin(endpoint: str, *, component: str, name: str, version: str, environment: str, ratio: float, delay_seconds: float) -> None:
    """Once, by the life cycle. Without an endpoint nothing is loaded, and nothing ever made."""
    if not endpoint:
        return
    from opentelemetry.sdk.resources import Resource

    from observability.exporting import Exporting

    told = {"service.namespace": "airavata", "service.version": version, "service.instance.id": name, "deployment.environment.name": environment}
    _process.resource = Resource({**told, "service.name": f"airavata-{component}"})
    _process.of_experiments = Resource({**told, "service.name": EXPERIMENTS})
    _process.ratio = ratio
    _process.exporting = Exporting(endpoint, delay_seconds=delay_seconds)


def on() -> bool:
    return _process.exporting is not None


def waiting() -> int:
    """Spans in the queue."""
    return len(_process.exporting.queue) if _process.exporting is not None else 0


def close() -> None:
    """At the very end: what is queued has 2 s."""
    if _process.exporting is not None:
        _process.exporting.close()


# ---- whether ------------------------------------------------------------------------------------------------------------------------------------------
def wanted(traceparent: str, *, came_in: str = "") -> bool:
    """Whether to tell a span of this trace: one attribute and one character. `came_in`: what brought it from outside this process; if it is broken, it is dropped and counted."""
    if _process.exporting is None or not traceparent:
        return False
    if came_in and (len(traceparent) != trace.LENGTH or (trace.sampled(traceparent) and trace.parse(traceparent) is None)):
        metrics.count("airavata_context_invalid_total", from_=came_in)
        return False
    return trace.sampled(traceparent)


def decide(trace_id: str, *, always: bool = False, wished: bool = False) -> bool:
    """The head decision, at the API: everything else follows it. By ratio on the trace id, so that all parts of a trace agree; a gateway's wish is granted a few times a second."""
    if _process.exporting is None:
        return False
    return always or int(trace_id[16:], 16) < _process.ratio * 2**64 or (wished and _granted())


def _granted() -> bool:
    now = time.monotonic()
    _process.granted = min(float(GRANTS_PER_SECOND), _process.granted + (now - _process.granted_at) * GRANTS_PER_SECOND)
    _process.granted_at = now
    if _process.granted < 1:
        return False
    _process.granted -= 1
    return True


def given(headers: Mapping[str, str]) -> str:
    """The caller's traceparent; empty if there is none, or a broken one, or one with more baggage than we carry: dropped and counted."""
    came = headers.get("traceparent", "")
    if not came:
        return ""
    if trace.parse(came) is None or len(headers.get("tracestate", "")) > trace.TRACESTATE_BYTES_MAX:
        metrics.count("airavata_context_invalid_total", from_="request")
        return ""
    return came


def fresh(flags: str = "01") -> str:
    """The root of a trace of its own."""
    return f"00-{instance.fresh_bytes(16).hex()}-{instance.fresh_bytes(8).hex()}-{flags}"


def child(traceparent: str) -> str:
    return trace.beside(traceparent, instance.fresh_bytes(8).hex())


# ---- telling ------------------------------------------------------------------------------------------------------------------------------------------
@metrics.measuring
def tell(
    name: str, context: str, *, parent: str = "", start: int, end: int, kind: str = INTERNAL, attributes: Attributes | None = None, links: Sequence[str] = (),
    events: Sequence[tuple[str, int]] = (), error: str = "",
) -> None:  # fmt: skip
    """A finished span of this process. `context`, `parent`, `links`: traceparents; times in ns; `error`: its type, for a span that failed."""
    exporting = _process.exporting
    if exporting is not None and not exporting.full():
        exporting.put(made(name, context, parent=parent, start=start, end=end, kind=kind, attributes=attributes, links=links, events=events, error=error))


def made(name: str, context: str, *, of_experiments: bool = False, **told: Any) -> "ReadableSpan":
    """The SDK's object, for who exports it himself; `told` as for `tell`."""
    from observability import exporting

    return exporting.made(name, context, _process.of_experiments if of_experiments else _process.resource, **told)


def export(spans: Sequence["ReadableSpan"]) -> bool:
    """In the caller's thread, and whether it worked: for who keeps what could not be sent."""
    return _process.exporting is not None and _process.exporting.export(spans)


def note(attributes: Attributes) -> None:
    """What was found out about what is under way."""
    under_way = current.get()
    if under_way is not None:
        under_way.attributes.update(attributes)


@contextmanager
def within(context: str) -> Iterator[Current]:
    """What happens here hangs below this span."""
    under_way = Current(context)
    token = current.set(under_way)
    try:
        yield under_way
    finally:
        current.reset(token)


def unit(name: str) -> AbstractContextManager[Any]:
    """A unit of work below the request that it serves; nothing where none is sampled."""
    above = current.get()
    return nullcontext() if above is None else _unit(name, above)


@contextmanager
def _unit(name: str, above: Current) -> Iterator[None]:
    start, error = now_ns(), ""
    with within(child(above.context)) as under_way:
        try:
            yield
        except BaseException as fault:
            error = type(fault).__name__
            raise
        finally:
            end = now_ns()
            rows = under_way.attributes.pop("airavata.outbox.rows", None)
            above.attributes.update(under_way.attributes)  # What the request is about was found out in here.
            above.links.extend(under_way.links)
            events = () if error else (("commit", end),)
            tell(f"unit of work {name}", under_way.context, parent=above.context, start=start, end=end, attributes={"airavata.outbox.rows": rows}, events=events, error=error)


def about(subject: Sequence[Any]) -> dict[str, Any]:
    """A message's subject, in the order of its header, as attributes: Jaeger matches all tags of a search on one span, so each has them all."""
    gateway, experiment, process, task, task_type, attempt, epoch = subject
    told: dict[str, Any] = {"airavata.gateway.id": gateway, "airavata.experiment.id": experiment, "airavata.process.id": process}
    if task:
        told |= {"airavata.task.id": task, "airavata.task.type": task_type, "airavata.task.attempt": int(attempt), "airavata.attempt.epoch": int(epoch)}
    return told


def now_ns() -> int:
    """This machine's wall clock, for spans that begin and end here."""
    return clock.ns()


def at(moment: float) -> int:
    """The same of a moment of `time.monotonic()` that is not long ago."""
    return now_ns() - int((time.monotonic() - moment) * 1e9)
