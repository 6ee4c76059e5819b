"""Spans of the API: a request, and each event that it stored. Units of work and statements hang below the request (observability/tracing.py, app/mysql/engine.py)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from app.messages import trace
from app.mysql.events import New
from observability import metrics, tracing

if TYPE_CHECKING:
    from app.api.gate import Request, Response

_ENTITIES = {"exp_": "airavata.experiment.id", "prc_": "airavata.process.id", "tsk_": "airavata.task.id"}
_OF_EVENT = {
    "gateway_id": "airavata.gateway.id", "experiment_id": "airavata.experiment.id", "process_id": "airavata.process.id", "task_id": "airavata.task.id", "task_type": "airavata.task.type",
    "attempt": "airavata.task.attempt", "epoch": "airavata.attempt.epoch", "type": "airavata.message.type", "id": "airavata.event.id",
}  # fmt: skip


@metrics.measuring
def tell(request: "Request", response: "Response") -> None:
    """The request's span: what is sampled below it hangs on it."""
    assert request.under_way is not None
    told = {
        "http.request.method": request.method, "http.route": request.route, "http.response.status_code": response.status, "url.path": request.path, "client.address": _prefix(request.client),
        "airavata.request.id": request.id, **_named(request.path), **request.under_way.attributes,
    }  # fmt: skip
    if request.headers.get("idempotency-key"):
        told["airavata.idempotency"] = "replayed" if "Idempotency-Replayed" in response.headers else "fresh"
    error = str(response.status) if response.status >= 500 else ""
    tracing.tell(
        f"{request.method} {request.route}".rstrip(), request.traceparent, parent=request.parent, start=request.began, end=tracing.now_ns(), kind=tracing.SERVER, attributes=told,
        links=request.under_way.links, error=error,
    )  # fmt: skip


def _named(path: str) -> dict[str, str]:
    """Whom a path is about."""
    return {_ENTITIES[each[:4]]: each for each in path.split("/") if each[:4] in _ENTITIES}


def _prefix(address: str) -> str:
    """Of an IP address: which network, and not who."""
    return ":".join(address.split(":")[:3]) + "::" if ":" in address else ".".join([*address.split(".")[:3], "0"]) if address else ""


@metrics.measuring
def recorded(new: Sequence[New], *, began: int, request: str) -> None:
    """Events are stored: clients see them. `request`: the span of the request that brought them."""
    end = tracing.now_ns()
    for each in new:
        event = each.document
        above = event.get("traceparent") or ""
        if tracing.wanted(above, came_in="event"):
            told: dict[str, Any] = {name: event.get(key) for key, name in _OF_EVENT.items()} | {"airavata.late": each.late or None}
            tracing.tell("record task-event", tracing.child(above), parent=above, start=began, end=end, attributes=told, links=[request] if trace.sampled(request) else ())
