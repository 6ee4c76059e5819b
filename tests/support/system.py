"""A whole system for a test: every component as a process of its own on free ports, settings by environment, ended with the test whatever becomes of it.

A kill counts only with its proof: the wait status of a SIGKILL, or state T in /proc for a freeze. Waits have deadlines and name the log to read. Nothing is ever signalled
by name or group: only processes this system started, and what they left behind, known by a mark in their environment.
"""

import http.client
import itertools
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pymysql
from sqlalchemy.engine import make_url

from app import admin, plugins
from app.dev.process import Daemon, wait_until
from app.mysql.unit_of_work import now
from app.settings import read
from tests.support.gateway import Gateway

ROOT = Path(__file__).parents[2]
MARK = "AIRAVATA_TEST_SYSTEM"
COMPONENTS: Mapping[str, tuple[str, ...]] = {
    "relay": ("outbox_relay",),
    "api": ("app.api",),
    "generator": ("components.workflow_generator",),
    "scheduler": ("components.task_scheduler",),
    "environment": ("components.task_executors", "--types", "ENV_SETUP,ENV_CLEANUP"),
    "data": ("components.task_executors", "--types", "INGRESS_STAGING,EGRESS_STAGING"),
    "job": ("components.task_executors", "--types", "JOB_SUBMISSION"),
    "noop": ("components.task_executors", "--types", "NOOP"),
    "sink": ("components.event_sink",),
}
WITHOUT_HOSTS = {each: 1 for each in COMPONENTS if each not in {"environment", "data", "job"}}
READY_SECONDS = 90.0
_ports = itertools.count(14_000 + os.getpid() * 61 % 9_000)


def free_port(address: str = "127.0.0.1") -> int:
    """Below the range that outgoing connections take theirs from, so that a restarted component finds its port free."""
    while True:
        port = next(_ports)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, suppress(OSError):
            tcp.bind((address, port))
            udp.bind((address, port))
            return port


