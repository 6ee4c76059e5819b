"""The outbox: messages that commit with the state they speak of. Insert and delete only; the relay (outbox_relay/) empties it.

Ids are names, never bounds: they become visible out of order.
"""

from collections.abc import Collection, Sequence
from typing import Any

from app.messages.codec import encode
from app.messages.envelope import Envelope, Record
from app.messages.placement import Placement
from app.mysql.rows import inserting, marks
from app.mysql.unit_of_work import Transaction, carries
from observability import tracing

_APPEND = inserting("outbox", "shard, part, mid, topic, k, headers, payload, created_at")
_WAITING = "SELECT id, mid, topic, part, k, headers, payload, created_at FROM outbox WHERE shard = %s AND part >= %s{} ORDER BY part, id LIMIT %s"


def append(tx: Transaction, messages: Sequence[Envelope], *, placement: Placement, now: Any) -> None:
    """Messages that this transaction sends, in order. One statement."""
    append_records(tx, [encode(each, at=now, step=tx.info["step"], version=tx.info["compatibility"]) for each in messages], placement=placement, now=now)


def append_records(tx: Transaction, records: Sequence[Record], *, placement: Placement, now: Any) -> None:
    """The same for what is bytes already: due timers, requeues, replays."""
    if records:
        rows = [(placement.shard(each.partition), each.partition, each.mid, each.topic, each.key, each.headers, each.payload, now) for each in records]
        tx.exec_driver_sql(_APPEND, rows)
        tx.info["shards"].update(row[0] for row in rows)  # Whom to nudge after COMMIT.
        tracing.note({"airavata.outbox.rows": len(records)})
        carries(tx, "out", ((each.mid, each.key) for each in records))


def waiting(tx: Transaction, *, shard: int, turn: int, size: int, without: Collection[int] = ()) -> Sequence[Any]:
    """A shard's rows, partition by partition, but those whose delete is under way. A plain read: Kafka's fencing keeps a second relay out, not a lock."""
    others = f" AND id NOT IN ({marks(without)})" if without else ""
    return tx.exec_driver_sql(_WAITING.format(others), (shard, turn, *without, size)).all()


def named(tx: Transaction, *, shard: int, mids: Collection[bytes]) -> Sequence[Any]:
    """(id, mid) of a shard's rows that carry these mids. Walks the shard: for the rare case that Kafka knows what we do not."""
    return tx.exec_driver_sql(f"SELECT id, mid FROM outbox WHERE shard = %s AND mid IN ({marks(mids)})", (shard, *mids)).all() if mids else ()


def delete(tx: Transaction, ids: Sequence[int], mids: Sequence[bytes]) -> int:
    """Exactly these rows, by name; both lists, because ids begin again when a table is made anew. Idempotent."""
    if not ids:
        return 0
    return tx.exec_driver_sql(f"DELETE FROM outbox WHERE id IN ({marks(ids)}) AND mid IN ({marks(mids)})", (*ids, *mids)).rowcount


def oldest(tx: Transaction) -> Any | None:
    """The oldest row's creation time, by one look-up of MIN(id)."""
    return tx.exec_driver_sql("SELECT id, created_at FROM outbox WHERE id = (SELECT MIN(id) FROM outbox)").first()


def count(tx: Transaction, shard: int, limit: int = 10_000) -> int:
    """Rows waiting in a shard; counting stops at `limit`."""
    return int(tx.exec_driver_sql("SELECT COUNT(*) FROM (SELECT 1 FROM outbox WHERE shard = %s LIMIT %s) AS some_rows", (shard, limit)).scalar_one())


def by_topic(tx: Transaction, *, limit: int) -> Sequence[Any]:
    """(topic, rows, oldest creation time) of at most `limit` rows, for the view of operators."""
    query = "SELECT topic, COUNT(*), MIN(created_at) FROM (SELECT topic, created_at FROM outbox LIMIT %s) AS some_rows GROUP BY topic ORDER BY topic"
    return tx.exec_driver_sql(query, (limit,)).all()
