"""From an experiment to its launch: what it refers to, whether it can run, and the one transaction that launches it.

State, process row, expected outputs and the two messages commit together with the idempotency row (`api.launch_commit`): no gap, nothing half-done.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app import failpoint
from app.api.operations import Call
from app.api.problems import Problem, invalid
from app.messages import trace
from app.mysql import access, catalogue, experiments, outbox, outputs, processes
from app.workflow import generation, inputs, submission
from app.workflow.inputs import Fault
from app.workflow.planners import Planner, PlanRefused
from observability import tracing

BACKLOG_MAX = 1_000_000
COUNTED_SECONDS = 1.0
WALL_TIME_SECONDS = 3600  # Where neither experiment, deployment nor queue says how long.
Document = dict[str, Any]


@dataclass(frozen=True)
class References:
    """Everything an experiment names, as it stands now. `storages`: by id, of inputs and outputs."""

    interface: Document
    planner: Planner
    project_id: str
    deployment: Document | None
    host: Document | None
    storage: Document | None
    storages: Mapping[str, Document]
    credential: Document | None


# ---- what is said -------------------------------------------------------------------------------------------------------------------------------------
def check(call: Call, body: Mapping[str, Any], *, runnable: bool, code: str = "validation_failed") -> References:
    """Every fault at once. What is said (types, references, ranges, the graph): `code`. With `runnable` also whether it can run: not_launchable."""
    references, faults = _refer(call, body)
    if references is None:
        raise invalid(faults, code=code)
    faults += inputs.check_values(references.interface, body["inputs"])
    if references.planner.needs_host:
        faults += inputs.check_scheduling(_scheduling(body["scheduling"], references) if runnable else body["scheduling"], references.host)
    if body["deadline_at"] is not None and deadline(body) <= call.at:
        faults.append(Fault("/deadline_at", "out_of_range", "in the future"))
    missing = inputs.check_complete(references.interface, body["inputs"])
    if not faults and not missing:
        faults += _plan_faults(references, body)
    unable = [*missing, *_unable(call, references)] if runnable else []
    if faults or unable:
        raise invalid([*faults, *unable], code=code if faults else "not_launchable")
    return references


def deadline(body: Mapping[str, Any]) -> datetime:
    """Naive UTC, as MySQL holds it."""
    return datetime.fromisoformat(body["deadline_at"]).replace(tzinfo=None)


def _unable(call: Call, references: References) -> list[Fault]:
    if not references.planner.needs_host:
        return []
    return inputs.check_runnable(deployment=references.deployment, host=references.host, credential=references.credential, storage=references.storage, now=call.at)


def _plan_faults(references: References, body: Mapping[str, Any]) -> list[Fault]:
    try:
        generation.check(references.planner.plan(_snapshot(body, references)))
    except PlanRefused as refusal:
        return [Fault(refusal.pointer, refusal.code, refusal.detail)]
    return []


def _refer(call: Call, body: Mapping[str, Any]) -> tuple[References | None, list[Fault]]:
    """Looks up what the body names; what is not there, or another gateway's, is `unknown_reference`."""
    tx, gateway = call.tx, call.principal.gateway
    interface = catalogue.get(tx, gateway, catalogue.INTERFACE, body["application_interface_id"])
    if interface is None or interface["planner"] not in call.services.planners:
        return None, [Fault("/application_interface_id", "unknown_reference", "no such interface, or its planner is not enabled here")]
    planner, faults = call.services.planners[interface["planner"]], []
    project_id = body.get("project_id")
    project = catalogue.get(tx, gateway, catalogue.PROJECT, project_id) if project_id else catalogue.by_name(tx, gateway, catalogue.PROJECT, "default")
    if project is None:
        faults.append(Fault("/project_id", "unknown_reference" if project_id else "required", "no such project" if project_id else "the gateway has no project `default`"))
    storage_id = body.get("output_storage_id") or ((access.gateway(tx, gateway) or {}).get("default_storage_id") if planner.needs_host else None)
    values = {**body["inputs"], **inputs.with_defaults(interface, body["inputs"])}
    known = catalogue.known(tx, gateway, catalogue.STORAGE, sorted({*inputs.storage_ids(values), *([storage_id] if storage_id else [])}))  # Of what may be thousands.
    storages = {each: found for each in sorted(known) if (found := catalogue.get(tx, gateway, catalogue.STORAGE, each)) is not None}
    if body.get("output_storage_id") is not None and storage_id not in storages:
        faults.append(Fault("/output_storage_id", "unknown_reference", "no such storage"))
    for name, value in values.items():
        if inputs.storage_ids({name: value}) - set(storages):
            faults.append(Fault(f"/inputs/{name}", "unknown_reference", "no such storage"))
    deployment, host = _place(call, interface, body.get("compute_resource_id"), faults) if planner.needs_host else (None, None)
    credential_id = host["access"]["credential_id"] if host else None
    credential = access.credential(tx, gateway, credential_id) if credential_id else None
    return References(interface, planner, (project or {}).get("id", ""), deployment, host, storages.get(storage_id or ""), storages, credential), faults


