"""The gateways of a run, and what must be found nowhere but where it belongs (canaries.json, tests/checker/formats.py): each tenant's canary (P19) and the run's own secrets (P20).

Two tenants: `lab` has the hosts, its `neighbour` is let in by the operator over the API and launches what needs none. All secrets are made for the run and end with its servers.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app import secrets
from tests.chaos.client import Client
from tests.chaos.workload import NEIGHBOUR

Document = dict[str, Any]
GIVEN_IN = ("internal-token", "master-key", "token-key")  # Files of the system's directory; the checker does not search them.
SHAPE_INPUTS = [{"name": "edges", "type": "STRING", "required": True}, {"name": "behaviour", "type": "STRING"}, {"name": "note", "type": "STRING"}]
SEALED = "SELECT id, gateway_id, kind, sealed FROM credentials WHERE deleted_at IS NULL"


@dataclass(frozen=True)
class Tenant:
    """`shape`: its interface of the planner of that name. `canary`: stands in the name, the labels and, where the interface has a `note`, the inputs of all it launches."""

    client: Client
    shape: str
    canary: str

    def marked(self, body: Mapping[str, Any]) -> Document:
        """The body of a launch, with the canary."""
        inputs = {**body["inputs"], "note": self.canary} if body["application_interface_id"] == self.shape else body["inputs"]
        return {**body, "name": f"{body['name']} {self.canary}", "labels": {"canary": self.canary}, "inputs": inputs}


def tenant(client: Client) -> Tenant:
    shape = client.post("/application-interfaces", {"name": client.a_name("shape"), "planner": "shape", "inputs": SHAPE_INPUTS})["id"]
    return Tenant(client, str(shape), f"canary-{os.urandom(8).hex()}")


def neighbour(operator: Client) -> Tenant:
    """A second gateway with a token of its own, which is shown once; and a secret that it brings along."""
    gateway = operator.post("/gateways", {"name": NEIGHBOUR})["id"]
    token = operator.post("/tokens", {"name": NEIGHBOUR, "user": "admin", "role": "gateway-admin", "gateway_id": gateway})["secret"]
    client = Client(operator.urls, token, tenant=gateway, lines=operator.lines, session="c1")
    client.post("/credentials", {"name": client.a_name("planted"), "kind": "S3_KEY", "source": "IMPORT", "private_key": f"planted:{os.urandom(20).hex()}"})
    return tenant(client)


# ---- secrets ------------------------------------------------------------------------------------------------------------------------------------------
def secrets_of(directory: Path, tokens: Iterable[str], password: str, rows: Callable[..., Iterable[Any]]) -> list[str]:
    """Of a system in this `directory`: bearer tokens without the part that is no secret, keys, the database account's password, and what its credentials hold."""
    given = {name: (directory / name).read_text().strip() for name in GIVEN_IN}
    bearers = [*tokens, given.pop("internal-token")]
    return [*(each.rpartition("_")[2] for each in bearers), *given.values(), password, *_opened(rows(SEALED), secrets.master_key(given["master-key"]))]


def _opened(rows: Iterable[Any], master: bytes) -> Iterator[str]:
    """Of a private key the lines behind its first two, which say only its kind and its public half, and before its last one, which is filled up."""
    for credential, gateway, kind, sealed in rows:
        text = secrets.open_sealed(sealed, master=master, gateway_id=gateway, credential_id=credential).decode()
        yield from text.strip().splitlines()[3:-2] if kind == "SSH_KEY" else [text.partition(":")[2]]
