"""Experiments that have ended and whose skeleton spans are not sent yet. The rows they are made from stay where they are; this says only what is due.

Two schedulers may send one: identical twice. Reading takes no lock; a row goes when its spans have arrived, or when its time is up.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from app.mysql.reading import JOB, TASK
from app.mysql.rows import among, from_json, in_order, inserting, marks
from app.mysql.unit_of_work import Transaction

AFTER, FOR = timedelta(seconds=2), timedelta(hours=1)  # What is still under way when an experiment ends arrives meanwhile; later nobody looks for it.
_RUN = (
    "SELECT e.id, e.gateway_id, e.state, e.outcome, e.launched_at, e.finished_at, p.id AS process_id, p.trace_context, p.trace_keep "
    "FROM experiments e JOIN processes p ON p.id = e.process_id WHERE e.id IN ({})"
)
_ATTEMPTS = "SELECT id, task_id, process_id, number, state, epoch, created_at, started_at, finished_at, outcome FROM attempts WHERE process_id IN ({}) ORDER BY task_id, number"


def append(tx: Transaction, experiment_ids: Sequence[str], *, now: datetime) -> None:
    """In the transaction that ends them. One statement."""
    if experiment_ids:
        tx.exec_driver_sql(inserting("skeletons", "experiment_id, due_at, until"), [(each, now + AFTER, now + FOR) for each in experiment_ids])


def due(tx: Transaction, *, limit: int) -> Sequence[Any]:
    """(experiment id, tries, whether its time is up), longest due first."""
    return tx.exec_driver_sql(
        "SELECT experiment_id, tries, until < UTC_TIMESTAMP(6) FROM skeletons WHERE due_at <= UTC_TIMESTAMP(6) ORDER BY due_at LIMIT %s", (limit,)
    ).all()


def delete(tx: Transaction, experiment_ids: Sequence[str]) -> None:
    if ids := in_order(experiment_ids):
        tx.exec_driver_sql(f"DELETE FROM skeletons WHERE experiment_id IN ({marks(ids)})", tuple(ids))


def put_off(tx: Transaction, experiment_ids: Sequence[str]) -> None:
    """The longer the oftener it was tried, at most a minute."""
    if ids := in_order(experiment_ids):
        tx.exec_driver_sql(
            f"UPDATE skeletons SET due_at = UTC_TIMESTAMP(6) + INTERVAL LEAST(60, POW(2, LEAST(tries, 6))) SECOND, tries = tries + 1 WHERE experiment_id IN ({marks(ids)})", tuple(ids)
        )


def rows(tx: Transaction, experiment_ids: Sequence[str]) -> list[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]]:
    """(run with its process, tasks, attempts, jobs) of each: all that a skeleton is made from. Plain reads, four for them all."""
    runs = _of(tx, _RUN, experiment_ids)
    processes = [each["process_id"] for each in runs]
    tasks = _of(tx, f"SELECT {TASK} FROM tasks t WHERE t.process_id IN ({{}})", processes, document="failure")
    attempts = _of(tx, _ATTEMPTS, processes, document="outcome")
    jobs = _of(tx, f"SELECT {JOB} FROM jobs j WHERE j.experiment_id IN ({{}})", experiment_ids)

    def of(process_id: str, some: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return [each for each in some if each["process_id"] == process_id]

    return [(each, of(each["process_id"], tasks), of(each["process_id"], attempts), of(each["process_id"], jobs)) for each in runs]


def _of(tx: Transaction, query: str, ids: Sequence[str], *, document: str = "") -> list[dict[str, Any]]:
    """`document`: a column that is JSON."""
    found = [dict(row._mapping) for row in among(tx, query, ids)]
    return [each | {document: from_json(each[document])} for each in found] if document else found
