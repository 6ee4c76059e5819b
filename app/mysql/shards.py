"""Relay shards: the lease (2 s, MySQL's clock) that prevents churn, and `settled`, the relay's memory of how far Kafka's memory must reach."""

from typing import Any

from app.mysql.rows import insert_absent
from app.mysql.unit_of_work import Transaction


def ensure(tx: Transaction, count: int) -> None:
    """Rows 0 … count − 1; several relays may start at once."""
    there = {row[0] for row in tx.exec_driver_sql("SELECT shard FROM relay_shards").all()}
    for shard in (each for each in range(count) if each not in there):
        insert_absent(tx, "INSERT INTO relay_shards (shard, settled) VALUES (%s, 0)", (shard,))


def lease(tx: Transaction, shard: int, *, owner: str, seconds: int) -> bool:
    """R0: take or renew. False: somebody else holds it."""
    return tx.exec_driver_sql(
        "UPDATE relay_shards SET owner = %s, until = UTC_TIMESTAMP(6) + INTERVAL %s SECOND WHERE shard = %s AND (owner IS NULL OR owner = %s OR until IS NULL OR until <= UTC_TIMESTAMP(6))",
        (owner, seconds, shard, owner),
    ).rowcount == 1


def settled(tx: Transaction, shard: int) -> int:
    """Of a shard whose row this transaction has locked."""
    return int(tx.exec_driver_sql("SELECT settled FROM relay_shards WHERE shard = %s", (shard,)).scalar_one())


def give_up(tx: Transaction, shard: int, *, owner: str) -> bool:  # Whether it was.
    return tx.exec_driver_sql("UPDATE relay_shards SET owner = NULL, until = NULL WHERE shard = %s AND owner = %s", (shard, owner)).rowcount == 1


def settle(tx: Transaction, shard: int, seq: int) -> None:
    """The rows that record `seq` names are deleted."""
    tx.exec_driver_sql("UPDATE relay_shards SET settled = GREATEST(settled, %s) WHERE shard = %s", (seq, shard))


def all_rows(tx: Transaction) -> list[Any]:
    """(shard, owner, until, settled, now)."""
    return list(tx.exec_driver_sql("SELECT shard, owner, until, settled, UTC_TIMESTAMP(6) FROM relay_shards ORDER BY shard").all())


def reset(tx: Transaction, shard: int, seq: int) -> bool:
    """An operator's verdict after Kafka lost memory: what it remembers now is what counts. False while a relay holds the lease."""
    return tx.exec_driver_sql("UPDATE relay_shards SET settled = %s WHERE shard = %s AND (until IS NULL OR until < UTC_TIMESTAMP(6))", (seq, shard)).rowcount == 1
