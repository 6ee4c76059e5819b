"""Servers as containers, by testcontainers: what is asked for is a capability, and compose.yaml says which image has it and how it is told (tests/deployment/server_images.py).

An engine that answers, or one that is given. Each container is on a network of this provider alone, published on loopback. All bears the run's label and goes with `close`; what a killed
run left goes at the next start. That is Ryuk's work without Ryuk, which is one more image to be had, and privileged.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from app.dev import broker, compute_host, databases
from app.dev.compute_host import SshHost
from app.dev.databases import DatabaseAddress
from app.dev.process import wait_until
from app.dev.servers import Unavailable, free_port
from tests.deployment import compose, server_images
from tests.deployment.engine import RUN, Engine, this_run

PASSWORD = "airavata-dev"  # Loopback only, made anew with every container.
START_SECONDS = 180.0


class Containers:
    """A provider of tests/support/servers.py. `directory`: what the containers see of this machine."""

    def __init__(self, directory: Path, engine: Engine | None = None) -> None:
        self.directory, self.engine, self.given = directory, engine or Engine(), engine is not None
        self.running: dict[str, Any] = {}
        self.found: dict[str, Any] = {}
        self.network: Any = None

    def database(self, kind: str) -> DatabaseAddress:
        if kind != "mysql":
            raise Unavailable(f"no container of {kind} is kept: Debian has it as a package")
        if kind not in self.found:
            address = DatabaseAddress(kind, "127.0.0.1", free_port(), "root", PASSWORD)
            self._start("mysql", kind, {3306: address.port}, lambda: databases.answers(address), env={"MYSQL_ROOT_PASSWORD": PASSWORD}, command=_of("mysql")["command"])
            self.found[kind] = address
        return self.found[kind]

    def kafka(self) -> str:
        if "kafka" not in self.found:
            port = free_port()
            address = f"127.0.0.1:{port}"
            told = {"KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093", "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{address}"}
            self._start("kafka", "kafka", {port: port}, lambda: broker.answers(address), env={**_of("kafka")["environment"], **told})
            self.found["kafka"] = address
        return self.found["kafka"]

    def ssh_host(self, number: int = 1) -> SshHost:
        """Its authorized keys are a file of this machine."""
        name = f"{server_images.COMPUTE_HOST}-{number}"
        if name not in self.found:
            port, keys = free_port(), self.directory / name / "authorized_keys"
            keys.parent.mkdir(parents=True)
            keys.touch(mode=0o644)
            self._start(server_images.COMPUTE_HOST, name, {22: port}, lambda: compute_host.answers("127.0.0.1", port), volumes=[(str(keys.parent), "/home/science/.ssh", "ro")])
            host_key = self.running[name].exec(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).output.decode()
            self.found[name] = SshHost("127.0.0.1", port, "science", " ".join(host_key.split()[:2]), keys)
        return self.found[name]

    def _start(self, service: str, name: str, ports: Mapping[int, int], answers: Callable[[], bool], **more: Any) -> None:
        if not self.given and not self.engine.answers():
            raise Unavailable("no container engine answers")
        os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.network import Network

        client, labels = {"environment": self.engine.environment}, {RUN: this_run()}
        if self.network is None:
            self.engine.end()
            self.network = Network(client, {"labels": labels}).create()
        made = DockerContainer(server_images.image(self.engine, service), client, network=self.network, **more).with_kwargs(labels=labels, user=_of(service).get("user"))
        made.ports = {inside: ("127.0.0.1", outside) for inside, outside in ports.items()}
        self.running[name] = made.start()
        if not wait_until(answers, START_SECONDS, 0.1):
            raise Unavailable(f"{service} did not answer within {START_SECONDS:.0f} s: {made.get_logs()}")

    def close(self) -> None:
        for each in self.running.values():
            each.stop()
        if self.network is not None:
            self.network.remove()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.running, self.found, self.network = {}, {}, None


def _of(service: str) -> dict[str, Any]:
    """As compose.yaml describes it."""
    return dict(compose.file()["services"][service])
