"""What comes in, read strictly: JSON that means one thing, headers, query parameters, times. Every refusal names the place."""

import json
import re
from datetime import UTC, datetime
from typing import Any, NoReturn

import msgspec
from pydantic import BaseModel, ValidationError

from app.api.problems import FAULTS_MAX, Problem, invalid
from app.workflow.inputs import SAFE_INTEGER, Fault

DEPTH_MAX = 32
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
FIELD_CODES = {  # pydantic's words → ours
    "missing": "required", "extra_forbidden": "unknown_field", "string_too_long": "too_long", "too_long": "too_many", "string_too_short": "bad_format", "too_short": "required",
    "string_pattern_mismatch": "bad_format", "literal_error": "not_allowed", "enum": "not_allowed", "greater_than_equal": "out_of_range", "greater_than": "out_of_range",
    "less_than_equal": "out_of_range", "less_than": "out_of_range", "finite_number": "out_of_range", "int_from_float": "wrong_type", "union_tag_invalid": "not_allowed",
    "datetime_parsing": "bad_format", "datetime_from_date_parsing": "bad_format", "timezone_aware": "bad_format",
}  # fmt: skip


def malformed(detail: str, offset: int) -> NoReturn:
    raise Problem("malformed_json", f"{detail} at byte {offset}")


def parse(body: bytes) -> Any:
    """Strict JSON (RFC 8259, I-JSON): no BOM, duplicate keys, NaN, huge numbers, lone surrogates, NUL, depth beyond 32. Raises malformed_json with the byte offset."""
    if body[:3] == b"\xef\xbb\xbf" or body[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        malformed("a byte order mark", 0)
    try:
        text = body.decode()
    except UnicodeDecodeError as fault:
        malformed("not UTF-8", fault.start)
    depth = 0
    for token in _TOKENS.finditer(body):
        first = token[0][:1]
        depth += (first in b"[{") - (first in b"]}")
        if depth > DEPTH_MAX:
            malformed(f"deeper than {DEPTH_MAX}", token.start())
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant, parse_int=_integer, parse_float=_float)
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as fault:
        malformed(fault.msg, len(text[: fault.pos].encode()))
    except UnicodeEncodeError:
        malformed("a lone surrogate", max(0, body.find(b"\\u")))
    except (_Refused, RecursionError) as fault:
        malformed(str(fault), 0)
    if "\\u0000" in text and _has_nul(value):
        malformed("a NUL character", max(0, body.find(b"\\u0000")))
    return value


def parse_trusted(body: bytes) -> Any:
    """For the internal face, whose bodies are large and come from our own sink: valid JSON, and no more is asked. Raises malformed_json."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as fault:
        malformed(str(fault)[:200], 0)


class _Refused(ValueError):
    pass


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Refused(f"the key {next(name for name in names if names.count(name) > 1)[:64]!r} twice")
    return found


def _constant(text: str) -> NoReturn:
    raise _Refused(f"{text} is no JSON number")


def _integer(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > SAFE_INTEGER:
        raise _Refused("an integer beyond ±(2^53−1)")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise _Refused("a number beyond what a double holds")
    return value


def _has_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_nul(key) or _has_nul(each) for key, each in value.items())
    return any(_has_nul(each) for each in value) if isinstance(value, list) else isinstance(value, str) and "\0" in value


def validate(model: type[BaseModel], value: Any) -> Any:
    """A body as its model. Raises validation_failed with every fault, at most 100."""
    try:
        return model.model_validate(value, strict=True)
    except ValidationError as fault:
        raise invalid(faults_of(fault)) from None


def faults_of(fault: ValidationError) -> list[Fault]:
    found = []
    for each in fault.errors(include_url=False, include_input=False)[:FAULTS_MAX]:
        pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in each["loc"] if not str(part).startswith(("function-", "constrained-")))
        context = each.get("ctx") or {}
        code = FIELD_CODES.get(each["type"]) or (each["type"] if each["type"] in OUR_CODES else "wrong_type")
        limit = next((context[name] for name in ("max_length", "le", "lt", "ge", "gt", "expected", "limit") if name in context), None)
        found.append(Fault(pointer, code, each["msg"][:300], limit))
    return found


OUR_CODES = frozenset(
    {"required", "unknown_field", "unknown_input", "wrong_type", "out_of_range", "too_long", "too_many", "bad_format", "not_allowed", "unsafe_value", "unknown_reference",
     "duplicate", "exceeds_limit", "conflicts_with", "expired", "disabled"}
)  # fmt: skip


def naive(at: datetime | None) -> datetime | None:
    """RFC 3339 with a zone → naive UTC, as MySQL holds it."""
    return None if at is None else at.astimezone(UTC).replace(tzinfo=None)


def wire(at: datetime | None) -> str | None:
    """Naive UTC → RFC 3339, six decimals, Z."""
    return None if at is None else at.isoformat(timespec="microseconds") + "Z"
