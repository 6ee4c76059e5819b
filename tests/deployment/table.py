"""The table of docs/operators.md §2 as data: what each microservice is in a cluster. The manifests follow it, and so do the images."""

from dataclasses import dataclass

PORTS = {"admin": 9464, "public": 8080, "internal": 8081, "nudge": 9465}
WRITERS = ("api", "generator", "scheduler", "executor-environment", "executor-data", "executor-job")  # Who nudges the relay.


@dataclass(frozen=True)
class Row:
    replicas: int
    grace_seconds: int
    to: frozenset[str]
    secrets: frozenset[str]
    ports: frozenset[str] = frozenset({"admin"})
    scaled: bool = False  # By KEDA.

    @property
    def mounted(self) -> frozenset[str]:
        """Its secrets in a cluster. Elsewhere Kafka is a private one, spoken to in the clear."""
        return self.secrets | ({"kafka-client"} if "kafka" in self.to else set())


def _row(replicas: int, grace: int, to: str, secrets: str, ports: str = "", *, scaled: bool = False) -> Row:
    return Row(replicas, grace, frozenset(to.split()), frozenset(secrets.split()), frozenset({"admin", *ports.split()}), scaled)


DEPLOYMENTS = {
    "api": _row(3, 40, "mysql relay", "mysql-url token-key master-key", "public internal"),
    "relay": _row(2, 20, "mysql kafka", "mysql-url", "nudge"),
    "generator": _row(2, 20, "mysql kafka relay", "mysql-url", scaled=True),
    "scheduler": _row(3, 20, "mysql kafka relay", "mysql-url", scaled=True),
    "executor-environment": _row(2, 40, "mysql kafka relay hosts", "mysql-url master-key", scaled=True),
    "executor-data": _row(2, 40, "mysql kafka relay hosts", "mysql-url master-key", scaled=True),
    "executor-job": _row(2, 40, "mysql kafka relay hosts", "mysql-url master-key", scaled=True),
    "event-sink": _row(2, 20, "kafka api", "internal-token", scaled=True),
}
MIGRATIONS = _row(0, 20, "mysql kafka", "mysql-url token-key internal-token")
EVERYBODY = {**DEPLOYMENTS, "migrations": MIGRATIONS}
