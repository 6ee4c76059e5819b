"""What the rows say of one run, for `explain`: plain reads, each with a bound, none of which waits for anybody."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from app.messages.placement import Placement
from app.messages.topics import Topics, executor_group
from app.mysql.rows import from_json, marks
from app.mysql.unit_of_work import Transaction
from app.workflow import attempt, job, process, task
from app.workflow.facts import Attempt, Host, Job, Letter, Message, Process, Task

OUTBOX_LOOKED_AT_MAX = 10_000  # Rows of a shard; behind more than that, a message is one of very many that wait.
_TASKS = """SELECT t.id, t.name, t.type, t.state, t.state_since, t.reason, t.burned, t.doubt_since, t.next_attempt_at,
  a.id, a.number, a.state, a.state_since, a.owner, i.heartbeat_at
FROM tasks t LEFT JOIN attempts a ON a.task_id = t.id AND a.number = t.attempt LEFT JOIN instances i ON i.id = a.owner
WHERE t.process_id = %s AND t.finished_at IS NULL ORDER BY t.name LIMIT 1000"""
_AFTER = "SELECT e.to_task, t.name FROM edges e JOIN tasks t ON t.id = e.from_task WHERE e.process_id = %s AND t.finished_at IS NULL ORDER BY t.name"
_JOBS = """SELECT j.attempt_id, j.id, j.state, j.state_since, j.reason, j.scheduler_job_id, j.evidence, w.last_look_at, w.owner IS NOT NULL AND w.until > UTC_TIMESTAMP(6)
FROM jobs j LEFT JOIN host_watches w ON w.compute_resource_id = j.compute_resource_id WHERE j.experiment_id = %s"""
_MESSAGES = "SELECT topic, k, created_at FROM (SELECT topic, k, created_at FROM outbox WHERE shard = %s AND part IN ({}) LIMIT %s) AS some_rows WHERE k LIKE %s"
_SLOTS = "SELECT COUNT(*) FROM host_slots WHERE host = %s AND n < %s AND owner IS NOT NULL AND until > UTC_TIMESTAMP(6)"


def a_process(tx: Transaction, process_id: str) -> tuple[Process, int] | None:
    """With its partition."""
    row = tx.exec_driver_sql("SELECT id, state, state_since, part FROM processes WHERE id = %s", (process_id,)).first()
    return None if row is None else (Process(row[0], process.State(row[1]), row[2]), row[3])


def experiment_of(tx: Transaction, process_id: str) -> str:
    return str(tx.exec_driver_sql("SELECT experiment_id FROM processes WHERE id = %s", (process_id,)).scalar_one())


def open_tasks(tx: Transaction, process_id: str, experiment_id: str) -> list[Task]:
    """With their last attempts and jobs, and what they wait for."""
    after: dict[str, list[str]] = {}
    for to_task, name in tx.exec_driver_sql(_AFTER, (process_id,)).all():
        after.setdefault(to_task, []).append(name)
    jobs = {row[0]: _job(row) for row in tx.exec_driver_sql(_JOBS, (experiment_id,)).all()}
    return [
        Task(
            row[0], row[1], row[2], task.State(row[3]), row[4], executor_group(row[2]), row[5], row[6], row[7], row[8], tuple(after.get(row[0], ())),
            Attempt(row[10], attempt.State(row[11]), row[12], row[13], row[14]) if row[9] else None, jobs.get(row[9]),
        )
        for row in tx.exec_driver_sql(_TASKS, (process_id,)).all()
    ]  # fmt: skip


def _job(row: Any) -> Job:
    return Job(row[1], job.State(row[2]), row[3], row[4], row[5], tuple(from_json(row[6]) or ()), row[7], bool(row[8]))


def messages(tx: Transaction, process_id: str, task_ids: Iterable[str], *, part: int, placement: Placement, topics: Topics) -> list[Message]:
    """Of this process in the outbox: on its own partition, and where the commands of its tasks go."""
    by_shard: dict[int, set[int]] = {}
    for each in {part, *(placement.of_task(task_id) for task_id in task_ids)}:
        by_shard.setdefault(placement.shard(each), set()).add(each)
    leased = {row[0] for row in tx.exec_driver_sql("SELECT shard FROM relay_shards WHERE owner IS NOT NULL AND until > UTC_TIMESTAMP(6)").all()}
    return [
        Message(row[0].removeprefix(topics.prefix), row[1], row[2], shard, shard in leased)
        for shard, parts in sorted(by_shard.items())
        for row in tx.exec_driver_sql(_MESSAGES.format(marks(parts)), (shard, *sorted(parts), OUTBOX_LOOKED_AT_MAX, f"{process_id}%")).all()
    ]


def timers(tx: Transaction, process_id: str) -> frozenset[str]:
    """Ids of the tasks of this process that have a timer."""
    return frozenset(row[0].partition("-")[2] for row in tx.exec_driver_sql("SELECT k FROM timers WHERE process_id = %s LIMIT 2000", (process_id,)).all())


def letters(tx: Transaction, experiment_id: str) -> list[Letter]:
    query = "SELECT id, consumer_group, topic, error_text, tries, created_at FROM dead_letters WHERE experiment_id = %s AND settled IS NULL LIMIT 10"
    return [Letter(row[0], row[1], row[2], row[3][:500], row[4], row[5]) for row in tx.exec_driver_sql(query, (experiment_id,)).all()]


def living(tx: Transaction) -> dict[str, datetime]:
    """Component → its youngest heartbeat."""
    return {row[0]: row[1] for row in tx.exec_driver_sql("SELECT component, MAX(heartbeat_at) FROM instances GROUP BY component").all()}


def host(tx: Transaction, found: Mapping[str, Any]) -> Host:
    """Of a catalogue entry, with its connections in use by all gateways."""
    most = int(found["limits"]["connections"])
    taken = tx.exec_driver_sql(_SLOTS, (f"{found['host']}:{found['port']}", most)).scalar_one()
    return Host(found["id"], found["name"], most, int(taken))


def tails(tx: Transaction, experiment_id: str, task_id: str) -> tuple[bytes | None, bytes | None, str]:
    """What the failed task's last job printed at its end, and its batch system's reason."""
    query = "SELECT stdout_tail, stderr_tail, reason FROM jobs WHERE experiment_id = %s AND task_id = %s ORDER BY created_at DESC LIMIT 1"
    row = tx.exec_driver_sql(query, (experiment_id, task_id)).first()
    return (None, None, "") if row is None else (row[0], row[1], row[2])


def stage(tx: Transaction, task_id: str) -> str | None:
    """Task type."""
    found: str | None = tx.exec_driver_sql("SELECT type FROM tasks WHERE id = %s", (task_id,)).scalar()
    return found
