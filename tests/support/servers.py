"""Servers for tests, by capability. Three providers are asked in order: an address given, private processes (app/dev/servers.py), containers."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from app.dev.compute_host import SshHost
from app.dev.databases import DatabaseAddress
from app.dev.process import Daemon
from app.dev.servers import Unavailable

T = TypeVar("T")


class Servers(Protocol):
    """Every method starts the server if need be, returns when it answers, and may be called again for the same answer. Raises Unavailable."""

    def database(self, kind: str) -> DatabaseAddress:
        """`kind`: mysql or mariadb. An account that may create schemas."""

    def kafka(self) -> str:
        """Bootstrap address of an Apache Kafka."""

    def ssh_host(self, number: int = 1) -> SshHost: ...

    def close(self) -> None:
        """Stops what this provider started."""


class Given:
    """Addresses from AIRAVATA_TEST_MYSQL_URL, AIRAVATA_TEST_MARIADB_URL, AIRAVATA_TEST_KAFKA."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ

    def database(self, kind: str) -> DatabaseAddress:
        url = self.environ.get(f"AIRAVATA_TEST_{kind.upper()}_URL")
        if not url:
            raise Unavailable(f"no AIRAVATA_TEST_{kind.upper()}_URL")
        parts = urlsplit(url)
        return DatabaseAddress(kind, parts.hostname or "127.0.0.1", parts.port or 3306, parts.username or "root", parts.password or "", tls=not str(parts.hostname or "127.").startswith("127."))

    def kafka(self) -> str:
        if not self.environ.get("AIRAVATA_TEST_KAFKA"):
            raise Unavailable("no AIRAVATA_TEST_KAFKA")
        return self.environ["AIRAVATA_TEST_KAFKA"]

    def ssh_host(self, number: int = 1) -> SshHost:
        raise Unavailable(f"no address is given for compute host {number}")

    def close(self) -> None:
        pass


def end_leftovers(base: Path) -> None:
    """Servers of a run that was killed: recognised by their pid files."""
    for pid_file in base.glob("*/*.pid"):
        with suppress(OSError):
            Daemon(pid_file.stem, pid_file.parent, []).stop()


class InOrder:
    """The first provider that can."""

    def __init__(self, *providers: Servers) -> None:
        self.providers = providers

    def database(self, kind: str) -> DatabaseAddress:
        return self._first(lambda each: each.database(kind))

    def kafka(self) -> str:
        return self._first(lambda each: each.kafka())

    def ssh_host(self, number: int = 1) -> SshHost:
        return self._first(lambda each: each.ssh_host(number))

    def _first(self, ask: Callable[[Servers], T]) -> T:
        refusals = []
        for provider in self.providers:
            try:
                return ask(provider)
            except Unavailable as fault:
                refusals.append(f"{type(provider).__name__}: {fault}")
        raise Unavailable("; ".join(refusals))

    def close(self) -> None:
        for each in self.providers:
            each.close()
