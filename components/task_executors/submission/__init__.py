"""The plug-in that starts jobs: script (render), submission (steps), and what the watcher needs to follow and end them (watch). FORK hosts."""

from components.task_executors.plugin import TaskType
from components.task_executors.submission.steps import steps

TASK_TYPES = (TaskType("JOB_SUBMISSION", steps, deadline_seconds=180.0, failure_code="LAUNCH_FAILURE", once=True),)
