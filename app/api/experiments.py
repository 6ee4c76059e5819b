"""Experiments: create, list, read, change, hide, launch, and wait for them."""

import hashlib
from typing import Any

from app import instance
from app.api import launching, models, reading
from app.api.operations import SORTED, Answer, Call, Operation, Parameter, choice, integer, matched, moment, page, patched, sorted_after, text, versioned
from app.api.problems import Problem, or_404
from app.mysql import catalogue, experiments, outputs
from app.mysql.experiments import Mine
from app.workflow import experiment, inputs

Document = dict[str, Any]
FIELDS = ("description", "inputs", "scheduling", "labels", "cleanup_strategy", "output_storage_id")
LISTED = (
    "id", "name", "gateway_id", "project_id", "owner", "deployment_id", "compute_resource_id", "state", "outcome", "process_id", "trace_id", "version", "state_since", "created_at",
    "updated_at", "launched_at", "finished_at",
)  # fmt: skip
POLL_AFTER_SECONDS = 2


def mine(call: Call) -> Mine:
    return Mine(call.principal.gateway, call.principal.owner)


def an_experiment(call: Call, *, lock: bool = False) -> Document:
    """The caller's, or the 404 that does not tell why."""
    return or_404(experiments.get(call.tx, mine(call), call.id("exp"), lock=lock))


# ---- shown ------------------------------------------------------------------------------------------------------------------------------------------
def shown(call: Call, row: Document, references: launching.References | None = None) -> Document:
    """The REST shape of docs/api.md §4. `references`: of an experiment just written, whose process and outputs are as they were made."""
    body, process_id, listed = row["document"], row["process_id"], _listed(row)
    if references is not None:
        interface, progress, held = references.interface, (0, 0), []
        made = [(each["name"], each["type"], "EXPECTED", None, None, None) for each in interface["outputs"]] if process_id else []
    else:
        interface = catalogue.get(call.tx, row["gateway_id"], catalogue.INTERFACE, row["application_interface_id"]) or {"inputs": []}
        progress = experiments.progress(call.tx, [process_id] if process_id else []).get(process_id, (0, 0))
        held = experiments.held_tasks(call.tx, process_id) if process_id and not listed["terminal"] else []
        made = outputs.of_experiment(call.tx, row["id"]) if process_id else []
    return {
        **listed, "type": "SINGLE_APPLICATION", "application_interface": {"id": row["application_interface_id"], "version": body["interface_version"]},
        **{name: body[name] for name in ("description", "scheduling", "output_storage_id", "cleanup_strategy")}, "deadline_at": row["deadline_at"],
        "inputs": _inputs_shown(interface, body["inputs"]), "outputs": [_output(*each) for each in made], "conditions": [_condition(each) for each in held],
        "progress": {"tasks_total": progress[0], "tasks_done": progress[1], "attempts_in_doubt": sum(each[1] == "IN_DOUBT" for each in held)},
        "clone_of": None, "retry_of": None, "superseded_by": None, "poll_after_seconds": None if listed["terminal"] else POLL_AFTER_SECONDS,
    }  # fmt: skip


def _inputs_shown(interface: Document, given: Document) -> Document:
    """URIs with what is known of their content; everything else as it was said."""
    types = {each["name"]: each["type"] for each in interface["inputs"]}

    def told(name: str, value: Any) -> Any:
        if types.get(name) == "URI_COLLECTION" and isinstance(value, list):
            return [_uri_shown(each) for each in value]
        return _uri_shown(value) if types.get(name) == "URI" else value

    return {name: told(name, value) for name, value in given.items()}


def _uri_shown(value: Any) -> Any:
    found = value if isinstance(value, dict) else {"uri": value}
    uri = found.get("uri")
    if not isinstance(uri, str):
        return value
    content = inputs.inline_bytes(uri) if uri.startswith("data:") else None
    digest = found.get("sha256") if content is None else hashlib.sha256(content).hexdigest()
    return {"uri": uri, "sha256": digest, "size_bytes": None if content is None else len(content)}


def _condition(held: Any) -> Document:
    task, state, since, reason, next_check_at = held
    code = reason.partition(":")[0] if state == "BLOCKED" else state
    return {"code": code or "BLOCKED", "subject": task, "since": since, "detail": reason, "next_check_at": next_check_at}


def _output(name: str, kind: str, state: str, _uri: str | None, size_bytes: int | None, sha256: str | None) -> Document:
    return {"name": name, "type": kind, "state": state, "size_bytes": size_bytes, "sha256": sha256}


