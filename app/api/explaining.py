"""Why a run is not further, why it failed, and its trace while it goes on: from MySQL alone, so that it works while everything else is away."""

from collections.abc import Mapping
from typing import Any

from app.api import launching
from app.api.experiments import an_experiment, mine
from app.api.insides import a_process, a_task, getting
from app.api.operations import Answer, Call
from app.mysql import access, catalogue, experiments, explaining
from app.mysql import reading as rows
from app.workflow import experiment, explanation, skeleton
from app.workflow.explanation import Cause, Explanation, Verdict
from app.workflow.facts import Facts
from app.workflow.failures import MEANINGS

Document = dict[str, Any]
TAIL_CHARACTERS = 2000


def _explain(call: Call) -> Answer:
    row = an_experiment(call)
    return _told(call, row, row, explanation.explain(facts_of(call, row)), failed=row["failure"])


def _explain_process(call: Call) -> Answer:
    part = a_process(call)
    row = _run_of(call, part["experiment_id"])
    return _told(call, row, part, explanation.explain(facts_of(call, row)), failed=row["failure"])


def _explain_task(call: Call) -> Answer:
    part = a_task(call)
    row = _run_of(call, explaining.experiment_of(call.tx, part["process_id"]))
    why = f": {part['reason'].rstrip('.')}" if part["reason"] else ""
    found = explanation.explain_task(facts_of(call, row), part["id"]) or Explanation(Verdict.ENDED, f"It ended {part['state']}{why}.")
    return _told(call, row, part, found, failed=part["failure"] if part["finished_at"] else None)


def _run_of(call: Call, experiment_id: str) -> Document:
    row = experiments.get(call.tx, mine(call), experiment_id)
    assert row is not None, "its part was found through it"
    return row


def _told(call: Call, run: Document, part: Document, found: Explanation, *, failed: Document | None) -> Answer:
    told = {"subject": part["id"], "state": part["state"], "verdict": found.verdict, "summary": found.summary, "as_of": call.at, "version": part["version"], "trace_id": run["trace_id"]}
    return Answer({**told, "failure": _failure(call, run["id"], failed) if failed else None, "causes": [_cause(each) for each in found.causes]})


def facts_of(call: Call, row: Document) -> Facts:
    tx, services = call.tx, call.services
    state = experiment.State(row["state"])
    plain = {"now": call.at, "id": row["id"], "state": state, "since": row["state_since"], "reason": row["reason"], "outcome": row["outcome"], "failure": row["failure"]}
    if state in experiment.TERMINAL:
        return Facts(**plain)
    if state in experiment.EDITABLE:
        gateway = access.gateway(tx, row["gateway_id"]) or {}
        most = launching.live_experiments_max(call, gateway)
        return Facts(**plain, paused=bool(gateway.get("paused")), live_max=most, live=experiments.live(tx, row["gateway_id"], limit=most) if most else 0)
    found = explaining.a_process(tx, row["process_id"])
    assert found is not None, "process and experiment commit together"
    process, part = found
    tasks = explaining.open_tasks(tx, process.id, row["id"])
    messages = explaining.messages(tx, process.id, [each.id for each in tasks], part=part, placement=services.placement, topics=services.topics)
    host = catalogue.get(tx, row["gateway_id"], catalogue.COMPUTE, row["compute_resource_id"])
    return Facts(
        **plain, process=process, tasks=tasks, messages=messages, timers=explaining.timers(tx, process.id), letters=explaining.letters(tx, row["id"]), living=explaining.living(tx),
        host=explaining.host(tx, host) if host else None,
    )  # fmt: skip


def _cause(found: Cause) -> Document:
    return {
        "code": found.code, "subject": found.subject, "since": found.since, "sentence": found.sentence, "detail": found.detail, "clears_when": found.clears_when,
        "next_check_at": found.next_check_at, "attempts_burned": found.attempts_burned,
        "evidence": [{"source": source, "at": at, "text": text} for source, at, text in found.evidence],
        "actions": [{"label": label, "method": method, "path": path} for label, method, path in found.actions],
    }  # fmt: skip


def _failure(call: Call, experiment_id: str, told: Document) -> Document:
    code, task = str(told.get("code")), str(told.get("task") or "")
    meaning = MEANINGS.get(code, MEANINGS[experiment.Outcome.INTERNAL])  # A plug-in may have a code of its own.
    stdout, stderr, reason = explaining.tails(call.tx, experiment_id, task) if task else (None, None, "")
    return {
        "code": code, "class": meaning.fault, "retriable": meaning.retriable, "stage": explaining.stage(call.tx, task) if task else None, "message": told.get("message"),
        "exit_code": told.get("exit_code"), "signal": told.get("signal"), "scheduler_reason": reason or None, "raw_message": told.get("raw_message") or None,
        "stdout_tail": _tail(stdout), "stderr_tail": _tail(stderr), "hint": meaning.hint, "runbook": meaning.runbook,
    }  # fmt: skip


def _tail(printed: bytes | None) -> str | None:
    return None if printed is None else bytes(printed).decode(errors="replace")[-TAIL_CHARACTERS:]


# ---- trace ----------------------------------------------------------------------------------------------------------------------------------------------
def _trace(call: Call) -> Answer:
    row = an_experiment(call)
    told = {"experiment_id": row["id"], "state": row["state"], "trace_id": row["trace_id"], "as_of": call.at}
    if row["process_id"] is None:
        return Answer({**told, "root": None})
    process = next(each for each in rows.processes_of(call.tx, row["id"]) if each["id"] == row["process_id"])
    attempts = rows.attempts_of_process(call.tx, process["id"])
    tasks = rows.tasks_of(call.tx, process["id"])  # Read after their attempts, so that none is missing.
    root, below = skeleton.tree(skeleton.spans(row, process, tasks, attempts, rows.jobs_of(call.tx, row["id"])))
    return Answer({**told, "root": _drawn(root, below)})


def _drawn(span: skeleton.Span, below: Mapping[str, list[skeleton.Span]]) -> Document:
    return {
        "span_id": span.span_id, "parent_id": span.parent_id, "name": span.name, "start": span.start, "end": span.end, "status": span.status,
        "attributes": dict(span.attributes), "retry_of": span.retry_of, "events": [{"name": name, "at": at} for name, at in span.events],
        "children": [_drawn(each, below) for each in below.get(span.span_id, ())],
    }  # fmt: skip


_ONE = "/v1/experiments/{id}"
OPERATIONS = (
    getting(f"{_ONE}/explain", "explain_experiment", "Why it is not running, or why it failed", _explain, "Explanation"),
    getting("/v1/processes/{id}/explain", "explain_process", "The same of its process", _explain_process, "Explanation"),
    getting("/v1/tasks/{id}/explain", "explain_task", "What holds a task, or why it failed", _explain_task, "Explanation"),
    getting(f"{_ONE}/trace", "get_trace", "The tree of its launch, attempts, waits and jobs, also while it runs", _trace, "Trace"),
)
