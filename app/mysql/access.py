"""Gateways, tokens and credentials: who may come in, and what is kept sealed for them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from app.mysql import catalogue, faults
from app.mysql.rows import beyond, equal, from_json, inserting, page, to_json
from app.mysql.unit_of_work import Transaction

TOKEN = "id, gateway_id, lookup, digest, key_id, name, user, role, scopes, expires_at, revoked_at, created_at"
GATEWAY = "id, name, state, document, version, created_at, updated_at"
CREDENTIAL = "id, gateway_id, owner, name, kind, public_key, fingerprint, expires_at, last_used_at, version, created_at"
_TOKEN = inserting("tokens", "id, gateway_id, lookup, digest, key_id, name, user, role, expires_at, created_at, scopes")
_CREDENTIAL = inserting("credentials", "id, gateway_id, owner, name, kind, public_key, fingerprint, sealed, expires_at, created_at, version")
SCOPES = (
    "experiments:read", "experiments:write", "catalogue:read", "catalogue:write", "credentials:write", "webhooks:write", "gateway:admin", "operator:read", "operator:write",
    "internal:events",
)  # fmt: skip
ROLES: Mapping[str, tuple[str, ...]] = {
    "user": ("experiments:read", "experiments:write", "catalogue:read", "credentials:write"),
    "gateway-admin": ("experiments:read", "experiments:write", "catalogue:read", "catalogue:write", "credentials:write", "webhooks:write", "gateway:admin"),
    "operator": ("operator:read", "operator:write", "gateway:admin"),
    "service": ("internal:events",),
}


# ---- tokens -------------------------------------------------------------------------------------------------------------------------------------------
def create_token(tx: Transaction, row: Mapping[str, Any]) -> None:
    """`row`: id, gateway_id, lookup, digest, key_id, name, user, role, scopes (sequence), expires_at, now."""
    given = [row[each] for each in ("id", "gateway_id", "lookup", "digest", "key_id", "name", "user", "role", "expires_at", "now")]
    tx.exec_driver_sql(_TOKEN, (*given, " ".join(row["scopes"])))


def find_token(tx: Transaction, lookup: str) -> Any | None:
    """With MySQL's time as last column."""
    return tx.exec_driver_sql(f"SELECT {TOKEN}, UTC_TIMESTAMP(6) FROM tokens WHERE lookup = %s", (lookup,)).first()


def get_token(tx: Transaction, gateway_id: str | None, token_id: str) -> Any | None:
    """Of this gateway; of operators and services where it is None."""
    if not token_id.isascii():  # MySQL raises for what an ASCII column cannot hold; here and below.
        return None
    return tx.exec_driver_sql(f"SELECT {TOKEN} FROM tokens WHERE id = %s AND gateway_id <=> %s", (token_id, gateway_id)).first()


def tokens_page(tx: Transaction, gateway_id: str | None, *, before: Sequence[Any] | None, limit: int) -> list[Any]:
    older = ("id < %s", before) if before else None
    return list(page(tx, f"SELECT {TOKEN} FROM tokens", [("gateway_id <=> %s", [gateway_id]), older], order="id DESC", limit=limit))


def revoke_token(tx: Transaction, token_id: str) -> None:
    tx.exec_driver_sql("UPDATE tokens SET revoked_at = COALESCE(revoked_at, UTC_TIMESTAMP(6)) WHERE id = %s", (token_id,))


def prolong_token(tx: Transaction, token_id: str, *, expires_at: datetime) -> None:
    tx.exec_driver_sql("UPDATE tokens SET expires_at = %s WHERE id = %s", (expires_at, token_id))


# ---- gateways -----------------------------------------------------------------------------------------------------------------------------------------
def create_gateway(tx: Transaction, gateway_id: str, name: str, document: Mapping[str, Any], *, project_id: str, now: datetime) -> None:
    """With its project `default`, which every gateway starts with. Raises NameTaken."""
    with faults.unique_name():
        tx.exec_driver_sql(inserting("gateways", GATEWAY), (gateway_id, name, "ACTIVE", to_json(dict(document)), 1, now, now))
    catalogue.insert(tx, gateway_id=gateway_id, kind=catalogue.PROJECT, entry_id=project_id, name="default", document={"name": "default", "description": ""}, now=now)


