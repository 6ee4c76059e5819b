"""1 Is it healthy? The page to open first: promises kept, what needs a human, whether work flows, where the delay is."""

from observability.dashboards.panels import Board, increase, lines, one, quantile, rate, total

LAUNCHES = 'route="/v1/experiments/{id}/launches"'
_ERRORS = 'sum(increase(airavata_http_responses_total{code=~"5.."}[28d])) / sum(increase(airavata_http_responses_total[28d]))'


def _missed(name: str, limit: str) -> str:
    """The share of what a histogram saw beyond its promise, over 28 days."""
    return f'1 - sum(increase({name}_bucket{{le="{limit}"}}[28d])) / sum(increase({name}_count[28d]))'


BOARD = Board(
    "airavata-health", "1 Is it healthy?", "Are we keeping promises, does anything need a human, does work flow, and where is the delay?",
    [
        [
            one("Error budget left", "Of the 0.1 % of calls that may fail by our fault in 28 days, how much is left?", "ApiErrorBudgetBurn", ("", f"1 - ({_ERRORS}) / 0.001"), unit="percentunit"),
            one("Launches over 250 ms", "Which share of launches was answered too late? At most 1 % may be.", "ApiErrorBudgetBurn", ("", f'1 - sum(increase(http_server_request_duration_seconds_bucket{{{LAUNCHES},le="0.25"}}[28d])) / sum(increase(http_server_request_duration_seconds_count{{{LAUNCHES}}}[28d]))'), unit="percentunit"),
            one("Publishes over 100 ms", "Which share of messages reached Kafka too late? At most 1 % may.", "OutboxSlow", ("", _missed("airavata_relay_publish_delay_seconds", "0.1")), unit="percentunit"),
            one("Hops over 80 ms", "Which share of tasks began too late after the one before? At most 1 % may.", "OutboxSlow", ("", _missed("airavata_task_hop_seconds", "0.08")), unit="percentunit"),
            one("Take-overs over 3 s", "Which share of dead instances was replaced too late? At most 1 % may be.", "TakeoverSlow", ("", _missed("airavata_takeover_gap_seconds", "3.0")), unit="percentunit"),
            one("Events over 1 s", "Which share of news reached clients too late? At most 1 % may.", "ConsumerStalled", ("", _missed("airavata_event_delay_seconds", "1.0")), unit="percentunit"),
        ],
        [
            one("Invariants violated", "Was anything seen that the protocol excludes? Must stay 0.", "InvariantViolated", ("", "sum(airavata_invariant_violations_total)"), zero=True),
            one("Dead letters", "Does a message wait for a human?", "DeadLettersWaiting", ("", "sum(airavata_dead_letters)"), zero=True),
            one("In doubt", "Is it unknown of any job whether it was started?", "InDoubtTooLong", ("", "sum(airavata_attempts_in_doubt)"), zero=True),
            one("Stuck", "Does work stay in a state for longer than it may?", "StuckWork", ("", "sum(airavata_stuck)"), zero=True),
            one("Rescued", "Did the sweeper find what the protocol had lost? Must stay 0.", "SweeperRescued", ("", "sum(airavata_rescued_total)"), zero=True),
            one("Firing alerts", "What is already known to be wrong?", "TargetDown", ("", 'count(ALERTS{alertstate="firing"}) or vector(0)'), zero=True),
        ],
        [
            lines("Launches in", "Do launches get in?", "ApiErrorBudgetBurn", ("{{outcome}}", rate("airavata_launches_total", "outcome")), unit="cps"),
            lines("Experiments out", "What do users get?", "StuckWork", ("{{outcome}}", rate("airavata_experiments_finished_total", "outcome")), unit="cps"),
            lines("Firing alerts", "Since when is what wrong?", "TargetDown", ("{{alertname}}", 'count by (alertname) (ALERTS{alertstate="firing"}) or label_replace(vector(0), "alertname", "none", "", "")')),
        ],
        [
            lines("Outbox age", "Does the outbox drain? The first thing to look at.", "OutboxStalled", ("shard {{shard}}", total("airavata_outbox_oldest_age_seconds", "shard", of="max")), unit="s"),
            lines("Oldest unapplied", "Does a consumer stand?", "ConsumerStalled", ("{{group}}", total("airavata_consumer_oldest_age_seconds", "group", of="max")), unit="s"),
            lines(
                "Task hop", "How long from one task's end to the next one's start?", "OutboxSlow", ("p50", quantile(0.5, "airavata_task_hop_seconds")), ("p99", quantile(0.99, "airavata_task_hop_seconds")), unit="s",
            ),
        ],
        [
            lines("Retries and doubts", "Does the outside world get worse?", "HostCircuitOpen", ("{{outcome}}", increase("airavata_attempts_total", "outcome", over="5m")), width=12),
            lines("Instances up", "Which process cannot be scraped?", "TargetDown", ("{{component}}", "sum by (component) (up)"), width=12),
        ],
    ],
)  # fmt: skip
