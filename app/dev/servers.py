"""A database, a broker, compute hosts, by capability, as private processes: `airavata dev` and the tests say here what they need."""

import os
import socket
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from app import clock, instance
from app.dev.broker import cluster, kafka
from app.dev.compute_host import SshHost, sshd
from app.dev.databases import DatabaseAddress, mariadb, mysql
from app.dev.process import Daemon

ROOT = Path(__file__).parents[2]
GIVEN_SECONDS = 7200.0


class Unavailable(RuntimeError):
    """This provider cannot give that."""


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


def kept_port(note: Path, address: str = "127.0.0.1") -> int:
    """Chosen once and noted there, so that a server that starts again is found where it was."""
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(str(free_port(address)))
    return int(note.read_text())


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
    """Private processes under `base`. Each method starts the server if need be, returns when it answers, and may be called again for the same answer. Raises Unavailable."""

    def __init__(self, base: Path, *, library: Path | None = None) -> None:
        self.base, self.library = base, library or ROOT / ".dev" / "lib"
        self.daemons: dict[str, Daemon] = {}
        self.found: dict[str, DatabaseAddress | SshHost | str] = {}

    def port(self, name: str, address: str = "127.0.0.1") -> int:
        return kept_port(self.base / "ports" / name, address)

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
