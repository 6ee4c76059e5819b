"""A run's trace skeleton, made from rows: one span per launch, attempt, wait and job, also while they go on. A crash loses none, and a second making is identical.

The same spans are drawn by `airavata trace` and exported when the run has ended. Ids are computed (app/messages/trace.py), so everything else that happened hangs on them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from app.messages import trace
from app.workflow import attempt, experiment
from app.workflow.task import State

Row: TypeAlias = Mapping[str, Any]  # As app/mysql/reading.py gives it.
Value: TypeAlias = str | int | float | bool
CHARACTERS_MAX = 256
_WAITING = frozenset({State.RETRY_WAIT, State.BLOCKED})


@dataclass(frozen=True, slots=True)
class Span:
    """`end` None: it goes on. `status`: UNSET, OK or ERROR. `parent_id` None: unknown to the rows. `retry_of`: span id of the attempt before. `events`: (name, at)."""

    span_id: str
    parent_id: str | None
    name: str
    start: datetime
    end: datetime | None
    status: str
    attributes: Mapping[str, Value]
    retry_of: str | None = None
    events: tuple[tuple[str, datetime], ...] = ()


def spans(run: Row, process: Row, tasks: Sequence[Row], attempts: Sequence[Row], jobs: Sequence[Row]) -> list[Span]:
    """Of one launched experiment: parents before their children, siblings in the order of time. `attempts` by number within each task."""
    ids = {"airavata.gateway.id": run["gateway_id"], "airavata.experiment.id": run["id"], "airavata.process.id": process["id"]}
    root = _root(run, process, attempts, ids)
    tried: dict[str, list[Row]] = {each["id"]: [] for each in tasks}
    for each in attempts:
        tried[each["task_id"]].append(each)
    children: list[Span] = []
    known: dict[str, tuple[Row, Row]] = {}
    for each in tasks:
        of_it = tried[each["id"]]
        children += (_attempt(each, one, root.span_id, ids) for one in of_it)
        children += _waits(each, of_it, root.span_id, ids)
        known |= {one["id"]: (each, one) for one in of_it}
    below = [_job(each, *known[each["attempt_id"]], ids) for each in jobs if each["attempt_id"] in known]
    return [root, *sorted(children, key=lambda each: each.start), *sorted(below, key=lambda each: each.start)]


def _root(run: Row, process: Row, attempts: Sequence[Row], ids: Row) -> Span:
    asked = trace.parse(process["trace_context"])
    own = trace.span_id("experiment", run["id"])
    told = {
        "airavata.outcome": run["outcome"], "airavata.failed": run["state"] == experiment.State.FAILED, "airavata.attempts": len(attempts),
        "airavata.takeovers": sum(each["epoch"] - 1 for each in attempts), **_error(run["outcome"] if run["state"] == experiment.State.FAILED else None),
    }  # fmt: skip
    parent = asked[1] if asked and asked[1] != own else None
    return Span(own, parent, "experiment run", run["launched_at"], run["finished_at"], _status(run["finished_at"], failed=told["airavata.failed"]), _plain({**ids, **told}))


def _attempt(task: Row, row: Row, parent: str, ids: Row) -> Span:
    outcome = row["outcome"] or {}
    failed = row["state"] == attempt.State.FAILED
    told = {**_of_task(task, row), "airavata.attempt.state": row["state"], "airavata.outcome": outcome.get("code")}
    told |= _error((outcome.get("condition") or outcome.get("code")) if failed else None)
    before = trace.span_id("attempt", task["id"], row["number"] - 1) if row["number"] > 1 else None
    span_id = trace.span_id("attempt", task["id"], row["number"])
    return Span(span_id, parent, f"task {task['type']}", row["created_at"], row["finished_at"], _status(row["finished_at"], failed=failed), _plain({**ids, **told}), before)


def _waits(task: Row, attempts: Sequence[Row], parent: str, ids: Row) -> Iterator[Span]:
    """Every gap has a name: from an attempt's failure to the next one, or to a deadline; and a doubt, as long as it lasts."""
    begun = {each["number"]: each for each in attempts}
    for number, row in begun.items():
        outcome, after = row["outcome"] or {}, begun.get(number + 1)
        if row["state"] == attempt.State.FAILED and (after is not None or task["state"] in _WAITING or (task["failure"] or {}).get("code") == "SCHEDULER_DEADLINE"):
            told = {**_of_task(task, row), "airavata.condition": outcome.get("condition"), "airavata.reason": outcome.get("message")}
            name, end = "BLOCKED" if outcome.get("condition") else "RETRY_WAIT", after["created_at"] if after is not None else task["finished_at"]
            yield Span(trace.span_id("wait", task["id"], number), parent, f"wait {name}", row["finished_at"], end, "UNSET", _plain({**ids, **told}))
    if task["doubt_since"] is not None and task["attempt"] in begun:
        told = {**_of_task(task, begun[task["attempt"]]), "airavata.reason": task["reason"]}
        end = begun[task["attempt"]]["finished_at"]
        yield Span(trace.span_id("doubt", task["id"], task["attempt"]), parent, "wait IN_DOUBT", task["doubt_since"], end, "UNSET", _plain({**ids, **told}))


def _job(row: Row, task: Row, of: Row, ids: Row) -> Span:
    told = {
        **_of_task(task, of), "airavata.job.id": row["scheduler_job_id"], "airavata.job.token": row["attempt_id"], "airavata.job.state": row["state"],
        "airavata.host.id": row["compute_resource_id"], "process.exit.code": row["exit_code"], "airavata.reason": row["reason"],
    }  # fmt: skip
    failed = row["state"] in {"FAILED", "LOST"}
    moments = (("submitted", row["submitted_at"]), (str(row["state"]).lower(), row["state_since"]))
    seen = tuple((name, at) for name, at in moments if at is not None)
    parent = trace.span_id("attempt", row["task_id"], of["number"])
    attributes = _plain({**ids, **told, **_error(row["state"] if failed else None)})
    return Span(trace.span_id("job", row["attempt_id"]), parent, "job run", row["created_at"], row["finished_at"], _status(row["finished_at"], failed=failed), attributes, events=seen)


def _of_task(task: Row, row: Row) -> dict[str, Any]:
    """As in `tracing.about`, and the task's name."""
    return {"airavata.task.id": task["id"], "airavata.task.type": task["type"], "airavata.task.name": task["name"], "airavata.task.attempt": row["number"], "airavata.attempt.epoch": row["epoch"]}


def _error(kind: Any) -> dict[str, Any]:
    return {"error.type": str(kind)} if kind else {}


def _status(end: datetime | None, *, failed: bool) -> str:
    return "UNSET" if end is None else "ERROR" if failed else "OK"


def _plain(told: Row) -> dict[str, Value]:
    """What is known, values cut at their longest."""
    return {name: value[:CHARACTERS_MAX] if isinstance(value, str) else value for name, value in told.items() if value is not None and value != ""}


def tree(found: Iterable[Span]) -> tuple[Span, Mapping[str, list[Span]]]:
    """The root, and the children of each span id."""
    root, *rest = found
    below: dict[str, list[Span]] = {}
    for each in rest:
        below.setdefault(each.parent_id or root.span_id, []).append(each)
    return root, below
