"""Instances: a row with a heartbeat each second, the lease of every attempt an instance runs (MySQL's clock)."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from app.mysql.rows import among, to_json
from app.mysql.unit_of_work import Transaction

_BEAT = """INSERT INTO instances (id, component, version, started_at, heartbeat_at, document) VALUES (%s, %s, %s, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), %s)
ON DUPLICATE KEY UPDATE heartbeat_at = UTC_TIMESTAMP(6), document = VALUES(document)"""


def beat(tx: Transaction, instance: str, *, component: str, version: str, facts: dict[str, Any]) -> None:
    """Alive. `facts`: what operators see of it (assigned partitions, lag, capacity)."""
    tx.exec_driver_sql(_BEAT, (instance, component, version, to_json(facts)))


def heartbeats(tx: Transaction, some: Iterable[str]) -> dict[str, datetime]:
    """The last one of each that has a row."""
    return {row[0]: row[1] for row in among(tx, "SELECT id, heartbeat_at FROM instances WHERE id IN ({})", some)}


def remove(tx: Transaction, instance: str) -> None:
    """Leaving: everything it still held is free at once."""
    tx.exec_driver_sql("DELETE FROM instances WHERE id = %s", (instance,))


def all_rows(tx: Transaction) -> list[Any]:
    """(id, component, version, started_at, heartbeat_at, document, now)."""
    return list(tx.exec_driver_sql("SELECT id, component, version, started_at, heartbeat_at, document, UTC_TIMESTAMP(6) FROM instances ORDER BY component, id LIMIT 1000").all())


def purge(tx: Transaction, *, before: datetime, limit: int) -> int:
    """Rows of instances long dead that own nothing."""
    return tx.exec_driver_sql(
        "DELETE FROM instances WHERE heartbeat_at < %s AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.owner = instances.id) ORDER BY heartbeat_at LIMIT %s", (before, limit)
    ).rowcount
