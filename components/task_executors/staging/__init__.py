"""Plug-in: inputs to the host, outputs back to storage."""

TASK_TYPES = ()
