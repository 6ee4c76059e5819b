"""Projects, modules, interfaces, deployments, compute and storage resources: one way to create, list, read and change them, told apart by a `Kind`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel

from app import instance
from app.api import models, reading
from app.api.operations import SORTED, Answer, Call, Operation, matched, page, patched, sorted_after, text, versioned
from app.api.problems import Problem, invalid, or_404
from app.mysql import access, catalogue, experiments, hosts
from app.workflow import inputs
from app.workflow.inputs import Fault

Document = dict[str, Any]
STAMPS = ("id", "version", "created_at", "updated_at")
UNASKED_STATES = {"UNVERIFIED", "SUSPENDED"}  # Of hosts: nobody asks for them, they come of what is there.


@dataclass(frozen=True)
class Kind:
    """`name_of`: the unique name (a deployment's is module/host). `check`: references and rules beyond the schema. `derive`: fields the server adds."""

    plural: str
    one: str
    kind: str
    prefix: str
    model: type[BaseModel]
    scope: str = "catalogue"
    name_of: Callable[[Document], str] = lambda document: str(document["name"])
    check: Callable[[Call, Document], list[Fault]] = lambda _call, _document: []
    derive: Callable[[Document, Document | None], Document] = lambda document, _before: document


def entry(call: Call, kind: Kind, *, lock: bool = False) -> Document:
    """Of the caller's gateway, or the 404 that does not tell why."""
    return or_404(catalogue.get(call.tx, call.principal.gateway, kind.kind, call.id(kind.prefix), lock=lock))


def with_circuits(call: Call, kind: Kind, rows: Sequence[Document]) -> list[Document]:
    """Hosts with what executors found out about them since."""
    found = hosts.open_circuits(call.tx, [row["id"] for row in rows]) if kind is HOSTS else {}
    return [{**row, "circuit": {"state": "OPEN", "since": found[row["id"]][0], "reason": found[row["id"]][1]}} if row["id"] in found else row for row in rows]


def shown(kind: Kind, row: Mapping[str, Any]) -> Document:
    return {name: value for name, value in row.items() if name != "name" or kind is not DEPLOYMENTS}


def document_of(row: Mapping[str, Any]) -> Document:
    return {name: value for name, value in row.items() if name not in STAMPS}


def create(kind: Kind, call: Call) -> Answer:
    not_at_birth(call, "state")
    document = kind.derive(call.body.model_dump(mode="json"), None)
    _refuse(kind.check(call, document))
    entry_id = instance.fresh_id(kind.prefix)
    catalogue.insert(call.tx, gateway_id=call.principal.gateway, kind=kind.kind, entry_id=entry_id, name=kind.name_of(document), document=document, now=call.at)
    call.audit(entry_id)
    return versioned(call, shown(kind, {"id": entry_id, **document, "version": 1, "created_at": call.at, "updated_at": call.at}), 1, location=f"/v1/{kind.plural}/{entry_id}")


def not_at_birth(call: Call, name: str) -> None:
    """A state is ours to begin with; PATCH changes it."""
    if name in call.raw:
        raise invalid([Fault(f"/{name}", "unknown_field", "set it with PATCH")])


def listing(kind: Kind, call: Call) -> Answer:
    column, begin = sorted_after(call)
    rows = catalogue.page(call.tx, call.principal.gateway, kind.kind, name=call.query["name"], sort=call.query["sort"], after=begin, limit=call.query["limit"] + 1)
    return page(call, with_circuits(call, kind, rows), lambda row: shown(kind, row), lambda row: [row[column], row["id"]])


def read(kind: Kind, call: Call) -> Answer:
    found = entry(call, kind)
    return versioned(call, shown(kind, with_circuits(call, kind, [found])[0]), found["version"])


def change(kind: Kind, call: Call) -> Answer:
    before = entry(call, kind, lock=True)
    matched(call, before["version"])
    known = {name: value for name, value in before.items() if name in kind.model.model_fields}
    if known.get("state") in UNASKED_STATES:
        del known["state"]
    document = kind.derive(patched(call, known).model_dump(mode="json"), before)
    _refuse(kind.check(call, document))
    return saved(call, kind, before, document)


def saved(call: Call, kind: Kind, before: Document, document: Document) -> Answer:
    catalogue.change(call.tx, before["id"], name=kind.name_of(document), document=document, now=call.at)
    call.audit(before["id"])
    version = before["version"] + 1
    return versioned(call, shown(kind, {"id": before["id"], **document, "version": version, "created_at": before["created_at"], "updated_at": call.at}), version)


def _refuse(faults: Sequence[Fault]) -> None:
    if faults:
        raise invalid(faults)


# ---- rules of each kind -------------------------------------------------------------------------------------------------------------------------------
def _interface(call: Call, document: Document) -> list[Fault]:
    known = catalogue.known(call.tx, call.principal.gateway, catalogue.MODULE, document["module_ids"])
    faults = inputs.check_defaults(document)
    faults += [Fault(f"/module_ids/{index}", "unknown_reference", "no such module") for index, each in enumerate(document["module_ids"]) if each not in known]
    if document["planner"] not in call.services.planners:
        faults.append(Fault("/planner", "not_allowed", f"planner {document['planner']} is not enabled here", sorted(call.services.planners)))
    return faults


def _deployment(call: Call, document: Document) -> list[Fault]:
    faults = []
    if catalogue.get(call.tx, call.principal.gateway, catalogue.MODULE, document["module_id"]) is None:
        faults.append(Fault("/module_id", "unknown_reference", "no such module"))
    host = catalogue.get(call.tx, call.principal.gateway, catalogue.COMPUTE, document["compute_resource_id"])
    if host is None:
        faults.append(Fault("/compute_resource_id", "unknown_reference", "no such compute resource"))
    elif document["defaults"]["queue"] is not None and document["defaults"]["queue"] not in {each["name"] for each in host["queues"]}:
        faults.append(Fault("/defaults/queue", "unknown_reference", "the host has no such queue"))
    return faults


def _host(call: Call, document: Document) -> list[Fault]:
    credential_id = document["access"]["credential_id"]
    if credential_id is not None and access.credential(call.tx, call.principal.gateway, credential_id) is None:
        return [Fault("/access/credential_id", "unknown_reference", "no such credential")]
    return []


def _host_derived(document: Document, before: Document | None) -> Document:
    """UNVERIFIED without a key; SUSPENDED is left by giving new keys."""
    asked = document.get("state")
    if not document["host_keys"]:
        state = "UNVERIFIED"
    elif before is not None and before["state"] == "SUSPENDED" and before["host_keys"] == document["host_keys"]:
        state = "SUSPENDED"
    else:
        state = asked or "ENABLED"
    kept = {name: before[name] for name in ("circuit", "last_contact_at")} if before else {"circuit": {"state": "CLOSED", "since": None, "reason": None}, "last_contact_at": None}
    return {**document, "state": state, **kept}


def _storage(call: Call, document: Document) -> list[Fault]:
    """A POSIX root is a directory of *our* machines: without a bound, a gateway's administrator could read our secrets and other gateways' files."""
    faults = []
    if document["credential_id"] is not None and access.credential(call.tx, call.principal.gateway, document["credential_id"]) is None:
        faults.append(Fault("/credential_id", "unknown_reference", "no such credential"))
    allowed = [each.replace("{gateway}", call.principal.gateway) for each in call.services.posix_roots]
    if document["kind"] == "POSIX" and not any(PurePosixPath(document["root"]).is_relative_to(each) for each in allowed):
        faults.append(Fault("/root", "not_allowed", "POSIX storages of this gateway lie elsewhere", allowed))
    return faults


PROJECTS = Kind("projects", "Project", catalogue.PROJECT, "prj", models.Project, scope="experiments")
MODULES = Kind("application-modules", "ApplicationModule", catalogue.MODULE, "mod", models.Module)
INTERFACES = Kind("application-interfaces", "ApplicationInterface", catalogue.INTERFACE, "ifc", models.Interface, check=_interface)
DEPLOYMENTS = Kind(
    "application-deployments", "ApplicationDeployment", catalogue.DEPLOYMENT, "dep", models.Deployment, check=_deployment,
    name_of=lambda document: f"{document['module_id']}/{document['compute_resource_id']}",
)  # fmt: skip
HOSTS = Kind("compute-resources", "ComputeResource", catalogue.COMPUTE, "cmp", models.ComputeResource, check=_host, derive=_host_derived)
STORAGES = Kind("storage-resources", "StorageResource", catalogue.STORAGE, "sto", models.StorageResource, check=_storage)


def _crud(kind: Kind) -> tuple[Operation, ...]:
    path, scope, noun = f"/v1/{kind.plural}", kind.scope, kind.one
    slug = kind.plural.replace("-", "_")
    return (
        Operation("POST", path, f"create_{slug}", f"Create: {noun}", partial(create, kind), f"{scope}:write", kind.model, noun, 201, errors=("name_taken",), key="may"),
        Operation("GET", path, f"list_{slug}", f"List: {noun}", partial(listing, kind), f"{scope}:read", shape=f"{noun}List", parameters=(*SORTED, text("name", 192))),
        Operation("GET", f"{path}/{{id}}", f"get_{slug}", f"Read: {noun}", partial(read, kind), f"{scope}:read", shape=noun, also=(304,)),
        Operation("PATCH", f"{path}/{{id}}", f"change_{slug}", f"Change: {noun}", partial(change, kind), f"{scope}:write", kind.model, noun, errors=("name_taken",), key="may", match=True),
    )


# ---- what only projects and hosts have ----------------------------------------------------------------------------------------------------------------
def _delete_project(call: Call) -> Answer:
    found = entry(call, PROJECTS, lock=True)
    matched(call, found["version"])
    if experiments.live_in_project(call.tx, found["id"]):
        raise Problem("in_use", "the project has live experiments")
    catalogue.hide(call.tx, found["id"], now=call.at)
    call.audit(found["id"])
    return Answer()


def _queue(call: Call) -> Answer:
    host = entry(call, HOSTS)
    found = or_404(next((each for each in host["queues"] if each["name"] == call.path["name"]), None))
    return versioned(call, found, host["version"])


def _put_queue(call: Call) -> Answer:
    host = entry(call, HOSTS, lock=True)
    matched(call, host["version"])
    queue = reading.validate(models.Queue, {"name": call.path["name"], **call.body.model_dump(mode="json")}).model_dump(mode="json")
    others = [each for each in host["queues"] if each["name"] != queue["name"]]
    if len(others) > 63:
        raise invalid([Fault("", "too_many", "at most 64 queues", 64)])
    made = len(others) == len(host["queues"])
    saved(call, HOSTS, host, {**document_of(host), "queues": [*others, queue]})
    return versioned(call, queue, host["version"] + 1, status=201 if made else 200, location=f"/v1/compute-resources/{host['id']}/queues/{queue['name']}" if made else None)


def _delete_queue(call: Call) -> Answer:
    host = entry(call, HOSTS, lock=True)
    matched(call, host["version"])
    others = [each for each in host["queues"] if each["name"] != call.path["name"]]
    if len(others) == len(host["queues"]):
        raise Problem("not_found")
    for deployment in catalogue.every(call.tx, call.principal.gateway, catalogue.DEPLOYMENT):
        if deployment["compute_resource_id"] == host["id"] and deployment["defaults"]["queue"] == call.path["name"]:
            raise Problem("in_use", f"deployment {deployment['id']} names this queue")
    saved(call, HOSTS, host, {**document_of(host), "queues": others})
    return Answer()


_QUEUE = "/v1/compute-resources/{id}/queues/{name}"
OPERATIONS: tuple[Operation, ...] = (
    *(operation for kind in (PROJECTS, MODULES, INTERFACES, DEPLOYMENTS, HOSTS, STORAGES) for operation in _crud(kind)),
    Operation("DELETE", "/v1/projects/{id}", "delete_projects", "Hide a project", _delete_project, "experiments:write", status=204, errors=("in_use",), match=True),
    Operation("GET", _QUEUE, "get_queue", "Read a queue", _queue, "catalogue:read", shape="Queue", also=(304,)),
    Operation("PUT", _QUEUE, "put_queue", "Create or replace a queue", _put_queue, "catalogue:write", models.QueueBody, "Queue", 200, also=(201,), errors=("precondition_failed",)),
    Operation("DELETE", _QUEUE, "delete_queue", "Remove a queue", _delete_queue, "catalogue:write", status=204, errors=("in_use",), match=True),
)
