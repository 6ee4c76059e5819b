"""Planners: a frozen snapshot of the experiment → tasks and edges. Plug-ins of the entry point group `airavata.planners`; the interface names one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

TASKS_MAX = 1000


class PlanRefused(ValueError):
    """The planner cannot plan this. `pointer` names the faulty input, `code` is an API field code (bad_format, too_many, …)."""

    def __init__(self, pointer: str, code: str, detail: str) -> None:
        super().__init__(detail)
        self.pointer, self.code, self.detail = pointer, code, detail


@dataclass(frozen=True)
class PlannedTask:
    """`model`: what the task's steps need beyond the snapshot."""

    name: str
    type: str
    model: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PlannedEdge:
    from_task: str
    to_task: str
    on_end: str = "SUCCESS"


@dataclass(frozen=True)
class Plan:
    tasks: tuple[PlannedTask, ...]
    edges: tuple[PlannedEdge, ...] = ()


Snapshot: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Planner:
    """`plan` is pure and raises PlanRefused; the API calls it too, so that a bad graph is refused before anything is stored. `needs_host`: module, deployment, host."""

    name: str
    plan: Callable[[Snapshot], Plan]
    needs_host: bool = True