def _place(call: Call, interface: Document, host_id: str | None, faults: list[Fault]) -> tuple[Document | None, Document | None]:
    """Deployment and host: on the host named, or the only deployment there is on an enabled one."""
    tx, gateway = call.tx, call.principal.gateway
    host = catalogue.get(tx, gateway, catalogue.COMPUTE, host_id)
    if host_id is not None and host is None:
        faults.append(Fault("/compute_resource_id", "unknown_reference", "no such compute resource"))
        return None, None
    found = catalogue.deployments_of(tx, gateway, interface["module_ids"])
    if host is not None:
        return next((each for each in found if each["compute_resource_id"] == host["id"]), None), host
    hosts = {each["compute_resource_id"]: catalogue.get(tx, gateway, catalogue.COMPUTE, each["compute_resource_id"]) for each in found}
    enabled = [(each, hosts[each["compute_resource_id"]]) for each in found if (hosts[each["compute_resource_id"]] or {}).get("state") == "ENABLED"]
    return enabled[0] if len(enabled) == 1 else (None, None)


# ---- the launch ---------------------------------------------------------------------------------------------------------------------------------------
def launch(call: Call, row: Document, references: References) -> Document:
    """Everything of a launch but the experiment's own row, whose changed columns it returns. The draft is locked, or is inserted with them."""
    _check_limits(call)
    services = call.services
    snapshot = _snapshot(row["document"], references) | {"experiment_id": row["id"], "gateway_id": call.principal.gateway}
    launched = submission.launch(
        gateway_id=call.principal.gateway, experiment_id=row["id"], from_state=row["state"], snapshot=snapshot, traceparent=call.request.traceparent, placement=services.placement,
        topics=services.topics,
    )  # fmt: skip
    processes.insert(call.tx, launched, gateway_id=call.principal.gateway, experiment_id=row["id"], deadline_at=row["deadline_at"], now=call.at)
    outputs.expect(call.tx, row["id"], [(each["name"], each["type"]) for each in references.interface["outputs"]], now=call.at)
    failpoint.hit("api.state.after", process=launched.process_id)
    outbox.append(call.tx, launched.messages, placement=services.placement, now=call.at)
    tracing.note({"airavata.gateway.id": call.principal.gateway, "airavata.experiment.id": row["id"], "airavata.process.id": launched.process_id})
    parsed = trace.parse(call.request.traceparent)
    return {
        "process_id": launched.process_id, "trace_id": parsed[0] if parsed else None, "deployment_id": (references.deployment or {}).get("id"),
        "compute_resource_id": (references.host or {}).get("id"),
    }  # fmt: skip


def _check_limits(call: Call) -> None:
    """Whether the gateway may launch now. Looked up once a second, so approximate: no counter row that every launch would queue for."""
    known = call.services.live
    seen = known.get(call.principal.gateway)
    if seen is None or time.monotonic() - seen[0] > COUNTED_SECONDS:
        gateway = access.gateway(call.tx, call.principal.gateway) or {}
        most, shards = live_experiments_max(call, gateway), call.services.placement.shards
        backlog = sum(outbox.count(call.tx, shard, BACKLOG_MAX // shards) for shard in range(shards))
        live = experiments.live(call.tx, call.principal.gateway, limit=most) if most else 0
        seen = known[call.principal.gateway] = (time.monotonic(), gateway.get("paused"), most, live, backlog)
    _, paused, most, live, backlog = seen
    if paused:
        raise invalid([Fault("", "disabled", "this gateway is paused: nothing is launched until its administrator ends that")], code="not_launchable")
    if most and live >= most:
        raise Problem("too_many_live_experiments", f"this gateway has {most} live experiments: wait for some to end")
    if backlog >= BACKLOG_MAX:
        raise Problem("backlog_full", "a million messages wait to be sent: try again when they are")


def live_experiments_max(call: Call, gateway: Mapping[str, Any]) -> int:
    """The gateway's own limit, which operators set, else this server's; 0 is none."""
    own = (gateway.get("limits") or {}).get("live_experiments")
    return int(call.services.live_experiments_max if own is None else own)


def _snapshot(body: Mapping[str, Any], references: References) -> Document:
    """What the process runs by, whatever the catalogue says tomorrow."""
    way_in = (references.host or {}).get("access") or {}
    return {
        "interface": _plain(references.interface), "deployment": _plain(references.deployment), "host": _plain(references.host), "inputs": inputs.with_defaults(references.interface, body["inputs"]),
        "scheduling": _scheduling(body["scheduling"], references), "cleanup_strategy": body["cleanup_strategy"], "output_storage": _plain(references.storage),
        "storages": {each: _plain(found) for each, found in references.storages.items()}, "credential": way_in.get("credential_id"), "login": way_in.get("login"),
    }  # fmt: skip


def _plain(row: Document | None) -> Document | None:
    return None if row is None else {name: value for name, value in row.items() if name not in {"created_at", "updated_at"}}


def _scheduling(asked: Mapping[str, Any], references: References) -> Document:
    """What is left out comes from the deployment, then from the queue."""
    defaults = (references.deployment or {}).get("defaults") or {}
    queues = (references.host or {}).get("queues") or []
    name = asked.get("queue") or defaults.get("queue") or next((each["name"] for each in queues if each["is_default"]), None)
    queue: Document = next((each for each in queues if each["name"] == name), {})
    found = {field: asked.get(field) if asked.get(field) is not None else defaults.get(field) for field in asked}
    return {**found, "queue": name, "wall_time_seconds": found.get("wall_time_seconds") or queue.get("max_wall_time_seconds") or WALL_TIME_SECONDS}
