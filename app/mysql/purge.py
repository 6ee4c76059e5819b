"""Retention (docs/api.md §1): what is deleted when, in bounded bites over an index each."""

from datetime import datetime, timedelta
from typing import TypeAlias

from app.mysql.rows import marks
from app.mysql.unit_of_work import Transaction

BITE, EVENTS_BITE, RUNS = 500, 2000, 100
IDEMPOTENCY_DAYS, EVENT_DAYS, AUDIT_DAYS = 7, 90, 365
Place: TypeAlias = tuple[datetime, str]  # Behind which experiments are looked at: when one ended, and its id.
FIRST: Place = (datetime(1970, 1, 1), "")


def bite(tx: Transaction, after: Place, *, now: datetime) -> tuple[int, Place]:
    """One bite of each kind; returns how much was done (0: nothing is left) and where to go on. Who begins at FIRST once walks past every run that ended long ago, and then past none twice."""
    gone = 0
    for table, column, days in (("idempotency", "created_at", IDEMPOTENCY_DAYS), ("audit", "at", AUDIT_DAYS)):
        gone += tx.exec_driver_sql(f"DELETE FROM {table} WHERE {column} < %s ORDER BY {column} LIMIT %s", (now - timedelta(days=days), BITE)).rowcount
    many, after = _events(tx, after, now)
    return gone + many, after


def _events(tx: Transaction, after: Place, now: datetime) -> tuple[int, Place]:
    """The history of experiments that ended long ago, its beginning first; reading it then answers `events_expired`."""
    statement = "SELECT finished_at, id FROM experiments WHERE finished_at >= %s AND finished_at < %s AND (finished_at > %s OR id > %s) ORDER BY finished_at, id LIMIT %s"
    old = tx.exec_driver_sql(statement, (after[0], now - timedelta(days=EVENT_DAYS), *after, RUNS)).all()
    if not old:
        return 0, after
    gone = tx.exec_driver_sql(f"DELETE FROM events WHERE experiment_id IN ({marks(old)}) ORDER BY experiment_id, seq LIMIT %s", (*(row[1] for row in old), EVENTS_BITE)).rowcount
    return gone + len(old), after if gone == EVENTS_BITE else (old[-1][0], old[-1][1])
