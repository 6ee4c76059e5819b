"""What clients read of the insides: processes, tasks, attempts, jobs. Plain reads; whose they are is decided by the experiment they belong to."""

from typing import Any

from app.mysql.experiments import Mine
from app.mysql.rows import from_json
from app.mysql.unit_of_work import Transaction

PROCESS = "p.id, p.experiment_id, p.state, p.state_since, p.reason, p.outcome, p.failure, p.version, p.tasks_total, p.tasks_open, p.tasks_failed, p.part, p.trace_context, p.deadline_at, p.created_at, p.updated_at, p.finished_at"
TASK = "t.id, t.process_id, t.name, t.type, t.state, t.state_since, t.reason, t.waiting_for, t.attempt, t.epoch, t.doubt_since, t.next_attempt_at, t.version, t.failure, t.finished_at"
ATTEMPT = "a.id, a.task_id, a.process_id, a.number, a.state, a.state_since, a.epoch, a.owner, a.created_at, a.started_at, a.finished_at, a.outcome, i.heartbeat_at, p.trace_context"
JOB = (
    "j.id, j.attempt_id, j.task_id, j.process_id, j.experiment_id, j.compute_resource_id, j.state, j.state_since, j.reason, j.scheduler_job_id, j.work_dir, j.exit_code, j.submitted_at, "
    "j.wall_time_seconds, j.created_at, j.finished_at"
)
_JSON = {"failure", "outcome"}


def _rows(tx: Transaction, query: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [{name: from_json(value) if name in _JSON and value and value[0] in "{[" else value for name, value in row._mapping.items()} for row in tx.exec_driver_sql(query, values).all()]


def process(tx: Transaction, mine: Mine, process_id: str) -> dict[str, Any] | None:
    """With its snapshot."""
    clause, values = mine.where("e")
    found = _rows(tx, f"SELECT {PROCESS}, p.snapshot FROM processes p JOIN experiments e ON e.id = p.experiment_id WHERE p.id = %s AND {clause}", (process_id, *values))
    return {**found[0], "snapshot": from_json(found[0]["snapshot"])} if found else None


def processes_of(tx: Transaction, experiment_id: str) -> list[dict[str, Any]]:
    return _rows(tx, f"SELECT {PROCESS} FROM processes p WHERE p.experiment_id = %s ORDER BY p.created_at, p.id", (experiment_id,))


def tasks_of(tx: Transaction, process_id: str) -> list[dict[str, Any]]:
    return _rows(tx, f"SELECT {TASK} FROM tasks t WHERE t.process_id = %s ORDER BY t.name", (process_id,))


def open_types(tx: Transaction, process_id: str) -> set[str]:
    """Of the tasks that have not ended: what the process's phase is computed from."""
    query = "SELECT DISTINCT type FROM tasks WHERE process_id = %s AND finished_at IS NULL"
    return {row[0] for row in tx.exec_driver_sql(query, (process_id,)).all()}


def edges_of(tx: Transaction, process_id: str) -> list[dict[str, Any]]:
    query = "SELECT from_task, to_task, on_end AS `on` FROM edges WHERE process_id = %s ORDER BY from_task, to_task"
    return [dict(row._mapping) for row in tx.exec_driver_sql(query, (process_id,)).all()]


def task(tx: Transaction, mine: Mine, task_id: str) -> dict[str, Any] | None:
    clause, values = mine.where("e")
    query = f"SELECT {TASK} FROM tasks t JOIN processes p ON p.id = t.process_id JOIN experiments e ON e.id = p.experiment_id WHERE t.id = %s AND {clause}"
    found = _rows(tx, query, (task_id, *values))
    return found[0] if found else None


_ATTEMPTS = f"SELECT {ATTEMPT} FROM attempts a JOIN processes p ON p.id = a.process_id LEFT JOIN instances i ON i.id = a.owner"


def attempts_of(tx: Transaction, task_id: str) -> list[dict[str, Any]]:
    return _rows(tx, f"{_ATTEMPTS} WHERE a.task_id = %s ORDER BY a.number", (task_id,))


def attempts_of_process(tx: Transaction, process_id: str) -> list[dict[str, Any]]:
    """By number within each task."""
    return _rows(tx, f"{_ATTEMPTS} WHERE a.process_id = %s ORDER BY a.task_id, a.number LIMIT 10000", (process_id,))


def attempt(tx: Transaction, mine: Mine, attempt_id: str) -> dict[str, Any] | None:
    clause, values = mine.where("e")
    found = _rows(tx, f"{_ATTEMPTS} JOIN experiments e ON e.id = p.experiment_id WHERE a.id = %s AND {clause}", (attempt_id, *values))
    return found[0] if found else None


def jobs_of(tx: Transaction, experiment_id: str) -> list[dict[str, Any]]:
    return _rows(tx, f"SELECT {JOB} FROM jobs j WHERE j.experiment_id = %s ORDER BY j.created_at, j.id", (experiment_id,))


def job(tx: Transaction, mine: Mine, job_id: str, *, more: str = "") -> dict[str, Any] | None:
    """`more`: further columns, for the log tails."""
    clause, values = mine.where("e")
    found = _rows(tx, f"SELECT {JOB}{more} FROM jobs j JOIN experiments e ON e.id = j.experiment_id WHERE j.id = %s AND {clause}", (job_id, *values))
    return found[0] if found else None


def job_stored(tx: Transaction, process_id: str) -> bool:
    """Whether a job's id is stored: then its phase is MONITORING."""
    query = "SELECT 1 FROM processes p JOIN jobs j ON j.experiment_id = p.experiment_id AND j.process_id = p.id WHERE p.id = %s AND j.scheduler_job_id IS NOT NULL LIMIT 1"
    return tx.exec_driver_sql(query, (process_id,)).first() is not None
