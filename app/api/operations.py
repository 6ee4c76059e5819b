"""What an endpoint is, said once: routing, validation, authorisation, idempotency and the OpenAPI document all follow from an `Operation`.

To add an endpoint: write a handler `def handle(call: Call) -> Answer`, and put an Operation for it into the OPERATIONS tuple of its resource module (and that module
into resources.py, once). A handler runs in a worker thread inside one unit of work, `call.tx`; it may be repeated from the start after a deadlock, so it
must do nothing but through `call.tx`. It raises Problem to refuse; a code that does not follow from what the operation is (openapi.py: answers) stands in `errors`.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlencode

import msgspec
from pydantic import BaseModel

from app.api import reading
from app.api.problems import Problem, invalid, or_404
from app.messages import ids
from app.mysql import audit
from app.mysql.catalogue import ORDERS
from app.mysql.unit_of_work import Transaction
from app.workflow.inputs import Fault

if TYPE_CHECKING:
    from app.api.gate import Request

T = TypeVar("T")


@dataclass(frozen=True)
class Principal:
    """Who asks: from the token, never from a parameter. `gateway_id` is None for operators and services."""

    token_id: str
    gateway_id: str | None
    user: str
    role: str
    scopes: frozenset[str]
    expires_at: datetime

    @property
    def gateway(self) -> str:
        """On the public face every query runs through a gateway; a role without one has nothing to see there."""
        if self.gateway_id is None:
            raise Problem("forbidden", f"role {self.role} is bound to no gateway: use a gateway's token here")
        return self.gateway_id

    @property
    def owner(self) -> str | None:
        """Whose experiments and credentials: a user's own; None for who sees the whole gateway."""
        return self.user if self.role == "user" else None


NOT_YET: Any = None


@dataclass(frozen=True)
class Call:
    """One request, read and authorised: `raw` is the body as it was said, `body` its model. A unit of work adds itself, and `at`, MySQL's time in it."""

    request: "Request"
    operation: "Operation"
    principal: Principal
    services: Any  # application.Services
    path: Mapping[str, str]
    query: Mapping[str, Any]
    raw: Any = None
    body: Any = None
    tx: Transaction = NOT_YET
    at: datetime = NOT_YET

    def id(self, prefix: str) -> str:
        """The path's. Raises not_found: a malformed id is an unknown id, and is not asked for."""
        return or_404(self.path["id"] if ids.is_id(self.path["id"], prefix) else None)

    def audit(self, subject: str, reason: str | None = None) -> None:
        """Who did what; in the same transaction."""
        audit.append(self.tx, gateway_id=self.principal.gateway_id, user=self.principal.user, action=self.operation.id, subject=subject, reason=reason, request_id=self.request.id, at=self.at)


@dataclass(frozen=True)
class Answer:
    """`body` is JSON (its times as MySQL gives them), or bytes with a `content_type`, or an iterator of them with its Content-Length among the headers.

    `stored`: what an idempotent replay shows instead (secrets left out). `then`: makes the answer after the transaction, in a thread (what waits for a storage).
    """

    body: Any = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    stored: Any = None
    content_type: str = "application/json"
    then: Callable[[], "Answer"] | None = None


@dataclass(frozen=True)
class Parameter:
    """A query parameter. `read` raises ValueError, whose text says what is wanted; `schema` is its JSON Schema."""

    name: str
    read: Callable[[str], Any]
    schema: Mapping[str, Any]
    default: Any = None


@dataclass(frozen=True)
class Operation:
    """`key`: '' none, 'may' accepted, 'must' required, 'launch' required when the body says launch. `match`: If-Match is required. `shape`: the answer's component name. `unit`: of work, if it has a name of its own."""

    method: str
    path: str
    id: str
    summary: str
    handle: Callable[[Call], Answer]
    scope: str = ""
    body: type[BaseModel] | None = None
    shape: str = ""
    status: int = 200
    also: tuple[int, ...] = ()
    errors: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    key: str = ""
    match: bool = False
    internal: bool = False
    public: bool = False
    content: str = "application/json"
    waits: bool = False
    body_bytes_max: int = 1 << 20
    unit: str = ""

    @property
    def writes(self) -> bool:
        return self.method != "GET"

    @property
    def unit_of_work(self) -> str:
        """Its name: what only reads says so."""
        return self.unit or ("api.launch_commit" if self.key in {"launch", "must"} else f"api.{self.id}" if self.writes else f"api.{self.id}.read")


# ---- parameters ---------------------------------------------------------------------------------------------------------------------------------------
def integer(name: str, low: int, high: int, default: int | None = None) -> Parameter:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 17 and low <= int(text) <= high):
            raise ValueError(f"an integer from {low} to {high}")
        return int(text)

    return Parameter(name, read, {"type": "integer", "minimum": low, "maximum": high}, default)


def choice(name: str, *allowed: str, default: str | None = None, several: bool = False) -> Parameter:
    def read(text: str) -> Any:
        words = text.split(",") if several else [text]
        if any(word not in allowed for word in words):
            raise ValueError(f"one of {', '.join(allowed)}")
        return words if several else text

    return Parameter(name, read, {"type": "string"} if several else {"type": "string", "enum": list(allowed)}, default)


