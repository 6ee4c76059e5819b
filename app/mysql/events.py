"""The one history. Rows come from the sink through the API server, in one transaction with the sink's positions; `seq` has no gaps per experiment."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from app.mysql.rows import among, from_json, inserting, marks, to_json
from app.mysql.unit_of_work import Transaction
from app.workflow.history import Known

_INSERT = inserting("events", "experiment_id, seq, event_id, gateway_id, process_id, task_id, type, occurred_at, stored_at, late, document")


@dataclass(frozen=True)
class New:
    """An event to store; `document` is its REST shape."""

    document: Mapping[str, Any]
    occurred_at: datetime
    late: bool


def known(tx: Transaction, process_ids: Iterable[str], task_ids: Iterable[str]) -> tuple[dict[str, Known], dict[str, Known]]:
    """What the database knows of these processes and tasks (by id). Plain reads: lateness is told, not decided, here."""
    processes = {row[0]: Known(*row[1:]) for row in among(tx, "SELECT id, gateway_id, experiment_id, finished_at FROM processes WHERE id IN ({})", process_ids)}
    tasks = among(tx, "SELECT id, process_id, attempt, epoch, state_since FROM tasks WHERE id IN ({})", task_ids)
    return processes, {row[0]: replace(processes[row[1]], attempt=row[2], epoch=row[3], task_since=row[4]) for row in tasks if row[1] in processes}


def append(tx: Transaction, new: Sequence[New], *, now: datetime) -> int:
    """Stores what is not there yet, in order; returns how many. The caller holds the position lock of every partition these experiments live on."""
    there = {row[0] for row in among(tx, "SELECT event_id FROM events WHERE event_id IN ({})", (each.document["id"] for each in new))}
    query = "SELECT experiment_id, MAX(seq) FROM events WHERE experiment_id IN ({}) GROUP BY experiment_id"
    last = {row[0]: row[1] for row in among(tx, query, (each.document["experiment_id"] for each in new))}
    rows = []
    for each in new:
        d = each.document
        if d["id"] in there:
            continue
        there.add(d["id"])
        seq = last[d["experiment_id"]] = last.get(d["experiment_id"], 0) + 1
        rows.append((d["experiment_id"], seq, d["id"], d["gateway_id"], d["process_id"], d["task_id"], d["type"], each.occurred_at, now, each.late, to_json(d)))
    if rows:
        tx.exec_driver_sql(_INSERT, rows)
    return len(rows)


def after(tx: Transaction, experiment_id: str, *, seq: int, limit: int) -> list[dict[str, Any]]:
    """The public feed: total order, no gaps, without epoch."""
    rows = tx.exec_driver_sql(
        "SELECT seq, late, document FROM events WHERE experiment_id = %s AND seq > %s ORDER BY seq LIMIT %s", (experiment_id, seq, limit)
    ).all()
    return [_public(row) for row in rows]


def of_types(tx: Transaction, experiment_id: str, types: Sequence[str], *, seq: int, limit: int) -> list[dict[str, Any]]:
    """The same, of some types only: history and errors are cuts of it."""
    rows = tx.exec_driver_sql(
        f"SELECT seq, late, document FROM events WHERE experiment_id = %s AND seq > %s AND type IN ({marks(types)}) ORDER BY seq LIMIT %s", (experiment_id, seq, *types, limit)
    ).all()
    return [_public(row) for row in rows]


def last_seq(tx: Transaction, experiment_id: str) -> int:
    return int(tx.exec_driver_sql("SELECT COALESCE(MAX(seq), 0) FROM events WHERE experiment_id = %s", (experiment_id,)).scalar_one())


def _public(row: Any) -> dict[str, Any]:
    told: dict[str, Any] = from_json(row[2])
    return {"seq": row[0], **told, "late": bool(row[1])}
