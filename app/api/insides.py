"""Processes, graphs, tasks, attempts, jobs: what an experiment looks like inside."""

from typing import Any

from app.api.experiments import an_experiment, mine
from app.api.operations import Answer, Call, Operation, versioned
from app.api.problems import or_404
from app.messages import trace
from app.mysql import reading as rows
from app.workflow import attempt, process

Document = dict[str, Any]


# ---- processes ----------------------------------------------------------------------------------------------------------------------------------------
def a_process(call: Call) -> Document:
    return or_404(rows.process(call.tx, mine(call), call.id("prc")))


def _process_shown(call: Call, row: Document) -> Document:
    open_types = rows.open_types(call.tx, row["id"]) if row["finished_at"] is None else set()
    hidden = {"part", "failure", "snapshot", "trace_context", "tasks_total", "tasks_open", "tasks_failed"}
    snapshot = row.get("snapshot") or {}
    return {
        **{name: value for name, value in row.items() if name not in hidden}, "reason": row["reason"] or None, "errors": [row["failure"]] if row["failure"] else [],
        "phase": process.phase(open_types, job_id_stored=rows.job_stored(call.tx, row["id"])) if open_types else None,
        "progress": {"tasks_total": row["tasks_total"], "tasks_done": row["tasks_total"] - row["tasks_open"], "tasks_failed": row["tasks_failed"]},
        "placement": {"partition": row["part"]}, "graph": f"/v1/processes/{row['id']}/graph" if row["tasks_total"] else None, "trace_id": _trace_id(row),
        "work_dir": snapshot.get("work_dir"), "snapshot": snapshot or None,
    }  # fmt: skip


def _trace_id(row: Document) -> str | None:
    parsed = trace.parse(row["trace_context"])
    return parsed[0] if parsed else None


def _processes(call: Call) -> Answer:
    return Answer({"items": [_process_shown(call, row) for row in rows.processes_of(call.tx, an_experiment(call)["id"])]})


def _process(call: Call) -> Answer:
    found = a_process(call)
    return versioned(call, _process_shown(call, found), found["version"])


_NODE = ("id", "name", "type", "state", "state_since", "reason", "waiting_for", "attempt", "next_attempt_at")


def _graph(call: Call) -> Answer:
    found = a_process(call)
    nodes = [{name: each[name] for name in _NODE} for each in rows.tasks_of(call.tx, found["id"])]
    return Answer({"process_id": found["id"], "state": found["state"], "nodes": nodes, "edges": rows.edges_of(call.tx, found["id"])})


def _task_shown(row: Document) -> Document:
    return {**{name: value for name, value in row.items() if name != "failure"}, "errors": [row["failure"]] if row["failure"] else []}


def _tasks(call: Call) -> Answer:
    return Answer({"items": [_task_shown(row) for row in rows.tasks_of(call.tx, a_process(call)["id"])]})


def a_task(call: Call) -> Document:
    return or_404(rows.task(call.tx, mine(call), call.id("tsk")))


def _task(call: Call) -> Answer:
    found = a_task(call)
    return versioned(call, _task_shown(found), found["version"])


def _attempt_shown(row: Document) -> Document:
    """Its id is the token that went to the remote side."""
    told = {name: value for name, value in row.items() if name not in {"heartbeat_at", "owner", "trace_context"}}
    owner = {"instance": row["owner"], "heartbeat_at": row["heartbeat_at"]} if row["owner"] else None
    return {**told, "owner": owner, "error": row["outcome"] if row["state"] == attempt.State.FAILED else None, "trace_id": _trace_id(row)}


def _attempts(call: Call) -> Answer:
    return Answer({"items": [_attempt_shown(row) for row in rows.attempts_of(call.tx, a_task(call)["id"])]})


def _attempt(call: Call) -> Answer:
    return Answer(_attempt_shown(or_404(rows.attempt(call.tx, mine(call), call.id("att")))))


# ---- jobs ---------------------------------------------------------------------------------------------------------------------------------------------
def _job_shown(row: Document) -> Document:
    return {**row, "name": row["attempt_id"], "reason": row["reason"] or None}


def _jobs(call: Call) -> Answer:
    return Answer({"items": [_job_shown(row) for row in rows.jobs_of(call.tx, an_experiment(call)["id"])]})


def a_job(call: Call, more: str = "") -> Document:
    return or_404(rows.job(call.tx, mine(call), call.id("job"), more=more))


def _job(call: Call) -> Answer:
    return Answer(_job_shown(a_job(call)))


_ONE = "/v1/experiments/{id}"


def getting(path: str, identity: str, summary: str, handle: Any, shape: str, **more: Any) -> Operation:
    """A GET below an experiment."""
    return Operation("GET", path, identity, summary, handle, "experiments:read", shape=shape, **more)


OPERATIONS = (
    getting(f"{_ONE}/processes", "list_processes", "Processes of an experiment", _processes, "ProcessList"),
    getting("/v1/processes/{id}", "get_process", "Read a process", _process, "Process", also=(304,)),
    getting("/v1/processes/{id}/graph", "get_graph", "Nodes with state, edges", _graph, "Graph"),
    getting("/v1/processes/{id}/tasks", "list_tasks", "Tasks of a process", _tasks, "TaskList"),
    getting("/v1/tasks/{id}", "get_task", "Read a task", _task, "Task", also=(304,)),
    getting("/v1/tasks/{id}/attempts", "list_attempts", "Attempts of a task", _attempts, "AttemptList"),
    getting("/v1/attempts/{id}", "get_attempt", "Read an attempt", _attempt, "Attempt"),
    getting(f"{_ONE}/jobs", "list_jobs", "Jobs of an experiment", _jobs, "JobList"),
    getting("/v1/jobs/{id}", "get_job", "Read a job", _job, "Job"),
)  # fmt: skip
