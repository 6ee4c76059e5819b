"""The staging plug-in: INGRESS_STAGING brings all inputs to the host, EGRESS_STAGING all declared outputs back to storage."""

from components.task_executors.plugin import TaskType
from components.task_executors.staging.steps import IN_FAILED, OUT_FAILED, egress, ingress

TASK_TYPES = (
    TaskType("INGRESS_STAGING", ingress, deadline_seconds=6 * 3600.0, failure_code=IN_FAILED),
    TaskType("EGRESS_STAGING", egress, deadline_seconds=6 * 3600.0, failure_code=OUT_FAILED),
)
