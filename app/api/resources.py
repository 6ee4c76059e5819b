"""All operations, by face."""

from app.api import catalogue, experiments, explaining, health, history, insides, internal, operator, places, results
from app.api.operations import Operation

_MODULES = (health, places, catalogue, experiments, insides, explaining, results, history, operator)
PUBLIC: tuple[Operation, ...] = tuple(each for module in _MODULES for each in module.OPERATIONS)
INTERNAL: tuple[Operation, ...] = (*internal.OPERATIONS, *(each for each in health.OPERATIONS if each.id in {"livez", "readyz"}))
WAITS = {"get_status": experiments.status_waits, "list_events": history.events_wait}
