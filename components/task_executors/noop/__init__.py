"""The no-op plug-in: the smallest task type and planner, the documented example (docs/plug_ins.md) and the benchmark's.

NOOP runs inside the executor and may only sleep or fail, as the planner `shape` tells it through the task's model.
"""

from components.task_executors.noop.steps import steps
from components.task_executors.plugin import TaskType

TASK_TYPES = (TaskType("NOOP", steps, local=True),)