def gateway(tx: Transaction, gateway_id: str, *, lock: bool = False) -> dict[str, Any] | None:
    if not gateway_id.isascii():
        return None
    row = tx.exec_driver_sql(f"SELECT {GATEWAY} FROM gateways WHERE id = %s{' FOR UPDATE' if lock else ''}", (gateway_id,)).first()
    return None if row is None else _gateway(row)


def gateways_page(tx: Transaction, *, name: str | None, only: str | None, before: Sequence[Any] | None, limit: int) -> list[dict[str, Any]]:
    older = ("id < %s", before) if before else None
    return [_gateway(row) for row in page(tx, f"SELECT {GATEWAY} FROM gateways", [equal("name", name), equal("id", only), older], order="id DESC", limit=limit)]


def change_gateway(tx: Transaction, gateway_id: str, *, name: str, state: str, document: Mapping[str, Any], now: datetime) -> None:
    """Raises NameTaken."""
    statement = "UPDATE gateways SET name = %s, state = %s, document = %s, version = version + 1, updated_at = %s WHERE id = %s"
    with faults.unique_name():
        tx.exec_driver_sql(statement, (name, state, to_json(dict(document)), now, gateway_id))


def _gateway(row: Any) -> dict[str, Any]:
    return {"id": row[0], "name": row[1], "state": row[2], **from_json(row[3]), "version": row[4], "created_at": row[5], "updated_at": row[6]}


# ---- credentials --------------------------------------------------------------------------------------------------------------------------------------
def create_credential(tx: Transaction, row: Mapping[str, Any]) -> None:
    """`row`: id, gateway_id, owner, name, kind, public_key, fingerprint, sealed, expires_at, now. Raises NameTaken."""
    given = [row[each] for each in ("id", "gateway_id", "owner", "name", "kind", "public_key", "fingerprint", "sealed", "expires_at", "now")]
    with faults.unique_name():
        tx.exec_driver_sql(_CREDENTIAL, (*given, 1))


def credential(tx: Transaction, gateway_id: str, credential_id: str, *, owner: str | None = None) -> dict[str, Any] | None:
    """Without its secret. `owner`: only if it is theirs."""
    if not credential_id.isascii():
        return None
    row = tx.exec_driver_sql(f"SELECT {CREDENTIAL} FROM credentials WHERE id = %s AND gateway_id = %s AND deleted_at IS NULL AND (%s IS NULL OR owner = %s)", (credential_id, gateway_id, owner, owner)).first()
    return None if row is None else dict(row._mapping)


def credentials_page(tx: Transaction, gateway_id: str, *, owner: str | None, name: str | None, before: Sequence[Any] | None, limit: int) -> list[dict[str, Any]]:
    asked = [("gateway_id = %s AND deleted_at IS NULL", [gateway_id]), equal("owner", owner), equal("name", name), beyond("created_at", before)]
    return [dict(row._mapping) for row in page(tx, f"SELECT {CREDENTIAL} FROM credentials", asked, order="created_at DESC, id DESC", limit=limit)]


def sealed(tx: Transaction, credential_id: str) -> tuple[str, bytes, datetime | None] | None:
    """(gateway, sealed secret, expiry), for those who may open it."""
    row = tx.exec_driver_sql("SELECT gateway_id, sealed, expires_at FROM credentials WHERE id = %s AND deleted_at IS NULL", (credential_id,)).first()
    return None if row is None else (row[0], row[1], row[2])


def used(tx: Transaction, credential_id: str) -> None:
    tx.exec_driver_sql("UPDATE credentials SET last_used_at = UTC_TIMESTAMP(6) WHERE id = %s AND (last_used_at IS NULL OR last_used_at < UTC_TIMESTAMP(6) - INTERVAL 1 MINUTE)", (credential_id,))


def remove_credential(tx: Transaction, credential_id: str) -> None:
    """Hidden, and its secret gone. The name is free again."""
    tx.exec_driver_sql("UPDATE credentials SET deleted_at = UTC_TIMESTAMP(6), sealed = '', name = id, version = version + 1 WHERE id = %s", (credential_id,))