def _listed(row: Document) -> Document:
    """In a list: without what needs a look-up per row."""
    return {
        **{name: row[name] for name in LISTED}, "reason": row["reason"] or None, "terminal": experiment.State(row["state"]) in experiment.TERMINAL,
        "labels": row["document"]["labels"], "application_interface": {"id": row["application_interface_id"]}, "errors": [row["failure"]] if row["failure"] else [],
    }  # fmt: skip


# ---- write ------------------------------------------------------------------------------------------------------------------------------------------
def _row(body: Document, references: launching.References) -> Document:
    """What a client may say of an experiment, as the row has it."""
    document = {name: body[name] for name in FIELDS} | {"interface_version": references.interface["version"]}
    document["output_storage_id"] = document["output_storage_id"] or (references.storage or {}).get("id")
    return {
        "project_id": references.project_id, "name": body["name"], "application_interface_id": body["application_interface_id"], "deployment_id": (references.deployment or {}).get("id"),
        "compute_resource_id": body["compute_resource_id"] or (references.host or {}).get("id"), "document": document,
        "deadline_at": launching.deadline(body) if body["deadline_at"] else None,
    }  # fmt: skip


def _create(call: Call) -> Answer:
    """A draft; with `launch` it is born launched, or not at all."""
    body = call.body.model_dump(mode="json")
    references = launching.check(call, body, runnable=body["launch"])
    row: Document = dict.fromkeys(experiments.COLUMNS) | {
        "id": instance.fresh_id("exp"), "gateway_id": call.principal.gateway, "owner": call.principal.user, "state": experiment.State.CREATED, "state_since": call.at, "reason": "",
        "version": 1, "created_at": call.at, "updated_at": call.at, **_row(body, references),
    }  # fmt: skip
    if body["launch"]:
        row |= launching.launch(call, row, references) | {"state": experiment.State.LAUNCHED, "launched_at": call.at}
    experiments.insert(call.tx, row)
    call.audit(row["id"])
    return versioned(call, shown(call, row, references), 1, location=f"/v1/experiments/{row['id']}")


def _change(call: Call) -> Answer:
    before = an_experiment(call, lock=True)
    matched(call, before["version"])
    _editable(before)
    body = patched(call, _said(before), without={"launch"}).model_dump(mode="json")
    references = launching.check(call, body, runnable=False)
    experiments.change(call.tx, before["id"], _row(body, references), now=call.at)
    call.audit(before["id"])
    return versioned(call, shown(call, an_experiment(call), references), before["version"] + 1)


def _said(row: Document) -> Document:
    """The row as a body would say it."""
    known = {name: row["document"][name] for name in FIELDS} | {name: row[name] for name in ("name", "project_id", "application_interface_id", "compute_resource_id")}
    return known | {"deadline_at": reading.wire(row["deadline_at"])}


def _editable(row: Document) -> None:
    if experiment.State(row["state"]) not in experiment.EDITABLE:
        raise Problem("illegal_state", f"it is {row['state']}; editable are {', '.join(sorted(experiment.EDITABLE))}")


def _delete(call: Call) -> Answer:
    found = an_experiment(call, lock=True)
    matched(call, found["version"])
    if experiment.State(found["state"]) in experiment.LIVE:
        raise Problem("experiment_live", f"it is {found['state']}: cancel it first, or wait for its end")
    experiments.hide(call.tx, found["id"], now=call.at)
    call.audit(found["id"])
    return Answer()


def _launch(call: Call) -> Answer:
    """Launched before: that launch, never a second."""
    row = an_experiment(call, lock=True)
    if row["process_id"] is None:
        _editable(row)
        said = _said(row)
        references = launching.check(call, said, runnable=True, code="not_launchable")
        changed = launching.launch(call, row, references)
        renewed = None if row["document"]["interface_version"] == references.interface["version"] else _row(said, references)["document"]
        experiments.launched(call.tx, row["id"], **changed, document=renewed, now=call.at)
        call.audit(row["id"])
        told = _a_launch(row | changed | {"state": experiment.State.LAUNCHED, "launched_at": call.at, "version": row["version"] + 1})
        return Answer(told, 202, {"Location": f"/v1/processes/{changed['process_id']}"})
    return Answer(_a_launch(row), 200, {"Location": f"/v1/processes/{row['process_id']}"})


