"""Tokens as the server sees them: found by their look-up part, compared in constant time, remembered 5 s; so a revocation holds everywhere within 5 s."""

import time

from app import secrets
from app.api.operations import Principal
from app.mysql import access
from app.mysql.unit_of_work import Transaction, UnitOfWork

REMEMBERED_SECONDS = 5.0
REMEMBERED_MAX = 10_000


class Tokens:
    def __init__(self, unit_of_work: UnitOfWork, key: bytes) -> None:
        self.unit_of_work, self.key = unit_of_work, key
        self.remembered: dict[bytes, tuple[float, Principal]] = {}
        self.active: dict[str, float] = {}

    def cached(self, authorization: str) -> Principal | None:
        found = self.remembered.get(secrets.token_digest(authorization, self.key))
        return found[1] if found is not None and found[0] > time.monotonic() else None

    def find(self, authorization: str) -> Principal | None:
        """None for whatever is wrong with it: one answer for missing, unknown, expired and revoked."""
        scheme, _, token = authorization.partition(" ")
        lookup = secrets.lookup_of(token.strip()) if scheme.lower() == "bearer" else None
        if lookup is None:
            return None
        with self.unit_of_work("api.token.read") as tx:
            row = access.find_token(tx, lookup)
        if row is None or not secrets.same(row.digest, secrets.token_digest(token.strip(), self.key)) or row.revoked_at is not None or row.expires_at <= row[-1]:
            return None
        principal = Principal(row.id, row.gateway_id, row.user, row.role, frozenset(row.scopes.split()), row.expires_at)
        if len(self.remembered) > REMEMBERED_MAX:
            self.remembered.clear()
        left = (row.expires_at - row[-1]).total_seconds()
        self.remembered[secrets.token_digest(authorization, self.key)] = (time.monotonic() + min(REMEMBERED_SECONDS, left), principal)
        return principal

    def inactive(self, tx: Transaction, gateway_id: str) -> bool:
        """Whether the gateway is deactivated; an active one is remembered 5 s."""
        if self.active.get(gateway_id, 0.0) > time.monotonic():
            return False
        found = access.gateway(tx, gateway_id)
        if found is None or found["state"] != "ACTIVE":
            return True
        self.active[gateway_id] = time.monotonic() + REMEMBERED_SECONDS
        return False
