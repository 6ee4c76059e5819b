"""A database, a broker, compute hosts, by capability, as private processes: `airavata dev` and the tests say here what they need."""

import os
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from app import clock, instance
from app.dev.broker import FIRST_COMPILER_ONLY, cluster
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
    return max(11_000, int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]))


class Native:
    """Private processes under `base`. Each method starts the server if need be, returns when it answers, and may be called again for the same answer. Raises Unavailable."""

    def __init__(self, base: Path, *, library: Path | None = None, jvm: Sequence[str] = FIRST_COMPILER_ONLY) -> None:
        self.base, self.library, self.jvm = base, library or ROOT / ".dev" / "lib", jvm
        self.daemons: dict[str, Daemon] = {}
        self.databases, self.hosts, self.bootstrap = dict[str, DatabaseAddress](), dict[int, SshHost](), ""

    def port(self, name: str, address: str = "127.0.0.1") -> int:
        return kept_port(self.base / "ports" / name, address)

    def database(self, kind: str) -> DatabaseAddress:
        if kind not in self.databases:
            prefix = self.library / "mysql"
            if kind == "mysql" and not (prefix / "usr/sbin/mysqld").exists():
                raise Unavailable("there is no private MySQL: run `make bootstrap`")
            daemon, found = mysql(self.base / kind, prefix, self.port(kind)) if kind == "mysql" else mariadb(self.base / kind, self.port(kind))
            self._run({kind: daemon})
            self.databases[kind] = found
        return self.databases[kind]

    def kafka(self) -> str:
        if not self.bootstrap:
            if not any((self.library / "kafka").glob("kafka_*.jar")):
                raise Unavailable("there are no broker jars: run `make bootstrap`")
            self._cluster("kafka")
        return self.bootstrap

    def brokers(self, count: int) -> str:
        """A cluster in place of the one broker, `kafka-1` …; asked for before anything else asks for Kafka."""
        self._cluster(*(f"kafka-{number}" for number in range(1, count + 1)))
        return self.bootstrap

    def _cluster(self, *names: str) -> None:
        daemons, bootstrap = cluster({each: self.base / each for each in names}, self.library / "kafka", [(self.port(each), self.port(f"{each}-controller")) for each in names], jvm=self.jvm)
        self._run({each.name: each for each in daemons})
        self.bootstrap = bootstrap

    def ssh_host(self, number: int = 1) -> SshHost:
        if number not in self.hosts:
            name, address = f"sshd-{number}", f"127.0.1.{number}"
            daemon, found = sshd(self.base / name, address, self.port(name, address))
            self._run({name: daemon})
            self.hosts[number] = found
        return self.hosts[number]

    def together(self, *names: str) -> None:
        """Several at once: their starts overlap. `mysql`, `mariadb`, `kafka`, `sshd`."""
        starts: dict[str, Callable[[], object]] = {"mysql": lambda: self.database("mysql"), "mariadb": lambda: self.database("mariadb"), "kafka": self.kafka, "sshd": self.ssh_host}
        with ThreadPoolExecutor(len(names)) as pool:
            for each in [pool.submit(starts[name]) for name in names]:
                each.result()

    def _run(self, daemons: Mapping[str, Daemon]) -> None:
        self.daemons |= daemons
        for each in daemons.values():
            each.start()
        for each in daemons.values():
            each.wait()

    def close(self) -> None:
        for each in reversed(list(self.daemons.values())):
            each.stop()
        self.daemons, self.databases, self.hosts, self.bootstrap = {}, {}, {}, ""
