"""Timers: messages that become due. Due rows move to the outbox in one transaction, whoever moves them."""

from collections.abc import Sequence

from app.messages.codec import encode
from app.messages.envelope import Record
from app.mysql.rows import inserting, marks
from app.mysql.unit_of_work import Transaction, carries
from app.workflow.decision import Timer

_INSERT = inserting("timers", "due_at, mid, process_id, topic, part, k, headers, payload")


def append(tx: Transaction, timers: Sequence[Timer]) -> None:
    """One statement."""
    if timers:
        rows = []
        for each in timers:
            record = encode(each.message, at=each.due_at, step=tx.info["step"], version=tx.info["compatibility"])
            rows.append((each.due_at, record.mid, each.message.subject.process, record.topic, record.partition, record.key, record.headers, record.payload))
        tx.exec_driver_sql(_INSERT, rows)
        carries(tx, "timers", ((each.message.mid, each.message.key) for each in timers))


def take_due(tx: Transaction, *, limit: int) -> list[Record]:
    """Locks and deletes what is due; the caller puts it into the outbox. A rival that locked first leaves nothing to take."""
    rows = tx.exec_driver_sql(
        "SELECT id, mid, topic, part, k, headers, payload FROM timers WHERE due_at <= UTC_TIMESTAMP(6) ORDER BY due_at, id LIMIT %s FOR UPDATE SKIP LOCKED", (limit,)
    ).all()
    if rows:
        tx.exec_driver_sql(f"DELETE FROM timers WHERE id IN ({marks(rows)})", tuple(row[0] for row in rows))
    return [Record(row[1], row[2], row[3], row[4], row[5], row[6]) for row in rows]
