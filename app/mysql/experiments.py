"""Experiments as the API writes them (up to LAUNCHED) and as everybody reads them. After the launch the scheduler alone moves their state (processes.py)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.mysql import rows
from app.mysql.catalogue import ORDERS
from app.mysql.rows import among, from_json, inserting, marks, to_json
from app.mysql.unit_of_work import Transaction
from app.workflow.experiment import LIVE

COLUMNS = (
    "id", "gateway_id", "project_id", "owner", "name", "application_interface_id", "deployment_id", "compute_resource_id", "document", "state", "state_since", "reason", "outcome",
    "failure", "process_id", "trace_id", "deadline_at", "version", "created_at", "updated_at", "launched_at", "finished_at",
)  # fmt: skip
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM experiments "
_SELECT_LISTED = _SELECT.replace("document", "JSON_EXTRACT(document, '$.labels')", 1)


@dataclass(frozen=True)
class Mine:
    """Whose experiments a request may see: always one gateway; one owner unless the role sees all of it."""

    gateway_id: str
    owner: str | None = None

    def where(self, table: str = "experiments") -> tuple[str, tuple[Any, ...]]:
        """The condition that every look-up runs through."""
        mine = f"{table}.gateway_id = %s AND {table}.deleted_at IS NULL"
        return (mine, (self.gateway_id,)) if self.owner is None else (f"{mine} AND {table}.owner = %s", (self.gateway_id, self.owner))


def insert(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Version 1 of a row with every one of COLUMNS: a draft, or an experiment that is launched in the same breath."""
    values = [to_json(row[name]) if name in {"document", "failure"} else row[name] for name in COLUMNS]
    tx.exec_driver_sql(inserting("experiments", ", ".join(COLUMNS)), tuple(values))


def get(tx: Transaction, mine: Mine, experiment_id: str, *, lock: bool = False) -> dict[str, Any] | None:
    where, values = mine.where()
    row = tx.exec_driver_sql(f"{_SELECT} WHERE id = %s AND {where}{' FOR UPDATE' if lock else ''}", (experiment_id, *values)).first()
    return _read(row) if row is not None else None


def page(tx: Transaction, mine: Mine, asked: Mapping[str, Any], *, after: Sequence[Any] | None, limit: int) -> list[dict[str, Any]]:
    """One keyset page. `asked`: the list's `sort` and its filters, None where there is none; `label` is (name, value). `after`: (value of the sort column, id) of the last row seen.

    Of the documents only the labels come along: inputs carry up to 256 KiB each, and a page has 200 rows.
    """
    column, direction = ORDERS[asked["sort"]]
    name, value = asked.get("label") or ("", None)
    conditions = [
        mine.where(),
        *(rows.one_of(each, asked.get(each)) for each in ("state", "outcome")),
        *(rows.equal(each, asked.get(each)) for each in ("project_id", "application_interface_id", "compute_resource_id", "owner", "name")),
        *(None if asked.get(each) is None else (f"created_at {sign} %s", (asked[each],)) for each, sign in (("created_after", ">"), ("created_before", "<"))),
        None if value is None else ("JSON_UNQUOTE(JSON_EXTRACT(document, %s)) = %s", (f'$.labels."{name}"', value)),
        rows.beyond(column, after, "<" if direction == "DESC" else ">"),
    ]
    found = [_read(row) for row in rows.page(tx, _SELECT_LISTED, conditions, order=f"{column} {direction}, id {direction}", limit=limit)]
    return [{**each, "document": {"labels": each["document"]}} for each in found]


def change(tx: Transaction, experiment_id: str, row: Mapping[str, Any], *, now: datetime) -> None:
    """An edit of a locked draft: back to CREATED, one version on."""
    tx.exec_driver_sql(
        "UPDATE experiments SET name = %s, project_id = %s, application_interface_id = %s, deployment_id = %s, compute_resource_id = %s, document = %s, deadline_at = %s, state = 'CREATED', "
        "state_since = IF(state = 'CREATED', state_since, %s), updated_at = %s, version = version + 1 WHERE id = %s AND state IN ('CREATED', 'VALIDATED')",
        (
            row["name"], row["project_id"], row["application_interface_id"], row["deployment_id"], row["compute_resource_id"], to_json(row["document"]), row["deadline_at"], now, now,
            experiment_id,
        ),
    )  # fmt: skip


def launched(
    tx: Transaction, experiment_id: str, *, process_id: str, trace_id: str | None, deployment_id: str | None, compute_resource_id: str | None, document: Any = None, now: datetime
) -> None:
    """CREATED or VALIDATED → LAUNCHED, of a locked draft, in the transaction that inserts the process. `document`: only if it changed."""
    tx.exec_driver_sql(
        "UPDATE experiments SET state = 'LAUNCHED', state_since = %s, launched_at = %s, updated_at = %s, process_id = %s, trace_id = %s, deployment_id = %s, compute_resource_id = %s, "
        "document = COALESCE(%s, document), version = version + 1 WHERE id = %s AND state IN ('CREATED', 'VALIDATED')",
        (now, now, now, process_id, trace_id, deployment_id, compute_resource_id, to_json(document), experiment_id),
    )


def hide(tx: Transaction, experiment_id: str, *, now: datetime) -> None:
    """DELETE hides; the history is kept 30 days."""
    tx.exec_driver_sql("UPDATE experiments SET deleted_at = %s, version = version + 1 WHERE id = %s", (now, experiment_id))


def live(tx: Transaction, gateway_id: str, *, limit: int) -> int:
    """Live experiments of a gateway; counting stops at `limit`."""
    states = sorted(LIVE)
    query = f"SELECT COUNT(*) FROM (SELECT 1 FROM experiments WHERE gateway_id = %s AND state IN ({marks(states)}) LIMIT %s) AS some_rows"
    return int(tx.exec_driver_sql(query, (gateway_id, *states, limit)).scalar_one())


def live_in_project(tx: Transaction, project_id: str) -> bool:
    states = sorted(LIVE)
    return tx.exec_driver_sql(f"SELECT 1 FROM experiments WHERE project_id = %s AND state IN ({marks(states)}) LIMIT 1", (project_id, *states)).first() is not None


def progress(tx: Transaction, process_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Process → (tasks in all, tasks done). Read, not kept: nothing to go stale."""
    return {row[0]: (row[1], row[1] - row[2]) for row in among(tx, "SELECT id, tasks_total, tasks_open FROM processes WHERE id IN ({})", process_ids)}


def held_tasks(tx: Transaction, process_id: str) -> list[Any]:
    """What holds it now: (task id, state, state_since, reason, next_attempt_at) of waiting tasks."""
    query = "SELECT id, state, state_since, reason, next_attempt_at FROM tasks WHERE process_id = %s AND state IN ('RETRY_WAIT', 'BLOCKED', 'IN_DOUBT') ORDER BY id LIMIT 100"
    return list(tx.exec_driver_sql(query, (process_id,)).all())


def _read(row: Any) -> dict[str, Any]:
    found = dict(zip(COLUMNS, row, strict=True))
    found["document"], found["failure"] = from_json(found["document"]), from_json(found["failure"])
    return found
