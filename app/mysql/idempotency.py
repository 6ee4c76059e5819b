"""Idempotency rows: written in the transaction of the effect, so there is no gap between "done" and "remembered"."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import exc

from app.errors import AiravataError
from app.mysql import faults
from app.mysql.rows import from_json, to_json
from app.mysql.unit_of_work import Transaction


class InFlight(AiravataError):
    """The first request with this key still holds its row."""


@dataclass(frozen=True)
class Stored:
    fingerprint: bytes
    status: int
    headers: Mapping[str, str]
    body: Any


def begin(tx: Transaction, scope: bytes, fingerprint: bytes) -> Stored | None:
    """Takes the scope for this transaction, or returns what is remembered. Waits for a rival as long as a lock wait lasts, then raises InFlight."""
    try:
        tx.exec_driver_sql("INSERT INTO idempotency (scope, fingerprint, created_at) VALUES (%s, %s, UTC_TIMESTAMP(6))", (scope, fingerprint))
    except exc.DBAPIError as fault:
        if faults.number(fault) == 1205:
            raise InFlight("lock wait") from fault
        if faults.number(fault) != faults.DUPLICATE:
            raise
        stored = find(tx, scope, lock="")
        if stored is None:
            raise InFlight("not yet remembered") from fault
        return stored
    return None


def find(tx: Transaction, scope: bytes, *, lock: str = " FOR UPDATE") -> Stored | None:
    """A locking read: it waits for a session that may still be committing."""
    row = tx.exec_driver_sql(f"SELECT fingerprint, status, headers, body FROM idempotency WHERE scope = %s{lock}", (scope,)).first()
    return None if row is None or row[1] is None else Stored(row[0], row[1], from_json(row[2]), from_json(row[3]))


def remember(tx: Transaction, scope: bytes, *, status: int, headers: Mapping[str, str], body: Any) -> None:
    tx.exec_driver_sql("UPDATE idempotency SET status = %s, headers = %s, body = %s WHERE scope = %s", (status, to_json(dict(headers)), to_json(body), scope))
