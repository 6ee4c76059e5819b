"""Every hot statement finds its rows by an index, on a filled table, on both databases: no full scan, no filesort.

The statements are caught as the functions of app/mysql send them, and explained with the very values they were sent with.
"""

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

import migrations
from app.dev.databases import DatabaseAddress
from app.messages.ids import named
from app.messages.placement import Placement
from app.messages.topics import Topics
from app.mysql import (
    access,
    attempts,
    catalogue,
    dead_letters,
    engine,
    events,
    experiments,
    explaining,
    hosts,
    idempotency,
    instances,
    jobs,
    outbox,
    outputs,
    positions,
    processes,
    purge,
    reading,
    sampling,
    shards,
    sweeping,
    tasks,
    timers,
    waiting,
)
from app.mysql.unit_of_work import Transaction, unit_of_work
from app.workflow.execution import StagedOutput
from app.workflow.graph import Loaded
from app.workflow.job import State as JobState
from tests.support import filled
from tests.support.filled import NOW, ROWS, gateway, is_open, name, owner

LAST = ROWS - 3
SOME = [name("prc", n) for n in range(ROWS - 50, ROWS)]
TASKS = [name("tsk", n) for n in range(ROWS - 50, ROWS)]
ATTEMPTS = [name("att", n) for n in range(ROWS - 50, ROWS)]
EXPERIMENTS = [name("exp", n) for n in range(50)]
HOSTS = [name("cmp", n) for n in range(10)]
PARTITIONS = [(f"t{t}", p) for t in range(3) for p in range(0, 100, 2)]
SMALL = frozenset({"relay_shards", "instances"})  # Two rows, a row per process: reading them all is the purpose.
SORTS_FEW = {  # What is sorted is returned whole, or nearly, and has a bound of its own.
    "tasks.load": "the tasks of a graph, at most 1,000",
    "experiments.held_tasks": "the tasks of a graph, at most 1,000",
    "reading.processes_of": "the processes of an experiment: one",
    "reading.tasks_of": "the tasks of a graph, at most 1,000",
    "reading.edges_of": "the edges of a graph",
    "reading.attempts_of": "the attempts of a task",
    "reading.attempts_of_process": "the attempts of a process",
    "reading.jobs_of": "the jobs of an experiment",
    "explaining.open_tasks": "the open tasks of a graph, at most 1,000",
    "explaining.tails": "the jobs of an experiment",
    "explaining.living": "a row per process",
    "outputs.of_experiment": "at most 100 outputs",
    "jobs.watched_on": "a page of the open jobs of a host, at most 500",
    "attempts.take_from_silent": "what executors hold, at most their capacity",
}
MINE = experiments.Mine(gateway(1))
THEIRS = experiments.Mine(gateway(1), "user-1")
JOB = jobs.Job(
    name("job", LAST), name("att", LAST), name("tsk", LAST), name("prc", LAST), name("exp", LAST), HOSTS[0], 1, JobState.ACTIVE, "1", "/scratch", {}, NOW, 60, None
)  # fmt: skip

