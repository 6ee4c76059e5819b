"""A database as it looks after a busy week: every table that grows has at least 20,000 rows, most of them finished, so that a plan which reads them all is seen."""

import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pymysql
from sqlalchemy import Engine

from app.dev.databases import DatabaseAddress

ROWS = 20_000
KINDS = ("compute_resource", "storage_resource", "project", "application_interface", "application_deployment")
NOW = datetime(2026, 11, 23, 14)
OPEN = 200  # Experiments still going on.


def fill(server: DatabaseAddress, engine: Engine) -> None:
    """By files that the server loads: half a million rows through the driver, which escapes each value, took two minutes."""
    server.execute("SET GLOBAL local_infile = 1")
    schema = engine.url.database
    with tempfile.NamedTemporaryFile("w") as file, pymysql.connect(host=server.host, port=server.port, user=server.user, password=server.password, database=schema, local_infile=True, ssl_disabled=True) as loading:
        for table, (columns, row) in TABLES.items():
            names, first = columns.split(", "), tuple(row(0))
            binary = {name for name, value in zip(names, first, strict=True) if isinstance(value, bytes)}
            file.seek(0)
            file.truncate()
            file.writelines("\t".join(map(_said, row(n))) + "\n" for n in range(ROWS))
            file.flush()
            given, of_hex = ", ".join(f"@{name}" if name in binary else name for name in names), ", ".join(f"{name} = UNHEX(@{name})" for name in sorted(binary))
            with loading.cursor() as cursor:
                cursor.execute(f"LOAD DATA LOCAL INFILE '{file.name}' INTO TABLE {table} CHARACTER SET utf8mb4 ({given}){f' SET {of_hex}' if of_hex else ''}")
                assert (cursor.rowcount, loading.show_warnings()) == (ROWS, ()), table  # LOCAL makes warnings of errors.
            loading.commit()
    with engine.connect() as connection:
        connection.exec_driver_sql("INSERT INTO relay_shards (shard, settled) VALUES (%s, 0)", [(n,) for n in range(2)])
        connection.exec_driver_sql(
            "INSERT INTO instances (id, component, version, started_at, heartbeat_at, document) VALUES (%s, 'executor-job', '0.1.0', %s, %s, '{}')",
            [(owner(n), NOW, NOW) for n in range(20)],
        )
        connection.exec_driver_sql(
            "INSERT INTO positions (consumer_group, topic, part, topic_uuid, next_offset, owner_epoch) VALUES (%s, %s, %s, 'uuid', 0, 1)",
            [(f"g{g}", f"t{t}", p) for g in range(8) for t in range(3) for p in range(100)],
        )
        connection.commit()
        connection.exec_driver_sql(f"ANALYZE TABLE {', '.join([*TABLES, 'relay_shards', 'instances', 'positions'])}").all()


def _said(value: Any) -> str:
    return "\\N" if value is None else value.hex() if isinstance(value, bytes) else str(value)


def name(prefix: str, n: int) -> str:
    return f"{prefix}_{n:026d}"


def owner(n: int) -> str:
    return f"executor-job-{n % 20}"


def at(n: int) -> datetime:
    return NOW - timedelta(seconds=ROWS - n)


def gateway(n: int) -> str:
    return name("gw", n % 5)


def is_open(n: int) -> bool:
    return n >= ROWS - OPEN


def an_experiment(n: int) -> Iterator[Any]:
    state, outcome, ended = ("EXECUTING", None, None) if is_open(n) else ("COMPLETED", "NORMAL_COMPLETION", at(n))
    yield from (
        name("exp", n),
        gateway(n),
        name("prj", n % 20),
        f"user-{n % 50}",
        f"count {n}",
        name("ifc", 1),
        name("dep", 1),
        name("cmp", n % 10),
        "{}",
        state,
        at(n),
        outcome,
    )
    yield from (name("prc", n), 1, at(n), at(n), at(n), ended)


def a_process(n: int) -> Iterator[Any]:
    state, ended, waiting = ("STARTED", None, 1) if is_open(n) else ("COMPLETED", at(n), 0)
    yield from (name("prc", n), name("exp", n), gateway(n), n % 100, state, at(n), 3, 1, waiting, 0, "{}", at(n), at(n), ended)


def a_task(n: int) -> Iterator[Any]:
    state, ended = (("RETRY_WAIT" if n % 10 == 0 else "EXECUTING"), None) if is_open(n) else ("COMPLETED", at(n))
    yield from (name("tsk", n), name("prc", n), "run", "JOB_SUBMISSION", "{}", state, at(n), 0, 1, 1, 1, ended)


def an_attempt(n: int) -> Iterator[Any]:
    state, ended, held = ("RUNNING", None, owner(n)) if is_open(n) else ("SUCCEEDED", at(n), None)
    yield from (name("att", n), name("tsk", n), name("prc", n), 1, state, at(n), 1, held, at(n), ended)


