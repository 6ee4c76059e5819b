"""What the sampler asks every few seconds: aggregates over indexes, each bounded, on a session that only reads (tests/integration/test_query_plans.py sees their plans)."""

from typing import Any

from sqlalchemy import exc

from app.mysql.rows import marks
from app.mysql.unit_of_work import Transaction
from app.workflow import job, process, task

PROCESSES_MAX, ROWS_MAX = 20_000, 100_000
OPEN_PROCESSES, OPEN_TASKS, OPEN_JOBS = (sorted(set(each.State) - each.TERMINAL) for each in (process, task, job))
LOCK = "CONCAT('airavata.sampler.', LEFT(DATABASE(), 40))"


def elected(tx: Transaction) -> bool:
    """This session holds the sampler's lock, or has got it now. It ends with the session, so with its process."""
    tx.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
    return bool(tx.exec_driver_sql(f"SELECT IF(IS_USED_LOCK({LOCK}) = CONNECTION_ID(), 1, GET_LOCK({LOCK}, 0))").scalar_one())


def outbox(tx: Transaction, shard: int) -> Any:
    """(rows, age of the oldest in seconds); counting stops at ROWS_MAX."""
    return tx.exec_driver_sql(
        "SELECT (SELECT COUNT(*) FROM (SELECT 1 FROM outbox WHERE shard = %s LIMIT %s) AS some_rows), "
        "(SELECT TIMESTAMPDIFF(MICROSECOND, MIN(o.created_at), UTC_TIMESTAMP(6)) / 1000000 FROM (SELECT MIN(id) AS id FROM outbox WHERE shard = %s GROUP BY part) AS first_rows "
        "STRAIGHT_JOIN outbox o ON o.id = first_rows.id)",
        (shard, ROWS_MAX, shard),
    ).one()


def processes(tx: Transaction) -> list[Any]:
    """(state, how many, how many unchanged for a minute, for five) of open ones."""
    return list(tx.exec_driver_sql(
        "SELECT state, COUNT(*), SUM(updated_at < UTC_TIMESTAMP(6) - INTERVAL 60 SECOND), SUM(updated_at < UTC_TIMESTAMP(6) - INTERVAL 300 SECOND) "
        f"FROM processes WHERE state IN ({marks(OPEN_PROCESSES)}) GROUP BY state", tuple(OPEN_PROCESSES),
    ).all())  # fmt: skip


def tasks(tx: Transaction) -> list[Any]:
    """(type, state, condition of blocked ones, how many, age of the oldest in seconds, how many overdue) of the tasks of the open processes, at most PROCESSES_MAX of those.

    Overdue: SCHEDULED for five minutes, or waiting a minute beyond the time that was set for them.
    """
    return list(tx.exec_driver_sql(
        "SELECT t.type, t.state, IF(t.state = 'BLOCKED', COALESCE(JSON_UNQUOTE(JSON_EXTRACT(t.failure, '$.condition')), ''), '') AS held, COUNT(*), "
        "TIMESTAMPDIFF(MICROSECOND, MIN(t.state_since), UTC_TIMESTAMP(6)) / 1000000, "
        "SUM(IF(t.state = 'SCHEDULED', t.state_since < UTC_TIMESTAMP(6) - INTERVAL 300 SECOND, COALESCE(t.next_attempt_at < UTC_TIMESTAMP(6) - INTERVAL 60 SECOND, 0))) "
        f"FROM (SELECT id FROM processes WHERE state IN ({marks(OPEN_PROCESSES)}) LIMIT %s) AS open_processes STRAIGHT_JOIN tasks t ON t.process_id = open_processes.id "
        f"WHERE t.state IN ({marks(OPEN_TASKS)}) GROUP BY t.type, t.state, held ORDER BY NULL", (*OPEN_PROCESSES, PROCESSES_MAX, *OPEN_TASKS),
    ).all())  # fmt: skip


def jobs(tx: Transaction) -> list[Any]:
    """(host, state, how many) of open ones."""
    return list(
        tx.exec_driver_sql(f"SELECT compute_resource_id, state, COUNT(*) FROM jobs WHERE state IN ({marks(OPEN_JOBS)}) GROUP BY state, compute_resource_id", tuple(OPEN_JOBS)).all()
    )


def doubts(tx: Transaction) -> list[Any]:
    """(host, how many submissions of unknown outcome, age of the oldest doubt in seconds)."""
    return list(tx.exec_driver_sql(
        "SELECT j.compute_resource_id, COUNT(*), TIMESTAMPDIFF(MICROSECOND, MIN(COALESCE(t.doubt_since, j.state_since)), UTC_TIMESTAMP(6)) / 1000000 "
        "FROM jobs j JOIN tasks t ON t.id = j.task_id WHERE j.state = 'IN_DOUBT' GROUP BY j.compute_resource_id",
    ).all())  # fmt: skip


def timers_due(tx: Transaction) -> list[bytes]:
    """Headers of at most a thousand timers that are due."""
    return [row[0] for row in tx.exec_driver_sql("SELECT headers FROM timers WHERE due_at <= UTC_TIMESTAMP(6) LIMIT 1000").all()]


def dead_letters(tx: Transaction) -> list[Any]:
    """(topic, how many) that nobody has settled."""
    return list(tx.exec_driver_sql("SELECT topic, COUNT(*) FROM (SELECT topic FROM dead_letters WHERE settled IS NULL LIMIT %s) AS some_rows GROUP BY topic ORDER BY NULL", (ROWS_MAX,)).all())


def sink_heartbeat_age(tx: Transaction) -> float | None:
    found = tx.exec_driver_sql("SELECT TIMESTAMPDIFF(MICROSECOND, MAX(heartbeat_at), UTC_TIMESTAMP(6)) / 1000000 FROM instances WHERE component = 'event-sink'").scalar_one()
    return None if found is None else float(found)


def credentials_expiring(tx: Transaction) -> Any:
    """(within a day, within seven)."""
    return tx.exec_driver_sql(
        "SELECT COALESCE(SUM(expires_at < UTC_TIMESTAMP(6) + INTERVAL 1 DAY), 0), COUNT(*) FROM credentials "
        "WHERE deleted_at IS NULL AND expires_at > UTC_TIMESTAMP(6) AND expires_at < UTC_TIMESTAMP(6) + INTERVAL 7 DAY"
    ).one()


def server(tx: Transaction) -> tuple[float | None, float | None]:
    """(history list length, age of the oldest transaction in seconds); None where this account may not see it."""
    history = tx.exec_driver_sql("SHOW GLOBAL STATUS LIKE 'Innodb_history_list_length'").first()  # MariaDB
    try:
        if history is None:
            history = tx.exec_driver_sql("SELECT name, count FROM information_schema.innodb_metrics WHERE name = 'trx_rseg_history_len'").first()
        oldest = tx.exec_driver_sql("SELECT TIMESTAMPDIFF(SECOND, MIN(trx_started), NOW()) FROM information_schema.innodb_trx").scalar_one()
    except exc.OperationalError:  # 1227: it wants the PROCESS right.
        return (None if history is None else float(history[1])), None
    return (None if history is None else float(history[1])), float(oldest or 0)
