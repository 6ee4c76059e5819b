"""PURE. `sleep_ms`: how long it takes; `fail`: how many attempts fail before one succeeds; `fail_for_good`: it never does."""

from app.workflow.execution import Failed, Succeeded
from components.task_executors.plugin import Sleep, Steps, WorkOrder


def steps(order: WorkOrder) -> Steps:
    model = order.model
    if model.get("sleep_ms"):
        yield Sleep(model["sleep_ms"] / 1000)
    if model.get("fail_for_good"):
        return Failed("INTERNAL", "This no-op was told to fail for good.")
    if order.number <= model.get("fail", 0):
        return Failed("INTERNAL", f"This no-op was told to fail {model['fail']} times.", transient=True)
    return Succeeded()
