"""The `Servers` port: a database, a broker, compute hosts, by capability. Three providers are asked in order: an address given, native private processes, containers.

`airavata dev` and the tests say what they need here; nobody else knows how a server is had.
"""

import os
import socket
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from app import clock, instance
from app.dev.broker import cluster, kafka
from app.dev.compute_host import SshHost, sshd
from app.dev.databases import DatabaseAddress, mariadb, mysql
from app.dev.process import Daemon

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
GIVEN_SECONDS = 7200.0


class Unavailable(RuntimeError):
    """This provider cannot give that."""


class Servers(Protocol):
    """Every method starts the server if need be, returns when it answers, and may be called again for the same answer. Raises Unavailable."""

    def database(self, kind: str) -> DatabaseAddress:
        """`kind`: mysql or mariadb. An account that may create schemas."""

    def kafka(self) -> str:
        """Bootstrap address of an Apache Kafka."""

    def ssh_host(self, number: int = 1) -> SshHost: ...

    def close(self) -> None:
        """Stops what this provider started."""


def free_port(address: str = "127.0.0.1") -> int:
    """Below the range from which the kernel serves outgoing connections, and given to nobody else of this user for two hours: whoever starts late or is killed finds its port free."""
    given = Path(tempfile.gettempdir()) / f"airavata-ports-{os.getuid()}"
    given.mkdir(exist_ok=True)
    for _ in range(1000):
        port = 10_000 + int.from_bytes(instance.fresh_bytes(4), "big") % (_lowest_ephemeral() - 10_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((address, port))
            if _first(given / str(port)):
                return port
    raise Unavailable(f"no free port on {address}")


def _first(note: Path) -> bool:
    """Whether the port was given to nobody; a note that is old counts no more."""
    try:
        note.touch(exist_ok=False)
    except FileExistsError:
        if clock.utc_now().timestamp() - note.stat().st_mtime < GIVEN_SECONDS:
            return False
        note.touch()
    return True


def _lowest_ephemeral() -> int:
    try:
        return max(11_000, int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]))
    except OSError:
        return 32_768


class Native:
    """Private processes under `base`. Ports are chosen once per directory and kept, so that a restarted server is found where it was."""

    def __init__(self, base: Path, *, library: Path | None = None) -> None:
        self.base, self.library = base, library or ROOT / ".dev" / "lib"
        self.daemons: dict[str, Daemon] = {}
        self.found: dict[str, DatabaseAddress | SshHost | str] = {}

    def port(self, name: str, address: str = "127.0.0.1") -> int:
        kept = self.base / "ports" / name
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(str(free_port(address)))
        return int(kept.read_text())

    def database(self, kind: str) -> DatabaseAddress:
        if kind not in self.found:
            if kind == "mysql":
                prefix = self.library / "mysql"
                if not (prefix / "usr/sbin/mysqld").exists():
                    raise Unavailable("there is no private MySQL: run `make bootstrap`")
                daemon, found = mysql(self.base / "mysql", prefix, self.port("mysql"))
            else:
                daemon, found = mariadb(self.base / "mariadb", self.port("mariadb"))
            self._run(kind, daemon)
            self.found[kind] = found
        answer = self.found[kind]
        assert isinstance(answer, DatabaseAddress)
        return answer

    def kafka(self) -> str:
        if "kafka" not in self.found:
            jars = self.library / "kafka"
            if not any(jars.glob("kafka_*.jar")):
                raise Unavailable("there are no broker jars: run `make bootstrap`")
            daemon, self.found["kafka"] = kafka(self.base / "kafka", jars, self.port("kafka"), self.port("kafka-controller"))
            self._run("kafka", daemon)
        return str(self.found["kafka"])

    def brokers(self, count: int) -> str:
        """A cluster in place of the one broker, `kafka-1` …; asked for before anything else asks for Kafka."""
        bases = {f"kafka-{number}": self.base / f"kafka-{number}" for number in range(1, count + 1)}
        daemons, self.found["kafka"] = cluster(bases, self.library / "kafka", [(self.port(name), self.port(f"{name}-controller")) for name in bases])
        for each in daemons:
            self.daemons[each.name] = each
            each.start()
        for each in daemons:
            each.wait()
        return str(self.found["kafka"])

    def ssh_host(self, number: int = 1) -> SshHost:
        name, address = f"sshd-{number}", f"127.0.1.{number}"
        if name not in self.found:
            daemon, self.found[name] = sshd(self.base / name, address, self.port(name, address))
            self._run(name, daemon)
        answer = self.found[name]
        assert isinstance(answer, SshHost)
        return answer

    def together(self, *names: str) -> None:
        """Several at once: their starts overlap. `mysql`, `mariadb`, `kafka`, `sshd`."""
        starts: dict[str, Callable[[], object]] = {"mysql": lambda: self.database("mysql"), "mariadb": lambda: self.database("mariadb"), "kafka": self.kafka, "sshd": self.ssh_host}
        with ThreadPoolExecutor(len(names)) as pool:
            for each in [pool.submit(starts[name]) for name in names]:
                each.result()

    def _run(self, name: str, daemon: Daemon) -> None:
        self.daemons[name] = daemon
        daemon.start()
        daemon.wait()

    def close(self) -> None:
        for each in reversed(list(self.daemons.values())):
            each.stop()
        self.daemons.clear()
        self.found.clear()

    @staticmethod
    def end_leftovers(base: Path) -> None:
        """Servers of a run that was killed: recognised by their pid files."""
        for pid_file in base.glob("*/*.pid"):
            with suppress(OSError):
                Daemon(pid_file.stem, pid_file.parent, []).stop()


