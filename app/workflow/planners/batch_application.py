"""The default planner: one program on one host (docs/domain.md §3).

ENV_SETUP → INGRESS_STAGING → JOB_SUBMISSION on SUCCESS; EGRESS_STAGING on JOB_SUBMISSION ENDED and INGRESS_STAGING SUCCESS, so that outputs come back also from a
failed job; ENV_CLEANUP only if the strategy is not NONE.
"""

from app.workflow.planners import Plan, PlannedEdge, PlannedTask, Planner, Snapshot

SETUP, INGRESS, JOB, EGRESS, CLEANUP = "env-setup", "ingress-staging", "job-submission", "egress-staging", "env-cleanup"


def plan(snapshot: Snapshot) -> Plan:
    """Five tasks, or four without cleanup."""
    strategy = snapshot.get("cleanup_strategy", "NONE")
    tasks = [
        PlannedTask(SETUP, "ENV_SETUP"),
        PlannedTask(INGRESS, "INGRESS_STAGING"),
        PlannedTask(JOB, "JOB_SUBMISSION"),
        PlannedTask(EGRESS, "EGRESS_STAGING"),
    ]
    edges = [PlannedEdge(SETUP, INGRESS), PlannedEdge(INGRESS, JOB), PlannedEdge(JOB, EGRESS, "ENDED"), PlannedEdge(INGRESS, EGRESS)]
    if strategy != "NONE":
        tasks.append(PlannedTask(CLEANUP, "ENV_CLEANUP", {"strategy": strategy}))
        edges += [PlannedEdge(SETUP, CLEANUP), PlannedEdge(EGRESS, CLEANUP, "SUCCESS" if strategy == "ONLY_COMPLETED" else "ENDED")]
        if strategy == "ONLY_COMPLETED":
            edges.append(PlannedEdge(JOB, CLEANUP))
    return Plan(tuple(tasks), tuple(edges))


PLANNER = Planner("batch-application", plan)
