"""4 Workflows: where is everything, do ready tasks wait, what fails and why, who is affected."""

from observability.dashboards.panels import Board, increase, lines, quantile, rate, total

G = 'gateway=~"$gateway"'
BOARD = Board(
    "airavata-workflows", "4 Workflows", "Where is the work, what holds it, and whom does it hurt?",
    [
        [
            lines("Processes", "Where is everything?", "StuckWork", ("{{state}}", total("airavata_processes", "state", of="max"))),
            lines("Tasks", "Which step is everybody at?", "StuckWork", ("{{type}} {{state}}", total("airavata_tasks", "type, state", of="max"))),
            lines("Stuck", "What stays longer than it may?", "StuckWork", ("{{state}}", total("airavata_stuck", "state", of="max")), zero=True),
        ],
        [
            lines("Ready tasks", "Are more executors needed?", "ReadyTasksWaiting", ("{{type}}", total("airavata_tasks_ready", "type", of="max"))),
            lines("Oldest ready task", "How long does work wait for one?", "ReadyTasksWaiting", ("{{type}}", total("airavata_tasks_ready_oldest_age_seconds", "type", of="max")), unit="s"),
            lines("Why tasks are blocked", "Which condition holds them?", "HostCircuitOpen", ("{{condition}}", total("airavata_blocked_tasks", "condition", of="max"))),
        ],
        [
            lines("Task hop by type", "How long from a task's end to the next one's start?", "OutboxSlow", ("{{task_type}} p99", quantile(0.99, "airavata_task_hop_seconds", "task_type")), unit="s"),
            lines("Attempts by outcome", "What fails?", "StuckWork", ("{{task_type}} {{outcome}}", rate("airavata_attempts_total", "task_type, outcome")), unit="cps"),
            lines("Attempts by condition", "Why?", "HostCircuitOpen", ("{{condition}}", rate("airavata_attempts_total", "condition", 'outcome="FAILED"')), unit="cps"),
        ],
        [
            lines("Attempt time", "How long do attempts take?", "StuckWork", ("{{task_type}} p90", quantile(0.9, "airavata_attempt_seconds", "task_type", over="15m")), unit="s"),
            lines("Attempts running", "Who works?", "ReadyTasksWaiting", ("{{task_type}}", total("airavata_attempts_running", "task_type"))),
            lines("Timers due", "Are retries on time?", "StuckWork", ("{{kind}} due", total("airavata_timers_due", "kind", of="max")), ("{{kind}} late, p99", quantile(0.99, "airavata_timer_lateness_seconds", "kind"))),
        ],
        [
            lines("Outcome by gateway", "Whom do failures hurt?", "StuckWork", ("{{gateway}} {{result}}", increase("airavata_gateway_experiments_total", "gateway, result", G))),
            lines("Outcomes", "What did users get?", "StuckWork", ("{{outcome}}", increase("airavata_experiments_finished_total", "outcome"))),
            lines("Experiment time", "How long do runs take?", "StuckWork", ("{{result}} p90", quantile(0.9, "airavata_experiment_seconds", "result", over="1h")), unit="s"),
        ],
    ],
)  # fmt: skip
