"""The one history, cut in three ways: everything in order (`/events`), changes of state with their causes (`/history`), failures in words (`/errors`)."""

from datetime import timedelta
from typing import Any

from app.api.experiments import an_experiment
from app.api.insides import getting
from app.api.operations import LIMIT, Answer, Call, integer
from app.api.problems import Problem
from app.mysql import events
from app.mysql.purge import EVENT_DAYS

Document = dict[str, Any]
CHANGES = {"ExperimentChanged": "experiment", "ProcessChanged": "process", "TaskChanged": "task", "JobChanged": "job"}
FAILURES = ("TaskFailed", "TaskInDoubt", "ProcessChanged")
OF_NO_TASK = frozenset({"LAUNCH_FAILURE", "SCHEDULER_DEADLINE"})  # A process that failed though none of its tasks did.


def _kept(call: Call) -> str:
    """The experiment's id. Raises events_expired once its history is purged: nothing is left, or nothing that joins on to `after`."""
    row = an_experiment(call)
    ended = row["finished_at"]
    if ended is not None and call.at - ended > timedelta(days=EVENT_DAYS) and not events.last_seq(call.tx, row["id"]):
        raise Problem("events_expired", f"the experiment ended more than {EVENT_DAYS} days ago: its history is no longer kept")
    return str(row["id"])


def _events(call: Call) -> Answer:
    """Without epoch and cause: those are ours."""
    after = call.query["after"]
    found = events.after(call.tx, _kept(call), seq=after, limit=call.query["limit"])
    if found and found[0]["seq"] > after + 1:
        raise Problem("events_expired", f"events up to {found[0]['seq'] - 1} are no longer kept: ask for after={found[0]['seq'] - 1}")
    return Answer({"items": [{name: value for name, value in each.items() if name not in {"epoch", "cause"}} for each in found]})


def events_wait(answer: Answer, _query: Document, _first: Answer) -> bool:
    return not answer.body["items"]


def _history(call: Call) -> Answer:
    found = events.of_types(call.tx, _kept(call), tuple(CHANGES), seq=call.query["after"], limit=call.query["limit"])
    return Answer({"items": [_change(each) for each in found]})


def _change(event: Document) -> Document:
    job = event["data"].get("job_id") if event["type"] == "JobChanged" else None
    told = {name: value for name, value in event.items() if name not in {"data", "traceparent"}}
    return {**told, "entity": CHANGES[event["type"]], "job_id": job, "outcome": event["data"].get("outcome")}


def _errors(call: Call) -> Answer:
    found = events.of_types(call.tx, _kept(call), FAILURES, seq=call.query["after"], limit=call.query["limit"])
    return Answer({"items": [_error(each) for each in found if each["type"] != "ProcessChanged" or each["data"].get("outcome") in OF_NO_TASK]})


def _error(event: Document) -> Document:
    """Both messages: `message` for a scientist, `raw_message` as the outside said it."""
    data = event["data"]
    code = {"TaskFailed": data.get("code"), "TaskInDoubt": "IN_DOUBT", "ProcessChanged": data.get("outcome")}[event["type"]]
    plain = ("seq", "id", "type", "occurred_at", "experiment_id", "process_id", "task_id", "task_type", "attempt", "late")
    found = {name: data.get(name) for name in ("condition", "transient", "raw_message", "exit_code", "signal", "evidence")}
    return {**{name: event[name] for name in plain}, "code": code, "message": event["reason"], **found}


_ONE = "/v1/experiments/{id}"
_AFTER = (integer("after", 0, 2**31 - 1, 0), LIMIT)
OPERATIONS = (
    getting(
        f"{_ONE}/events", "list_events", "The history in order, without gaps; may be held until there is more", _events, "EventList", parameters=(*_AFTER, integer("wait_seconds", 0, 60, 0)),
        errors=("events_expired",), waits=True,
    ),
    getting(f"{_ONE}/history", "get_history", "Changes of state", _history, "EventList", parameters=_AFTER, errors=("events_expired",)),
    getting(f"{_ONE}/errors", "get_errors", "Failures", _errors, "EventList", parameters=_AFTER, errors=("events_expired",)),
)  # fmt: skip
