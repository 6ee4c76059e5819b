"""Every metric of this system, as data: name, kind, labels with their closed sets, buckets, who emits it, and the question it answers (its help text).

Components may emit what stands here and nothing else (metrics.py); dashboards and alerts are made from it; a test compares it with what a real Prometheus scraped from
running processes. `component` and `instance` are put on by the scrape configuration, so they are no labels here.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from app.workflow import experiment, job, process, task


class Open(NamedTuple):
    """A label whose values are found while running: the first `most` of them, then `other`."""

    most: int


Labels: TypeAlias = Mapping[str, tuple[str, ...] | Open]
FAST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
HOP = (0.005, 0.01, 0.015, 0.025, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1, 3, 8, 30)
LONG = (1, 5, 15, 30, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86_400, 3 * 86_400, 7 * 86_400)
COUNT = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)

API, RELAY, SCHEDULER, EXECUTOR, SINK = (frozenset({name}) for name in ("api", "relay", "scheduler", "executor", "event-sink"))
CONSUMERS = SCHEDULER | EXECUTOR | SINK | {"generator"}
ALL = CONSUMERS | API | RELAY
WITH_MYSQL = ALL - SINK


class Metric(NamedTuple):
    """`who`: the components that emit it. `sampled`: by the API server elected as sampler. `zero`: anything but 0 is a fault of ours. `later`: not emitted yet, and why."""

    name: str
    kind: str
    question: str
    labels: Labels
    who: frozenset[str]
    buckets: tuple[float, ...] = ()
    sampled: bool = False
    zero: bool = False
    later: str = ""


GATEWAY, HOST, TOPIC, TASK_TYPE, GROUP, SHARD = Open(200), Open(500), Open(40), Open(40), Open(20), Open(64)
TASK_STATES, PROCESS_STATES, JOB_STATES = (tuple(str(state) for state in each.State if state not in each.TERMINAL) for each in (task, process, job))
CONDITIONS = ("QUOTA", "AUTH_REQUIRED", "HOST_KEY_CHANGED", "HOST_CIRCUIT_OPEN", "HOST_DISABLED")
OUTCOMES = tuple(map(str, experiment.Outcome))
VERBS = ("connect", "sh", "stage", "prepare", "submit", "look", "kill", "clean", "transfer", "other")
STAGED = {"direction": ("in", "out"), "scheme": ("posix", "s3", "inline")}


def _counter(name: str, question: str, who: frozenset[str], /, **labels: tuple[str, ...] | Open) -> Metric:
    return Metric(name, "counter", question, _plain(labels), who)


def _gauge(name: str, question: str, who: frozenset[str], /, **labels: tuple[str, ...] | Open) -> Metric:
    return Metric(name, "gauge", question, _plain(labels), who)


def _sampled(name: str, question: str, /, **labels: tuple[str, ...] | Open) -> Metric:
    return Metric(name, "gauge", question, _plain(labels), API, sampled=True)


def _histogram(name: str, buckets: tuple[float, ...], question: str, who: frozenset[str], /, **labels: tuple[str, ...] | Open) -> Metric:
    return Metric(name, "histogram", question, _plain(labels), who, buckets)


def _plain(labels: Labels) -> Labels:
    """`class_` is how Python spells the label `class`."""
    return {name.rstrip("_"): values for name, values in labels.items()}


_TABLE = (
    # ---- every process
    _gauge("airavata_build_info", "Which build runs, and which schema revision does it need?", ALL, version=Open(1), revision=Open(1)),
    _gauge("airavata_ready", "Is it serving?", ALL),
    _gauge("airavata_main_loop_age_seconds", "Does its main loop turn?", ALL),
    _counter("process_cpu_seconds_total", "How much processor does it take?", ALL),
    _gauge("process_resident_memory_bytes", "How much memory does it hold?", ALL),
    _gauge("process_virtual_memory_bytes", "How much address space does it have?", ALL),
    _gauge("process_start_time_seconds", "Since when does it run, and was it started again?", ALL),
    _gauge("process_open_fds", "How many files and sockets has it open?", ALL),
    _gauge("process_max_fds", "How many may it open?", ALL),
    _histogram("airavata_unit_of_work_seconds", FAST, "Is MySQL the slow part, by transaction and how it ended?", WITH_MYSQL, name=Open(40), outcome=("committed", "rolled_back", "fenced", "unknown")),
    _counter("airavata_mysql_errors_total", "What goes wrong at MySQL?", WITH_MYSQL, class_=("deadlock", "lock_wait", "gone", "read_only", "unknown_commit", "other")),
    _histogram("db_client_operation_duration_seconds", FAST, "Which statement is slow?", WITH_MYSQL, statement=Open(60)),
    _gauge("db_client_connection_count", "Is the connection pool full?", WITH_MYSQL, state=("used", "idle")),
    _histogram("db_client_connection_wait_time_seconds", FAST, "How long does work wait for a connection?", WITH_MYSQL),
    _counter("airavata_spans_total", "Do spans reach the collector, or are they lost?", ALL, outcome=("exported", "queue_full", "export_failed", "given_up")),
    _gauge("airavata_span_queue", "How many spans wait to be exported?", ALL),
    _counter("airavata_log_lines_suppressed_total", "Which repeated warnings were held back?", ALL, event=Open(40)),
    _counter("airavata_log_lines_lost_total", "Are there lines that could not be written?", ALL),
    _counter("airavata_context_invalid_total", "Who sends broken trace contexts?", ALL, from_=("request", "message", "event")),
    _counter("airavata_invariant_violations_total", "Was something seen that the protocol excludes?", ALL, invariant=("position_gap", "sink_position_above", "relay_state", "check"))._replace(zero=True),
    _counter("airavata_fenced_total", "Which zombies were met and stopped?", ALL, what=("relay", "partition", "attempt", "remote_epoch")),
    # ---- api
    _histogram("http_server_request_duration_seconds", FAST, "Which call is slow?", API, method=Open(8), route=Open(100)),
    _counter("airavata_http_responses_total", "Which call fails, and with which status?", API, method=Open(8), route=Open(100), code=Open(40)),
    _gauge("http_server_active_requests", "How many requests are being served?", API),
    _counter("airavata_launches_total", "Do launches get in, and are repeats absorbed?", API, outcome=("accepted", "replayed", "conflict", "refused")),
    _counter("airavata_rate_limited_total", "Which gateways are turned away for asking too much?", API, gateway=GATEWAY),
    _counter("airavata_overloads_total", "Which bound of a copy turns requests away, whoever sends them?", API, bound=("connections", "bodies", "work")),
    _gauge("airavata_sse_streams", "How many clients follow a stream?", API)._replace(later="there is no server-sent event stream yet; clients hold long polls"),
    _counter("airavata_webhook_deliveries_total", "Do receivers answer?", API, outcome=("delivered", "refused", "failed", "given_up"))._replace(later="webhooks are not built yet"),
    _histogram("airavata_event_delay_seconds", HOP, "How long from a committed fact until clients can see it?", API),
    # ---- relay
    _sampled("airavata_outbox_rows", "Does the outbox drain?", shard=SHARD),
    _sampled("airavata_outbox_oldest_age_seconds", "How old is the oldest message that Kafka has not got?", shard=SHARD),
    _histogram("airavata_relay_publish_delay_seconds", HOP, "How long from a committed row until its Kafka transaction has committed?", RELAY, topic=TOPIC),
    _histogram("airavata_relay_batch_rows", COUNT, "How many rows go into a Kafka transaction?", RELAY),
    _histogram("airavata_relay_batch_partitions", COUNT, "How many partitions does a Kafka transaction touch? Its cost grows with them.", RELAY),
    _histogram("airavata_relay_transaction_seconds", FAST, "How long does a Kafka transaction take, and how does it end?", RELAY, outcome=("committed", "aborted", "unknown", "fenced")),
    _counter("airavata_relay_rows_total", "What flows, by topic?", RELAY, topic=TOPIC, outcome=("published", "dead_letter")),
    _counter("airavata_relay_recovered_rows_total", "How many rows of a crashed predecessor were found to be in Kafka already?", RELAY),
    _counter("airavata_relay_producer_resets_total", "How often did a shard need a new producer, and why?", RELAY, reason=("worn", "unavailable", "fenced")),
    _histogram("airavata_relay_init_seconds", HOP, "What does a new producer cost?", RELAY),
    _gauge("airavata_relay_shards_held", "Which shards does this relay hold?", RELAY, shard=SHARD),
    _counter("airavata_relay_wakeups_total", "Do nudges arrive, or does the relay find rows by looking?", RELAY, by=("nudge", "poll")),
    # ---- consumers
    _gauge("airavata_consumer_lag_rows", "How many messages are not applied yet?", CONSUMERS, group=GROUP, topic=TOPIC),
    _gauge("airavata_consumer_oldest_age_seconds", "How old is the oldest message that is not applied yet?", CONSUMERS, group=GROUP, topic=TOPIC),
    _gauge("airavata_consumer_blocked_offsets", "Is somebody's open Kafka transaction in the way?", CONSUMERS, group=GROUP, topic=TOPIC),
    _histogram("messaging_process_duration_seconds", FAST, "How long from poll to commit?", CONSUMERS, topic=TOPIC, outcome=("applied", "requeued", "dead_letter")),
    _counter("airavata_messages_total", "What becomes of messages?", CONSUMERS, topic=TOPIC, verdict=("applied", "late", "duplicate", "not_mine", "requeued", "dead_letter")),
    _histogram("airavata_batch_messages", COUNT, "How many messages does a transaction apply?", CONSUMERS),
    _counter("airavata_rebalances_total", "Do partitions wander?", CONSUMERS, kind=("assigned", "revoked", "lost")),
    _gauge("airavata_partitions_held", "How many partitions does this instance own?", CONSUMERS, topic=TOPIC),
    _gauge("airavata_partitions_total", "How many partitions are there to own?", CONSUMERS, topic=TOPIC),
    _gauge("airavata_partition_halted", "Which partitions stand still on purpose, and why?", CONSUMERS, topic=TOPIC, reason=("recreated", "truncated", "retention", "unclaimed"))._replace(zero=True),
    _counter("airavata_requeues_total", "Which messages were put back, and why?", CONSUMERS, topic=TOPIC, reason=("illegal", "unreadable", "raised")),
    _counter("airavata_takeovers_total", "How often did an instance take over from a dead one?", CONSUMERS | API, group=GROUP),
    _histogram("airavata_takeover_gap_seconds", HOP, "How long from a dead owner's last heartbeat to its successor's first commit?", CONSUMERS | API, group=GROUP),
    # ---- scheduler
    _histogram("airavata_task_hop_seconds", HOP, "How long from one task's committed end to the next one's committed start?", SCHEDULER, task_type=TASK_TYPE),
    _counter("airavata_rescued_total", "Did the sweeper find what the protocol lost?", SCHEDULER, kind=("task", "process", "attempt", "timer", "job"))._replace(zero=True),
    _counter("airavata_transitions_refused_total", "Which facts moved nothing, knowingly?", SCHEDULER, entity=("process", "task"), reason=("late", "stale_epoch", "illegal")),
    _histogram("airavata_timer_lateness_seconds", HOP, "Are retries and deadlines on time?", SCHEDULER, kind=("retry", "deadline", "requeue")),
    _sampled("airavata_timers_due", "How many timers are due and not moved?", kind=("retry", "deadline", "requeue")),
    _counter("airavata_attempts_abandoned_total", "Which attempts were sent again because their owner was silent?", SCHEDULER, task_type=TASK_TYPE),
    # ---- work
    _sampled("airavata_processes", "Where are the processes?", state=PROCESS_STATES),
    _sampled("airavata_tasks", "Where are the tasks?", type=TASK_TYPE, state=TASK_STATES),
    _sampled("airavata_jobs", "Where are the remote jobs?", host=HOST, state=JOB_STATES),
    _sampled("airavata_tasks_ready", "How many tasks wait for an executor?", type=TASK_TYPE),
    _sampled("airavata_tasks_ready_oldest_age_seconds", "How long has the first of them waited?", type=TASK_TYPE),
    _sampled("airavata_stuck", "What stays in a state longer than that state may last?", state=("CREATED", "VALIDATED", "CANCELING", "SCHEDULED", "RETRY_WAIT", "BLOCKED", "IN_DOUBT"))._replace(zero=True),
    _sampled("airavata_blocked_tasks", "Which conditions hold tasks?", condition=CONDITIONS),
    _counter("airavata_experiments_finished_total", "What did users get?", SCHEDULER, outcome=OUTCOMES),
    _counter("airavata_gateway_experiments_total", "Whose experiments ended how?", SCHEDULER, gateway=GATEWAY, result=("ok", "failed", "canceled")),
    _histogram("airavata_experiment_seconds", LONG, "How long do experiments take?", SCHEDULER, result=("ok", "failed", "canceled")),
    # ---- executor
    _counter("airavata_attempts_total", "How do attempts end, and what held them?", EXECUTOR, task_type=TASK_TYPE, outcome=("SUCCEEDED", "FAILED", "IN_DOUBT"), condition=("", *CONDITIONS)),
    _histogram("airavata_attempt_seconds", LONG, "How long do attempts take?", EXECUTOR, task_type=TASK_TYPE, outcome=("SUCCEEDED", "FAILED", "IN_DOUBT")),
    _gauge("airavata_attempts_running", "How many attempts run here?", EXECUTOR, task_type=TASK_TYPE),
    # ---- doubt
    _sampled("airavata_attempts_in_doubt", "Which hosts have submissions of unknown outcome?", host=HOST),
    _sampled("airavata_in_doubt_oldest_age_seconds", "How long has the oldest doubt lasted?", host=HOST),
    _counter("airavata_in_doubt_resolved_total", "How did doubts end: the job was there, it surely was not, or nobody could tell in time?", EXECUTOR | SCHEDULER, result=("found", "absent", "lost")),
    _counter("airavata_duplicates_suppressed_total", "Where was a second start of a job turned away?", EXECUTOR, where=("receipt", "guard")),
    # ---- ssh
    _histogram("airavata_ssh_operation_seconds", FAST, "Is the host slow?", EXECUTOR, verb=VERBS, outcome=("ok", "failed", "unknown")),
    _gauge("airavata_ssh_connections", "How many connections are held, and are they used?", EXECUTOR, host=HOST, state=("busy", "idle")),
    _histogram("airavata_ssh_budget_wait_seconds", HOP, "Does work wait for a free worker or for a host's connection budget?", EXECUTOR),
    _counter("airavata_ssh_worker_kills_total", "Which hung links were cut off?", EXECUTOR, reason=("overdue", "died")),
    _sampled("airavata_ssh_circuit_state", "Which hosts are out? (Hosts that have been out since this sampler was elected.)", host=HOST, state=("closed", "half_open", "open")),
    _counter("airavata_ssh_auth_failures_total", "Which hosts refuse our key?", EXECUTOR, host=HOST),
    _sampled("airavata_ssh_host_key_changed", "Which hosts show another key than the pinned one?", host=HOST)._replace(zero=True),
    # ---- jobs
    _histogram("airavata_job_queue_wait_seconds", LONG, "How long do jobs wait at their site?", EXECUTOR, host=Open(40)),
    _counter("airavata_job_looks_total", "Do looks at a host's jobs succeed?", EXECUTOR, host=HOST, outcome=("ok", "failed")),
    _gauge("airavata_job_look_age_seconds", "How stale is our picture of a host's jobs?", EXECUTOR, host=HOST),
    _counter("airavata_jobs_lost_total", "Which hosts lose jobs?", EXECUTOR, host=HOST),
    # ---- staging
    _counter("airavata_staged_bytes_total", "How much data is moved?", EXECUTOR, **STAGED),
    _histogram("airavata_staging_seconds", LONG, "How long does a file take?", EXECUTOR, **STAGED),
    _counter("airavata_checksum_mismatches_total", "Was damage found on the way?", EXECUTOR, **STAGED),
    _counter("airavata_staging_resumed_total", "How often was half a file continued instead of sent again?", EXECUTOR, **STAGED),
    # ---- sink
    _histogram("airavata_sink_post_seconds", FAST, "Can events reach the API server?", SINK, outcome=("applied", "behind", "fenced", "failed")),
    _sampled("airavata_sink_heartbeat_age_seconds", "When did the API server last hear of a sink?"),
    # ---- stores
    _sampled("airavata_dead_letters", "What waits for a human?", topic=TOPIC),
    _sampled("airavata_mysql_history_list_length", "Do old row versions pile up, which makes the outbox slow to read? (Needs the PROCESS right on MySQL.)"),
    _sampled("airavata_mysql_oldest_transaction_seconds", "How long has the oldest open transaction lasted? (Needs the PROCESS right.)"),
    _sampled("airavata_schema_revision_match", "Do code and schema agree?"),
    _sampled("airavata_credentials_expiring", "Whose credentials must be renewed soon?", within=("1d", "7d")),
)  # fmt: skip
CATALOGUE: Mapping[str, Metric] = {each.name: each for each in _TABLE}
