"""The plug-in that makes a place for a process on its compute host and takes it away again."""

from components.task_executors.environment.steps import clean_up, set_up
from components.task_executors.plugin import TaskType

TASK_TYPES = (
    TaskType("ENV_SETUP", set_up, deadline_seconds=300.0, failure_code="LAUNCH_FAILURE"),
    TaskType("ENV_CLEANUP", clean_up, deadline_seconds=600.0),
)
