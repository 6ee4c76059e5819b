"""7 Processes and stores: which process is sick, are versions mixed, is the database the limit, can I trust what I see."""

from observability.dashboards.panels import Board, lines, quantile, rate, total

C = 'component=~"$component"'
BOARD = Board(
    "airavata-processes", "7 Processes and stores", "Which process is sick, is the database the limit, and can I trust what I see?",
    [
        [
            lines("Processor", "Who takes it?", "TargetDown", ("{{component}} {{instance}}", rate("process_cpu_seconds_total", "component, instance", C)), unit="percentunit"),
            lines("Memory", "Does anything grow?", "TargetDown", ("{{component}} {{instance}}", total("process_resident_memory_bytes", "component, instance", C)), unit="bytes"),
            lines("Files and sockets", "Does anything leak?", "TargetDown", ("{{component}} {{instance}}", total("process_open_fds", "component, instance", C))),
        ],
        [
            lines("Age of the main loop", "Which process hangs? Killed at 30 s.", "TargetDown", ("{{component}} {{instance}}", total("airavata_main_loop_age_seconds", "component, instance", C, of="max")), unit="s"),
            lines("Started again", "Which process dies?", "TargetDown", ("{{component}}", f"sum by (component) (changes(process_start_time_seconds{{{C}}}[1h]))")),
            lines("Versions", "Are versions mixed for longer than a rollout?", "MixedVersions", ("{{version}} {{revision}}", "count by (version, revision) (airavata_build_info)")),
        ],
        [
            lines("Ready", "Who does not serve?", "TargetDown", ("{{component}} {{instance}}", total("airavata_ready", "component, instance", C, of="min"))),
            lines("Schema fits", "Do code and schema agree? 1 is yes.", "SchemaMismatch", ("schema", "min(airavata_schema_revision_match)")),
            lines("Credentials that expire", "Who must renew?", "CredentialExpiring", ("within {{within}}", total("airavata_credentials_expiring", "within", of="max"))),
        ],
        [
            lines("Units of work", "Is MySQL the slow part?", "MysqlPoolExhausted", ("{{name}} p99", quantile(0.99, "airavata_unit_of_work_seconds", "name", C)), unit="s"),
            lines("Statements", "Which statement is slow?", "MysqlPoolExhausted", ("{{statement}} p99", quantile(0.99, "db_client_operation_duration_seconds", "statement", C)), unit="s"),
            lines("Errors", "What goes wrong there?", "MysqlPoolExhausted", ("{{class}}", rate("airavata_mysql_errors_total", "class", C)), unit="cps"),
        ],
        [
            lines("Pool", "Is it full?", "MysqlPoolExhausted", ("{{component}} {{state}}", total("db_client_connection_count", "component, state", C))),
            lines("History list", "Do old row versions pile up? They make the outbox slow to read.", "MysqlHistoryLong", ("length", "max(airavata_mysql_history_list_length)")),
            lines("Oldest transaction", "Who holds them?", "MysqlHistoryLong", ("age", "max(airavata_mysql_oldest_transaction_seconds)"), unit="s"),
        ],
        [
            lines("Spans", "Do traces arrive, or are they lost?", "TelemetryLosing", ("{{outcome}}", rate("airavata_spans_total", "outcome", C)), unit="cps"),
            lines("Spans waiting", "Is the collector slow?", "TelemetryLosing", ("{{component}}", total("airavata_span_queue", "component", C, of="max"))),
            lines("Log lines held back", "Which warnings repeat?", "TelemetryLosing", ("{{event}}", rate("airavata_log_lines_suppressed_total", "event", C)), unit="cps"),
        ],
    ],
)  # fmt: skip
