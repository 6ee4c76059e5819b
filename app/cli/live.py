"""The live picture of a run in a terminal: a row per task with mark, attempt, time in state and what it waits for; retries and take-overs below; last the outcome.

A mark tells the state by shape as well as colour. Only a picture: the API decides, and what it says is drawn again twice a second so that times move.
"""

import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from app import clock
from app.cli import following, show
from app.cli.client import Client
from app.cli.following import Step

if TYPE_CHECKING:
    from rich.console import RenderableType

MARKS = {
    "CREATED": ("○", "dim"), "SCHEDULED": ("◔", "cyan"), "EXECUTING": ("◐", "blue"), "RETRY_WAIT": ("↻", "yellow"), "BLOCKED": ("■", "magenta"),
    "IN_DOUBT": ("?", "bold yellow"), "COMPLETED": ("●", "green"), "FAILED": ("✖", "bold red"), "CANCELED": ("⊘", "red"), "SKIPPED": ("–", "dim"),
}  # fmt: skip
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELED", "SKIPPED"})
ROWS_MAX, NOTES_MAX = 40, 12


class Picture:
    """What is known of one run; `apply` after each poll, drawn by rich."""

    def __init__(self, experiment: dict[str, Any]) -> None:
        self.experiment = experiment
        self.tasks: list[dict[str, Any]] = []
        self.before: dict[str, list[str]] = {}  # task id → the tasks it comes after
        self.notes: deque[str] = deque(maxlen=NOTES_MAX)
        self.job = ""
        self._owners: dict[tuple[str, int], str] = {}
        self._since: dict[str, tuple[str, float]] = {}

    def apply(self, step: Step, experiment: dict[str, Any], tasks: list[dict[str, Any]], edges: list[dict[str, Any]]) -> None:
        self.experiment = experiment
        self.before = predecessors(edges)
        self.tasks = in_order(tasks, self.before)
        for each in tasks:
            if self._since.get(each["id"], ("", 0.0))[0] != each["state"]:
                self._since[each["id"]] = (each["state"], time.monotonic() - age(each))
        for event in step.events:
            self._notice(event)

    def _notice(self, event: dict[str, Any]) -> None:
        """Keep what a person would ask about afterwards: retries, doubts, take-overs, failures; and the job's latest state."""
        name = next((each["name"] for each in self.tasks if each["id"] == event.get("task_id")), event.get("task_type") or "")
        attempt = event.get("attempt") or 0
        if event["type"] == "JobChanged":
            self.job = f"job {event['to_state']}" + (f": {event['reason']}" if event.get("reason") else "")
        if event["type"] == "TaskStarted" and event.get("task_id"):
            owner = (event.get("data") or {}).get("owner") or "another instance"
            before = self._owners.setdefault((event["task_id"], attempt), owner)
            self._owners[event["task_id"], attempt] = owner
            if owner != before:
                self.notes.append(f"{event['occurred_at'][11:23]} {name}: attempt {attempt} taken over from {before} by {owner}")
        elif event["type"] in {"TaskFailed", "TaskInDoubt"} or event.get("to_state") in {"RETRY_WAIT", "BLOCKED"}:
            self.notes.append(following.sentence(event, name))

    def waits_for(self, task: dict[str, Any]) -> str:
        names = {each["id"]: each["name"] for each in self.tasks if each["state"] not in ENDED}
        match task["state"]:
            case "CREATED":
                return ", ".join(names[each] for each in self.before.get(task["id"], []) if each in names)
            case "SCHEDULED":
                return "an executor"
            case "EXECUTING":
                return self.job if task["type"] == "JOB_SUBMISSION" else ""
            case "RETRY_WAIT" | "BLOCKED" | "IN_DOUBT":
                due = task.get("next_attempt_at")
                return "; ".join(filter(None, [task.get("reason"), f"again at {due[11:19]}" if due else ""]))
            case _:
                return task.get("reason") or ""

    def __rich__(self) -> "RenderableType":
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for title in ("", "task", "type", "attempt", "for", "waits for"):
            table.add_column(title.upper(), header_style="dim", overflow="ellipsis", no_wrap=title != "waits for")
        shown = fold(self.tasks)
        for task in shown:
            mark, style = MARKS.get(task["state"], ("·", ""))
            seconds = time.monotonic() - self._since[task["id"]][1]
            cells = [task["name"], task["type"], str(task.get("attempt") or "-"), "" if task["state"] in ENDED else f"{seconds:.0f} s", self.waits_for(task)]
            table.add_row(Text(mark, style=style), *(Text(show.clean(each)) for each in cells), style="dim" if task["state"] == "SKIPPED" else "")
        hidden = len(self.tasks) - len(shown)
        head = Text(show.clean(f"{self.experiment['name']} · {self.experiment['id']} · {self.experiment['state']}"), style="bold")
        holds = [f"{each['code']}: {each.get('detail') or ''}" for each in self.experiment.get("conditions") or []]
        lines = [Text(show.clean(each), style="yellow") for each in [*holds, *self.notes]]
        return Group(head, table, *([Text(f"… and {hidden} tasks that have ended or wait", style="dim")] if hidden else []), *lines)


def age(task: dict[str, Any]) -> float:
    """Seconds in the state when it was first seen, as far as two clocks agree."""
    since = task.get("state_since")
    return max(0.0, (clock.utc_now() - datetime.fromisoformat(since)).total_seconds()) if since else 0.0


def predecessors(edges: list[dict[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for edge in edges:
        found.setdefault(edge["to_task"], []).append(edge["from_task"])
    return found


def in_order(tasks: list[dict[str, Any]], before: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Predecessors first (by depth, then as the API lists them)."""
    depths: dict[str, int] = {}
    pending = {each["id"] for each in tasks}
    while pending:
        ready = {each for each in pending if not any(one in pending for one in before.get(each, []))} or pending
        for each in ready:
            depths[each] = 1 + max((depths.get(one, 0) for one in before.get(each, [])), default=0)
        pending -= ready
    return sorted(tasks, key=lambda each: depths[each["id"]])


def fold(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most a screen: what moves first, then failures, then the rest; drawn in graph order."""
    if len(tasks) <= ROWS_MAX:
        return tasks
    urgency = {"CREATED": 2, "COMPLETED": 3, "SKIPPED": 3}
    chosen = {each["id"] for each in sorted(tasks, key=lambda each: urgency.get(each["state"], 1))[:ROWS_MAX]}
    return [each for each in tasks if each["id"] in chosen]


def watch(client: Client, experiment: dict[str, Any], steps: Iterator[Step]) -> None:
    """Draw until the run ends. The final picture stays on the screen."""
    from rich.live import Live

    picture = Picture(experiment)
    with Live(picture, console=show.console(stderr=True), refresh_per_second=2):
        for step in steps:
            found = client.get(f"/experiments/{experiment['id']}")
            tasks, edges = graph(client, found.get("process_id"))
            picture.apply(step, found, tasks, edges)


def graph(client: Client, process_id: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    if not process_id:
        return [], []
    found = client.get(f"/processes/{process_id}/graph")
    return found["nodes"], found["edges"]
