"""How to reach a host now: its address, the key that opens it, how many connections it allows, or why nothing may be sent to it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app import secrets
from app.errors import Misconfigured
from app.mysql import access, catalogue
from app.mysql.unit_of_work import Transaction
from components.task_executors.remote_host import HostAddress

REMEMBERED_SECONDS = 2.0
_ENABLED = frozenset({"ENABLED", "DRAINING"})


@dataclass(frozen=True)
class Way:
    """How to reach a host now; `blocked`: why not (condition, sentence)."""

    address: HostAddress | None
    compute_resource_id: str
    credential_id: str
    version: int
    connections: int
    blocked: tuple[str, str] | None = None

    @property
    def slot(self) -> str:
        return self.address.slot if self.address else ""


class Ways:
    """Looks ways up: the host as it is in the catalogue *now* (its keys may have been renewed), the credential opened with the master key."""

    def __init__(self, master_key: bytes) -> None:
        self.master_key = master_key
        self.remembered: dict[str, tuple[float, Way]] = {}

    def find(self, tx: Transaction, compute_resource_id: str, credential_id: str | None, login: str | None) -> Way:
        key = f"{compute_resource_id}/{credential_id}"
        found = self.remembered.get(key)
        if found is None or found[0] < time.monotonic():
            found = self.remembered[key] = (time.monotonic() + REMEMBERED_SECONDS, self._look(tx, compute_resource_id, credential_id, login))
        return found[1]

    def _look(self, tx: Transaction, compute_resource_id: str, credential_id: str | None, login: str | None) -> Way:
        host = catalogue.many(tx, [compute_resource_id]).get(compute_resource_id)
        if host is None:
            return Way(None, compute_resource_id, credential_id or "", 0, 0, ("HOST_DISABLED", "The compute resource is not there any more."))
        used = host["access"]["credential_id"] or credential_id or ""

        def blocked(condition: str, text: str) -> Way:
            return Way(None, compute_resource_id, used, host["version"], 0, (condition, text))

        if host["state"] == "SUSPENDED":
            return blocked("HOST_KEY_CHANGED", f"{host['name']} is suspended because its host key changed: give its new host_keys after checking them.")
        if host["state"] not in _ENABLED:
            return blocked("HOST_DISABLED", f"{host['name']} is {host['state']}.")
        sealed = access.sealed(tx, used)
        if sealed is None:
            return blocked("AUTH_REQUIRED", f"The credential for {host['name']} is gone: give the host another one.")
        try:
            key = secrets.open_sealed(sealed[1], master=self.master_key, gateway_id=sealed[0], credential_id=used)
        except Misconfigured as fault:
            return blocked("AUTH_REQUIRED", str(fault))
        address = HostAddress(host["host"], host["port"], host["access"]["login"] or login or "", tuple(host["host_keys"]), key)
        return Way(address, compute_resource_id, used, host["version"], host["limits"]["connections"])

    def storages(self, tx: Transaction, described: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Mapping[str, Any], bytes | None]]:
        """Storage id → its description and its opened secret, for a worker."""
        found = {}
        for storage_id, each in described.items():
            sealed = access.sealed(tx, each["credential_id"]) if each.get("credential_id") else None
            secret = secrets.open_sealed(sealed[1], master=self.master_key, gateway_id=sealed[0], credential_id=each["credential_id"]) if sealed else None
            found[storage_id] = (each, secret)
        return found
