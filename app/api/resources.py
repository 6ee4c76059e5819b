"""All operations, by face."""

from app.api import catalogue, experiments, health, insides, internal, operator, places
from app.api.operations import Operation

PUBLIC: tuple[Operation, ...] = (*health.OPERATIONS, *places.OPERATIONS, *catalogue.OPERATIONS, *experiments.OPERATIONS, *insides.OPERATIONS, *operator.OPERATIONS)
INTERNAL: tuple[Operation, ...] = (*internal.OPERATIONS, *(each for each in health.OPERATIONS if each.id in {"livez", "readyz"}))
WAITS = {"get_status": experiments.status_waits, "list_events": insides.events_wait}
