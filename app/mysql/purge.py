"""Retention (docs/api.md §1): what is deleted when, in bounded bites over an index each."""

from datetime import datetime, timedelta

from app.mysql.rows import marks
from app.mysql.unit_of_work import Transaction

BITE, EVENTS_BITE = 500, 2000
IDEMPOTENCY_DAYS, EVENT_DAYS, AUDIT_DAYS = 7, 90, 365


def bite(tx: Transaction, *, now: datetime) -> int:
    """One bite of each kind; returns how many rows went."""
    gone = 0
    for table, column, days in (("idempotency", "created_at", IDEMPOTENCY_DAYS), ("audit", "at", AUDIT_DAYS)):
        gone += tx.exec_driver_sql(f"DELETE FROM {table} WHERE {column} < %s ORDER BY {column} LIMIT %s", (now - timedelta(days=days), BITE)).rowcount
    return gone + _events(tx, now)


def _events(tx: Transaction, now: datetime) -> int:
    """The history of experiments that ended long ago, its beginning first; reading it then answers `events_expired`."""
    old = tx.exec_driver_sql(
        "SELECT e.id FROM experiments e WHERE e.finished_at < %s AND EXISTS (SELECT 1 FROM events v WHERE v.experiment_id = e.id) ORDER BY e.finished_at LIMIT 20",
        (now - timedelta(days=EVENT_DAYS),),
    ).all()
    ids = [row[0] for row in old]
    statement = f"DELETE FROM events WHERE experiment_id IN ({marks(ids)}) ORDER BY experiment_id, seq LIMIT %s"
    return tx.exec_driver_sql(statement, (*ids, EVENTS_BITE)).rowcount if ids else 0