def fetch(port: int, path: str, timeout: float = 3.0) -> tuple[int, str]:
    """What an admin port says; (0, why) if nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as fault:
        return 0, repr(fault)
    finally:
        connection.close()


class Component:
    """One instance. `starts` counts its lives; each has a log of its own."""

    def __init__(self, kind: str, index: int, directory: Path, environment: Mapping[str, str]) -> None:
        self.kind, self.index, self.directory, self.environment = kind, index, directory, environment
        self.admin_port, self.starts = free_port(), 0
        self.daemon: Daemon | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.index}"

    @property
    def pid(self) -> int:
        assert self.daemon is not None and self.daemon.child is not None, f"{self.name} was never started"
        return self.daemon.child.pid

    def start(self, **more: str) -> None:
        """Without waiting. `more`: settings of this life alone, for example failpoints."""
        assert self.daemon is None or self.daemon.pid is None, f"{self.name} runs"
        self.starts += 1
        environment = {**self.environment, "AIRAVATA_ADMIN_LISTEN": f"127.0.0.1:{self.admin_port}", **{f"AIRAVATA_{key.upper()}": value for key, value in more.items()}}
        argv = [sys.executable, "-m", *COMPONENTS[self.kind]]
        self.daemon = Daemon(f"{self.name}.{self.starts}", self.directory, argv, environment, directory_of_work=ROOT)
        self.daemon.start()

    def ready(self) -> bool:
        return fetch(self.admin_port, "/readyz")[0] == 200

    def await_ready(self, seconds: float = READY_SECONDS) -> None:
        assert self.daemon is not None
        if not wait_until(lambda: self.ready() or not self.alive, seconds) or not self.ready():
            said = fetch(self.admin_port, "/readyz")[1].strip() if self.alive else f"ended with {self.daemon.child and self.daemon.child.returncode}"
            raise AssertionError(f"{self.name} is not ready after {seconds:.0f} s: {said}; log {self.daemon.log}\n{self.daemon.tail(15)}")

    @property
    def alive(self) -> bool:
        return self.daemon is not None and self.daemon.child is not None and self.daemon.child.poll() is None

    def metrics(self) -> dict[str, float]:
        """Name → value, summed over labels; empty when it does not answer."""
        status, text = fetch(self.admin_port, "/metrics")
        found: dict[str, float] = {}
        for line in text.splitlines() if status == 200 else ():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name.partition("{")[0]] = found.get(name.partition("{")[0], 0.0) + float(value)
        return found

    def end(self, number: int = signal.SIGKILL, seconds: float = 45.0) -> int:
        """Signal it, reap it, and return its wait status as Popen tells it (−9 is the proof of a SIGKILL)."""
        assert self.daemon is not None and self.daemon.child is not None
        if self.alive:
            os.kill(self.daemon.child.pid, number)
        return self.daemon.child.wait(seconds)

    @property
    def state(self) -> str:
        """One letter from /proc: R, S, T …"""
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return "?"


class System:
    """Use as a context manager. `counts`: how many of each component; `settings`: over what is given to all."""

    def __init__(
        self,
        servers: Any,
        directory: Path,
        *,
        database_url: str,
        kafka: str,
        topic_prefix: str,
        partitions: int = 12,
        width: int = 4,
        counts: Mapping[str, int] | None = None,
        **settings: Any,
    ) -> None:
        self.servers, self.directory, self.database_url, self.kafka, self.topic_prefix = servers, directory, database_url, kafka, topic_prefix
        directory.mkdir(parents=True, exist_ok=True)
        self.common = {
            "AIRAVATA_ENVIRONMENT": topic_prefix.strip(".") or "test",
            "AIRAVATA_MYSQL_URL": database_url,
            "AIRAVATA_KAFKA": kafka,
            "AIRAVATA_TOPIC_PREFIX": topic_prefix,
            "AIRAVATA_PARTITIONS": str(partitions),
            "AIRAVATA_PLACEMENT_WIDTH": str(width),
            "AIRAVATA_SESSION_TIMEOUT_MS": "1000",
            "AIRAVATA_ENABLED_PLANNERS": "batch-application,shape",
            "AIRAVATA_TOKEN_KEY": "0f" * 32,
            "AIRAVATA_MASTER_KEY": "f0" * 32,
            "AIRAVATA_LAUNCHES_PER_MINUTE": "0",
            "AIRAVATA_LIVE_EXPERIMENTS_MAX": "0",
            "AIRAVATA_NUDGE_TO": f"127.0.0.1:{free_port()}",
            "PYTHONUNBUFFERED": "1",
            MARK: str(directory),
            **{f"AIRAVATA_{key.upper()}": str(value) for key, value in settings.items()},
        }
        self.counts = dict(counts or dict.fromkeys(COMPONENTS, 1))
        self.rescued = 0.0
        self.components: dict[str, list[Component]] = {}
        self.gateway: Gateway

    # ---- life -------------------------------------------------------------------------------------------------------------------------------------
    def __enter__(self) -> "System":
        try:
            return self.up()
        except BaseException:
            self.down()
            raise

    def __exit__(self, *_: object) -> None:
        self.down()

    def up(self) -> "System":
        """Migrate, make topics, bootstrap tokens, start everything at once, wait until each says ready."""
        self.settings = read(self.common)
        admin.migrate(self.settings, say=lambda _: None)
        left = admin.topics(self.settings, plugins.task_types(), apply=True, say=lambda _: None)
        assert left.none, left.lines()
        self.tokens = admin.bootstrap(self.settings, gateway="lab")
        self.common["AIRAVATA_INTERNAL_TOKEN"] = self.service_token()
        for kind in COMPONENTS:
            self.components[kind] = [self._made(kind, index) for index in range(self.counts.get(kind, 0))]
        for each in self.all():
            each.start()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(Component.await_ready, self.all()))
        self.gateway = Gateway(self.urls, self.tokens["gateway_token"])
        return self

    def service_token(self) -> str:
        """The event sink's way into the internal listener."""
        with admin.opened(self.settings) as begin, begin("test.service_token") as tx:
            return admin._token(tx, self.settings, gateway_id=None, role="service", at=now(tx))

    def _made(self, kind: str, index: int) -> Component:
        own = {}
        if kind == "relay":
            own["AIRAVATA_NUDGE_LISTEN"] = self.common["AIRAVATA_NUDGE_TO"] if index == 0 else f"127.0.0.1:{free_port()}"
        if kind == "api":
            own = {"AIRAVATA_PUBLIC_LISTEN": f"127.0.0.1:{free_port()}", "AIRAVATA_INTERNAL_LISTEN": f"127.0.0.1:{free_port()}"}
        if kind == "sink":
            apis = self.components["api"]
            own["AIRAVATA_INTERNAL_URL"] = "http://" + apis[index % len(apis)].environment["AIRAVATA_INTERNAL_LISTEN"]
        return Component(kind, index, self.directory, {**self.common, **own})

    def all(self) -> list[Component]:
        return [each for kind in self.components.values() for each in kind]

    @property
    def urls(self) -> list[str]:
        return ["http://" + each.environment["AIRAVATA_PUBLIC_LISTEN"] for each in self.components["api"]]

    def down(self) -> None:
        """SIGTERM to all, SIGKILL to who does not go; then whatever still bears our mark."""
        for each in self.all():
            if each.alive:
                os.kill(each.pid, signal.SIGCONT)
                os.kill(each.pid, signal.SIGTERM)
        wait_until(lambda: not any(each.alive for each in self.all()), 20.0)
        for each in self.all():
            if each.alive:
                each.end(signal.SIGKILL)
        for pid in self.orphans():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def orphans(self) -> list[int]:
        """Living processes with our mark in their environment, the components themselves left out: what a killed component left behind."""
        known, found = {each.pid for each in self.all() if each.starts} | {os.getpid()}, []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) > 1 and int(entry.name) not in known:
                with suppress(OSError):
                    if f"{MARK}={self.directory}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                        found.append(int(entry.name))
        return found

    # ---- harm -------------------------------------------------------------------------------------------------------------------------------------
    def kill(self, kind: str, index: int = 0) -> None:
        """SIGKILL, with proof."""
        victim = self.components[kind][index]
        self.rescued += victim.metrics().get("airavata_sweeper_rescues_total", 0.0)
        assert victim.alive, f"{victim.name} was gone before: {victim.daemon and victim.daemon.tail()}"
        status = victim.end(signal.SIGKILL)
        assert status == -signal.SIGKILL, status

    def start(self, kind: str, index: int = 0, *, wait: bool = True, **more: str) -> None:
        """Again, after a kill."""
        self.components[kind][index].start(**more)
        if wait:
            self.components[kind][index].await_ready()

    def freeze(self, kind: str, index: int = 0) -> None:
        victim = self.components[kind][index]
        os.kill(victim.pid, signal.SIGSTOP)
        assert wait_until(lambda: victim.state == "T", 5.0), f"{victim.name} is {victim.state}, not stopped"

    def thaw(self, kind: str, index: int = 0) -> None:
        victim = self.components[kind][index]
        os.kill(victim.pid, signal.SIGCONT)
        assert wait_until(lambda: victim.state != "T", 5.0), f"{victim.name} is still stopped"

    # ---- what is left behind ------------------------------------------------------------------------------------------------------------------------
    @contextmanager
    def connection(self) -> Iterator[Any]:
        url = make_url(self.database_url)
        connection = pymysql.connect(
            host=url.host or "127.0.0.1", port=url.port or 3306, user=url.username or "root", password=str(url.password or ""), database=url.database, autocommit=True, read_timeout=30, init_command="SET time_zone = '+00:00'"
        )  # fmt: skip
        try:
            yield connection
        finally:
            connection.close()

    def rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self.connection() as connection, connection.cursor() as cursor:
            cursor.execute(statement, parameters)
            return list(cursor.fetchall())

    def one(self, statement: str, *parameters: Any) -> Any:
        return self.rows(statement, *parameters)[0][0]

    def outbox_rows(self) -> int:
        return int(self.one("SELECT COUNT(*) FROM outbox"))

    def dead_letters(self) -> list[tuple[Any, ...]]:
        return self.rows("SELECT consumer_group, topic, error_class, error_text FROM dead_letters")

    def rescues(self) -> float:
        """By the sweepers of all schedulers, those killed since included."""
        return self.rescued + sum(each.metrics().get("airavata_sweeper_rescues_total", 0.0) for each in self.components["scheduler"] if each.alive)

    def quiet(self, seconds: float = 60.0) -> None:
        """Nothing waits to be sent, and the history has everything that was sent."""
        self.until(lambda: self.outbox_rows() == 0, seconds, lambda: f"{self.outbox_rows()} outbox rows: {self.rows('SELECT topic, part, created_at FROM outbox LIMIT 5')}")

    def until(self, condition: Callable[[], Any], seconds: float, told: Callable[[], object] = lambda: "") -> None:
        if not wait_until(lambda: bool(condition()), seconds, 0.05):
            dead = [f"{each.name} ended with {each.daemon.child.returncode}: {each.daemon.tail(3)}" for each in self.all() if each.daemon and each.daemon.child and not each.alive]
            raise AssertionError(f"not within {seconds:.0f} s: {told()}; logs in {self.directory}; {dead}")


def ledger(path: Path) -> list[str]:
    """Tokens in the order in which the remote program itself wrote that it started."""
    return [line.split()[0] for line in path.read_text().splitlines() if line.endswith(" start")] if path.exists() else []
