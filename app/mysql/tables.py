"""Every table, as SQLAlchemy Core objects: the vocabulary of the statements beside this file.

`migrations/` builds them (a test compares the two). CHECKs guard value sets and pairs (terminal ⇔ finished_at); moves are guarded by row lock and version.
Ids are ASCII in a binary collation; times are DATETIME(6), UTC, MySQL's clock.
"""

from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import mysql

from app.workflow import attempt, experiment, job, process, task

metadata = MetaData()
OPTIONS: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}
DOCUMENT = mysql.LONGTEXT  # JSON text: MariaDB's JSON is LONGTEXT anyway, and we never query inside.
TIME = mysql.DATETIME(fsp=6)
HEADERS = mysql.VARBINARY(4096)
PAYLOAD = mysql.MEDIUMBLOB


def an_id(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, mysql.VARCHAR(32, charset="ascii", collation="ascii_bin"), nullable=nullable)


def ascii_text(name: str, length: int, *, nullable: bool = False, server_default: str | None = None) -> Column[str]:
    return Column(name, mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), nullable=nullable, server_default=server_default)


def a_state(table: str, states: type[StrEnum]) -> tuple[Column[str], CheckConstraint]:
    """A state column and the CHECK that repeats its value set."""
    allowed = ", ".join(f"'{each}'" for each in states)
    return Column("state", mysql.VARCHAR(24, charset="ascii", collation="ascii_bin"), nullable=False), CheckConstraint(f"state IN ({allowed})", name=f"{table}_state")


def finished(table: str, terminal: frozenset[str]) -> CheckConstraint:
    """Terminal ⇔ finished_at."""
    allowed = ", ".join(f"'{each}'" for each in sorted(terminal))
    return CheckConstraint(f"(state IN ({allowed})) = (finished_at IS NOT NULL)", name=f"{table}_finished")


# ---- access and catalogue: written by the API alone -------------------------------------------------------------------------------------------------
gateways = Table(
    "gateways", metadata, an_id("id"), Column("name", String(64), nullable=False), Column("state", String(16), nullable=False),
    Column("document", DOCUMENT, nullable=False), Column("version", Integer, nullable=False), Column("created_at", TIME, nullable=False), Column("updated_at", TIME, nullable=False),
    PrimaryKeyConstraint("id"), UniqueConstraint("name", name="gateways_name"), CheckConstraint("state IN ('ACTIVE', 'DEACTIVATED')", name="gateways_state"), **OPTIONS,
)  # fmt: skip
tokens = Table(
    "tokens", metadata, an_id("id"), an_id("gateway_id", nullable=True), ascii_text("lookup", 12), Column("digest", mysql.VARBINARY(32), nullable=False), ascii_text("key_id", 32),
    Column("name", String(64), nullable=False), Column("user", String(128), nullable=False), Column("role", String(16), nullable=False), Column("scopes", Text, nullable=False),
    Column("expires_at", TIME, nullable=False), Column("revoked_at", TIME), Column("created_at", TIME, nullable=False),
    PrimaryKeyConstraint("id"), UniqueConstraint("lookup", name="tokens_lookup"), Index("tokens_gateway", "gateway_id", "id"), **OPTIONS,
)  # fmt: skip
catalogue = Table(  # projects, modules, interfaces, deployments, compute and storage resources: one shape, told apart by `kind`.
    "catalogue", metadata, an_id("id"), an_id("gateway_id"), ascii_text("kind", 24), Column("name", String(192), nullable=False), Column("document", DOCUMENT, nullable=False),
    Column("version", Integer, nullable=False), Column("created_at", TIME, nullable=False), Column("updated_at", TIME, nullable=False), Column("deleted_at", TIME),
    PrimaryKeyConstraint("id"), UniqueConstraint("gateway_id", "kind", "name", name="catalogue_name"),
    Index("catalogue_created", "gateway_id", "kind", "created_at", "id"), **OPTIONS,
)  # fmt: skip
credentials = Table(  # The private part is sealed (app/secrets.py) and never leaves.
    "credentials", metadata, an_id("id"), an_id("gateway_id"), Column("owner", String(128), nullable=False), Column("name", String(64), nullable=False), ascii_text("kind", 16),
    Column("public_key", Text), ascii_text("fingerprint", 80, nullable=True), Column("sealed", mysql.BLOB, nullable=False), Column("expires_at", TIME), Column("last_used_at", TIME),
    Column("version", Integer, nullable=False), Column("created_at", TIME, nullable=False), Column("deleted_at", TIME),
    PrimaryKeyConstraint("id"), UniqueConstraint("gateway_id", "name", name="credentials_name"), Index("credentials_created", "gateway_id", "created_at", "id"), **OPTIONS,
)  # fmt: skip
idempotency = Table(
    "idempotency", metadata, Column("scope", mysql.VARBINARY(32), nullable=False), Column("fingerprint", mysql.VARBINARY(32), nullable=False),
    Column("status", SmallInteger), Column("headers", DOCUMENT), Column("body", mysql.MEDIUMBLOB), Column("created_at", TIME, nullable=False),
    PrimaryKeyConstraint("scope"), Index("idempotency_created", "created_at"), **OPTIONS,
)  # fmt: skip
audit = Table(
    "audit", metadata, Column("id", BigInteger, autoincrement=True), an_id("gateway_id", nullable=True), Column("user", String(128), nullable=False),
    Column("action", String(128), nullable=False), Column("subject", String(128), nullable=False), Column("reason", String(1024)), ascii_text("request_id", 64), Column("at", TIME, nullable=False),
    PrimaryKeyConstraint("id"), Index("audit_at", "at"), **OPTIONS,
)  # fmt: skip

