"""The one codec between envelopes and bytes.

Headers: mid · type · schema_version · subject (gateway/experiment/process/task/task_type/attempt/epoch) · cause (`<unit>#<step id>:<mid hex>`: the
run of the unit of work that wrote it, stamped by outbox and timers, and the message it answers) · traceparent · at, and where they apply
origin (JSON) and only. A group passes over a record by `type` or `only` without decoding its payload. The payload is JSON of the body alone.

Two releases are always alive. Fields are added with defaults and readers ignore what they do not know: that needs no new version. What the release before would misread, or
would not miss, gets one: SCHEMA_VERSION rises by 1, encode and decode learn both forms, and the form before is written until AIRAVATA_COMPATIBILITY says that its last reader is gone.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import msgspec
from msgspec import Struct

from app.errors import Unreadable
from app.messages import commands, events, trace
from app.messages.envelope import Envelope, Origin, Record, Subject

SCHEMA_VERSION = 1  # The newest that is read.
SCHEMA_VERSION_BEFORE = max(1, SCHEMA_VERSION - 1)  # What the release before surely reads.
TYPES: Mapping[str, type[Struct]] = {
    each.__name__: each
    for module in (commands, events)
    for each in vars(module).values()
    if isinstance(each, type) and issubclass(each, Struct) and each is not Struct
}
Headers = Sequence[tuple[str, bytes]]
ID_CHARACTERS_MAX = 32  # What a row can hold of each part of a subject, in ASCII.
ORIGIN_BYTES_MAX, TIME_CHARACTERS = 2048, 27  # A copy's headers must fit into a row: what a stranger sent is dropped, refused or cut.

_encode_json = msgspec.json.Encoder().encode
_encode_headers: Callable[[object], bytes] = msgspec.msgpack.Encoder().encode
_decode_headers = msgspec.msgpack.Decoder(list[tuple[str, bytes]]).decode
_bodies = {name: msgspec.json.Decoder(each).decode for name, each in TYPES.items()}
_decode_origin = msgspec.json.Decoder(Origin).decode


def encode(envelope: Envelope, *, at: datetime | None = None, step: str = "", version: int = SCHEMA_VERSION_BEFORE) -> Record:
    """Envelope → bytes of that schema version. `at`, `step`: MySQL's time of the transaction that writes it, and its name."""
    headers = _encode_headers(_headers(envelope, at, step, version))
    return Record(envelope.mid, envelope.topic, envelope.partition, envelope.key, headers, _encode_json(envelope.body))


def wire_time(at: datetime) -> str:
    """RFC 3339, UTC, six decimals, Z; `at` is naive UTC, as MySQL gives it."""
    return at.isoformat(timespec="microseconds") + "Z"


def time_of(text: str) -> datetime:
    """wire_time, backwards."""
    return datetime.fromisoformat(text.removesuffix("Z"))


def _headers(envelope: Envelope, at: datetime | None, step: str, version: int) -> list[tuple[str, bytes]]:
    s = envelope.subject
    headers = [
        ("mid", envelope.mid),
        ("type", type(envelope.body).__name__.encode()),
        ("schema_version", b"%d" % version),
        ("subject", f"{s.gateway}/{s.experiment}/{s.process}/{s.task}/{s.task_type}/{s.attempt}/{s.epoch}".encode()),
        ("cause", f"{step or envelope.step}:{envelope.cause}".encode()),
        ("traceparent", envelope.traceparent.encode()),
        ("at", (envelope.at or (wire_time(at) if at else "")).encode()),
    ]
    if envelope.origin is not None:
        headers.append(("origin", _encode_json(envelope.origin)))
    if envelope.only:
        headers.append(("only", envelope.only.encode()))
    return headers


def headers_of(record_headers: bytes) -> list[tuple[str, bytes]]:
    """The stored header list, as the relay hands it to Kafka. Raises Unreadable."""
    try:
        return _decode_headers(record_headers)
    except msgspec.DecodeError as fault:
        raise Unreadable(f"stored headers: {fault}") from fault


def traceparent_of(record_headers: bytes) -> str:
    """One header of the stored list, found without unpacking the others; empty if it has none, or an odd one. MessagePack: name, then C4, a byte of length, the bytes."""
    _, found, value = record_headers.partition(b"traceparent\xc4\x37")
    return value[:55].decode(errors="replace") if found and len(value) >= 55 else ""


def pack_headers(headers: Headers) -> bytes:
    """Kafka's header list → the stored form (dead letters, requeues)."""
    return _encode_headers(list(headers))


def restamped(cause: bytes, step: str) -> bytes:
    """The header `cause` of a copy that another step sends: it still answers what its original did."""
    return step.encode() + b":" + cause.partition(b":")[2]


def type_and_only(headers: Headers | None) -> tuple[str, str]:
    """The two headers by which a group passes over a record. Missing or unreadable ones are empty.

    So is the type of a record from the future: whether the group would miss it nobody here knows, so it must not be passed over by its type.
    """
    found = dict(headers or ())
    version = found.get("schema_version") or b""
    ahead = version.isdigit() and int(version[:9]) > SCHEMA_VERSION
    return "" if ahead else _text(found.get("type")), _text(found.get("only"))


def decode(topic: str, partition: int, headers: Headers | None, payload: bytes | None) -> Envelope:
    """Bytes → envelope. Raises Unreadable for what is no message of ours or comes from the future."""
    try:
        found = dict(headers or ())
        version = int(found["schema_version"])
        if version > SCHEMA_VERSION:
            raise Unreadable(f"schema_version {version} is newer than {SCHEMA_VERSION}: upgrade this component")
        gateway, experiment, process, task, task_type, attempt, epoch = subject = found["subject"].decode("ascii").split("/")
        if max(map(len, subject)) > ID_CHARACTERS_MAX:
            raise Unreadable(f"header subject names what no row can hold: {max(subject, key=len)[:100]}")
        step, _, cause = found["cause"].decode().partition(":")
        if len(found["mid"]) != 16:
            raise Unreadable("header mid is not 16 bytes")
        return Envelope(
            mid=found["mid"],
            topic=topic,
            partition=partition,
            subject=Subject(gateway, experiment, process, task, task_type, int(attempt), int(epoch)),
            body=_bodies[found["type"].decode()](payload or b""),
            step=step,
            cause=cause,
            traceparent=context if trace.parse(context := _text(found.get("traceparent"))) else "",
            origin=_origin(found["origin"]) if "origin" in found else None,
            only=_text(found.get("only")),
            at=_text(found.get("at"))[:TIME_CHARACTERS],
        )
    except KeyError as fault:
        raise Unreadable(f"unknown message type or missing header: {fault}") from fault
    except (ValueError, TypeError, AttributeError, msgspec.DecodeError) as fault:
        raise Unreadable(f"{type(fault).__name__}: {fault}"[:500]) from fault


def _origin(value: bytes) -> Origin:
    """Raises ValueError for one that no copy could be made from."""
    found = _decode_origin(value)
    time_of(found.first_seen)
    if len(value) > ORIGIN_BYTES_MAX or len(bytes.fromhex(found.mid)) != 16:
        raise ValueError("origin is too long, or its mid is not 16 bytes")
    return found


def _text(value: bytes | None) -> str:
    return value.decode(errors="replace") if value else ""
