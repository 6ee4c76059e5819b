"""Hosts: who watches the jobs of one, who holds its connection slots, and which circuits are open."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from app.mysql.rows import among, from_json, in_order, insert_absent, marks
from app.mysql.unit_of_work import Transaction

WAITING, WAITING_LAST = 32_000, 32_500  # These rows of a host are no slots: one tells who has none, the lower the longer.


def catalogued(tx: Transaction) -> list[tuple[str, Any]]:
    """(name, document) of the hosts of all gateways: for `airavata doctor`, nothing that runs asks this."""
    rows = tx.exec_driver_sql("SELECT name, document FROM catalogue WHERE kind = 'compute_resource' AND deleted_at IS NULL ORDER BY id LIMIT 1000").all()
    return [(row[0], from_json(row[1])) for row in rows]


def ensure_watch(tx: Transaction, compute_resource_ids: Iterable[str]) -> None:
    """Rows to claim, for hosts that have open jobs and none yet. A rival's insert of the same row is as good."""
    wanted = in_order(compute_resource_ids)
    known = {row[0] for row in among(tx, "SELECT compute_resource_id FROM host_watches WHERE compute_resource_id IN ({})", wanted)}
    for missing in (each for each in wanted if each not in known):
        insert_absent(tx, "INSERT INTO host_watches (compute_resource_id, owner, until) VALUES (%s, NULL, UTC_TIMESTAMP(6))", (missing,))


def claim_watches(tx: Transaction, compute_resource_ids: Iterable[str], *, owner: str, seconds: int) -> list[str]:
    """Take or renew: the hosts this instance watches until `seconds` from now. Adoption is nothing but this."""
    wanted = in_order(compute_resource_ids)
    if not wanted:
        return []
    tx.exec_driver_sql(
        f"UPDATE host_watches SET owner = %s, until = UTC_TIMESTAMP(6) + INTERVAL %s SECOND WHERE compute_resource_id IN ({marks(wanted)}) "
        "AND (owner IS NULL OR owner = %s OR until < UTC_TIMESTAMP(6))",
        (owner, seconds, *wanted, owner),
    )
    return [row[0] for row in among(tx, "SELECT compute_resource_id FROM host_watches WHERE compute_resource_id IN ({}) AND owner = %s", wanted, owner)]


def release_watches(tx: Transaction, owner: str) -> None:
    tx.exec_driver_sql("UPDATE host_watches SET owner = NULL WHERE owner = %s", (owner,))


def looked(tx: Transaction, compute_resource_id: str) -> None:
    tx.exec_driver_sql("UPDATE host_watches SET last_look_at = UTC_TIMESTAMP(6) WHERE compute_resource_id = %s", (compute_resource_id,))


# ---- circuits ---------------------------------------------------------------------------------------------------------------------------------------
def open_circuit(tx: Transaction, *, compute_resource_id: str, credential_id: str, condition: str, detail: str, host_version: int) -> None:
    """Nothing more is sent to this host with this credential, until a probe is due or the host is changed."""
    tx.exec_driver_sql(
        "INSERT INTO host_circuits (compute_resource_id, credential_id, condition_code, since, detail, host_version) VALUES (%s, %s, %s, UTC_TIMESTAMP(6), %s, %s) "
        "ON DUPLICATE KEY UPDATE condition_code = VALUES(condition_code), since = VALUES(since), detail = VALUES(detail), host_version = VALUES(host_version)",
        (compute_resource_id, credential_id, condition, detail[:512], host_version),
    )


def close_circuit(tx: Transaction, *, compute_resource_id: str, credential_id: str) -> None:
    tx.exec_driver_sql("DELETE FROM host_circuits WHERE compute_resource_id = %s AND credential_id = %s", (compute_resource_id, credential_id))


def probe(tx: Transaction, *, compute_resource_id: str, credential_id: str, seconds: int) -> bool:
    """Whether the circuit has been open for so long, and it is the caller who looks now whether it is mended: one, however many would."""
    return bool(tx.exec_driver_sql(
        "UPDATE host_circuits SET since = UTC_TIMESTAMP(6) WHERE compute_resource_id = %s AND credential_id = %s AND since <= UTC_TIMESTAMP(6) - INTERVAL %s SECOND",
        (compute_resource_id, credential_id, seconds),
    ).rowcount)  # fmt: skip