HOT: dict[str, Callable[[Transaction], Any]] = {
    "positions.claim": lambda tx: positions.claim(tx, "g1", PARTITIONS, owner="x"),
    "positions.lock": lambda tx: positions.lock(tx, "g1", PARTITIONS),
    "processes.lock": lambda tx: processes.lock(tx, EXPERIMENTS, SOME),
    "processes.lock_to_plan": lambda tx: processes.lock_to_plan(tx, SOME),
    "processes.validated": lambda tx: processes.validated(tx, SOME, 3, now=NOW),
    "processes.snapshots": lambda tx: processes.snapshots(tx, SOME),
    "processes.places": lambda tx: processes.places(tx, SOME),
    "tasks.load": lambda tx: tasks.load(tx, Loaded(), named=TASKS, roots_of=SOME, all_of=SOME[:3]),
    "attempts.lock": lambda tx: attempts.lock(tx, ATTEMPTS),
    "attempts.start": lambda tx: attempts.start(tx, ATTEMPTS, owner="x", now=NOW),
    "attempts.release": lambda tx: attempts.release(tx, ATTEMPTS[0]),
    "attempts.owned": lambda tx: attempts.owned(tx, owner(1)),
    "attempts.models": lambda tx: attempts.models(tx, ATTEMPTS),
    "attempts.take_from_silent": lambda tx: attempts.take_from_silent(tx, silent_seconds=10, limit=100),
    "attempts.over": lambda tx: attempts.over(tx, ATTEMPTS),
    "jobs.submitted": lambda tx: jobs.submitted(tx, ATTEMPTS[0], scheduler_job_id="1", document={}, now=NOW),
    "jobs.of_attempts": lambda tx: jobs.of_attempts(tx, ATTEMPTS),
    "jobs.watched_on": lambda tx: jobs.watched_on(tx, HOSTS[0], after="", limit=500),
    "jobs.hosts_with_open_jobs": jobs.hosts_with_open_jobs,
    "jobs.saw": lambda tx: jobs.saw(tx, JOB, JobState.ACTIVE, now=NOW),
    "outputs.staged": lambda tx: outputs.staged(tx, EXPERIMENTS[0], [StagedOutput("count", "MISSING")], now=NOW),
    "outputs.of_experiment": lambda tx: outputs.of_experiment(tx, EXPERIMENTS[0]),
    "outbox.waiting": lambda tx: outbox.waiting(tx, shard=1, turn=37, size=500),
    "outbox.waiting without what is in flight": lambda tx: outbox.waiting(tx, shard=1, turn=0, size=2000, without=range(1, 4000, 2)),
    "outbox.delete": lambda tx: outbox.delete(tx, list(range(500)), [n.to_bytes(16, "big") for n in range(500)]),
    "outbox.oldest": outbox.oldest,
    "outbox.count": lambda tx: outbox.count(tx, 1),
    "shards.lease": lambda tx: shards.lease(tx, 1, owner="x", seconds=2),
    "timers.take_due": lambda tx: timers.take_due(tx, limit=500),
    "events.known": lambda tx: events.known(tx, SOME, TASKS),
    "events.append": lambda tx: events.append(
        tx, [events.New({"id": named("evt", n.to_bytes(16, "big")), **EVENT, "experiment_id": e}, NOW, late=False) for n, e in enumerate(EXPERIMENTS)], now=NOW
    ),
    "events.after": lambda tx: events.after(tx, EXPERIMENTS[0], seq=2, limit=200),
    "events.of_types": lambda tx: events.of_types(tx, EXPERIMENTS[0], ["TaskFailed"], seq=2, limit=200),
    "events.last_seq": lambda tx: events.last_seq(tx, EXPERIMENTS[0]),
    "experiments.get": lambda tx: experiments.get(tx, THEIRS, EXPERIMENTS[1], lock=True),
    "experiments.page": lambda tx: experiments.page(tx, MINE, {"sort": "-created_at"}, after=None, limit=51),
    "experiments.page by state": lambda tx: experiments.page(tx, MINE, {"sort": "-created_at", "state": ["EXECUTING"]}, after=None, limit=51),
    "experiments.launched": lambda tx: experiments.launched(
        tx, EXPERIMENTS[0], process_id="p", trace_id=None, deployment_id=None, compute_resource_id=None, now=NOW
    ),
    "experiments.live": lambda tx: experiments.live(tx, gateway(1), limit=10_000),
    "experiments.live_in_project": lambda tx: experiments.live_in_project(tx, name("prj", 1)),
    "experiments.progress": lambda tx: experiments.progress(tx, SOME),
    "experiments.held_tasks": lambda tx: experiments.held_tasks(tx, SOME[0]),
    "hosts.claim_watches": lambda tx: hosts.claim_watches(tx, HOSTS, owner="x", seconds=10),
    "hosts.looked": lambda tx: hosts.looked(tx, HOSTS[0]),
    "hosts.claim_slot": lambda tx: hosts.claim_slot(tx, "host-1:22", count=4, owner="x", seconds=10),
    "hosts.renew_slots": lambda tx: hosts.renew_slots(tx, owner(1), ["host-1:22", "host-2:22"], seconds=10),
    "hosts.give_back_slot": lambda tx: hosts.give_back_slot(tx, "host-1:22", 1, owner(1)),
    "instances.remove": lambda tx: instances.remove(tx, owner(1)),
    "access.find_token": lambda tx: access.find_token(tx, f"{7:012d}"),
    "access.tokens_page": lambda tx: access.tokens_page(tx, gateway(1), before=(name("tok", 9_000),), limit=51),
    "access.gateway": lambda tx: access.gateway(tx, gateway(1)),
    "access.credential": lambda tx: access.credential(tx, gateway(1), name("crd", 1), owner="user-1"),
    "access.credentials_page": lambda tx: access.credentials_page(tx, gateway(1), owner=None, name=None, before=None, limit=51),
    "access.sealed": lambda tx: access.sealed(tx, name("crd", 1)),
    "access.used": lambda tx: access.used(tx, name("crd", 1)),
    "catalogue.get": lambda tx: catalogue.get(tx, gateway(1), catalogue.COMPUTE, name("cmp", 1), lock=True),
    "catalogue.by_name": lambda tx: catalogue.by_name(tx, gateway(1), catalogue.COMPUTE, "n-1"),
    "catalogue.page": lambda tx: catalogue.page(tx, gateway(1), catalogue.COMPUTE, name=None, sort="-created_at", after=(NOW, name("cmp", 9)), limit=51),
    "catalogue.many": lambda tx: catalogue.many(tx, HOSTS),
    "catalogue.known": lambda tx: catalogue.known(tx, gateway(1), catalogue.COMPUTE, HOSTS),
    "catalogue.deployments_of": lambda tx: catalogue.deployments_of(tx, gateway(1), [name("mod", 1), name("mod", 2)]),
    "idempotency.find": lambda tx: idempotency.find(tx, bytes(32)),
    "idempotency.remember": lambda tx: idempotency.remember(tx, bytes(32), status=201, headers={}, body={}),
    "dead_letters.get": lambda tx: dead_letters.get(tx, name("dlt", 1), lock=True),
    "dead_letters.page": lambda tx: dead_letters.page(
        tx, topic=None, error_class=None, experiment_id=None, settled="no", before=(NOW, name("dlt", ROWS - 1)), limit=51
    ),
    "waiting.marks_of": lambda tx: waiting.marks_of(tx, EXPERIMENTS),
    "reading.process": lambda tx: reading.process(tx, THEIRS, SOME[0]),
    "reading.processes_of": lambda tx: reading.processes_of(tx, EXPERIMENTS[0]),
    "reading.tasks_of": lambda tx: reading.tasks_of(tx, SOME[0]),
    "reading.open_types": lambda tx: reading.open_types(tx, SOME[0]),
    "reading.edges_of": lambda tx: reading.edges_of(tx, SOME[0]),
    "reading.task": lambda tx: reading.task(tx, THEIRS, TASKS[0]),
    "reading.attempts_of": lambda tx: reading.attempts_of(tx, TASKS[0]),
    "reading.attempts_of_process": lambda tx: reading.attempts_of_process(tx, SOME[0]),
    "reading.attempt": lambda tx: reading.attempt(tx, THEIRS, ATTEMPTS[0]),
    "reading.jobs_of": lambda tx: reading.jobs_of(tx, EXPERIMENTS[0]),
    "reading.job": lambda tx: reading.job(tx, THEIRS, name("job", LAST)),
    "reading.job_stored": lambda tx: reading.job_stored(tx, SOME[0]),
    "explaining.a_process": lambda tx: explaining.a_process(tx, SOME[0]),
    "explaining.experiment_of": lambda tx: explaining.experiment_of(tx, SOME[0]),
    "explaining.open_tasks": lambda tx: explaining.open_tasks(tx, SOME[0], name("exp", ROWS - 50)),
    "explaining.messages": lambda tx: explaining.messages(tx, SOME[0], TASKS, part=7, placement=Placement(100, 16, 2), topics=Topics()),
    "explaining.timers": lambda tx: explaining.timers(tx, SOME[0]),
    "explaining.letters": lambda tx: explaining.letters(tx, EXPERIMENTS[0]),
    "explaining.living": explaining.living,
    "explaining.host": lambda tx: explaining.host(tx, {"id": "c", "name": "h", "host": "host-1", "port": 22, "limits": {"connections": 4}}),
    "explaining.tails": lambda tx: explaining.tails(tx, EXPERIMENTS[0], TASKS[0]),
    "explaining.stage": lambda tx: explaining.stage(tx, TASKS[0]),
    "purge.bite": lambda tx: purge.bite(tx, purge.FIRST, now=NOW + timedelta(days=80)),
    "sampling.outbox": lambda tx: sampling.outbox(tx, 1),
    "sampling.processes": sampling.processes,
    "sampling.tasks": sampling.tasks,
    "sampling.jobs": sampling.jobs,
    "sampling.doubts": sampling.doubts,
    "sampling.timers_due": sampling.timers_due,
    "sampling.dead_letters": sampling.dead_letters,
    "sampling.sink_heartbeat_age": sampling.sink_heartbeat_age,
    "instances.heartbeats": lambda tx: instances.heartbeats(tx, [owner(1), owner(2)]),
    "sweeping.stuck": lambda tx: sweeping.stuck(tx, partitions=list(range(0, 100, 4)), after_seconds=60, limit=100),
}
EVENT = {"gateway_id": gateway(0), "process_id": SOME[0], "task_id": TASKS[0], "type": "TaskChanged"}

