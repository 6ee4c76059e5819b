"""What the sweeper looks for: processes with work left that nothing will push on."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.mysql.rows import marks
from app.mysql.unit_of_work import Transaction


@dataclass(frozen=True)
class Stuck:
    """A process that stands still; with the waiting task to push (no task: the process itself was never started)."""

    process_id: str
    experiment_id: str
    gateway_id: str
    part: int
    trace_context: str
    task_id: str = ""
    task_type: str = ""
    attempt: int = 0
    epoch: int = 0


def stuck(tx: Transaction, *, partitions: Sequence[int], after_seconds: int, limit: int) -> list[Stuck]:
    """Unchanged for long, no open attempt, no timer, no message of their partition waiting in the outbox."""
    shards = tx.exec_driver_sql("SELECT COUNT(*) FROM relay_shards").scalar_one()  # MariaDB cannot ask this inside the NOT EXISTS (1235).
    rows = tx.exec_driver_sql(
        "SELECT p.id, p.experiment_id, p.gateway_id, p.part, p.trace_context, t.id, t.type, t.attempt, t.epoch FROM processes p "
        "LEFT JOIN tasks t ON t.process_id = p.id AND t.state IN ('RETRY_WAIT', 'BLOCKED', 'IN_DOUBT') "
        f"WHERE p.state IN ('VALIDATED', 'STARTED') AND p.updated_at < UTC_TIMESTAMP(6) - INTERVAL %s SECOND AND p.part IN ({marks(partitions)}) "
        "AND (p.state = 'VALIDATED' OR t.id IS NOT NULL) "
        "AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.process_id = p.id AND a.state IN ('DISPATCHED', 'RUNNING')) "
        "AND NOT EXISTS (SELECT 1 FROM timers m WHERE m.process_id = p.id) "
        "AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.shard = MOD(p.part, %s) AND o.part = p.part) "
        "ORDER BY p.state, p.updated_at LIMIT %s",
        (after_seconds, *partitions, shards, limit),
    ).all()
    return [Stuck(*row[:5], *(row[5:] if row[5] else ())) for row in rows]
