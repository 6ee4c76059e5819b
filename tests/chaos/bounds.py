"""What a run is measured against from outside: the caps of P22 for what is sampled (tests/chaos/senses.py), each with where it comes from; and how often P19 to P22 must be exercised."""

from collections.abc import Mapping
from typing import Any

MIB = 1 << 20
SSH_CONNECTIONS = 8  # What the rig's hosts allow (`limits.connections`), over all executors.
POOLS = {  # Connections to MySQL that a copy may have: what its `__main__` asks of engine.connect.
    "api": 18 + 1, "relay": 2 * 2 + 1, "generator": 1, "scheduler": 3, "executor-environment": 2, "executor-data": 2, "executor-job": 2, "executor-noop": 2, "event-sink": 0,
}  # fmt: skip
COPIES = 2
HARNESS = 24  # Sessions of its own, its nemeses' among them.
CAPS: Mapping[str, int] = {
    "rss_bytes": 384 * MIB,  # The smallest memory limit in k8s/base, beyond which a pod is killed; no process may come there, whatever its own limit.
    "descriptors": 256,  # A quarter of the usual soft limit of 1,024. An API server needs most: 100 streams, 32 requests at work, 19 sessions, and its clients' idle connections.
    "threads": 64,  # An API server again: 16 for each of its two faces, 16 that read streams, 4 a face for probes, and a few of its own.
    "mysql_sessions": 2 * COPIES * sum(POOLS.values()) + HARNESS,  # Twice: beside each new one the one whose other end is gone, until the server ends it after 2 to 5 s.
    "ssh_connections": SSH_CONNECTIONS,  # Of one host, as its sshd counts them.
    "outbox_rows": 100_000,  # A tenth of what launches are refused at (503 `backlog_full`).
}
CAPS_OF_RANDOM_RUNS = {**CAPS, "ssh_connections": 2 * SSH_CONNECTIONS}  # Links are cut and executors frozen: sshd still counts a connection whose other end is gone.
REQUIRED: Mapping[str, Mapping[str, Any]] = {
    "P19": {"answers": 40, "rows": 40, "tenants": 2}, "P20": {"secrets": 12, "bytes": MIB}, "P21": {"refusals": 8}, "P22": {"samples": 10, "capped": 500},
}  # fmt: skip
