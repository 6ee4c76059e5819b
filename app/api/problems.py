"""Every refusal has a code. Problems are RFC 9457 documents; the table here is the one of docs/api.md §1, and `/problems/{code}` serves it."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from app.workflow.inputs import Fault
from observability.logs import masked

T = TypeVar("T")
FAULTS_MAX = 100
CODES: Mapping[str, tuple[int, bool, str]] = {  # code → status, retriable, title
    "malformed_json": (400, False, "The body is not the JSON we read"),
    "invalid_parameter": (400, False, "A query parameter is not valid"),
    "invalid_header": (400, False, "A header is not valid"),
    "invalid_cursor": (400, False, "The cursor does not belong to this list"),
    "idempotency_key_missing": (400, False, "This request needs an Idempotency-Key"),
    "unauthenticated": (401, False, "A valid bearer token is needed"),
    "forbidden": (403, False, "The token lacks the scope"),
    "gateway_inactive": (403, False, "The gateway is deactivated"),
    "not_found": (404, False, "There is no such resource"),
    "route_not_found": (404, False, "There is no such path"),
    "method_not_allowed": (405, False, "The resource does not answer this method"),
    "not_acceptable": (406, False, "No acceptable representation"),
    "request_timeout": (408, True, "The request did not arrive in time"),
    "name_taken": (409, False, "The name is taken"),
    "illegal_state": (409, False, "The state does not allow this"),
    "already_terminal": (409, False, "It has already ended"),
    "experiment_live": (409, False, "The experiment is running"),
    "in_use": (409, False, "It is in use"),
    "idempotency_in_flight": (409, True, "The first request with this key is still running"),
    "already_settled": (409, False, "It was settled before"),
    "content_unavailable": (409, False, "The content cannot be served from here"),
    "events_expired": (410, False, "The events are no longer kept"),
    "precondition_failed": (412, False, "The resource has changed"),
    "body_too_large": (413, False, "The body is too large"),
    "uri_too_long": (414, False, "The URL is too long"),
    "unsupported_media_type": (415, False, "The media type is not supported"),
    "unsupported_encoding": (415, False, "Encoded bodies are not supported"),
    "range_not_satisfiable": (416, False, "The range lies outside the content"),
    "validation_failed": (422, False, "The request does not fit the schema"),
    "not_launchable": (422, False, "The experiment cannot be launched as it is"),
    "idempotency_key_reused": (422, False, "The key was used for another request"),
    "precondition_required": (428, False, "This request needs If-Match"),
    "rate_limited": (429, True, "Too many requests"),
    "too_many_live_experiments": (429, True, "Too many live experiments"),
    "too_many_streams": (429, True, "Too many waiting requests"),
    "headers_too_large": (431, False, "The headers are too large"),
    "internal": (500, False, "A bug on our side"),
    "unavailable": (503, True, "A store is out of reach"),
    "overloaded": (503, True, "Too much work at once"),
    "draining": (503, True, "This copy is shutting down"),
    "backlog_full": (503, True, "Too many messages wait"),
    "outcome_unknown": (503, True, "Nobody knows whether it happened"),
}


class Problem(Exception):
    """Ends a request. `errors`: the faults of its body, all at once; `headers` go with the answer."""

    def __init__(self, code: str, detail: str = "", *, errors: Sequence[Fault] = (), headers: Mapping[str, str] | None = None) -> None:
        super().__init__(code)
        self.code, self.detail, self.errors = code, detail or CODES[code][2], list(errors)
        self.status, self.retriable, self.title = CODES[code]
        self.headers = dict(headers or {})
        if self.status in {429, 503} or code == "idempotency_in_flight":
            self.headers.setdefault("Retry-After", "1")
        if self.status == 401:
            self.headers.setdefault("WWW-Authenticate", "Bearer")

    def document(self, *, instance: str, trace_id: str | None) -> dict[str, Any]:
        """What was sent is quoted where that helps, but no secret in it: bodies of errors end up in logs of others."""
        told = [{"pointer": e.pointer, "code": e.code, "detail": masked(e.detail), "limit": e.limit} for e in self.errors[:FAULTS_MAX]]
        return {
            "type": f"/problems/{self.code}", "title": self.title, "status": self.status, "code": self.code, "detail": masked(self.detail), "retriable": self.retriable,
            "instance": instance, "trace_id": trace_id, "errors": told,
        }  # fmt: skip


def invalid(faults: Sequence[Fault], *, code: str = "validation_failed") -> Problem:
    return Problem(code, f"{len(faults)} fault{'s' if len(faults) != 1 else ''}", errors=faults)


def or_404(found: T | None) -> T:
    """The same refusal for what is not there, not of this kind, and not yours."""
    if found is None:
        raise Problem("not_found")
    return found
