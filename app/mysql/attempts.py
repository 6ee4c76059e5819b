"""Attempts: one row per (task, number). DISPATCHED and CANCELED are written by the scheduler, what lies between by the executors; every move is guarded by epoch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from app.mysql.rows import among, from_json, in_order, inserting, marks, to_json
from app.mysql.unit_of_work import Transaction
from app.workflow.attempt import State
from app.workflow.graph import Attempt

_COLUMNS = "id, task_id, process_id, number, state, state_since, epoch, created_at, finished_at"
_INSERT = inserting("attempts", _COLUMNS)
_FINISH = inserting("attempts", f"{_COLUMNS}, outcome", updating="state, state_since, owner = NULL, finished_at, outcome")


@dataclass(frozen=True, slots=True)
class Held:
    """An attempt row as locked."""

    id: str
    task_id: str
    process_id: str
    number: int
    state: State
    epoch: int
    owner: str | None
    created_at: datetime


def dispatch(tx: Transaction, attempts: Sequence[Attempt], *, now: datetime) -> None:
    """New rows in one statement; rows that get a newer epoch (owner taken away) in one per kind. An attempt that has ended is left alone."""
    fresh = [each for each in attempts if each.fresh]
    if fresh:
        ended = {State.CANCELED: now}
        tx.exec_driver_sql(_INSERT, [(a.id, a.task_id, a.process_id, a.number, a.state, now, a.epoch, now, ended.get(a.state)) for a in fresh])

    def alike(a: Attempt) -> tuple[str, int]:
        return a.state, a.epoch

    for (state, epoch), group in groupby(sorted((a for a in attempts if not a.fresh), key=alike), key=alike):
        ids = in_order(each.id for each in group)
        tx.exec_driver_sql(
            f"UPDATE attempts SET state = %s, epoch = %s, owner = NULL, state_since = %s, finished_at = %s "
            f"WHERE id IN ({marks(ids)}) AND state NOT IN ('SUCCEEDED', 'FAILED', 'CANCELED')",
            (state, epoch, now, now if state == State.CANCELED else None, *ids),
        )


def lock(tx: Transaction, attempt_ids: Iterable[str]) -> dict[str, Held]:
    """FOR UPDATE by key."""
    query = "SELECT id, task_id, process_id, number, state, epoch, owner, created_at FROM attempts WHERE id IN ({}) ORDER BY id FOR UPDATE"
    return {row[0]: Held(row[0], row[1], row[2], row[3], State(row[4]), row[5], row[6], row[7]) for row in among(tx, query, attempt_ids)}


def over(tx: Transaction, attempt_ids: Iterable[str]) -> dict[str, str]:
    """Those that have ended → why, as their task tells it. A plain read: they stay so."""
    query = "SELECT a.id, t.reason FROM attempts a JOIN tasks t ON t.id = a.task_id WHERE a.id IN ({}) AND a.state IN ('SUCCEEDED', 'FAILED', 'CANCELED')"
    return {row[0]: row[1] for row in among(tx, query, attempt_ids)}


def start(tx: Transaction, attempt_ids: Sequence[str], *, owner: str, now: datetime) -> None:
    """E1: DISPATCHED → RUNNING for locked rows whose epoch is the command's."""
    if attempt_ids:
        ids = in_order(attempt_ids)
        tx.exec_driver_sql(
            f"UPDATE attempts SET state = 'RUNNING', owner = %s, state_since = %s, started_at = COALESCE(started_at, %s) WHERE id IN ({marks(ids)}) AND state = 'DISPATCHED'",
            (owner, now, now, *ids),
        )


def finish(tx: Transaction, ended: Sequence[tuple[Held, State, Mapping[str, Any]]], *, now: datetime) -> None:
    """E3: locked rows → SUCCEEDED, FAILED or IN_DOUBT, with what is remembered of it. One statement."""
    if ended:
        tx.exec_driver_sql(_FINISH, [
            (a.id, a.task_id, a.process_id, a.number, state, now, a.epoch, a.created_at, None if state is State.IN_DOUBT else now, to_json(outcome)) for a, state, outcome in ended
        ])  # fmt: skip


def release(tx: Transaction, attempt_id: str) -> None:
    """The job's id is stored: the attempt has no owner any more, the host's watcher ends it."""
    tx.exec_driver_sql("UPDATE attempts SET owner = NULL WHERE id = %s", (attempt_id,))


def owned(tx: Transaction, owner: str) -> dict[str, int]:
    """RUNNING attempts of this instance: id → epoch. What it does not hold in memory is work whose start it never learned of."""
    return {row[0]: row[1] for row in tx.exec_driver_sql("SELECT id, epoch FROM attempts WHERE owner = %s AND state = 'RUNNING'", (owner,)).all()}


def models(tx: Transaction, attempt_ids: Iterable[str]) -> dict[str, tuple[str, Any]]:
    """Attempt → (task type, task model). A plain read: they never change."""
    query = "SELECT a.id, t.type, t.model FROM attempts a JOIN tasks t ON t.id = a.task_id WHERE a.id IN ({})"
    return {row[0]: (row[1], from_json(row[2])) for row in among(tx, query, attempt_ids)}


def take_from_silent(tx: Transaction, *, silent_seconds: int, limit: int) -> list[Any]:
    """Attempts whose owner's instance row is silent or gone, locked and their owner taken away: (id, task_id, process_id, number, epoch, owner).

    Who is silent is read without a lock, so that nobody's heartbeat waits for us; an owner that comes back in between has lost its lease all the same.
    """
    silent = tx.exec_driver_sql(
        "SELECT DISTINCT a.owner FROM attempts a LEFT JOIN instances i ON i.id = a.owner "
        "WHERE a.owner IS NOT NULL AND (i.id IS NULL OR i.heartbeat_at < UTC_TIMESTAMP(6) - INTERVAL %s SECOND)",
        (silent_seconds,),
    ).scalars()
    query = "SELECT id, task_id, process_id, number, epoch, owner FROM attempts WHERE owner IN ({}) ORDER BY owner, id LIMIT %s FOR UPDATE"
    rows = among(tx, query, silent, limit)
    if rows:
        ids = in_order(row[0] for row in rows)
        tx.exec_driver_sql(f"UPDATE attempts SET owner = NULL WHERE id IN ({marks(ids)})", tuple(ids))
    return list(rows)
