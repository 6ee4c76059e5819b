"""Dead letters: what was set aside for a human, with all that is needed to replay it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.mysql import rows
from app.mysql.rows import equal, insert_absent, inserting
from app.mysql.unit_of_work import Transaction

_SET_ASIDE = "id, consumer_group, topic, part, log_offset, mid, k, headers, payload, experiment_id, error_class, error_text, tries, first_seen, created_at"
COLUMNS = f"{_SET_ASIDE}, settled, settled_at, settled_by, settled_reason"
HEADERS_BYTES_MAX = 65_535
NO_HEADERS = b"\x90"  # An empty list, as the codec packs it.


@dataclass(frozen=True)
class DeadLetter:
    """A message as bytes, by which group it was set aside and why."""

    id: str
    group: str
    topic: str
    partition: int
    offset: int | None
    mid: bytes
    key: str
    headers: bytes
    payload: bytes
    experiment_id: str | None
    error_class: str
    error_text: str
    tries: int
    first_seen: datetime


def set_aside(tx: Transaction, letters: list[DeadLetter], *, now: datetime) -> None:
    """Idempotent by id (derived from group and mid): a letter that is there stays as it is. Of a stranger's record, what our columns cannot hold is cut off."""
    for each in letters:
        key = each.key.encode("ascii", "replace").decode()[:80]
        headers = each.headers if len(each.headers) <= HEADERS_BYTES_MAX else NO_HEADERS
        row = (
            each.id, each.group, each.topic, each.partition, each.offset, each.mid, key, headers, each.payload, each.experiment_id, each.error_class[:64], each.error_text[:2000],
            each.tries, each.first_seen, now,
        )  # fmt: skip
        insert_absent(tx, inserting("dead_letters", _SET_ASIDE), row)


def get(tx: Transaction, letter_id: str, *, lock: bool = False) -> Any | None:
    return tx.exec_driver_sql(f"SELECT {COLUMNS} FROM dead_letters WHERE id = %s{' FOR UPDATE' if lock else ''}", (letter_id,)).first()


def settle(tx: Transaction, letter_id: str, *, how: str, by: str, reason: str, now: datetime) -> None:
    """REPLAYED or DROPPED, of a locked row."""
    tx.exec_driver_sql("UPDATE dead_letters SET settled = %s, settled_at = %s, settled_by = %s, settled_reason = %s WHERE id = %s", (how, now, by, reason, letter_id))


def page(
    tx: Transaction, *, topic: str | None, error_class: str | None, experiment_id: str | None, settled: str, before: tuple[datetime, str] | None, limit: int
) -> list[Any]:
    """Newest first; `settled` is `no` for open ones, else how. `before`: (created_at, id) of the last one seen."""
    asked = [
        ("settled IS NULL", ()) if settled == "no" else equal("settled", settled),
        equal("topic", topic), equal("error_class", error_class), equal("experiment_id", experiment_id), rows.beyond("created_at", before),
    ]  # fmt: skip
    return list(rows.page(tx, f"SELECT {COLUMNS} FROM dead_letters", asked, order="created_at DESC, id DESC", limit=limit))