pytestmark = pytest.mark.mysql


@pytest.fixture(scope="module")
def full(database_server: DatabaseAddress) -> Iterator[Engine]:
    schema = f"plans_{os.getpid()}"
    database_server.execute(f"CREATE DATABASE {schema}")
    migrations.upgrade(database_server.url(schema))
    connected = engine.connect(database_server.url(schema), size=2, idle_seconds=60)
    filled.fill(database_server, connected)
    yield connected
    connected.dispose()
    database_server.execute(f"DROP DATABASE {schema}")


@pytest.mark.parametrize("statement", HOT)
def test_a_hot_statement_reads_by_index(full: Engine, statement: str) -> None:
    sent = caught(full, HOT[statement])
    assert sent, "it asked nothing"
    with full.connect() as connection:
        for sql, values in sent:
            rows = explained(connection, sql, values)
            found = [row for row in faults(rows) if is_scan(row) or statement not in SORTS_FEW]
            assert not found, f"{' '.join(sql.split())[:400]}\n" + "\n".join(map(str, rows))


def test_a_purge_takes_a_bounded_bite_however_long_a_history_is(full: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purge, "EVENTS_BITE", 3)
    with full.connect() as connection:
        assert purge._events(connection, purge.FIRST, NOW + timedelta(days=365)) == (3 + purge.RUNS, purge.FIRST)
        connection.rollback()


