"""Small shared words of the statement modules: marks for IN lists, JSON columns."""

from collections.abc import Iterable, Sequence, Sized
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Connection, exc

from app.mysql import faults

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


Condition: TypeAlias = tuple[str, Sequence[object]]  # SQL with its values.


def marks(values: Sized) -> str:
    """`%s, %s, …` for an IN list. An empty list must not be asked for: the caller returns early."""
    return ", ".join(["%s"] * len(values))


def inserting(table: str, columns: str, updating: str = "") -> str:
    """INSERT of rows with these columns, values all bare, so that the driver sends many as one statement. `updating`: what changes where the row is there (this transaction holds its lock)."""
    changes = ", ".join(each if "=" in each else f"{each} = VALUES({each})" for each in updating.split(", ") if each)
    return f"INSERT INTO {table} ({columns}) VALUES ({marks(columns.split(', '))})" + (f" ON DUPLICATE KEY UPDATE {changes}" if changes else "")


def to_json(value: Any) -> str | None:
    return None if value is None else _encode(value).decode()


def from_json(text: str | bytes | None) -> Any:
    return None if text is None else _decode(text)


def in_order(values: Iterable[str]) -> list[str]:
    """Distinct and sorted: locks are taken by key within each table."""
    return sorted(set(values))


def among(tx: Connection, query: str, keys: Iterable[str], *more: object) -> Sequence[Any]:
    """Rows of a query whose `IN ({})` is these keys, and whose values after it are `more`. No keys, no question."""
    wanted = in_order(keys)
    return tx.exec_driver_sql(query.format(marks(wanted)), (*wanted, *more)).all() if wanted else ()


def page(tx: Connection, query: str, conditions: Iterable[Condition | None], *, order: str, limit: int) -> Sequence[Any]:
    """At most `limit` rows of a query that has no WHERE yet, in this order. None is no condition."""
    asked = [each for each in conditions if each is not None]
    clauses, values = [clause for clause, _ in asked], [value for _, some in asked for value in some]
    return tx.exec_driver_sql(f"{query} WHERE {' AND '.join(clauses) or '1 = 1'} ORDER BY {order} LIMIT %s", (*values, limit)).all()


def equal(column: str, value: object) -> Condition | None:
    return None if value is None else (f"{column} = %s", (value,))


def one_of(column: str, values: Sequence[object] | None) -> Condition | None:
    return None if values is None else (f"{column} IN ({marks(values)})", values)


def beyond(column: str, last: Sequence[Any] | None, sign: str = "<") -> Condition | None:
    """Behind the last row seen: (value of the column that sorts, id)."""
    return None if last is None else (f"({column} {sign} %s OR ({column} = %s AND id {sign} %s))", (last[0], last[0], last[1]))


def insert_absent(tx: Connection, statement: str, values: tuple[object, ...]) -> None:
    """INSERT of one row that a rival may insert at the same moment: theirs is as good. 1062 undoes this statement alone; the transaction goes on."""
    try:
        tx.exec_driver_sql(statement, values)
    except exc.IntegrityError as fault:
        if faults.number(fault) != faults.DUPLICATE:
            raise
