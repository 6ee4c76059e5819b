"""5 Hosts and jobs: which host is out and since when, is it the host or our budget, is our picture stale, do doubts converge."""

from observability.dashboards.panels import Board, increase, lines, quantile, rate, timeline, total

H = 'host=~"$host"'
BOARD = Board(
    "airavata-hosts", "5 Hosts and jobs", "Which host is sick, since when, and who waits for it?",
    [
        [
            timeline("Circuits", "Since when is which host out? 1 is open.", "HostCircuitOpen", ("{{host}}", total("airavata_ssh_circuit_state", "host", f'state="open",{H}', of="max"))),
            lines("Keys refused", "Which hosts refuse our key?", "HostAuthFailed", ("{{host}}", total("airavata_ssh_auth_failures_total", "host", H)), width=6),
            lines("Host keys changed", "Which hosts show another key?", "HostKeyChanged", ("{{host}}", total("airavata_ssh_host_key_changed", "host", H, of="max")), width=6, zero=True),
        ],
        [
            lines("SSH time", "Is the host slow?", "HostCircuitOpen", ("{{verb}} p99", quantile(0.99, "airavata_ssh_operation_seconds", "verb")), unit="s"),
            lines("Connections", "Is our budget used up?", "HostCircuitOpen", ("{{host}} {{state}}", total("airavata_ssh_connections", "host, state", H))),
            lines("Wait for a connection", "The host or us?", "HostCircuitOpen", ("p50", quantile(0.5, "airavata_ssh_budget_wait_seconds")), ("p99", quantile(0.99, "airavata_ssh_budget_wait_seconds")), unit="s"),
        ],
        [
            lines("Operations by outcome", "Do commands get an answer?", "HostCircuitOpen", ("{{outcome}}", rate("airavata_ssh_operation_seconds_count", "outcome")), unit="cps"),
            lines("Hung links cut off", "Which links hang?", "HostCircuitOpen", ("{{reason}}", total("airavata_ssh_worker_kills_total", "reason"))),
            lines("Age of the last look", "Is our picture of a host stale?", "JobPictureStale", ("{{host}}", total("airavata_job_look_age_seconds", "host", H, of="min")), unit="s"),
        ],
        [
            lines("Jobs", "Where are the jobs?", "JobLost", ("{{host}} {{state}}", total("airavata_jobs", "host, state", H, of="max"))),
            lines("Queue wait", "How long do jobs wait at their site?", "ReadyTasksWaiting", ("{{host}} p90", quantile(0.9, "airavata_job_queue_wait_seconds", "host", H, over="1h")), unit="s"),
            lines("Jobs lost", "Which hosts lose jobs?", "JobLost", ("{{host}}", total("airavata_jobs_lost_total", "host", H))),
        ],
        [
            lines("In doubt", "How many submissions are ambiguous?", "InDoubtTooLong", ("{{host}}", total("airavata_attempts_in_doubt", "host", H, of="max")), zero=True),
            lines("Oldest doubt", "Do doubts converge?", "InDoubtTooLong", ("{{host}}", total("airavata_in_doubt_oldest_age_seconds", "host", H, of="max")), unit="s"),
            lines("Doubts resolved", "What was found out?", "InDoubtTooLong", ("{{result}}", total("airavata_in_doubt_resolved_total", "result"))),
        ],
        [
            lines("Staged", "What throughput do we get?", "HostCircuitOpen", ("{{direction}} {{scheme}}", rate("airavata_staged_bytes_total", "direction, scheme")), unit="Bps"),
            lines("Damage found on the way", "Do checksums differ?", "HostCircuitOpen", ("{{direction}} {{scheme}}", increase("airavata_checksum_mismatches_total", "direction, scheme"))),
            lines("Transfers resumed", "How much work was saved?", "HostCircuitOpen", ("{{direction}} {{scheme}}", increase("airavata_staging_resumed_total", "direction, scheme"))),
        ],
    ],
)  # fmt: skip
