"""Plug-ins by entry point: task types (`airavata.task_types`) and planners (`airavata.planners`). Found once, at start."""

from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any

from app.errors import Misconfigured
from app.workflow.planners import Planner


def task_types() -> dict[str, Any]:
    """Type name → TaskType (components/task_executors/plugin.py), of every installed plug-in. Loading them imports no driver."""
    found: dict[str, Any] = {}
    for entry in entry_points(group="airavata.task_types"):
        for task_type in entry.load():
            if task_type.name in found:
                raise Misconfigured(f"two plug-ins offer the task type {task_type.name}")
            found[task_type.name] = task_type
    return found


def planners(enabled: Iterable[str]) -> dict[str, Planner]:
    """Name → Planner, of the enabled ones. Raises Misconfigured for one that is not installed."""
    installed = {entry.name: entry for entry in entry_points(group="airavata.planners")}
    if missing := sorted(set(enabled) - set(installed)):
        raise Misconfigured(f"AIRAVATA_ENABLED_PLANNERS names {', '.join(missing)}, installed are {', '.join(sorted(installed))}")
    return {name: installed[name].load() for name in enabled}