class Given:
    """Addresses from AIRAVATA_TEST_MYSQL_URL, AIRAVATA_TEST_MARIADB_URL, AIRAVATA_TEST_KAFKA."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ

    def database(self, kind: str) -> DatabaseAddress:
        url = self.environ.get(f"AIRAVATA_TEST_{kind.upper()}_URL")
        if not url:
            raise Unavailable(f"no AIRAVATA_TEST_{kind.upper()}_URL")
        parts = urlsplit(url)
        return DatabaseAddress(kind, parts.hostname or "127.0.0.1", parts.port or 3306, parts.username or "root", parts.password or "")

    def kafka(self) -> str:
        if not self.environ.get("AIRAVATA_TEST_KAFKA"):
            raise Unavailable("no AIRAVATA_TEST_KAFKA")
        return self.environ["AIRAVATA_TEST_KAFKA"]

    def ssh_host(self, number: int = 1) -> SshHost:
        raise Unavailable(f"no address is given for compute host {number}")

    def close(self) -> None:
        pass


class Containers:
    """testcontainers, where an engine answers and has the images."""

    def __init__(self) -> None:
        self.running: dict[str, object] = {}

    def _start(self, name: str, make: object) -> object:
        os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")  # noqa: TID251  The library reads it there.
        if name not in self.running:
            try:
                self.running[name] = make().start()  # type: ignore[operator]
            except Exception as fault:
                raise Unavailable(f"no container engine with images answers: {type(fault).__name__}") from fault
        return self.running[name]

    def database(self, kind: str) -> DatabaseAddress:
        from testcontainers.community.mysql import MySqlContainer

        image = "mysql:9" if kind == "mysql" else "mariadb:10.11"
        made = self._start(kind, lambda: MySqlContainer(image, username="root", password="airavata-dev", dialect="pymysql"))
        return DatabaseAddress(kind, made.get_container_host_ip(), int(made.get_exposed_port(3306)), "root", "airavata-dev")  # type: ignore[attr-defined]

    def kafka(self) -> str:
        from testcontainers.community.kafka import KafkaContainer

        return str(self._start("kafka", KafkaContainer).get_bootstrap_server())  # type: ignore[attr-defined]

    def ssh_host(self, number: int = 1) -> SshHost:
        raise Unavailable(f"compute host {number} is never a container")

    def close(self) -> None:
        for each in self.running.values():
            each.stop()  # type: ignore[attr-defined]
        self.running.clear()


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

    def _first(self, ask: "Callable[[Servers], T]") -> "T":
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