# ---- work: experiment (API until LAUNCHED, then the scheduler alone), process, task, edge, attempt, job, output -----------------------------------------
experiments = Table(
    "experiments", metadata, an_id("id"), an_id("gateway_id"), an_id("project_id"), Column("owner", String(128), nullable=False), Column("name", String(200), nullable=False),
    an_id("application_interface_id"), an_id("deployment_id", nullable=True), an_id("compute_resource_id", nullable=True),
    Column("document", DOCUMENT, nullable=False),  # description, inputs, outputs, scheduling, labels, … as in the REST shape
    *a_state("experiments", experiment.State), Column("state_since", TIME, nullable=False), Column("reason", String(512), nullable=False, server_default=""),
    ascii_text("outcome", 32, nullable=True), Column("failure", DOCUMENT),  # the first failure: {code, message, raw_message, exit_code, signal, task}
    an_id("process_id", nullable=True), ascii_text("trace_id", 32, nullable=True), Column("deadline_at", TIME), Column("version", Integer, nullable=False),
    Column("created_at", TIME, nullable=False), Column("updated_at", TIME, nullable=False), Column("launched_at", TIME), Column("finished_at", TIME), Column("deleted_at", TIME),
    PrimaryKeyConstraint("id"), finished("experiments", experiment.TERMINAL),
    CheckConstraint("(outcome IS NULL) = (finished_at IS NULL)", name="experiments_outcome"),
    Index("experiments_created", "gateway_id", "created_at", "id"), Index("experiments_state", "gateway_id", "state", "created_at", "id"),
    Index("experiments_project", "project_id", "state"), Index("experiments_finished", "finished_at"), **OPTIONS,
)  # fmt: skip
processes = Table(
    "processes", metadata, an_id("id"), an_id("experiment_id"), an_id("gateway_id"), Column("part", SmallInteger, nullable=False),
    *a_state("processes", process.State), Column("state_since", TIME, nullable=False), Column("reason", String(512), nullable=False, server_default=""),
    ascii_text("outcome", 32, nullable=True), Column("failure", DOCUMENT), Column("version", Integer, nullable=False),
    Column("tasks_total", Integer, nullable=False, server_default="0"), Column("tasks_open", Integer, nullable=False, server_default="0"), Column("tasks_failed", Integer, nullable=False, server_default="0"),
    ascii_text("trace_context", 55, server_default=""), ascii_text("trace_keep", 16, server_default=""), Column("snapshot", DOCUMENT), Column("deadline_at", TIME),  # snapshot: always there; nullable so that the multi-row upsert of states need not repeat it
    Column("created_at", TIME, nullable=False), Column("updated_at", TIME, nullable=False), Column("finished_at", TIME),
    PrimaryKeyConstraint("id"), finished("processes", process.TERMINAL), CheckConstraint("tasks_open >= 0 AND tasks_failed >= 0", name="processes_counts"),
    Index("processes_experiment", "experiment_id"), Index("processes_stale", "state", "updated_at"), **OPTIONS,
)  # fmt: skip
tasks = Table(
    "tasks", metadata, an_id("id"), an_id("process_id"), Column("name", String(64), nullable=False), ascii_text("type", 32), Column("model", DOCUMENT),  # nullable for the same reason
    *a_state("tasks", task.State), Column("state_since", TIME, nullable=False), Column("reason", String(512), nullable=False, server_default=""),
    Column("waiting_for", Integer, nullable=False), Column("attempt", Integer, nullable=False, server_default="0"), Column("epoch", Integer, nullable=False, server_default="0"), Column("burned", Integer, nullable=False, server_default="0"),
    Column("doubt_since", TIME), Column("next_attempt_at", TIME), Column("version", Integer, nullable=False), Column("failure", DOCUMENT), Column("finished_at", TIME),
    PrimaryKeyConstraint("id"), UniqueConstraint("process_id", "name", name="tasks_name"), finished("tasks", task.TERMINAL),
    CheckConstraint("waiting_for >= 0 AND attempt >= burned AND burned >= 0", name="tasks_counts"), **OPTIONS,
)  # fmt: skip
edges = Table(
    "edges", metadata, an_id("process_id"), an_id("from_task"), an_id("to_task"), ascii_text("on_end", 8),
    PrimaryKeyConstraint("from_task", "to_task"), Index("edges_to", "to_task"), Index("edges_process", "process_id"), CheckConstraint("on_end IN ('SUCCESS', 'ENDED')", name="edges_on"), **OPTIONS,
)  # fmt: skip
attempts = Table(
    "attempts", metadata, an_id("id"), an_id("task_id"), an_id("process_id"), Column("number", Integer, nullable=False), *a_state("attempts", attempt.State),
    Column("state_since", TIME, nullable=False), Column("epoch", Integer, nullable=False), ascii_text("owner", 80, nullable=True),
    Column("created_at", TIME, nullable=False), Column("started_at", TIME), Column("finished_at", TIME), Column("outcome", DOCUMENT),
    PrimaryKeyConstraint("id"), UniqueConstraint("task_id", "number", name="attempts_number"), finished("attempts", attempt.TERMINAL),
    CheckConstraint("number > 0 AND epoch > 0", name="attempts_positive"), Index("attempts_owner", "owner"), Index("attempts_process", "process_id"), **OPTIONS,
)  # fmt: skip
jobs = Table(
    "jobs", metadata, an_id("id"), an_id("attempt_id"), an_id("task_id"), an_id("process_id"), an_id("experiment_id"), an_id("compute_resource_id"), Column("epoch", Integer, nullable=False),
    *a_state("jobs", job.State), Column("state_since", TIME, nullable=False), Column("reason", String(512), nullable=False, server_default=""),
    ascii_text("scheduler_job_id", 128, nullable=True), ascii_text("script_sha256", 64), Column("work_dir", String(1024), nullable=False), Column("document", DOCUMENT, nullable=False),
    Column("exit_code", Integer), Column("submitted_at", TIME), Column("wall_time_seconds", Integer, nullable=False), Column("missing_since", TIME), Column("evidence", DOCUMENT),
    Column("stdout_tail", mysql.MEDIUMBLOB), Column("stderr_tail", mysql.MEDIUMBLOB), Column("captured_at", TIME),
    Column("created_at", TIME, nullable=False), Column("finished_at", TIME),
    PrimaryKeyConstraint("id"), UniqueConstraint("attempt_id", name="jobs_attempt"), finished("jobs", job.TERMINAL),
    Index("jobs_open", "state", "compute_resource_id"), Index("jobs_experiment", "experiment_id"), **OPTIONS,
)  # fmt: skip
outputs = Table(
    "outputs", metadata, an_id("experiment_id"), Column("name", String(64), nullable=False), Column("type", String(16), nullable=False), Column("position", SmallInteger, nullable=False),
    Column("state", String(16), nullable=False), Column("uri", String(2048)), Column("size_bytes", BigInteger), ascii_text("sha256", 64, nullable=True), Column("updated_at", TIME, nullable=False),
    PrimaryKeyConstraint("experiment_id", "name"), CheckConstraint("state IN ('EXPECTED', 'STAGED', 'MISSING', 'FAILED')", name="outputs_state"),
    CheckConstraint("(state = 'STAGED') = (sha256 IS NOT NULL)", name="outputs_staged"), **OPTIONS,
)  # fmt: skip

