"""Positions: the only authority on what has been consumed. Rows are made by `airavata admin topics --apply`; a missing row means refuse."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from app.mysql.rows import inserting, marks
from app.mysql.unit_of_work import Transaction, tell

Partition: TypeAlias = tuple[str, int]  # (full topic name, partition number)


@dataclass(frozen=True, slots=True)
class Position:
    topic_uuid: str
    next_offset: int
    owner: str | None
    owner_epoch: int


@dataclass(frozen=True)
class Locked:
    """Positions under lock, and the time the lock was got: `now` of every decision in this transaction."""

    rows: Mapping[Partition, Position]
    now: datetime


_COLUMNS = "consumer_group, topic, part, topic_uuid, next_offset, owner_epoch"
_ADVANCE = inserting("positions", _COLUMNS, updating="next_offset")


def lock(tx: Transaction, group: str, partitions: Iterable[Partition]) -> Locked:
    """FOR UPDATE by key, with MySQL's clock in the same statement."""
    where, values = _these(group, partitions)
    query = f"SELECT topic, part, topic_uuid, next_offset, owner, owner_epoch, UTC_TIMESTAMP(6) FROM positions WHERE {where} ORDER BY consumer_group, topic, part FOR UPDATE"
    rows = tx.exec_driver_sql(query, values).all()
    found = {(row[0], row[1]): Position(row[2], row[3], row[4], row[5]) for row in rows}
    return Locked(found, rows[0][6] if rows else tx.exec_driver_sql("SELECT UTC_TIMESTAMP(6)").scalar_one())


def claim(tx: Transaction, group: str, partitions: Iterable[Partition], *, owner: str) -> dict[Partition, Position]:
    """C0: a new owner epoch for each row that exists; what is missing from the answer has no row."""
    wanted = sorted(set(partitions))
    if not wanted:
        return {}
    found = lock(tx, group, wanted).rows
    tell(tx, group=group)
    where, values = _these(group, wanted)
    tx.exec_driver_sql(f"UPDATE positions SET owner = %s, owner_epoch = owner_epoch + 1 WHERE {where}", (owner, *values))
    return {key: Position(row.topic_uuid, row.next_offset, row.owner, row.owner_epoch + 1) for key, row in found.items()}  # `owner`: whose it was.


def advance(tx: Transaction, group: str, ends: Mapping[Partition, int], locked: Locked) -> None:
    """Rows this transaction has locked. One statement."""
    if ends:
        tell(tx, group=group, ranges=((*place, locked.rows[place].next_offset, end - 1, locked.rows[place].owner_epoch) for place, end in ends.items()))
        tx.exec_driver_sql(_ADVANCE, [(group, topic, part, "", offset, 0) for (topic, part), offset in sorted(ends.items())])


def create(tx: Transaction, rows: Sequence[tuple[str, str, int, str, int]]) -> int:
    """(group, topic, partition, topic uuid, next offset) rows that are not there yet; returns how many were made."""
    there = {(row[0], row[1], row[2]) for row in tx.exec_driver_sql("SELECT consumer_group, topic, part FROM positions").all()}
    new = [row for row in rows if row[:3] not in there]
    if new:
        tx.exec_driver_sql(inserting("positions", _COLUMNS), [(*row, 0) for row in new])
    return len(new)


def all_rows(tx: Transaction) -> list[tuple[str, str, int, Position]]:
    """Every row, for operators and `admin topics`."""
    rows = tx.exec_driver_sql("SELECT consumer_group, topic, part, topic_uuid, next_offset, owner, owner_epoch FROM positions ORDER BY consumer_group, topic, part").all()
    return [(row[0], row[1], row[2], Position(row[3], row[4], row[5], row[6])) for row in rows]


def _these(group: str, partitions: Iterable[Partition]) -> tuple[str, tuple[object, ...]]:
    """A condition over the primary key. One list per topic: MariaDB does not use an index for lists of pairs."""
    by_topic: dict[str, list[int]] = {}
    for topic, part in sorted(set(partitions)):
        by_topic.setdefault(topic, []).append(part)
    some = " OR ".join(f"(consumer_group = %s AND topic = %s AND part IN ({marks(parts)}))" for parts in by_topic.values())
    return f"({some})", tuple(value for topic, parts in by_topic.items() for value in (group, topic, *parts))
