"""Jobs: what was done and seen of one remote job. Written by executors (to SUBMITTED) and the host's watcher, always under the lock of their attempt."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.mysql.rows import among, from_json, marks, to_json
from app.mysql.unit_of_work import Transaction
from app.workflow.job import State

WATCHED = ("HELD", "SUBMITTED", "QUEUED", "ACTIVE", "SUSPENDED", "UNKNOWN", "NON_CRITICAL_FAIL")
_PREPARE = """INSERT INTO jobs (id, attempt_id, task_id, process_id, experiment_id, compute_resource_id, epoch, state, state_since, script_sha256, work_dir, document, wall_time_seconds, created_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, 'SUBMITTING', %s, %s, %s, %s, %s, %s)
ON DUPLICATE KEY UPDATE state = IF(state IN ('PREPARED', 'IN_DOUBT', 'SUBMITTING'), 'SUBMITTING', state), epoch = VALUES(epoch), state_since = VALUES(state_since),
  script_sha256 = VALUES(script_sha256), document = VALUES(document)"""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its watcher needs it; times are MySQL's."""

    id: str
    attempt_id: str
    task_id: str
    process_id: str
    experiment_id: str
    compute_resource_id: str
    epoch: int
    state: State
    scheduler_job_id: str | None
    work_dir: str
    document: Mapping[str, Any]
    submitted_at: datetime | None
    wall_time_seconds: int
    missing_since: datetime | None


_COLUMNS = "id, attempt_id, task_id, process_id, experiment_id, compute_resource_id, epoch, state, scheduler_job_id, work_dir, document, submitted_at, wall_time_seconds, missing_since"


def prepare(tx: Transaction, job: Job, *, script_sha256: str, now: datetime) -> None:
    """Step 1 of a submission: the row is SUBMITTING with token, epoch, host, work dir and script hash before anything leaves."""
    row = (job.id, job.attempt_id, job.task_id, job.process_id, job.experiment_id, job.compute_resource_id, job.epoch, now, script_sha256, job.work_dir)
    tx.exec_driver_sql(_PREPARE, (*row, to_json(job.document), job.wall_time_seconds, now))


def submitted(tx: Transaction, attempt_id: str, *, scheduler_job_id: str, document: Mapping[str, Any], now: datetime) -> None:
    """Step 3: the id is stored. A job already seen further on stays where it is."""
    tx.exec_driver_sql(
        "UPDATE jobs SET state = 'SUBMITTED', state_since = %s, scheduler_job_id = %s, document = %s, submitted_at = COALESCE(submitted_at, %s) "
        "WHERE attempt_id = %s AND state IN ('SUBMITTING', 'IN_DOUBT')",
        (now, scheduler_job_id, to_json(document), now, attempt_id),
    )


def unsure(tx: Transaction, attempt_id: str, *, state: State, reason: str, evidence: Sequence[str], now: datetime) -> None:
    """IN_DOUBT (nobody knows) or FAILED (a definite refusal), with the evidence."""
    tx.exec_driver_sql(
        "UPDATE jobs SET state = %s, state_since = %s, reason = %s, evidence = %s, finished_at = %s WHERE attempt_id = %s AND state IN ('SUBMITTING', 'IN_DOUBT')",
        (state, now, reason[:512], to_json(list(evidence)), now if state is State.FAILED else None, attempt_id),
    )


def of_attempts(tx: Transaction, attempt_ids: Iterable[str]) -> dict[str, Job]:
    """Attempt → job. Their attempts are locked; no second lock is needed."""
    return {row[1]: _job(row) for row in among(tx, f"SELECT {_COLUMNS} FROM jobs WHERE attempt_id IN ({{}})", attempt_ids)}


def watched_on(tx: Transaction, compute_resource_id: str, *, limit: int) -> list[Job]:
    """Open jobs of a host whose id is stored, oldest first."""
    found = tx.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM jobs WHERE compute_resource_id = %s AND state IN ({marks(WATCHED)}) ORDER BY id LIMIT %s", (compute_resource_id, *WATCHED, limit)
    ).all()
    return [_job(row) for row in found]


def hosts_with_open_jobs(tx: Transaction) -> list[str]:
    return [row[0] for row in tx.exec_driver_sql(f"SELECT DISTINCT compute_resource_id FROM jobs WHERE state IN ({marks(WATCHED)})", WATCHED).all()]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look made of a job: its next state, and at the end what is kept for ever."""

    job: Job
    state: State
    reason: str = ""
    exit_code: int | None = None
    missing_since: datetime | None = None
    evidence: tuple[str, ...] = ()
    stdout_tail: bytes | None = None
    stderr_tail: bytes | None = None


def saw(tx: Transaction, seen: Seen, *, now: datetime) -> None:
    """One job's change; jobs change rarely, so one statement each."""
    ended = seen.state in {State.COMPLETED, State.FAILED, State.CANCELED, State.LOST}
    tx.exec_driver_sql(
        "UPDATE jobs SET state_since = IF(state = %s, state_since, %s), state = %s, reason = %s, exit_code = %s, missing_since = %s, evidence = COALESCE(%s, evidence), "
        "stdout_tail = COALESCE(%s, stdout_tail), stderr_tail = COALESCE(%s, stderr_tail), captured_at = IF(%s IS NULL, captured_at, %s), finished_at = %s WHERE id = %s",
        (
            seen.state, now, seen.state, seen.reason[:512], seen.exit_code, seen.missing_since, to_json(list(seen.evidence)) if seen.evidence else None,
            seen.stdout_tail, seen.stderr_tail, seen.stdout_tail, now, now if ended else None, seen.job.id,
        ),
    )  # fmt: skip


def _job(row: Any) -> Job:
    fields = list(row)
    fields[7], fields[10] = State(fields[7]), from_json(fields[10])
    return Job(*fields)
