"""The one history. Rows come from the sink through the API server, in one transaction with the sink's positions; `seq` has no gaps per experiment."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.mysql.rows import from_json, in_order, marks, to_json
from app.mysql.unit_of_work import Transaction
from app.workflow.history import Known

_INSERT = "INSERT INTO events (experiment_id, seq, event_id, gateway_id, process_id, task_id, type, occurred_at, stored_at, late, document) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"


@dataclass(frozen=True)
class New:
    """An event to store; `document` is its REST shape."""

    document: Mapping[str, Any]
    occurred_at: datetime
    late: bool


def known(tx: Transaction, process_ids: Iterable[str], task_ids: Iterable[str]) -> tuple[dict[str, Known], dict[str, Known]]:
    """What the database knows of these processes and tasks (by id). Plain reads: lateness is told, not decided, here."""
    wanted, tasks = in_order(process_ids), in_order(task_ids)
    rows = tx.exec_driver_sql(f"SELECT id, gateway_id, experiment_id, finished_at FROM processes WHERE id IN ({marks(wanted)})", tuple(wanted)).all() if wanted else ()
    processes = {row[0]: Known(row[1], row[2], row[3]) for row in rows}
    query = f"SELECT id, process_id, attempt, epoch, state_since FROM tasks WHERE id IN ({marks(tasks)})"
    of_tasks = {}
    for row in tx.exec_driver_sql(query, tuple(tasks)).all() if tasks else ():
        if (process := processes.get(row[1])) is not None:
            of_tasks[row[0]] = Known(process.gateway_id, process.experiment_id, process.finished_at, row[2], row[3], row[4])
    return processes, of_tasks


def append(tx: Transaction, new: Sequence[New], *, now: datetime) -> int:
    """Stores what is not there yet, in order; returns how many. The caller holds the position lock of every partition these experiments live on."""
    if not new:
        return 0
    ids = in_order(each.document["id"] for each in new)
    there = {row[0] for row in tx.exec_driver_sql(f"SELECT event_id FROM events WHERE event_id IN ({marks(ids)})", tuple(ids)).all()}
    experiments = in_order(each.document["experiment_id"] for each in new)
    last = {row[0]: row[1] for row in tx.exec_driver_sql(f"SELECT experiment_id, MAX(seq) FROM events WHERE experiment_id IN ({marks(experiments)}) GROUP BY experiment_id", tuple(experiments)).all()}
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
