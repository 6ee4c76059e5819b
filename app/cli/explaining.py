"""Why a run is where it is, and what it has done so far: `explain`, `trace`."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import typer

from app.cli import session, show
from app.cli.experiments import ExperimentId
from app.cli.session import Format
from app.cli.show import Column, Form

commands = typer.Typer()
PLAIN = ("class", "retriable", "stage", "exit_code", "signal", "scheduler_reason", "raw_message", "hint")  # Of a failure, in a line each.


@commands.command()
def explain(subject: Annotated[str, typer.Argument(metavar="ID", help="An experiment, a process or a task.")], output: Form = None) -> None:
    """Why it is not running, or why it failed: in a sentence, then what holds it and what clears that."""
    kind = {"prc": "processes", "tsk": "tasks"}.get(subject.partition("_")[0], "experiments")
    found = session.client().get(f"/{kind}/{subject}/explain")
    if show.form(output) is not Format.TABLE:
        show.one(found, output)
        return
    print(show.clean(f"{found['state']}, {found['verdict']}: {found['summary']}"))
    if found["causes"]:
        print()
        checks: Column = ("looked at again", lambda each: each["next_check_at"])
        show.table(found["causes"], ("code", "subject", "since", "detail", "clears_when", checks))
    for line in [*_evidence(found), *_actions(found), *_failure(found["failure"] or {})]:
        print(show.clean(line))


def _evidence(found: dict[str, Any]) -> list[str]:
    return [f"  {each['source']}: {each['text']}" for cause in found["causes"] for each in cause["evidence"]]


def _actions(found: dict[str, Any]) -> list[str]:
    return [f"to {each['label']}: {each['method']} {each['path']}" for cause in found["causes"] for each in cause["actions"]]


def _failure(told: dict[str, Any]) -> list[str]:
    """What it meant and what to do; then what was heard from outside."""
    lines = [f"{name.replace('_', ' ')}: {told[name]}" for name in PLAIN if told.get(name) is not None]
    for name in ("stdout_tail", "stderr_tail"):
        if told.get(name):
            lines += [f"{name.replace('_', ' ')}:", *(f"  {each}" for each in told[name].splitlines())]
    return lines


@commands.command()
def trace(
    experiment_id: ExperimentId,
    link: Annotated[str | None, typer.Option(envvar="AIRAVATA_TRACE_URL", help="Where traces are looked at, with {trace_id}.", show_default=False)] = None,
    output: Form = None,
) -> None:
    """The tree of a launch: attempts, waits and jobs with their times, from the database alone, also while it runs."""
    found = session.client().get(f"/experiments/{experiment_id}/trace")
    if show.form(output) is not Format.TABLE:
        show.one(found, output)
        return
    print(show.clean(f"{found['experiment_id']} {found['state']}, trace {found['trace_id'] or '-'}"))
    if found["root"] is not None:
        for line in drawn(found["root"], as_of=found["as_of"]):
            print(show.clean(line))
    if link and found["trace_id"]:
        show.note(link.replace("{trace_id}", found["trace_id"]))


def drawn(span: dict[str, Any], *, as_of: str, lead: str = "", turn: str = "", origin: str | None = None) -> Iterator[str]:
    """A line a span: since the launch, how long (`…` while it goes on), what went wrong."""
    told, start, origin = span["attributes"], span["start"], origin or span["start"]
    shown = ("airavata.job.id", "airavata.job.state") if span["name"] == "job run" else ("airavata.task.name",)  # A job's task stands above it.
    words = [f"{lead}{turn}{span['name']}", *(f"{told[name]}" for name in shown if name in told)]
    words += [f"attempt={told['airavata.task.attempt']}"] if "airavata.task.attempt" in told and span["name"] != "job run" else []
    words += [f"+{_seconds(origin, start)} s", f"{_seconds(start, span['end'] or as_of)} s{'' if span['end'] else ' …'}"]
    words += [f"{span['status']} {told.get('error.type', '')}".rstrip()] if span["status"] == "ERROR" else []
    yield "  ".join(words)
    below = lead + {"": "", "├─ ": "│  ", "└─ ": "   "}[turn]
    for each in span["children"]:
        yield from drawn(each, as_of=as_of, lead=below, turn="└─ " if each is span["children"][-1] else "├─ ", origin=origin)


def _seconds(start: str, end: str) -> str:
    return f"{max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()):.3f}"
