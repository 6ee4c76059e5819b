"""Hosts: who watches the jobs of one, who holds its connection slots, and which circuits are open."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from app.mysql.rows import among, from_json, in_order, insert_absent, marks
from app.mysql.unit_of_work import Transaction


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


def circuits(tx: Transaction) -> list[Any]:
    """(compute_resource_id, credential_id, condition_code, since, detail, host_version, seconds open)."""
    query = "SELECT compute_resource_id, credential_id, condition_code, since, detail, host_version, TIMESTAMPDIFF(SECOND, since, UTC_TIMESTAMP(6)) FROM host_circuits LIMIT 10000"
    return list(tx.exec_driver_sql(query).all())


def open_circuits(tx: Transaction, compute_resource_ids: Sequence[str]) -> dict[str, tuple[datetime, str]]:
    """Host → since when and why nothing is sent there (the first of its circuits)."""
    query = "SELECT compute_resource_id, since, detail FROM host_circuits WHERE compute_resource_id IN ({}) ORDER BY since DESC"
    return {row[0]: (row[1], row[2]) for row in among(tx, query, compute_resource_ids)}


# ---- connection budget --------------------------------------------------------------------------------------------------------------------------------
def ensure_slots(tx: Transaction, host: str, count: int) -> None:
    """Rows (host, 0 … count−1), for budgets first seen or raised. A lowered budget leaves the higher ones unclaimed."""
    known = {row[0] for row in tx.exec_driver_sql("SELECT n FROM host_slots WHERE host = %s", (host,)).all()}
    for n in (each for each in range(count) if each not in known):
        insert_absent(tx, "INSERT INTO host_slots (host, n, owner, until) VALUES (%s, %s, NULL, UTC_TIMESTAMP(6))", (host, n))


def claim_slot(tx: Transaction, host: str, *, count: int, owner: str, seconds: int) -> int | None:
    """One free slot of the host's budget, or None: the order waits."""
    row = tx.exec_driver_sql(
        "SELECT n FROM host_slots WHERE host = %s AND n < %s AND (owner IS NULL OR until < UTC_TIMESTAMP(6)) ORDER BY n LIMIT 1 FOR UPDATE", (host, count)
    ).first()
    if row is None:
        return None
    tx.exec_driver_sql("UPDATE host_slots SET owner = %s, until = UTC_TIMESTAMP(6) + INTERVAL %s SECOND WHERE host = %s AND n = %s", (owner, seconds, host, row[0]))
    return int(row[0])


def renew_slots(tx: Transaction, owner: str, *, seconds: int) -> None:
    """Every slot this instance holds, with its heartbeat."""
    tx.exec_driver_sql("UPDATE host_slots SET until = UTC_TIMESTAMP(6) + INTERVAL %s SECOND WHERE owner = %s", (seconds, owner))


def give_back_slot(tx: Transaction, host: str, n: int, owner: str) -> None:
    tx.exec_driver_sql("UPDATE host_slots SET owner = NULL WHERE host = %s AND n = %s AND owner = %s", (host, n, owner))


def give_back_all(tx: Transaction, owner: str) -> None:
    tx.exec_driver_sql("UPDATE host_slots SET owner = NULL WHERE owner = %s", (owner,))
