"""2 API: which call suffers, are retries absorbed, is it saturated, who is limited, do clients see news."""

from observability.dashboards.panels import Board, lines, one, quantile, rate, total

BOARD = Board(
    "airavata-api", "2 API", "Which call suffers, and whom does it hurt?",
    [
        [
            lines("Rate by route", "What is asked?", "ApiErrorBudgetBurn", ("{{method}} {{route}}", rate("airavata_http_responses_total", "method, route")), unit="reqps"),
            lines("Errors of ours by route", "Which call fails by our fault?", "ApiErrorBudgetBurn", ("{{route}} {{code}}", rate("airavata_http_responses_total", "route, code", 'code=~"5.."') + ' or label_replace(vector(0), "route", "none", "", "")'), unit="reqps"),
            lines("Duration p99 by route", "Which call is slow? Points open traces.", "ApiErrorBudgetBurn", ("{{route}}", quantile(0.99, "http_server_request_duration_seconds", "route")), unit="s"),
        ],
        [
            lines("Launch outcomes", "Are repeated launches absorbed, and how many are refused?", "ApiErrorBudgetBurn", ("{{outcome}}", rate("airavata_launches_total", "outcome")), unit="cps"),
            lines("Answers by status", "Do clients ask wrongly, or do we fail?", "ApiErrorBudgetBurn", ("{{code}}", rate("airavata_http_responses_total", "code")), unit="reqps"),
            lines("Turned away by gateway", "Who asks for more than it may?", "ApiErrorBudgetBurn", ("{{gateway}}", rate("airavata_rate_limited_total", "gateway", 'gateway=~"$gateway"')), unit="cps"),
        ],
        [
            lines("Requests being served", "Is a copy saturated?", "MysqlPoolExhausted", ("{{instance}}", total("http_server_active_requests", "instance"))),
            lines("Wait for a connection", "Is the pool what they wait for?", "MysqlPoolExhausted", ("{{component}} p99", quantile(0.99, "db_client_connection_wait_time_seconds", "component", 'component="api"')), unit="s"),
            lines("Connections", "Is the pool full?", "MysqlPoolExhausted", ("{{state}}", total("db_client_connection_count", "state", 'component="api"'))),
        ],
        [
            lines("Event delay", "How long until clients can see a fact?", "ConsumerStalled", ("p50", quantile(0.5, "airavata_event_delay_seconds")), ("p99", quantile(0.99, "airavata_event_delay_seconds")), unit="s"),
            lines("Sink posts", "Do events reach the API server?", "ConsumerStalled", ("{{outcome}}", rate("airavata_sink_post_seconds_count", "outcome")), unit="cps"),
            one("Sink last heard", "Does a sink live?", "ConsumerStalled", ("", "max(airavata_sink_heartbeat_age_seconds)"), unit="s"),
            one("Broken trace contexts", "Who sends broken headers?", "TelemetryLosing", ("{{from}}", "sum by (from) (airavata_context_invalid_total)")),
        ],
    ],
)  # fmt: skip
