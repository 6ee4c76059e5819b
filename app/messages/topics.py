"""Topic names. `prefix` separates installations that share a broker; it is empty in production."""

from collections.abc import Mapping

LAUNCH = "airavata-launch"
SCHEDULER = "airavata-scheduler"
EVENTS = "event-sink"
RELAY_STATE = "airavata-relay-state"  # Compacted, one partition per relay shard; everything else is a business topic.
EXECUTORS: Mapping[str, str] = {  # Task type → component; a plug-in's own type gets its own executor.
    "ENV_SETUP": "environment", "ENV_CLEANUP": "environment", "INGRESS_STAGING": "data", "EGRESS_STAGING": "data", "JOB_SUBMISSION": "job",
}  # fmt: skip


def of_task_type(task_type: str) -> str:
    """ENV_SETUP → env-setup-task."""
    return task_type.lower().replace("_", "-") + "-task"


def executor_group(task_type: str) -> str:
    """The consumer group of a task type, and the component: by microservice, so that one assignment spreads its topics over its instances."""
    return "executor-" + EXECUTORS.get(task_type, task_type.lower().replace("_", "-"))


def business(task_types: list[str]) -> list[str]:
    """Every topic that carries messages, in the order they are made."""
    return [LAUNCH, SCHEDULER, EVENTS, *sorted(of_task_type(each) for each in task_types)]


class Topics:
    """Full topic names of one installation."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.launch, self.scheduler, self.events, self.relay_state = (prefix + each for each in (LAUNCH, SCHEDULER, EVENTS, RELAY_STATE))

    def task(self, task_type: str) -> str:
        return self.prefix + of_task_type(task_type)
