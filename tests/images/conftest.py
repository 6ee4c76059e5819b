"""An engine with our images, built if need be; `make test-images`. What is made bears this run's label and goes with it, nobody else's is touched."""

import itertools
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.dev.process import NotStarted, wait_until
from app.dev.servers import Unavailable, free_port
from tests.deployment import engine, images
from tests.deployment.engine import RUN, Engine, this_run

CONFINED = (
    "--read-only",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges",
    "--user",
    "10001:10001",
    "--tmpfs",
    "/tmp:size=64m,mode=1777",
    "--network",
    "host",
)
_serial = itertools.count()


@pytest.fixture(scope="session")
def docker() -> Iterator[Engine]:
    try:
        found, started = engine.find()
    except (Unavailable, NotStarted) as fault:
        pytest.skip(f"NOT RUN: {str(fault).splitlines()[0]}")
    try:
        found.end()
        try:
            print("\n".join(images.build(found)))
        except Unavailable as fault:
            pytest.skip(f"NOT RUN: {str(fault).splitlines()[0]}")
        yield found
    finally:
        found.end(this_run())
        if started is not None:
            started.stop()


@dataclass
class Container:
    """One that runs on this machine's network, so that its ports are ours."""

    docker: Engine
    name: str
    admin: int

    def probe(self, path: str) -> tuple[int, str]:
        """Status and text; 0 while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode().strip()
        except urllib.error.HTTPError as fault:
            with fault:
                return fault.code, fault.read().decode().strip()
        except OSError:
            return 0, "nobody listens"

    def until(self, path: str, code: int, seconds: float = 120.0) -> str:
        assert wait_until(lambda: self.probe(path)[0] == code, seconds, every=0.2), f"{path}: {self.probe(path)}\n{self.logs()}"
        return self.probe(path)[1]

    def inspect(self, what: str) -> str:
        return self.docker.run("inspect", "--format", f"{{{{{what}}}}}", self.name)

    def logs(self) -> str:
        return self.docker.both("logs", self.name)


@contextmanager
def running(docker: Engine, component: str, *, settings: dict[str, str] | None = None, mounts: dict[Path, str] | None = None) -> Iterator[Container]:
    """`settings` without the prefix; `mounts`: host path → path inside, read-only. Gone afterwards, whatever became of it."""
    ports = {name: free_port() for name in ("ADMIN", "PUBLIC", "INTERNAL", "NUDGE")}
    told = {f"{name}_LISTEN": f"127.0.0.1:{port}" for name, port in ports.items()} | (settings or {})
    name = f"airavata-test-{os.getpid()}-{next(_serial)}"
    words = [word for key, value in told.items() for word in ("--env", f"AIRAVATA_{key}={value}")]
    words += [word for here, there in (mounts or {}).items() for word in ("--volume", f"{here}:{there}:ro")]
    docker.run("run", "--detach", "--name", name, "--label", f"{RUN}={this_run()}", *CONFINED, *words, f"{images.NAMES}/{component}:local")
    try:
        yield Container(docker, name, ports["ADMIN"])
    finally:
        docker.can("rm", "--force", name, seconds=60)
