"""What comes in, read strictly: JSON that means one thing, headers, query parameters, times. Every refusal names the place."""

import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NoReturn

import msgspec
from pydantic import BaseModel, ValidationError

from app.api.problems import FAULTS_MAX, Problem, invalid
from app.messages import codec
from app.workflow.inputs import SAFE_INTEGER, Fault

DEPTH_MAX = 32
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[{]|[\]}]', re.DOTALL)
_WORDS = re.compile(rb'("(?:[^"\\]|\\.)*")(\s*:)?|[\[{]|[\]}]|[^\s"\[\]{},:]+', re.DOTALL)
FIELD_CODES = {  # pydantic's words → ours
    "missing": "required", "extra_forbidden": "unknown_field", "string_too_long": "too_long", "too_long": "too_many", "string_too_short": "bad_format", "too_short": "required",
    "string_pattern_mismatch": "bad_format", "literal_error": "not_allowed", "enum": "not_allowed", "greater_than_equal": "out_of_range", "greater_than": "out_of_range",
    "less_than_equal": "out_of_range", "less_than": "out_of_range", "finite_number": "out_of_range", "int_from_float": "wrong_type", "union_tag_invalid": "not_allowed",
    "datetime_parsing": "bad_format", "datetime_from_date_parsing": "bad_format", "timezone_aware": "bad_format",
}  # fmt: skip


def malformed(detail: str, offset: int) -> NoReturn:
    raise Problem("malformed_json", f"{detail} at byte {offset}")


def parse(body: bytes) -> Any:
    """Strict JSON (RFC 8259, I-JSON): no BOM, duplicate keys, NaN, numbers no double holds, lone surrogates, depth beyond 32. Raises malformed_json with the byte offset.

    Huge integers and NUL are JSON, and have a place in the document: `validate` refuses them there.
    """
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
        malformed("a lone surrogate", _first_refused(body))
    except _Refused as fault:
        malformed(str(fault), _first_refused(body))
    return value


def _first_refused(body: bytes) -> int:
    """Where the fault of well-formed JSON is: the parser's hooks are not told. Looked for only once there is one."""
    keys: list[set[str]] = []
    for word in _WORDS.finditer(body):
        text, is_key = word[0], word[2] is not None
        if text[:1] in b"[{":
            keys.append(set())
        elif text[:1] in b"]}":
            keys.pop()
        elif text[:1] == b'"':
            said = json.loads(word[1]) if b"\\" in word[1] else word[1][1:-1].decode()
            if any("\ud800" <= each <= "\udfff" for each in said) or (is_key and said in keys[-1]):
                return word.start()
            if is_key:
                keys[-1].add(said)
        elif text not in {b"true", b"false", b"null"} and not text.lstrip(b"-").isdigit() and not math.isfinite(float(text)):
            return word.start()
    return 0


def parse_trusted(body: bytes) -> Any:
    """For the internal face, whose bodies are large and come from our own sink: valid JSON, and no more is asked. Raises malformed_json."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as fault:
        malformed(str(fault)[:200], 0)


class _Refused(ValueError):
    pass


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _Refused(f"the key {name[:64]!r} twice")
        found[name] = value
    return found


def _constant(text: str) -> NoReturn:
    raise _Refused(f"{text} is no JSON number")


def _integer(text: str) -> int:
    """What is beyond every bound is held just beyond: long digit strings cost time."""
    return int(text) if len(text) <= 20 else (-SAFE_INTEGER - 1 if text[0] == "-" else SAFE_INTEGER + 1)


def _float(text: str) -> float:
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise _Refused("a number beyond what a double holds")
    return value


def unfit(value: Any, pointer: str = "") -> Iterator[Fault]:
    """Integers beyond ±(2^53−1) and NUL, wherever they stand: no field takes them."""
    if isinstance(value, dict):
        for key, each in value.items():
            if "\0" in key:
                yield Fault(pointer, "bad_format", "a key with NUL")
            yield from unfit(each, f"{pointer}/{_escaped(key)}")
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from unfit(each, f"{pointer}/{index}")
    elif isinstance(value, str) and "\0" in value:
        yield Fault(pointer, "bad_format", "NUL is not allowed")
    elif isinstance(value, int) and abs(value) > SAFE_INTEGER:
        yield Fault(pointer, "out_of_range", "an integer beyond ±(2^53−1)", SAFE_INTEGER)


def validate(model: type[BaseModel], value: Any, *, trusted: bool = False) -> Any:
    """A body as its model. Raises validation_failed with every fault, at most 100."""
    found, faults = None, list[Fault]()
    try:
        found = model.model_validate(value, strict=True)
    except ValidationError as fault:
        faults = faults_of(fault)
    if not trusted:
        told = {each.pointer for each in faults}
        faults += [each for each in unfit(value) if each.pointer not in told]
    if faults:
        raise invalid(faults)
    return found


def faults_of(fault: ValidationError) -> list[Fault]:
    found = []
    for each in fault.errors(include_url=False, include_input=False)[:FAULTS_MAX]:
        pointer = "".join(f"/{_escaped(str(part))}" for part in each["loc"] if part != "[key]" and not str(part).startswith(("function-", "constrained-")))
        context = each.get("ctx") or {}
        code = each["type"] if "detail" in context else FIELD_CODES.get(each["type"], "wrong_type")  # Ours have a detail (models.refuse).
        limit = next((context[name] for name in ("max_length", "le", "lt", "ge", "gt", "expected", "limit") if name in context), None)
        found.append(Fault(pointer, code, each["msg"][:300], limit))
    return found


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def moment(text: str) -> datetime:
    """RFC 3339 with its zone, as UTC. Raises ValueError, whose text says what is wanted; also for what is no time of ours once it is UTC."""
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("a time as in RFC 3339, with its zone")


def naive(at: datetime | None) -> datetime | None:
    """UTC as MySQL holds it."""
    return None if at is None else at.replace(tzinfo=None)


def wire(value: Any) -> Any:
    """What a handler answers, with MySQL's times as the wire has them (codec.wire_time), wherever they stand."""
    if isinstance(value, datetime):
        return codec.wire_time(value)
    if isinstance(value, dict):
        return {name: wire(each) for name, each in value.items()}
    return [wire(each) for each in value] if isinstance(value, list) else value
