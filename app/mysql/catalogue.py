"""The catalogue: projects, modules, interfaces, deployments, compute and storage resources. One table, told apart by kind; the content is a JSON document.

PATCH makes a new version; launched work keeps its snapshot. Every statement runs through a gateway.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from app.mysql import faults, rows
from app.mysql.rows import among, from_json, in_order, inserting, to_json
from app.mysql.unit_of_work import Transaction

PROJECT, MODULE, INTERFACE, DEPLOYMENT, COMPUTE, STORAGE = "project", "application_module", "application_interface", "application_deployment", "compute_resource", "storage_resource"
_COLUMNS = "id, name, document, version, created_at, updated_at"
ORDERS: Mapping[str, tuple[str, str]] = {  # sort → (column, direction); id breaks ties.
    "-created_at": ("created_at", "DESC"), "created_at": ("created_at", "ASC"), "updated_at": ("updated_at", "ASC"), "name": ("name", "ASC"),
}  # fmt: skip


def insert(tx: Transaction, *, gateway_id: str, kind: str, entry_id: str, name: str, document: Mapping[str, Any], now: datetime) -> None:
    """Raises NameTaken: names are unique per gateway and kind."""
    row = (entry_id, gateway_id, kind, name, to_json(dict(document)), 1, now, now)
    with faults.unique_name():
        tx.exec_driver_sql(inserting("catalogue", "id, gateway_id, kind, name, document, version, created_at, updated_at"), row)


def get(tx: Transaction, gateway_id: str, kind: str, entry_id: str | None, *, lock: bool = False) -> dict[str, Any] | None:
    if entry_id is None or not entry_id.isascii():  # MySQL raises for what an ASCII column cannot hold.
        return None
    row = tx.exec_driver_sql(
        f"SELECT {_COLUMNS} FROM catalogue WHERE id = %s AND gateway_id = %s AND kind = %s AND deleted_at IS NULL{' FOR UPDATE' if lock else ''}", (entry_id, gateway_id, kind)
    ).first()
    return None if row is None else _read(row)


def by_name(tx: Transaction, gateway_id: str, kind: str, name: str) -> dict[str, Any] | None:
    row = tx.exec_driver_sql(f"SELECT {_COLUMNS} FROM catalogue WHERE gateway_id = %s AND kind = %s AND name = %s AND deleted_at IS NULL", (gateway_id, kind, name)).first()
    return None if row is None else _read(row)


def page(tx: Transaction, gateway_id: str, kind: str, *, name: str | None, sort: str, after: Sequence[Any] | None, limit: int) -> list[dict[str, Any]]:
    """One keyset page. `after`: (value of the sort column, id) of the last row seen."""
    column, direction = ORDERS[sort]
    asked = [
        ("gateway_id = %s AND kind = %s AND deleted_at IS NULL", (gateway_id, kind)),
        rows.one_of("name", name and name.split(",")),  # Comma = or.
        rows.beyond(column, after, "<" if direction == "DESC" else ">"),
    ]
    found = rows.page(tx, f"SELECT {_COLUMNS} FROM catalogue", asked, order=f"{column} {direction}, id {direction}", limit=limit)
    return [_read(row) for row in found]


def every(tx: Transaction, gateway_id: str, kind: str) -> Iterator[dict[str, Any]]:
    """All of a kind, page by page: for questions about what stands inside the documents."""
    after: Sequence[Any] | None = None
    while found := page(tx, gateway_id, kind, name=None, sort="-created_at", after=after, limit=500):
        yield from found
        after = (found[-1]["created_at"], found[-1]["id"])


def change(tx: Transaction, entry_id: str, *, name: str, document: Mapping[str, Any], now: datetime) -> None:
    """A new version of a locked row. Raises NameTaken."""
    with faults.unique_name():
        tx.exec_driver_sql("UPDATE catalogue SET name = %s, document = %s, version = version + 1, updated_at = %s WHERE id = %s", (name, to_json(dict(document)), now, entry_id))


def hide(tx: Transaction, entry_id: str, *, now: datetime) -> None:
    """DELETE hides; the name is free again."""
    tx.exec_driver_sql("UPDATE catalogue SET deleted_at = %s, name = id, version = version + 1 WHERE id = %s", (now, entry_id))


def known(tx: Transaction, gateway_id: str, kind: str, entry_ids: Sequence[str]) -> set[str]:
    """Which of these ids are entries of this gateway and kind."""
    query = "SELECT id FROM catalogue WHERE id IN ({}) AND gateway_id = %s AND kind = %s AND deleted_at IS NULL"
    return {row[0] for row in among(tx, query, filter(str.isascii, entry_ids), gateway_id, kind)}


def many(tx: Transaction, entry_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By id, across gateways: for executors, which work for all of them."""
    return {row[0]: _read(row) for row in among(tx, f"SELECT {_COLUMNS} FROM catalogue WHERE id IN ({{}})", entry_ids)}


def deployments_of(tx: Transaction, gateway_id: str, module_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Deployments of these modules. Their name is `<module id>/<host id>`: one per module and host, found by prefix."""
    found = []
    for module_id in in_order(module_ids):
        query = f"SELECT {_COLUMNS} FROM catalogue WHERE gateway_id = %s AND kind = %s AND name LIKE %s AND deleted_at IS NULL ORDER BY name LIMIT 200"
        found += [_read(row) for row in tx.exec_driver_sql(query, (gateway_id, DEPLOYMENT, f"{module_id}/%")).all()]
    return found


def _read(row: Any) -> dict[str, Any]:
    return {"id": row[0], "name": row[1], **from_json(row[2]), "version": row[3], "created_at": row[4], "updated_at": row[5]}


def suspend(tx: Transaction, entry_id: str) -> None:
    """A compute resource whose host key changed: nothing is sent there until new keys are given. Its version stays: this is our doing, not an edit."""
    row = tx.exec_driver_sql("SELECT document FROM catalogue WHERE id = %s AND kind = %s FOR UPDATE", (entry_id, COMPUTE)).first()
    if row is not None:
        tx.exec_driver_sql("UPDATE catalogue SET document = %s WHERE id = %s", (to_json({**from_json(row[0]), "state": "SUSPENDED"}), entry_id))