def _a_launch(row: Document) -> Document:
    return {"experiment_id": row["id"], "process_id": row["process_id"], "state": row["state"], "launched_at": row["launched_at"], "version": row["version"]}


def _launches(call: Call) -> Answer:
    row = an_experiment(call)
    return Answer({"items": [_a_launch(row)] if row["process_id"] else []})


# ---- read -------------------------------------------------------------------------------------------------------------------------------------------
def _get(call: Call) -> Answer:
    found = an_experiment(call)
    return versioned(call, shown(call, found), found["version"])


def _list(call: Call) -> Answer:
    column, begin = sorted_after(call)
    rows = experiments.page(call.tx, mine(call), call.query, after=begin, limit=call.query["limit"] + 1)
    return page(call, rows, _listed, lambda row: [row[column], row["id"]])


def _status(call: Call) -> Answer:
    row = an_experiment(call)
    held = experiments.held_tasks(call.tx, row["process_id"]) if row["process_id"] else []
    terminal = experiment.State(row["state"]) in experiment.TERMINAL
    told = {name: row[name] for name in ("id", "state", "outcome", "version")}
    return Answer({**told, "conditions": [_condition(each) for each in held], "terminal": terminal, "poll_after_seconds": None if terminal else POLL_AFTER_SECONDS})


def status_waits(answer: Answer, query: Document, first: Answer) -> bool:
    """Whether a held request waits on: for the end, or while the version is still the one the client knows (or was first told)."""
    if answer.body["terminal"]:
        return False
    known = first.body["version"] if query["version"] is None else query["version"]
    return query["until"] == "terminal" or bool(answer.body["version"] == known)


def _label(given: str) -> tuple[str, str]:
    name, colon, value = given.partition(":")
    if not colon or not name or any(each in name for each in '"\\'):
        raise ValueError("name:value")
    return name, value


def word(name: str, longest: int = 64) -> Parameter:
    """A filter over an ASCII column: MySQL raises for what such a column cannot hold."""

    def read(given: str) -> str:
        if not (given.isascii() and given.isprintable() and 0 < len(given) <= longest):
            raise ValueError(f"1 to {longest} printable ASCII characters")
        return given

    return Parameter(name, read, {"type": "string", "pattern": f"^[ -~]{{1,{longest}}}$"})


_FILTERS = (
    *SORTED, choice("state", *experiment.State, several=True), choice("outcome", *experiment.Outcome, several=True), word("project_id"),
    word("application_interface_id"), word("compute_resource_id"), text("owner", 128), text("name"), Parameter("label", _label, {"type": "string", "pattern": "^[^:]+:"}), moment("created_after"),
    moment("created_before"),
)  # fmt: skip
_WAIT = (integer("wait_seconds", 0, 60, 0), choice("until", "change", "terminal", default="change"), integer("version", 0, 2**31))
_ONE = "/v1/experiments/{id}"
OPERATIONS = (
    Operation(
        "POST", "/v1/experiments", "create_experiments", "Create an experiment; with `launch`, launch it in the same transaction", _create, "experiments:write", models.Experiment,
        "Experiment", 201, errors=("not_launchable", "too_many_live_experiments", "backlog_full"), key="launch",
    ),
    Operation("GET", "/v1/experiments", "list_experiments", "List experiments", _list, "experiments:read", shape="ExperimentList", parameters=_FILTERS),
    Operation("GET", _ONE, "get_experiments", "Read an experiment", _get, "experiments:read", shape="Experiment", also=(304,)),
    Operation("PATCH", _ONE, "change_experiments", "Change a draft", _change, "experiments:write", models.Experiment, "Experiment", errors=("illegal_state",), key="may", match=True),
    Operation("DELETE", _ONE, "delete_experiments", "Hide an experiment", _delete, "experiments:write", status=204, errors=("experiment_live",), match=True),
    Operation(
        "POST", f"{_ONE}/launches", "launch_experiments", "Launch", _launch, "experiments:write", models.Empty, "Launch", 202, also=(200,),
        errors=("illegal_state", "not_launchable", "too_many_live_experiments", "backlog_full"), key="must",
    ),
    Operation("GET", f"{_ONE}/launches", "list_launches", "The launch of an experiment", _launches, "experiments:read", shape="LaunchList"),
    Operation(
        "GET", f"{_ONE}/status", "get_status", "State and outcome; may be held until they change", _status, "experiments:read", shape="Status",
        parameters=_WAIT, waits=True,
    ),
)  # fmt: skip
