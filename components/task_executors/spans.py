"""Spans of remote work, told by the executor that hears of it from its workers, and of a look at a host."""

from collections.abc import Sequence

from msgspec import structs

from components.task_executors.diary import Did
from components.task_executors.plugin import WorkOrder
from components.task_executors.remote_host import HostAddress
from observability import metrics, tracing


@metrics.measuring
def tell(order: WorkOrder, address: HostAddress, did: Did) -> None:
    """One operation, below the attempt."""
    told = {
        **tracing.about(structs.astuple(order.subject)), "airavata.host.name": (order.snapshot.get("host") or {}).get("name"), "server.address": address.host, "server.port": address.port, **did.attributes,
    }  # fmt: skip
    tracing.tell(did.name, tracing.child(order.traceparent), parent=order.traceparent, start=did.start, end=did.end, kind=tracing.CLIENT, attributes=told, error=did.error)


@metrics.measuring
def looked(host_id: str, *, began: int, asked: int, changed: Sequence[str]) -> None:
    """One look at all jobs of a host, which found something new. `changed`: the job's own spans."""
    sampled = [each for each in changed if tracing.wanted(each)]
    if sampled:
        told = {"airavata.host.id": host_id, "airavata.jobs.asked": asked, "airavata.jobs.changed": len(changed)}
        tracing.tell("watch host", tracing.fresh(), start=began, end=tracing.now_ns(), kind=tracing.CLIENT, attributes=told, links=sampled)
