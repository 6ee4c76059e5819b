"""The planner `shape`: any graph of no-ops, over REST. Inputs `edges` (`a>b a>c b>d`, a lone `a`) and `behaviour` (`b:sleep_ms=500 c:fail=2`)."""

import re

from app.workflow.planners import TASKS_MAX, Plan, PlannedEdge, PlannedTask, Planner, PlanRefused, Snapshot

_NAME = r"[a-z0-9][a-z0-9-]{0,62}"
_EDGE = re.compile(rf"({_NAME})(?:(>|=)({_NAME}))?")
_BEHAVIOUR = re.compile(rf"({_NAME}):(sleep_ms|fail|fail_for_good)=(\d{{1,6}})")


def plan(snapshot: Snapshot) -> Plan:
    """`a>b`: b after a's SUCCESS; `a=b`: b after a ENDED. Raises PlanRefused."""
    inputs = snapshot.get("inputs", {})
    names: dict[str, dict[str, int]] = {}
    edges = []
    for word in str(inputs.get("edges") or "").split():
        found = _EDGE.fullmatch(word)
        if found is None:
            raise PlanRefused("/inputs/edges", "bad_format", f"{word[:80]!r} is not a>b, a=b or a lone name")
        for name in filter(None, (found[1], found[3])):
            names.setdefault(name, {})
        if len(names) > TASKS_MAX:
            raise PlanRefused("/inputs/edges", "too_many", f"more than {TASKS_MAX} tasks")
        if found[2]:
            edges.append(PlannedEdge(found[1], found[3], "SUCCESS" if found[2] == ">" else "ENDED"))
    for word in str(inputs.get("behaviour") or "").split():
        found = _BEHAVIOUR.fullmatch(word)
        if found is None or found[1] not in names:
            raise PlanRefused("/inputs/behaviour", "bad_format", f"{word[:80]!r} is not task:sleep_ms=N, task:fail=N or task:fail_for_good=1")
        names[found[1]][found[2]] = int(found[3])
    if len(set(edges)) != len(edges):
        raise PlanRefused("/inputs/edges", "duplicate", "an edge is named twice")
    return Plan(tuple(PlannedTask(name, "NOOP", model) for name, model in names.items()), tuple(edges))


PLANNER = Planner("shape", plan, needs_host=False)
