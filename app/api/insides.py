"""Processes, graphs, tasks, attempts, jobs, outputs and the history: what an experiment looks like inside, and what came of it."""

import re
from datetime import datetime
from typing import Any

from app import secrets
from app.api import reading
from app.api.experiments import an_experiment, mine
from app.api.operations import LIMIT, Answer, Call, Operation, integer, versioned
from app.api.problems import Problem, not_found
from app.messages import ids
from app.mysql import access, catalogue, events, outputs
from app.mysql import reading as rows
from app.workflow import process
from app.workflow.task import TERMINAL

Document = dict[str, Any]
TAIL_BYTES = 65_536
ATTACHMENT = {"Content-Security-Policy": "sandbox; default-src 'none'", "Accept-Ranges": "bytes"}


def plain(row: Document) -> Document:
    """Times as the wire has them."""
    return {name: reading.wire(value) if isinstance(value, datetime) else value for name, value in row.items()}


# ---- processes ----------------------------------------------------------------------------------------------------------------------------------------
def _a_process(call: Call) -> Document:
    found = rows.process(call.tx, mine(call), call.path["id"]) if ids.is_id(call.path["id"], "prc") else None
    if found is None:
        raise not_found()
    return found


def _process_shown(call: Call, row: Document) -> Document:
    open_types = {each["type"] for each in rows.tasks_of(call.tx, row["id"]) if each["state"] not in TERMINAL}
    told = plain({name: value for name, value in row.items() if name not in {"part", "failure", "snapshot"}})
    phase = process.phase(open_types, job_id_stored=rows.job_stored(call.tx, row["id"])) if open_types else None
    snapshot = row.get("snapshot") or {}
    return {
        **told, "reason": row["reason"] or None, "phase": phase, "errors": [row["failure"]] if row["failure"] else [], "placement": {"partition": row["part"]},
        "work_dir": snapshot.get("work_dir"), "snapshot": snapshot or None,
    }  # fmt: skip


def _processes(call: Call) -> Answer:
    return Answer({"items": [_process_shown(call, row) for row in rows.processes_of(call.tx, an_experiment(call)["id"])]})


def _process(call: Call) -> Answer:
    found = _a_process(call)
    return versioned(call, _process_shown(call, found), found["version"])


def _graph(call: Call) -> Answer:
    found = _a_process(call)
    tasks = rows.tasks_of(call.tx, found["id"])
    nodes = [{name: plain(each)[name] for name in ("id", "name", "type", "state", "state_since", "reason", "waiting_for", "attempt", "next_attempt_at")} for each in tasks]
    return Answer({"process_id": found["id"], "state": found["state"], "nodes": nodes, "edges": rows.edges_of(call.tx, found["id"])})


def _task_shown(row: Document) -> Document:
    return {**plain({name: value for name, value in row.items() if name != "failure"}), "errors": [row["failure"]] if row["failure"] else []}


def _tasks(call: Call) -> Answer:
    return Answer({"items": [_task_shown(row) for row in rows.tasks_of(call.tx, _a_process(call)["id"])]})


def _a_task(call: Call) -> Document:
    found = rows.task(call.tx, mine(call), call.path["id"]) if ids.is_id(call.path["id"], "tsk") else None
    if found is None:
        raise not_found()
    return found


def _task(call: Call) -> Answer:
    found = _a_task(call)
    return versioned(call, _task_shown(found), found["version"])


def _attempt_shown(row: Document) -> Document:
    told = plain({name: value for name, value in row.items() if name not in {"heartbeat_at", "owner"}})
    owner = {"instance": row["owner"], "heartbeat_at": reading.wire(row["heartbeat_at"])} if row["owner"] else None
    return {**told, "owner": owner}


def _attempts(call: Call) -> Answer:
    return Answer({"items": [_attempt_shown(row) for row in rows.attempts_of(call.tx, _a_task(call)["id"])]})


def _attempt(call: Call) -> Answer:
    found = rows.attempt(call.tx, mine(call), call.path["id"]) if ids.is_id(call.path["id"], "att") else None
    if found is None:
        raise not_found()
    return Answer(_attempt_shown(found))


# ---- jobs ---------------------------------------------------------------------------------------------------------------------------------------------
def _job_shown(row: Document) -> Document:
    return {**plain(row), "name": row["attempt_id"], "reason": row["reason"] or None}


def _jobs(call: Call) -> Answer:
    return Answer({"items": [_job_shown(row) for row in rows.jobs_of(call.tx, an_experiment(call)["id"])]})


