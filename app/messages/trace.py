"""W3C trace context without a tracer: the skeleton of an experiment's trace is computed from rows, so a message can name its parent span before any span exists.

A skeleton span's id is the first 8 bytes of SHA-256 over `kind/id/attempt`.
"""

import hashlib
import re

_SHAPE = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NONE = "0" * 32


def parse(traceparent: str) -> tuple[str, str, str] | None:
    """(trace id, span id, flags); None for what is malformed or all zero. https://www.w3.org/TR/trace-context/"""
    found = _SHAPE.fullmatch(traceparent)
    return None if found is None or found[1] == _NONE or found[2] == _NONE[:16] else (found[1], found[2], found[3])


def span_id(kind: str, entity_id: str, attempt: int | str = 0) -> str:
    return hashlib.sha256(f"{kind}/{entity_id}/{attempt}".encode()).hexdigest()[:16]


def skeleton(trace_context: str, kind: str, entity_id: str, attempt: int = 0) -> str:
    """The traceparent of a skeleton span in the trace of `trace_context`; empty when there is none."""
    if not trace_context:
        return ""
    return f"{trace_context[:36]}{span_id(kind, entity_id, attempt)}{trace_context[52:]}"
