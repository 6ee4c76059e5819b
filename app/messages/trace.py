"""W3C trace context without a tracer: the skeleton of an experiment's trace is computed from rows, so a message can name its parent span before any span exists.

Parents say where something belongs, links say what caused it. A skeleton span's id is the first 8 bytes of SHA-256 over `kind/id/attempt`; that of a `process` span
over the step that applied the message and the message's id, which the next message names as its cause. So no header carries a link.
"""

import hashlib
import re

_SHAPE = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NONE = "0" * 32
_ODD = frozenset("13579bdf")
LENGTH, TRACESTATE_BYTES_MAX = 55, 512


def parse(traceparent: str) -> tuple[str, str, str] | None:
    """(trace id, span id, flags); None for what is malformed or all zero. https://www.w3.org/TR/trace-context/"""
    found = _SHAPE.fullmatch(traceparent)
    return None if found is None or found[1] == _NONE or found[2] == _NONE[:16] else (found[1], found[2], found[3])


def sampled(traceparent: str) -> bool:
    """Flags are bits: 03 is sampled too. Of what `parse` or we ourselves made; empty is not."""
    return traceparent[54:] in _ODD


def beside(traceparent: str, span_id: str) -> str:
    """Another span of the same trace, with its flags; empty when there is none."""
    return f"{traceparent[:36]}{span_id}{traceparent[52:]}" if traceparent else ""


def span_id(kind: str, entity_id: str, attempt: int | str = 0) -> str:
    return hashlib.sha256(f"{kind}/{entity_id}/{attempt}".encode()).hexdigest()[:16]


def skeleton(trace_context: str, kind: str, entity_id: str, attempt: int = 0) -> str:
    """The traceparent of a skeleton span in the trace of `trace_context`; empty when there is none."""
    return beside(trace_context, span_id(kind, entity_id, attempt)) if trace_context else ""


def belongs(trace_context: str, experiment: str, task: str = "", attempt: int = 0) -> str:
    """The skeleton span that what is about this subject belongs to: its attempt, else the experiment's run."""
    return skeleton(trace_context, "attempt", task, attempt) if task and attempt else skeleton(trace_context, "experiment", experiment)


def processing(traceparent: str, step: str, mid: str) -> str:
    """The `process` span of the message `mid` (hex) in the step that applied it."""
    return beside(traceparent, span_id("process", step, mid))
