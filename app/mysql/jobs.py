"""Jobs: what was done and seen of one remote job. Written by executors (to SUBMITTED) and the host's watcher, always under the lock of their attempt."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.mysql.rows import among, from_json, to_json
from app.mysql.unit_of_work import Transaction
from app.workflow.job import SEEN, TERMINAL, State

_OPEN = (
    f"state IN ('SUBMITTING', 'IN_DOUBT', {', '.join(repr(str(each)) for each in sorted(SEEN))}) AND (state NOT IN ('SUBMITTING', 'IN_DOUBT') "
    "OR EXISTS (SELECT 1 FROM attempts a WHERE a.id = jobs.attempt_id AND a.state IN ('SUCCEEDED', 'FAILED', 'CANCELED')))"
)
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


def watched_on(tx: Transaction, compute_resource_id: str, *, after: str, limit: int) -> list[Job]:
    """Open jobs of a host whose id is stored, or that nobody else asks for since their attempt has ended; by their own ids, those behind `after`."""
    query = f"SELECT {_COLUMNS} FROM jobs WHERE compute_resource_id = %s AND {_OPEN} AND id > %s ORDER BY id LIMIT %s"
    return [_job(row) for row in tx.exec_driver_sql(query, (compute_resource_id, after, limit)).all()]


def hosts_with_open_jobs(tx: Transaction) -> list[str]:
    return [row[0] for row in tx.exec_driver_sql(f"SELECT DISTINCT compute_resource_id FROM jobs WHERE {_OPEN}").all()]


def saw(
    tx: Transaction, job: Job, state: State, reason: str = "", *, exit_code: int | None = None, missing_since: datetime | None = None, evidence: Sequence[str] = (),
    tails: tuple[bytes | None, bytes | None] = (None, None), scheduler_job_id: str | None = None, now: datetime,
) -> bool:
    """What a look made of a job; False: it was moved since it was read. Jobs change rarely, so one statement each. `tails`: of stdout and stderr, once it has ended."""
    return bool(tx.exec_driver_sql(
        "UPDATE jobs SET state_since = IF(state = %s, state_since, %s), state = %s, reason = %s, exit_code = %s, missing_since = %s, evidence = COALESCE(%s, evidence), "
        "stdout_tail = COALESCE(%s, stdout_tail), stderr_tail = COALESCE(%s, stderr_tail), captured_at = IF(%s IS NULL, captured_at, %s), finished_at = %s, "
        "scheduler_job_id = COALESCE(scheduler_job_id, %s) WHERE id = %s AND state = %s",
        (
            state, now, state, reason[:512], exit_code, missing_since, to_json(list(evidence)) if evidence else None, *tails, tails[0], now, now if state in TERMINAL else None,
            scheduler_job_id, job.id, job.state,
        ),
    ).rowcount)  # fmt: skip


def _job(row: Any) -> Job:
    fields = list(row)
    fields[7], fields[10] = State(fields[7]), from_json(fields[10])
    return Job(*fields)
