"""Topic names. `prefix` separates installations that share a broker; it is empty in production."""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class Topics:
    """Full topic names of one installation."""

    prefix: str = ""

    @property
    def launch(self) -> str:
        return self.prefix + LAUNCH

    @property
    def scheduler(self) -> str:
        return self.prefix + SCHEDULER

    @property
    def events(self) -> str:
        return self.prefix + EVENTS

    @property
    def relay_state(self) -> str:
        return self.prefix + RELAY_STATE

    def task(self, task_type: str) -> str:
        return self.prefix + of_task_type(task_type)