# ---- delivery: outbox, relay shards, positions, timers, instances, dead letters, history -----------------------------------------------------------------
outbox = Table(  # Insert and delete only: no status column, no update.
    "outbox", metadata, Column("shard", SmallInteger, nullable=False), Column("part", SmallInteger, nullable=False), Column("id", BigInteger, nullable=False, autoincrement=True),
    Column("mid", mysql.BINARY(16), nullable=False), ascii_text("topic", 128), ascii_text("k", 80), Column("headers", HEADERS, nullable=False), Column("payload", PAYLOAD, nullable=False),
    Column("created_at", TIME, nullable=False), PrimaryKeyConstraint("shard", "part", "id"), UniqueConstraint("id", name="outbox_id"), **OPTIONS,
)  # fmt: skip
relay_shards = Table(
    "relay_shards", metadata, Column("shard", SmallInteger, autoincrement=False), ascii_text("owner", 80, nullable=True), Column("until", TIME), Column("settled", BigInteger, nullable=False),
    PrimaryKeyConstraint("shard"), **OPTIONS,
)  # fmt: skip
positions = Table(  # The only authority on what has been consumed. Rows are made by `airavata admin topics --apply`; a missing row means refuse.
    "positions", metadata, ascii_text("consumer_group", 64), ascii_text("topic", 128), Column("part", SmallInteger), ascii_text("topic_uuid", 32), Column("next_offset", BigInteger, nullable=False),
    ascii_text("owner", 80, nullable=True), Column("owner_epoch", BigInteger, nullable=False), PrimaryKeyConstraint("consumer_group", "topic", "part"), **OPTIONS,
)  # fmt: skip
timers = Table(
    "timers", metadata, Column("due_at", TIME, nullable=False), Column("id", BigInteger, nullable=False, autoincrement=True), Column("mid", mysql.BINARY(16), nullable=False),
    an_id("process_id"), ascii_text("topic", 128), Column("part", SmallInteger, nullable=False), ascii_text("k", 80), Column("headers", HEADERS, nullable=False), Column("payload", PAYLOAD, nullable=False),
    PrimaryKeyConstraint("due_at", "id"), UniqueConstraint("id", name="timers_id"), Index("timers_process", "process_id"), **OPTIONS,
)  # fmt: skip
instances = Table(  # The lease of every attempt an instance runs: silent for 10 s (MySQL clock) means it has lost them.
    "instances", metadata, ascii_text("id", 80), ascii_text("component", 32), ascii_text("version", 32), Column("started_at", TIME, nullable=False), Column("heartbeat_at", TIME, nullable=False),
    Column("document", DOCUMENT, nullable=False), PrimaryKeyConstraint("id"), Index("instances_heartbeat", "heartbeat_at"), **OPTIONS,
)  # fmt: skip
skeletons = Table(  # Experiments that have ended and whose skeleton spans have not been sent yet: at `due_at`, at the latest at `until`.
    "skeletons", metadata, an_id("experiment_id"), Column("due_at", TIME, nullable=False), Column("until", TIME, nullable=False), Column("tries", Integer, nullable=False, server_default="0"),
    PrimaryKeyConstraint("experiment_id"), Index("skeletons_due", "due_at"), **OPTIONS,
)  # fmt: skip
events = Table(  # The one history. seq = last + 1 under the sink's position lock; event_id makes a repeat harmless.
    "events", metadata, an_id("experiment_id"), Column("seq", Integer, nullable=False), an_id("event_id"), an_id("gateway_id"), an_id("process_id"), an_id("task_id", nullable=True),
    ascii_text("type", 32), Column("occurred_at", TIME, nullable=False), Column("stored_at", TIME, nullable=False), Column("late", SmallInteger, nullable=False), Column("document", DOCUMENT, nullable=False),
    PrimaryKeyConstraint("experiment_id", "seq"), UniqueConstraint("event_id", name="events_event"), **OPTIONS,
)  # fmt: skip
dead_letters = Table(
    "dead_letters", metadata, an_id("id"), ascii_text("consumer_group", 64), ascii_text("topic", 128), Column("part", SmallInteger, nullable=False), Column("log_offset", BigInteger),
    Column("mid", mysql.BINARY(16), nullable=False), ascii_text("k", 80), Column("headers", mysql.BLOB, nullable=False), Column("payload", PAYLOAD, nullable=False),
    an_id("experiment_id", nullable=True), Column("error_class", String(64), nullable=False), Column("error_text", String(2048), nullable=False), Column("tries", Integer, nullable=False),
    Column("first_seen", TIME, nullable=False), Column("created_at", TIME, nullable=False), ascii_text("settled", 8, nullable=True), Column("settled_at", TIME), Column("settled_by", String(128)),
    Column("settled_reason", String(1024)),
    PrimaryKeyConstraint("id"), Index("dead_letters_open", "settled", "created_at"), Index("dead_letters_experiment", "experiment_id"),
    CheckConstraint("settled IN ('REPLAYED', 'DROPPED')", name="dead_letters_settled"), **OPTIONS,
)  # fmt: skip

