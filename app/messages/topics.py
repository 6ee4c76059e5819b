"""Topic names. `prefix` separates installations that share a broker; it is empty in production."""

LAUNCH = "airavata-launch"
SCHEDULER = "airavata-scheduler"
EVENTS = "event-sink"
RELAY_STATE = "airavata-relay-state"  # Compacted, one partition per relay shard; everything else is a business topic.


def of_task_type(task_type: str) -> str:
    """ENV_SETUP → env-setup-task."""
    return task_type.lower().replace("_", "-") + "-task"


def business(task_types: list[str]) -> list[str]:
    """Every topic that carries messages, in the order they are made."""
    return [LAUNCH, SCHEDULER, EVENTS, *sorted(of_task_type(each) for each in task_types)]