def test_a_purge_ends_and_then_passes_by_no_old_experiment_again(full: Engine) -> None:
    at, place = NOW + timedelta(days=365), purge.FIRST
    with full.connect() as connection:
        connection.exec_driver_sql("UPDATE experiments SET finished_at = %s WHERE id < %s", (NOW - timedelta(days=30), name("exp", 250)))  # Pages end among those that ended at once.
        while (took := purge._events(connection, place, at))[0]:
            place = took[1]
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM events").scalar_one() == 0
        read = rows_read(connection)
        assert purge._events(connection, place, at) == (0, place)
        assert rows_read(connection) - read < 10, "it walks the runs whose history has gone"
        connection.rollback()


def rows_read(connection: Connection) -> int:
    return sum(int(row[1]) for row in connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read%%'").all() if not row[0].startswith("Handler_read_rnd"))


def caught(full: Engine, call: Callable[[Transaction], Any]) -> list[tuple[str, Any]]:
    """The statements a function sends, undone afterwards."""
    sent: list[tuple[str, Any]] = []

    def remember(_connection: Any, _cursor: Any, sql: str, values: Any, *_: Any) -> None:
        sent.append((sql, values))

    class Undone(Exception):
        pass

    event.listen(full, "before_cursor_execute", remember)
    try:
        with unit_of_work(full)("test.plan") as tx:
            call(tx)
            raise Undone
    except Undone:
        pass
    finally:
        event.remove(full, "before_cursor_execute", remember)
    return [(sql, values) for sql, values in sent if sql.lstrip().split(" ")[0] in {"SELECT", "UPDATE", "DELETE", "WITH"} and sql != "SELECT UTC_TIMESTAMP(6)"]


def explained(connection: Connection, sql: str, values: Any) -> list[dict[str, Any]]:
    dialect: Any = connection.dialect
    form = "" if dialect.is_mariadb else "FORMAT=TRADITIONAL "
    found = connection.exec_driver_sql(f"EXPLAIN {form}{sql}", values)
    return [dict(row._mapping) for row in found]


def faults(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`ALL` and `index` read everything there is; a filesort reads everything that matches before the first row comes back."""
    return [row for row in rows if is_scan(row) or "filesort" in str(row["Extra"]).lower()]


def is_scan(row: dict[str, Any]) -> bool:
    table = str(row["table"])
    return row["type"] in {"ALL", "index"} and not table.startswith("<") and table not in SMALL and int(row["rows"] or 0) > 100


def test_the_test_sees_a_scan_and_a_filesort(full: Engine) -> None:
    with full.connect() as connection:
        assert faults(explained(connection, "SELECT id FROM experiments WHERE name = %s", ("x",)))
        assert faults(explained(connection, "SELECT id, name FROM experiments WHERE gateway_id = %s ORDER BY name", (gateway(1),)))
        assert not faults(explained(connection, "SELECT id FROM experiments WHERE id = %s", ("x",)))
    assert is_open(ROWS - 1)