# ---- hosts -----------------------------------------------------------------------------------------------------------------------------------------------
host_watches = Table(  # Who watches the jobs of a host, until when.
    "host_watches", metadata, an_id("compute_resource_id"), ascii_text("owner", 80, nullable=True), Column("until", TIME, nullable=False), Column("last_look_at", TIME), PrimaryKeyConstraint("compute_resource_id"), **OPTIONS,
)  # fmt: skip
host_slots = Table(  # The connection budget of a host across all replicas; `host` is address:port, so that gateways share it.
    "host_slots", metadata, ascii_text("host", 255), Column("n", SmallInteger, autoincrement=False), ascii_text("owner", 80, nullable=True), Column("until", TIME, nullable=False),
    PrimaryKeyConstraint("host", "n"), Index("host_slots_owner", "owner"), **OPTIONS,
)  # fmt: skip
host_circuits = Table(  # Open: nothing is sent to this host with this credential until it is renewed (AUTH_REQUIRED) or its new key is pinned (HOST_KEY_CHANGED).
    "host_circuits", metadata, an_id("compute_resource_id"), an_id("credential_id"), ascii_text("condition_code", 32), Column("since", TIME, nullable=False), Column("detail", String(512), nullable=False),
    Column("host_version", Integer, nullable=False), PrimaryKeyConstraint("compute_resource_id", "credential_id"), **OPTIONS,
)  # fmt: skip