def a_job(n: int) -> Iterator[Any]:
    state, ended = ("ACTIVE", None) if is_open(n) else ("COMPLETED", at(n))
    yield from (
        name("job", n),
        name("att", n),
        name("tsk", n),
        name("prc", n),
        name("exp", n),
        name("cmp", n % 10),
        1,
        state,
        at(n),
        "0" * 64,
        "/scratch",
        "{}",
        60,
        at(n),
        ended,
    )


def an_event(n: int) -> Iterator[Any]:
    of = n // 5
    yield from (name("exp", of), n % 5 + 1, name("evt", n), gateway(of), name("prc", of), name("tsk", of), "TaskChanged", at(n), at(n), 0, "{}")


def a_letter(n: int) -> Iterator[Any]:
    settled = None if is_open(n) else "DROPPED"
    yield from (
        name("dlt", n),
        "g1",
        f"t{n % 3}",
        n % 100,
        n,
        n.to_bytes(16, "big"),
        "k",
        b"{}",
        b"{}",
        name("exp", n),
        "Unreadable",
        "bad",
        5,
        at(n),
        at(n),
        settled,
    )


def a_message(n: int) -> Iterator[Any]:
    yield from (n % 2, n % 100, n.to_bytes(16, "big"), f"t{n % 3}", f"k{n}", b"{}", b"{}", at(n))


def a_timer(n: int) -> Iterator[Any]:
    yield from (NOW + timedelta(days=3650, seconds=n), n.to_bytes(16, "big"), name("prc", n), "t0", n % 100, "k", b"{}", b"{}")


TABLES: dict[str, tuple[str, Callable[[int], Iterator[Any] | tuple[Any, ...]]]] = {
    "gateways": ("id, name, state, document, version, created_at, updated_at", lambda n: (name("gw", n), f"gateway-{n}", "ACTIVE", "{}", 1, at(n), at(n))),
    "tokens": ("id, gateway_id, lookup, digest, key_id, name, user, role, scopes, expires_at, created_at", lambda n: (name("tok", n), gateway(n), f"{n:012d}", b"0" * 32, "k1", "t", "u", "user", "[]", NOW, at(n))),
    "catalogue": ("id, gateway_id, kind, name, document, version, created_at, updated_at", lambda n: (name("cmp", n), gateway(n), KINDS[n // 5 % len(KINDS)], f"n-{n}", "{}", 1, at(n), at(n))),
    "credentials": ("id, gateway_id, owner, name, kind, sealed, version, created_at", lambda n: (name("crd", n), gateway(n), f"user-{n % 50}", f"n-{n}", "SSH_KEY", b"0", 1, at(n))),
    "idempotency": ("scope, fingerprint, status, body, created_at", lambda n: (n.to_bytes(32, "big"), b"0" * 32, 201, b"{}", at(n))),
    "audit": ("gateway_id, user, action, subject, request_id, at", lambda n: (gateway(n), "u", "POST", name("exp", n), "r", at(n))),
    "experiments": (
        ("id, gateway_id, project_id, owner, name, application_interface_id, deployment_id, compute_resource_id, document, state, state_since, outcome, "
        "process_id, version, created_at, updated_at, launched_at, finished_at"), an_experiment,
    ),
    "processes": ("id, experiment_id, gateway_id, part, state, state_since, version, tasks_total, tasks_open, tasks_failed, snapshot, created_at, updated_at, finished_at", a_process),
    "tasks": ("id, process_id, name, type, model, state, state_since, waiting_for, attempt, epoch, version, finished_at", a_task),
    "edges": ("process_id, from_task, to_task, on_end", lambda n: (name("prc", n), name("tsk", n), name("tsk", n + 1), "SUCCESS")),
    "attempts": ("id, task_id, process_id, number, state, state_since, epoch, owner, created_at, finished_at", an_attempt),
    "jobs": (
        "id, attempt_id, task_id, process_id, experiment_id, compute_resource_id, epoch, state, state_since, script_sha256, work_dir, document, wall_time_seconds, created_at, finished_at", a_job,
    ),
    "outputs": ("experiment_id, name, type, position, state, updated_at", lambda n: (name("exp", n), "count", "STDOUT", 0, "EXPECTED", at(n))),
    "outbox": ("shard, part, mid, topic, k, headers, payload, created_at", a_message),
    "timers": ("due_at, mid, process_id, topic, part, k, headers, payload", a_timer),
    "events": ("experiment_id, seq, event_id, gateway_id, process_id, task_id, type, occurred_at, stored_at, late, document", an_event),
    "dead_letters": ("id, consumer_group, topic, part, log_offset, mid, k, headers, payload, experiment_id, error_class, error_text, tries, first_seen, created_at, settled", a_letter),
    "host_watches": ("compute_resource_id, owner, until", lambda n: (name("cmp", n), owner(n), NOW)),
    "host_slots": ("host, n, owner, until", lambda n: (f"host-{n // 8}:22", n % 8, owner(n) if is_open(n) else None, NOW)),
    "host_circuits": ("compute_resource_id, credential_id, condition_code, since, detail, host_version", lambda n: (name("cmp", n), name("crd", n), "AUTH_REQUIRED", NOW, "", 1)),
}  # fmt: skip
