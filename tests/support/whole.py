"""A whole system for a test: real database, real Kafka, real sshd, every microservice its own process, with topics and a schema of its own."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app import admin
from app.dev import hmmer
from app.dev.servers import InOrder
from app.dev.system import System
from app.settings import read

_serial = itertools.count()
PARTITIONS = "8"
FAST = {"PARTITIONS": PARTITIONS, "PLACEMENT_WIDTH": "4", "WATCH_INTERVAL_MS": "200", "LEASE_SECONDS": "4", "LIVE_EXPERIMENTS_MAX": "0", "SWEEP_AFTER_SECONDS": "20"}


def until(condition: Callable[[], Any], seconds: float = 30.0, what: str = "") -> Any:
    """Wait for a condition, never for a time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(0.02)
    return found


@dataclass
class Whole(System):
    """The system with what tests ask of it."""

    gateway_id: str = ""
    operator_token: str = ""
    gateway_token: str = ""
    clients: dict[tuple[str, str], hmmer.Gateway] = field(default_factory=dict)

    def open_gateway(self, name: str = "test") -> hmmer.Gateway:
        made = admin.bootstrap(read(self.environment), gateway=name, another=True)
        self.gateway_id = made["gateway_id"]
        self.operator_token, self.gateway_token = made["operator_token"], made["gateway_token"]
        return self.at(0)

    def at(self, copy: int) -> hmmer.Gateway:
        """The gateway's administrator at one of the API servers."""
        return self.client(self.url_of(copy), self.gateway_token)

    def operator(self) -> hmmer.Gateway:
        return self.client(self.url, self.operator_token)

    def client(self, url: str, token: str) -> hmmer.Gateway:
        if (url, token) not in self.clients:
            self.clients[url, token] = hmmer.Gateway(url, token)
        return self.clients[url, token]

    def close(self) -> None:
        for each in self.clients.values():
            each.http.close()
        self.kill_all()

    def query(self, statement: str, *values: Any) -> list[Any]:
        with admin.opened(read(self.environment)) as begin, begin("test.query") as tx:
            return list(tx.exec_driver_sql(statement, values).all())

    def count(self, table: str) -> int:
        return int(self.query(f"SELECT COUNT(*) FROM {table}")[0][0])

    def rescues(self) -> float:
        return sum(self.metric(name, "airavata_sweeper_rescues_total") for name, each in self.daemons.items() if name.startswith("scheduler") and each.pid is not None)

    def settled(self, seconds: float = 30.0) -> None:
        """Outbox empty, no dead letters."""
        until(lambda: self.count("outbox") == 0, seconds, "an empty outbox")
        assert self.query("SELECT error_class, error_text FROM dead_letters") == []

    def kill(self, name: str) -> None:
        """SIGKILL, with proof."""
        daemon = self.daemons[name]
        assert daemon.pid is not None, f"{name} was not running: {daemon.tail()}"
        daemon.kill()
        assert daemon.child is None or daemon.child.poll() == -9, f"{name} did not die of SIGKILL"

    def restart(self, name: str) -> None:
        self.daemons[name].start()


@contextmanager
def a_system(servers: InOrder, database_url: str, directory: Path, **settings: str) -> Iterator[Whole]:
    name = f"w{os.getpid()}-{next(_serial)}."
    whole = Whole(directory, database_url.replace("mysql+pymysql://", "mysql://"), servers.kafka(), {**FAST, "TOPIC_PREFIX": name, "ENVIRONMENT": name.rstrip("."), **settings})
    whole.prepare()
    try:
        yield whole
    finally:
        whole.close()


def shape_of(gateway: hmmer.Gateway) -> Any:
    inputs = [{"name": "edges", "type": "STRING", "required": True}, {"name": "behaviour", "type": "STRING"}]
    return gateway.ensure("/application-interfaces", {"name": "shape", "planner": "shape", "inputs": inputs})


def launch_shape(gateway: hmmer.Gateway, edges: str, behaviour: str = "", *, key: str | None = None) -> Any:
    body = {"name": "shape", "application_interface_id": shape_of(gateway)["id"], "inputs": {"edges": edges, "behaviour": behaviour}, "launch": True}
    return gateway.post("/experiments", body, key=key)


# ---- a program that keeps a ledger --------------------------------------------------------------------------------------------------------------------
def ledger_application(gateway: hmmer.Gateway, host: Any, ledger: Path, *, name: str = "ledger", script: str = "exit 0") -> Any:
    """A program that appends one line per start, then does what the test wants."""
    program = ledger.parent / f"{name}.sh"
    program.write_text(f'#!/bin/sh\necho "start $AIRAVATA_TOKEN" >>{ledger}\n{script}\n')
    program.chmod(0o755)
    interface = {"name": name, "inputs": [{"name": "text", "type": "URI", "standard_input": True}], "outputs": [{"name": "out", "type": "STDOUT"}, {"name": "err", "type": "STDERR"}]}
    return hmmer.an_application(gateway, host, interface=interface, deployment={"executable_path": str(program)})


def launch_application(gateway: hmmer.Gateway, interface: Any, storage: Any, *, text: str | None = "data:,hello", name: str = "job", **changes: Any) -> Any:
    inputs = {"text": text} if text is not None else {}
    body = {"name": name, "application_interface_id": interface["id"], "inputs": inputs, "output_storage_id": storage["id"], "launch": True, **changes}
    return gateway.post("/experiments", body)


def starts(ledger: Path) -> dict[str, int]:
    """Token → how often its program was started."""
    found: dict[str, int] = {}
    for line in ledger.read_text().splitlines() if ledger.exists() else ():
        token = line.split()[1]
        found[token] = found.get(token, 0) + 1
    return found