def _a_job(call: Call, more: str = "") -> Document:
    found = rows.job(call.tx, mine(call), call.path["id"], more=more) if ids.is_id(call.path["id"], "job") else None
    if found is None:
        raise not_found()
    return found


def _job(call: Call) -> Answer:
    return Answer(_job_shown(_a_job(call)))


def _log(stream: str) -> Any:
    def handle(call: Call) -> Answer:
        found = _a_job(call, f", j.{stream}_tail AS tail, j.captured_at")
        if found["tail"] is None:
            raise Problem("content_unavailable", "the tail is stored when the job has ended")
        tail = bytes(found["tail"])
        kept = tail[-call.query["tail_bytes"] :] if call.query["tail_bytes"] else b""
        whole = len(tail) < TAIL_BYTES and len(kept) == len(tail)
        headers = {"Airavata-Log-Complete": "true" if whole else "false", "Airavata-Captured-At": reading.wire(found["captured_at"]) or ""}
        return Answer(kept, headers={**headers, **ATTACHMENT}, content_type="text/plain; charset=utf-8")

    return handle


# ---- outputs ------------------------------------------------------------------------------------------------------------------------------------------
def _outputs(call: Call) -> Answer:
    found = outputs.of_experiment(call.tx, an_experiment(call)["id"])
    return Answer({"items": [{"name": row[0], "type": row[1], "state": row[2], "uri": row[3], "size_bytes": row[4], "sha256": row[5]} for row in found]})


def _content(call: Call) -> Answer:
    """Bytes of a staged output, whole or one range, from POSIX or S3 storage; elsewhere 409 with the URI."""
    experiment = an_experiment(call)
    found = next((row for row in outputs.of_experiment(call.tx, experiment["id"]) if row[0] == call.path["name"]), None)
    if found is None:
        raise not_found()
    if found[2] != "STAGED" or found[1] == "URI_COLLECTION":
        raise Problem("content_unavailable", f"output {found[0]} is {found[2]}" if found[2] != "STAGED" else f"a collection: its files lie at {found[3]}")
    etag = f'"sha256:{found[5]}"'
    if etag in [each.strip() for each in call.headers.get("if-none-match", "").split(",")]:
        return Answer(None, 304, {"ETag": etag})
    size, (first, last) = int(found[4]), _range(call.headers.get("range"), int(found[4]))
    headers = {"ETag": etag, "Content-Disposition": f'attachment; filename="{found[3].rsplit("/", 1)[-1]}"', **ATTACHMENT}
    content = _stored_bytes(call, found[3], first, last)
    if (first, last) == (0, size - 1) or size == 0:
        return Answer(content, headers=headers, content_type="application/octet-stream")
    return Answer(content, 206, {**headers, "Content-Range": f"bytes {first}-{last}/{size}"}, content_type="application/octet-stream")


