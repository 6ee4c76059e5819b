"""From an experiment to its launch: what it refers to, whether it can run, and the one transaction that launches it.

State, process row, expected outputs and the two messages commit together with the idempotency row (`api.launch_commit`): no gap, nothing half-done.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app import failpoint
from app.api.operations import Call
from app.api.problems import Problem, invalid
from app.messages import trace
from app.mysql import access, catalogue, experiments, outbox, outputs, processes
from app.workflow import experiment, inputs, submission
from app.workflow.inputs import Fault
from app.workflow.planners import Planner, PlanRefused

BACKLOG_MAX = 1_000_000
Document = dict[str, Any]


@dataclass(frozen=True)
class References:
    """Everything an experiment names, as it stands now."""

    interface: Document
    planner: Planner
    deployment: Document | None
    host: Document | None
    storage: Document | None
    credential: Document | None


def refer(call: Call, body: Mapping[str, Any]) -> tuple[References | None, list[Fault]]:
    """Looks up what the body names; what is not there (or another gateway's) is `unknown_reference`."""
    tx, gateway = call.tx, call.principal.gateway
    faults: list[Fault] = []
    interface = catalogue.get(tx, gateway, catalogue.INTERFACE, body["application_interface_id"])
    if interface is None or interface["planner"] not in call.services.planners:
        return None, [Fault("/application_interface_id", "unknown_reference", "no such interface")]
    planner = call.services.planners[interface["planner"]]
    project = body.get("project_id")
    if project is not None and catalogue.get(tx, gateway, catalogue.PROJECT, project) is None:
        faults.append(Fault("/project_id", "unknown_reference", "no such project"))
    host = catalogue.get(tx, gateway, catalogue.COMPUTE, body.get("compute_resource_id"))
    if body.get("compute_resource_id") is not None and host is None:
        faults.append(Fault("/compute_resource_id", "unknown_reference", "no such compute resource"))
    storage_id = body.get("output_storage_id") or (access.gateway(tx, gateway) or {}).get("default_storage_id")
    storage = catalogue.get(tx, gateway, catalogue.STORAGE, storage_id)
    if body.get("output_storage_id") is not None and storage is None:
        faults.append(Fault("/output_storage_id", "unknown_reference", "no such storage"))
    known = catalogue.known(tx, gateway, catalogue.STORAGE, list(inputs.storage_ids(body["inputs"])))
    for name, value in body["inputs"].items():
        if any(each not in known for each in inputs.storage_ids({name: value})):
            faults.append(Fault(f"/inputs/{name}", "unknown_reference", "no such storage"))
    deployment, host = _deployment(call, interface, host) if planner.needs_host else (None, None)
    credential = access.credential(tx, gateway, host["access"]["credential_id"]) if host and host["access"]["credential_id"] else None
    return References(interface, planner, deployment, host, storage, credential), faults


def _deployment(call: Call, interface: Document, host: Document | None) -> tuple[Document | None, Document | None]:
    """On the host named; or the only one there is on an enabled host."""
    found = catalogue.deployments_of(call.tx, call.principal.gateway, interface["module_ids"])
    if host is not None:
        return next((each for each in found if each["compute_resource_id"] == host["id"]), None), host
    hosts = {each["compute_resource_id"]: catalogue.get(call.tx, call.principal.gateway, catalogue.COMPUTE, each["compute_resource_id"]) for each in found}
    enabled = [(each, hosts[each["compute_resource_id"]]) for each in found if (hosts[each["compute_resource_id"]] or {}).get("state") == "ENABLED"]
    return enabled[0] if len(enabled) == 1 else (None, None)


def check_said(call: Call, body: Mapping[str, Any]) -> References:
    """What is said: types, references, ranges, the graph. Raises validation_failed with every fault."""
    references, faults = refer(call, body)
    if references is not None:
        faults += inputs.check_values(references.interface, body["inputs"])
        if references.planner.needs_host:
            faults += inputs.check_scheduling(body["scheduling"], references.host)
        elif not faults and not inputs.check_complete(references.interface, body["inputs"]):
            faults += _plan_faults(references, _values(references, body))
    if faults or references is None:
        raise invalid(faults)
    return references


def _plan_faults(references: References, values: Document) -> list[Fault]:
    try:
        from app.workflow import generation

        generation.check(references.planner.plan({"inputs": values}))
    except PlanRefused as refusal:
        return [Fault(refusal.pointer, refusal.code, refusal.detail)]
    return []


def _values(references: References, body: Mapping[str, Any]) -> Document:
    """Inputs with their defaults."""
    return {
        each["name"]: value
        for each in references.interface["inputs"]
        if (value := body["inputs"].get(each["name"]) if body["inputs"].get(each["name"]) is not None else each.get("default")) is not None
    }


def launch(call: Call, row: Document) -> str:
    """LAUNCHED, of a locked draft; returns the process id. Raises not_launchable with every reason, or a limit's problem."""
    body = row["document"]
    references, faults = refer(call, {**body, **{name: row[name] for name in ("application_interface_id", "compute_resource_id", "project_id")}})
    if references is None:
        raise invalid(faults, code="not_launchable")
    faults += inputs.check_complete(references.interface, body["inputs"])
    if references.planner.needs_host:
        faults += inputs.check_runnable(deployment=references.deployment, host=references.host, credential=references.credential, storage=references.storage, now=call.at)
    if not faults:
        faults += _plan_faults(references, _values(references, body)) if not references.planner.needs_host else inputs.check_scheduling(body["scheduling"], references.host)
    if faults:
        raise invalid(faults, code="not_launchable")
    _check_limits(call)
    services = call.services
    launched = submission.launch(
        gateway_id=call.principal.gateway, experiment_id=row["id"], from_state=row["state"], snapshot=_snapshot(call, row, references), traceparent=call.traceparent,
        placement=services.placement, topics=services.topics,
    )  # fmt: skip
    parsed = trace.parse(call.traceparent)
    experiments.launched(
        call.tx, row["id"], process_id=launched.process_id, trace_id=parsed[0] if parsed else None, deployment_id=references.deployment["id"] if references.deployment else None,
        compute_resource_id=references.host["id"] if references.host else None, now=call.at,
    )  # fmt: skip
    processes.insert(call.tx, launched, gateway_id=call.principal.gateway, experiment_id=row["id"], deadline_at=row["deadline_at"], now=call.at)
    outputs.expect(call.tx, row["id"], [(each["name"], each["type"]) for each in references.interface["outputs"]], now=call.at)
    failpoint.hit("api.state.after", process=launched.process_id)
    outbox.append(call.tx, launched.messages, placement=services.placement, now=call.at)
    call.audit(row["id"])
    return launched.process_id


def _check_limits(call: Call) -> None:
    most = call.services.live_experiments_max
    counts = call.services.more.setdefault("live", {})
    import time

    seen = counts.get(call.principal.gateway)
    if seen is None or time.monotonic() - seen[0] > 1.0:  # A count cached 1 s, so approximate: no counter row.
        backlog = sum(outbox.count(call.tx, shard, BACKLOG_MAX // call.services.placement.shards) for shard in range(call.services.placement.shards))
        live = experiments.live(call.tx, call.principal.gateway, limit=most + 1) if most else 0
        seen = counts[call.principal.gateway] = (time.monotonic(), live, backlog)
    if most and seen[1] >= most:
        raise Problem("too_many_live_experiments", f"this gateway has {most} live experiments: wait for some to end")
    if seen[2] >= BACKLOG_MAX:
        raise Problem("backlog_full", "a million messages wait to be sent: try again when they are")


def _snapshot(call: Call, row: Document, references: References) -> Document:
    """What the process runs by, whatever the catalogue says tomorrow."""
    plain = {name: _plain(getattr(references, name)) for name in ("interface", "deployment", "host")}
    body, storage = row["document"], references.storage
    named = inputs.storage_ids(body["inputs"]) | ({storage["id"]} if storage else set())
    storages = {each: _plain(catalogue.get(call.tx, call.principal.gateway, catalogue.STORAGE, each)) for each in sorted(named)}
    host = references.host or {}
    return {
        **plain, "inputs": _values(references, body), "scheduling": _scheduling(body["scheduling"], references), "cleanup_strategy": body["cleanup_strategy"],
        "output_storage": _plain(storage), "storages": storages, "credential": (host.get("access") or {}).get("credential_id"), "login": (host.get("access") or {}).get("login"),
        "experiment_id": row["id"], "gateway_id": call.principal.gateway,
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
    return {**found, "queue": name, "wall_time_seconds": found.get("wall_time_seconds") or queue.get("max_wall_time_seconds") or 3600}


def is_editable(row: Document) -> bool:
    return experiment.State(row["state"]) in experiment.EDITABLE
