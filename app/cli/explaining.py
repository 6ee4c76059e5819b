"""Why a run is where it is: `explain`."""

from typing import Any

import typer

from app.cli import session, show
from app.cli.experiments import ExperimentId
from app.cli.session import Format
from app.cli.show import Column, Form

commands = typer.Typer()


@commands.command()
def explain(experiment_id: ExperimentId, output: Form = None) -> None:
    """Why it is not running, or why it failed: in a sentence, then what holds it and what clears that."""
    found = session.client().get(f"/experiments/{experiment_id}/explain")
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
    plain = [f"{name.replace('_', ' ')}: {told[name]}" for name in ("class", "retriable", "stage", "exit_code", "signal", "scheduler_reason", "raw_message", "hint") if told.get(name) is not None]
    tails = [line for name in ("stdout_tail", "stderr_tail") if told.get(name) for line in (f"{name.replace('_', ' ')}:", *(f"  {each}" for each in told[name].splitlines()))]
    return [*plain, *tails]