def circuits(tx: Transaction) -> list[Any]:
    """(compute_resource_id, credential_id, condition_code, since, detail, host_version, seconds open)."""
    query = "SELECT compute_resource_id, credential_id, condition_code, since, detail, host_version, TIMESTAMPDIFF(SECOND, since, UTC_TIMESTAMP(6)) FROM host_circuits LIMIT 10000"
    return list(tx.exec_driver_sql(query).all())


def open_circuits(tx: Transaction, compute_resource_ids: Sequence[str]) -> dict[str, tuple[datetime, str]]:
    """Host → since when and why nothing is sent there (the first of its circuits)."""
    query = "SELECT compute_resource_id, since, detail FROM host_circuits WHERE compute_resource_id IN ({}) ORDER BY since DESC"
    return {row[0]: (row[1], row[2]) for row in among(tx, query, compute_resource_ids)}


# ---- connection budget --------------------------------------------------------------------------------------------------------------------------------
def ensure_slots(tx: Transaction, host: str, count: int) -> tuple[int, str] | None:
    """Rows (host, 0 … count−1), for budgets first seen or raised. A lowered budget leaves the higher ones unclaimed. Who waits for one, and the row."""
    known = {row[0]: row[1] for row in tx.exec_driver_sql("SELECT n, IF(until > UTC_TIMESTAMP(6), owner, NULL) FROM host_slots WHERE host = %s", (host,)).all()}
    for n in (each for each in range(count) if each not in known):
        insert_absent(tx, "INSERT INTO host_slots (host, n, owner, until) VALUES (%s, %s, NULL, UTC_TIMESTAMP(6))", (host, n))
    return min(((n, owner) for n, owner in known.items() if n >= WAITING and owner), default=None)


def claim_slot(tx: Transaction, host: str, *, count: int, owner: str, seconds: int, lapsed: bool = True) -> int | None:
    """One free slot of the host's budget, or None: the order waits. `lapsed`: also one whose owner let its lease run out."""
    row = tx.exec_driver_sql(
        "SELECT n FROM host_slots WHERE host = %s AND n < %s AND (owner IS NULL OR (%s AND until < UTC_TIMESTAMP(6))) ORDER BY n LIMIT 1 FOR UPDATE", (host, count, lapsed)
    ).first()
    if row is None:
        return None
    tx.exec_driver_sql("UPDATE host_slots SET owner = %s, until = UTC_TIMESTAMP(6) + INTERVAL %s SECOND WHERE host = %s AND n = %s", (owner, seconds, host, row[0]))
    return int(row[0])


def wait_for_slot(tx: Transaction, host: str, owner: str, row: int) -> None:
    """Say for a second that this owner has no slot of the host: whoever has some gives one up, and it is for who has waited longest."""
    tx.exec_driver_sql(
        "INSERT INTO host_slots (host, n, owner, until) VALUES (%s, %s, %s, UTC_TIMESTAMP(6) + INTERVAL 1 SECOND) ON DUPLICATE KEY UPDATE owner = VALUES(owner), until = VALUES(until)",
        (host, row, owner),
    )


def wait_no_more(tx: Transaction, host: str, owner: str) -> None:
    tx.exec_driver_sql("UPDATE host_slots SET owner = NULL WHERE host = %s AND n >= %s AND owner = %s", (host, WAITING, owner))


def renew_slots(tx: Transaction, owner: str, among: Iterable[str], *, seconds: int) -> list[Any]:
    """Every slot this owner holds. Then who holds what of these hosts: (host, n, owner); from WAITING on, who waits."""
    tx.exec_driver_sql("UPDATE host_slots SET until = UTC_TIMESTAMP(6) + INTERVAL %s SECOND WHERE owner = %s AND n < %s", (seconds, owner, WAITING))
    wanted = in_order(among)
    query = f"SELECT host, n, owner FROM host_slots WHERE host IN ({marks(wanted)}) AND owner IS NOT NULL AND until > UTC_TIMESTAMP(6) ORDER BY host, n"
    return list(tx.exec_driver_sql(query, tuple(wanted)).all()) if wanted else []


def give_back_slot(tx: Transaction, host: str, n: int, owner: str) -> None:
    tx.exec_driver_sql("UPDATE host_slots SET owner = NULL WHERE host = %s AND n = %s AND owner = %s", (host, n, owner))


def give_back_all(tx: Transaction, owner: str) -> None:
    tx.exec_driver_sql("UPDATE host_slots SET owner = NULL WHERE owner = %s", (owner,))