def _range(given: str | None, size: int) -> tuple[int, int]:
    """One byte range (RFC 9110); several or another unit mean the whole. Raises range_not_satisfiable."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", given.strip()) if given else None
    if found is None or not (found[1] or found[2]):
        return 0, size - 1
    first, last = (int(found[1]), min(int(found[2] or size - 1), size - 1)) if found[1] else (max(0, size - int(found[2])), size - 1)
    if first > last or first >= size:
        raise Problem("range_not_satisfiable", f"the content has {size} bytes", headers={"Content-Range": f"bytes */{size}"})
    return first, last


def _stored_bytes(call: Call, uri: str, first: int, last: int) -> bytes:
    storage_id, _, path = uri.removeprefix("storage://").partition("/")
    storage = catalogue.get(call.tx, call.principal.gateway, catalogue.STORAGE, storage_id)
    if storage is None:
        raise Problem("content_unavailable", f"the storage is gone; the content lies at {uri}")
    secret = None
    if storage["credential_id"] is not None and (sealed := access.sealed(call.tx, storage["credential_id"])) is not None:
        secret = secrets.open_sealed(sealed[1], master=call.services.master_key, gateway_id=sealed[0], credential_id=storage["credential_id"])
    import app.storage as door  # Late: brings boto3 where S3 is used.

    content = bytearray()
    try:
        for piece in door.open_storage(storage, secret).open_read(path, first):
            content += piece
            if len(content) > last - first:
                break
    except door.NotFound:
        raise Problem("content_unavailable", f"it is not in the storage any more: {uri}") from None
    except door.Unavailable as fault:
        raise Problem("unavailable", f"the storage does not answer: {fault}") from None
    return bytes(content[: last - first + 1])


# ---- history ------------------------------------------------------------------------------------------------------------------------------------------
CHANGES = ("ExperimentChanged", "ProcessChanged", "TaskChanged", "TaskStarted", "TaskSucceeded", "TaskFailed", "TaskInDoubt", "JobChanged")
FAILURES = ("TaskFailed", "TaskInDoubt")


def _public(event: Document) -> Document:
    return {name: value for name, value in event.items() if name not in {"epoch", "cause"}}


def _events(call: Call) -> Answer:
    found = events.after(call.tx, an_experiment(call)["id"], seq=call.query["after"], limit=call.query["limit"])
    _not_expired(found, call.query["after"])
    return Answer({"items": [_public(each) for each in found]})


def _history(call: Call) -> Answer:
    """Changes of state with reason, cause and epoch."""
    found = events.of_types(call.tx, an_experiment(call)["id"], CHANGES, seq=call.query["after"], limit=call.query["limit"])
    return Answer({"items": [{name: value for name, value in each.items() if name not in {"data", "traceparent"}} for each in found]})


def _errors(call: Call) -> Answer:
    found = events.of_types(call.tx, an_experiment(call)["id"], FAILURES, seq=call.query["after"], limit=call.query["limit"])
    return Answer({"items": [_public(each) for each in found]})


def _not_expired(found: list[Document], after: int) -> None:
    if found and found[0]["seq"] > after + 1:
        raise Problem("events_expired", f"events up to {found[0]['seq'] - 1} are no longer kept: ask for after={found[0]['seq'] - 1}")


def events_wait(answer: Answer, _query: Document, _first: Answer) -> bool:
    return not answer.body["items"]


_ONE, _READ = "/v1/experiments/{id}", "experiments:read"
_AFTER = (integer("after", 0, 2**31 - 1, 0), LIMIT)
_TAIL = (integer("tail_bytes", 0, 1 << 20, TAIL_BYTES),)


def _get(path: str, identity: str, summary: str, handle: Any, shape: str, **more: Any) -> Operation:
    errors = ("not_found", *more.pop("errors", ()))
    return Operation("GET", path, identity, summary, handle, _READ, shape=shape, errors=errors, **more)


OPERATIONS = (
    _get(f"{_ONE}/processes", "list_processes", "Processes of an experiment", _processes, "ProcessList"),
    _get("/v1/processes/{id}", "get_process", "Read a process", _process, "Process", also=(304,)),
    _get("/v1/processes/{id}/graph", "get_graph", "Nodes with state, edges", _graph, "Graph"),
    _get("/v1/processes/{id}/tasks", "list_tasks", "Tasks of a process", _tasks, "TaskList"),
    _get("/v1/tasks/{id}", "get_task", "Read a task", _task, "Task", also=(304,)),
    _get("/v1/tasks/{id}/attempts", "list_attempts", "Attempts of a task", _attempts, "AttemptList"),
    _get("/v1/attempts/{id}", "get_attempt", "Read an attempt", _attempt, "Attempt"),
    _get(f"{_ONE}/jobs", "list_jobs", "Jobs of an experiment", _jobs, "JobList"),
    _get("/v1/jobs/{id}", "get_job", "Read a job", _job, "Job"),
    _get("/v1/jobs/{id}/stdout", "get_stdout", "The tail of stdout", _log("stdout"), "", parameters=_TAIL, errors=("content_unavailable",), content="text/plain"),
    _get("/v1/jobs/{id}/stderr", "get_stderr", "The tail of stderr", _log("stderr"), "", parameters=_TAIL, errors=("content_unavailable",), content="text/plain"),
    _get(f"{_ONE}/outputs", "list_outputs", "Outputs of an experiment", _outputs, "OutputList"),
    _get(
        f"{_ONE}/outputs/{{name}}/content", "get_content", "The bytes of an output", _content, "", also=(206, 304), errors=("content_unavailable", "range_not_satisfiable"),
        content="application/octet-stream",
    ),
    _get(f"{_ONE}/history", "get_history", "Changes of state", _history, "EventList", parameters=_AFTER, errors=("events_expired",)),
    _get(f"{_ONE}/errors", "get_errors", "Failures", _errors, "EventList", parameters=_AFTER, errors=("events_expired",)),
    _get(
        f"{_ONE}/events", "list_events", "The history in order, without gaps; may be held until there is more", _events, "EventList", parameters=(*_AFTER, integer("wait_seconds", 0, 60, 0)),
        errors=("events_expired", "too_many_streams"), waits=True,
    ),
)  # fmt: skip
