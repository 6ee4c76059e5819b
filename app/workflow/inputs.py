"""Whether the values of an experiment fit its interface, and whether it can run: pure checks that find every fault, not the first (docs/api.md §8).

Creation checks *what is said* (types, references, ranges); a launch also checks *whether it can run* (completeness, host, queue limits, credential).
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import unquote_to_bytes

Document = Mapping[str, Any]
SAFE_INTEGER = 2**53 - 1
STRING_MAX, URI_MAX, COLLECTION_MAX = 65_536, 2048, 1000
INLINE_EACH_MAX, INLINE_TOTAL_MAX = 65_536, 262_144
_STORAGE = re.compile(r"storage://(sto_[0-9a-z]{26})/(.+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCHEMES = ["storage", "data"]


@dataclass(frozen=True)
class Fault:
    """One fault of a body: `pointer` is RFC 6901, `code` a field code of docs/api.md §1, `limit` what would have been allowed."""

    pointer: str
    code: str
    detail: str
    limit: Any = None


def check_values(interface: Document, values: Document) -> list[Fault]:
    """What is said: known names, types, ranges, choices, safe URIs."""
    declared = {each["name"]: each for each in interface["inputs"]}
    faults: list[Fault] = []
    for name, value in values.items():
        at = f"/inputs/{name}"
        if name not in declared:
            faults.append(Fault(at, "unknown_input", f"the interface has no input {name[:64]}", sorted(declared)[:100]))
        elif declared[name].get("read_only"):
            faults.append(Fault(at, "not_allowed", "this input is read-only"))
        elif value is not None:
            faults += _CHECKS[declared[name]["type"]](at, declared[name], value)
    inline = sum(_inline_size(uri) for value in values.values() for uri in uris(value))
    if inline > INLINE_TOTAL_MAX:
        faults.append(Fault("/inputs", "too_long", f"data: URIs together carry {inline} bytes", INLINE_TOTAL_MAX))
    return faults


def check_defaults(interface: Document) -> list[Fault]:
    """Defaults are values too."""
    declared = enumerate(interface["inputs"])
    return [fault for index, each in declared if each.get("default") is not None for fault in _CHECKS[each["type"]](f"/inputs/{index}/default", each, each["default"])]


def with_defaults(interface: Document, values: Document) -> dict[str, Any]:
    """What a run gets: of every declared input the value given, else its default."""
    given = {each["name"]: values.get(each["name"]) for each in interface["inputs"]}
    return {each["name"]: value for each in interface["inputs"] if (value := each.get("default") if given[each["name"]] is None else given[each["name"]]) is not None}


def check_complete(interface: Document, values: Document) -> list[Fault]:
    """Every required input has a value or a default."""
    return [
        Fault(f"/inputs/{each['name']}", "required", "this input is required")
        for each in interface["inputs"]
        if each.get("required") and values.get(each["name"]) is None and each.get("default") is None
    ]


def check_scheduling(scheduling: Document, host: Document | None) -> list[Fault]:
    """Queue known, and nothing beyond what it allows."""
    queues = {queue["name"]: queue for queue in (host or {}).get("queues", ())}
    name = scheduling.get("queue")
    if name is not None and host is not None and name not in queues:
        return [Fault("/scheduling/queue", "unknown_reference", f"{host['name']} has no queue {str(name)[:64]}", sorted(queues))]
    queue = queues.get(name) if name else next((each for each in queues.values() if each.get("is_default")), None)
    faults = []
    for field, limit_name in (("wall_time_seconds", "max_wall_time_seconds"), ("node_count", "max_nodes"), ("cpu_count", "max_cpus"), ("memory_mib", "max_memory_mib")):
        value, limit = scheduling.get(field), (queue or {}).get(limit_name)
        if value is not None and limit is not None and value > limit:
            faults.append(Fault(f"/scheduling/{field}", "exceeds_limit", f"queue {queue['name'] if queue else ''} allows {limit}", limit))
    return faults


def check_runnable(*, deployment: Document | None, host: Document | None, credential: Document | None, storage: Document | None, now: datetime) -> list[Fault]:
    """Host enabled and verified, deployment there, credential valid, a place for outputs."""
    faults = []
    if deployment is None or host is None:
        return [Fault("/compute_resource_id", "required", "no enabled deployment of this application: name a compute resource that has one")]
    if host["state"] != "ENABLED":
        faults.append(Fault("/compute_resource_id", "disabled", f"{host['name']} is {host['state']}"))
    if not (host.get("file_systems") or {}).get("SCRATCH"):
        faults.append(Fault("/compute_resource_id", "required", f"{host['name']} names no SCRATCH file system"))
    if credential is None:
        faults.append(Fault("/compute_resource_id", "required", f"{host['name']} has no credential: give access.credential_id"))
    elif credential["expires_at"] is not None and credential["expires_at"] <= now:
        faults.append(Fault("/compute_resource_id", "expired", f"credential {credential['id']} expired"))
    if storage is None:
        faults.append(Fault("/output_storage_id", "required", "no storage for the outputs: name one, or give the gateway a default"))
    return faults


def uris(value: Any) -> Iterable[str]:
    """Every URI a value names: plain, {"uri": …}, or a list of either."""
    if isinstance(value, list):
        for each in value:
            yield from uris(each)
    elif isinstance(value, Mapping):
        yield str(value.get("uri", ""))
    elif isinstance(value, str) and value.split(":", 1)[0] in {"storage", "data"}:
        yield value


def storage_ids(values: Document) -> set[str]:
    """The storages that the inputs name."""
    return {found[1] for value in values.values() for uri in uris(value) if (found := _STORAGE.fullmatch(uri))}


def inline_bytes(uri: str) -> bytes:
    """The content of a `data:` URI (RFC 2397). Raises ValueError."""
    head, comma, body = uri.removeprefix("data:").partition(",")
    if not comma:
        raise ValueError("no comma")
    if head.endswith(";base64"):
        try:
            return base64.b64decode(body, validate=True)
        except binascii.Error as fault:
            raise ValueError(str(fault)) from fault
    return unquote_to_bytes(body)


def _inline_size(uri: str) -> int:
    try:
        return len(inline_bytes(uri)) if uri.startswith("data:") else 0
    except ValueError:
        return 0


def _string(at: str, declared: Document, value: Any) -> list[Fault]:
    if not isinstance(value, str):
        return [Fault(at, "wrong_type", "a string is wanted")]
    longest = declared.get("max_length") or STRING_MAX
    if len(value.encode()) > STRING_MAX or len(value) > longest:
        return [Fault(at, "too_long", f"{len(value)} characters", longest)]
    if any(ord(each) < 32 and each not in "\t\n" for each in value):
        return [Fault(at, "bad_format", "control characters are not allowed")]
    return _choice(at, declared, value)


def _number(kinds: frozenset[type], wanted: str, at: str, declared: Document, value: Any) -> list[Fault]:
    if type(value) not in kinds:  # A bool is an int by inheritance.
        return [Fault(at, "wrong_type", f"{wanted} is wanted")]
    low, high = declared.get("minimum"), declared.get("maximum")
    low, high = -SAFE_INTEGER if low is None else low, SAFE_INTEGER if high is None else high
    if not low <= value <= high:
        return [Fault(at, "out_of_range", f"from {low} to {high}", [low, high])]
    return _choice(at, declared, value)


def _choice(at: str, declared: Document, value: Any) -> list[Fault]:
    choices = declared.get("choices")
    return [Fault(at, "not_allowed", "not one of the choices", choices)] if choices and value not in choices else []


def _collection(at: str, declared: Document, value: Any) -> list[Fault]:
    if not isinstance(value, list):
        return [Fault(at, "wrong_type", "a list of URIs is wanted")]
    if len(value) > COLLECTION_MAX:
        return [Fault(at, "too_many", f"{len(value)} URIs", COLLECTION_MAX)]
    return [fault for index, each in enumerate(value) for fault in _uri(f"{at}/{index}", declared, each)]


def _uri(at: str, _declared: Document, value: Any) -> list[Fault]:
    if isinstance(value, Mapping):
        if unknown := sorted(set(value) - {"uri", "sha256"}):
            return [Fault(f"{at}/{each}", "unknown_field", "uri and sha256 are known") for each in unknown[:10]]
        digest = value.get("sha256")
        if digest is not None and not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
            return [Fault(f"{at}/sha256", "bad_format", "64 lower-case hex digits are wanted")]
        value, at = value.get("uri"), f"{at}/uri"
    if not isinstance(value, str):
        return [Fault(at, "wrong_type", "a URI is wanted")]
    scheme = value.split(":", 1)[0].lower()
    if scheme == "data":
        return _inline(at, value)
    if len(value) > URI_MAX:
        return [Fault(at, "too_long", f"{len(value)} characters", URI_MAX)]
    if scheme == "https":
        return [Fault(at, "not_allowed", "https inputs are not served yet", _SCHEMES)]
    if scheme != "storage":
        return [Fault(at, "unsafe_value", f"scheme {scheme[:20]} is not allowed", _SCHEMES)]
    found = _STORAGE.fullmatch(value)
    if found is None:
        return [Fault(at, "bad_format", "storage://<storage id>/<path> is wanted")]
    if any(part in {"", ".", ".."} for part in found[2].split("/")) or any(ord(each) < 32 for each in value):
        return [Fault(at, "unsafe_value", "the path may not leave its storage")]
    return []


def _inline(at: str, value: str) -> list[Fault]:
    if len(value) > INLINE_EACH_MAX * 3:
        return [Fault(at, "too_long", "a data: URI carries at most 64 KiB", INLINE_EACH_MAX)]
    try:
        size = len(inline_bytes(value))
    except ValueError as fault:
        return [Fault(at, "bad_format", f"not a data: URI: {fault}")]
    return [Fault(at, "too_long", f"{size} bytes", INLINE_EACH_MAX)] if size > INLINE_EACH_MAX else []


_CHECKS: Mapping[str, Callable[[str, Document, Any], list[Fault]]] = {
    "STRING": _string,
    "INTEGER": partial(_number, frozenset({int}), "an integer"),
    "FLOAT": partial(_number, frozenset({int, float}), "a number"),
    "URI": _uri,
    "URI_COLLECTION": _collection,
}
