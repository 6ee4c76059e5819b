"""The whole system as containers, one of each image, on this machine's network; MySQL, Kafka and sshd are the private ones, since none can be pulled.

As tests/support/system.py in all else: a component's daemon is a `docker run` in the foreground, which hands SIGTERM on; a kill is the engine's own.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from app import secrets
from app.dev.process import Daemon, keep_private
from tests.deployment import images
from tests.deployment.engine import Engine
from tests.deployment.table import DEPLOYMENTS
from tests.images.conftest import CONFINED
from tests.support.system import System

USER = 10001
KILLED = 137


def _bound() -> Iterator[tuple[int, str]]:
    """(port, inode) of sockets that wait for anybody: TCP in state LISTEN; UDP connected to nobody, at a port that was chosen (the nudge is sent from one that was not)."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    for kind, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            words = line.split()
            port = int(words[1].rpartition(":")[2], 16)
            if words[3] == state and (kind.startswith("tcp") or not low <= port <= high):
                yield port, words[9]


def _links(directory: Path) -> Iterator[str]:
    for each in directory.iterdir():
        with suppress(OSError):  # Closed meanwhile.
            yield str(each.readlink())


class Images(System):
    """`shared`: a directory that host and containers know by the same path."""

    def __init__(self, docker: Engine, servers: Any, shared: Path, **more: Any) -> None:
        super().__init__(servers, shared / "system", counts=dict.fromkeys(DEPLOYMENTS, 1), **more)
        shared.chmod(0o755)  # For a user who is not this one.
        self.docker, self.shared, self.lives = docker, shared, 0
        self.names: dict[str, str] = {}
        self.given: dict[str, dict[str, str]] = {}

    def prepare(self) -> None:
        """By the migrations image, as its Job does."""
        self.directory.mkdir(parents=True)
        keep_private(self.directory / "internal-token", secrets.new_token()[0])
        told = {**self.environment, "AIRAVATA_INTERNAL_TOKEN_FILE": str(self.directory / "internal-token")}
        for name in ("internal-token", "token-key", "master-key"):
            os.chown(self.directory / name, USER, USER)
        for step in (["migrate"], ["topics", "--apply"], ["service-token"]):
            self.docker.run("run", "--rm", *self._words(told), f"{images.NAMES}/migrations:local", *step)

    def _words(self, told: dict[str, str]) -> list[str]:
        return [*CONFINED, "--volume", f"{self.shared}:{self.shared}", *(word for key, value in told.items() for word in ("--env", f"{key}={value}"))]

    def daemon(self, component: str, copy: int = 0, **settings: str) -> Daemon:
        name = f"{component}-{copy}"
        if name not in self.daemons:
            made = super().daemon(component, copy, **settings)
            self.lives += 1
            self.names[name] = f"airavata-test-{os.getpid()}-{name}-{self.lives}"
            self.given[name] = dict(made.environment)
            made.argv = ["docker", "run", "--rm", "--name", self.names[name], *self._words(dict(made.environment)), f"{images.NAMES}/{component}:local"]
            made.environment = self.docker.environment
        return self.daemons[name]

    def listening(self, name: str) -> set[int]:
        """Every port on which the container's processes accept anything, TCP or UDP."""
        inside = [int(line.split()[0]) for line in self.docker.run("top", self.names[name], "-o", "pid").splitlines()[1:]]
        held = {link for pid in inside for link in _links(Path(f"/proc/{pid}/fd"))}
        return {port for port, inode in _bound() if f"socket:[{inode}]" in held}

    def told(self, name: str) -> set[int]:
        """The ports it was told to listen at."""
        return {int(value.rpartition(":")[2]) for key, value in self.given[name].items() if key.endswith("_LISTEN")}

    def kill(self, component: str, copy: int = 0) -> None:
        victim = self.daemons[f"{component}-{copy}"]
        assert self.alive(victim), f"{victim.name} was gone before: {victim.tail()}"
        self.rescued += self.rescues_of(victim.name)
        self.docker.run("kill", "--signal", "KILL", self.names[victim.name])
        assert victim.child is not None
        assert victim.child.wait(60.0) == KILLED

    def end(self) -> None:
        for each in self.names.values():
            self.docker.can("rm", "--force", each, seconds=60)
        super().end()