def text(name: str, longest: int = 200) -> Parameter:
    def read(given: str) -> str:
        if not 0 < len(given) <= longest or any(ord(each) < 32 for each in given):
            raise ValueError(f"1 to {longest} characters, no control characters")
        return given

    return Parameter(name, read, {"type": "string", "minLength": 1, "maxLength": longest})


def moment(name: str) -> Parameter:
    return Parameter(name, lambda given: reading.naive(reading.moment(given)), {"type": "string", "format": "date-time"})


# ---- lists --------------------------------------------------------------------------------------------------------------------------------------------
LIMIT = integer("limit", 1, 200, 50)
PAGED = (LIMIT, text("cursor", 1000))
SORTED = (*PAGED, choice("sort", *ORDERS, default="-created_at"))


class Cursors:
    """Opaque keyset cursors, signed and bound to list, filter, sort and gateway: altered or used elsewhere they are refused."""

    def __init__(self, key: bytes) -> None:
        self.key = key

    def make(self, binding: str, last: list[Any]) -> str:
        body = msgspec.json.encode(last)
        return base64.urlsafe_b64encode(self._sign(binding, body) + body).decode().rstrip("=")

    def read(self, binding: str, cursor: str) -> list[Any]:
        try:
            raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            body = raw[16:]
            if not hmac.compare_digest(raw[:16], self._sign(binding, body)):
                raise ValueError
            found: list[Any] = msgspec.json.decode(body)
        except (ValueError, msgspec.DecodeError):
            raise Problem("invalid_cursor", "The cursor was altered, or belongs to another list, filter or sort") from None
        return found

    def _sign(self, binding: str, body: bytes) -> bytes:
        return hmac.new(self.key, binding.encode() + b"\0" + body, hashlib.sha256).digest()[:16]


def binding_of(call: Call) -> str:
    """What a cursor is bound to: everything but where the page begins and how long it is."""
    filters = sorted((name, str(value)) for name, value in call.query.items() if name not in {"cursor", "limit"} and value is not None)
    return f"{call.operation.id}|{call.principal.gateway_id}|{call.principal.owner}|{dict(call.path)}|{filters}"


def page(call: Call, rows: list[Any], shown: Callable[[Any], Any], key: Callable[[Any], list[Any]]) -> Answer:
    """`rows`: one more than the limit, if there is more. `key`: what the next page begins after. Its link repeats what was asked, word for word."""
    limit = call.query["limit"]
    items = [shown(row) for row in rows[:limit]]
    if len(rows) <= limit:
        return Answer({"items": items})
    cursor = call.services.cursors.make(binding_of(call), key(rows[limit - 1]))
    asked = [(name, value) for name, value in parse_qsl(call.request.query) if name != "cursor"]
    path = call.operation.path.format(**call.path)
    return Answer({"items": items, "next_cursor": cursor}, headers={"Link": f'<{path}?{urlencode([*asked, ("cursor", cursor)])}>; rel="next"'})


def after(call: Call, key: type[T]) -> T | None:
    """Where this page begins, None for the first. `key`: the type of what `page` was told."""
    cursor = call.query["cursor"]
    return None if cursor is None else msgspec.convert(call.services.cursors.read(binding_of(call), cursor), key)


def sorted_after(call: Call) -> tuple[str, tuple[Any, str] | None]:
    """The column that `sort` names, and where this page begins in it."""
    column = call.query["sort"].removeprefix("-")
    return column, after(call, tuple[str, str] if column == "name" else tuple[datetime, str])


# ---- versions -----------------------------------------------------------------------------------------------------------------------------------------
def matched(call: Call, version: int) -> None:
    """If-Match against the row's version. Raises precondition_failed with the current ETag, precondition_required without the header."""
    given = call.request.headers.get("if-match")
    if given is None:
        if call.operation.match:
            raise Problem("precondition_required", "Send If-Match with the ETag you read, or * to overwrite whatever is there")
        return
    if given.strip() != "*" and f'"{version}"' not in [each.strip() for each in given.split(",")]:
        raise Problem("precondition_failed", f"the current version is {version}", headers={"ETag": f'"{version}"'})


def versioned(call: Call, body: Any, version: int, *, status: int | None = None, location: str | None = None) -> Answer:
    """A single resource with its strong ETag; 304 if the client has it."""
    headers = {"ETag": f'"{version}"'} | ({"Location": location} if location else {})
    known = [each.strip().removeprefix("W/") for each in call.request.headers.get("if-none-match", "").split(",")]  # Compared weakly (RFC 9110 §13.1.2): proxies weaken tags.
    if not call.operation.writes and (f'"{version}"' in known or known == ["*"]):
        return Answer(None, 304, headers)
    return Answer(body, status, headers)


def patched(call: Call, current: Mapping[str, Any], *, without: Set[str] = frozenset()) -> Any:
    """The operation's model with the patch merged into what is there, checked whole. `without`: fields that only a birth takes."""
    model = call.operation.body
    assert model is not None, "a patch has one"
    if unknown := sorted(set(call.raw) - (set(model.model_fields) - without)):
        raise invalid([Fault(f"/{name}", "unknown_field", "no such field, or it is not yours to set") for name in unknown])
    return reading.validate(model, merged(current, call.raw))


def merged(current: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    found = dict(current) if isinstance(current, dict) else {}
    for name, value in patch.items():
        if value is None:
            found.pop(name, None)
        else:
            found[name] = merged(found.get(name), value)
    return found
