"""A whole system for a test: app/dev/system.py with harm and evidence. Ended with the test, whatever becomes of it.

A kill counts only with its proof: the wait status of a SIGKILL, or state T in /proc for a freeze. Waits have deadlines and name the log to read. Nothing is ever signalled
by name: only children of this process, and what they left behind, known by a mark in their environment.
"""

import os
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from app import admin
from app.dev import system as dev
from app.dev.process import Daemon, wait_until
from app.settings import read
from tests.support.gateway import Gateway
from tests.support.sql import connect

COMPONENTS = tuple(dev.COMPONENTS)
WITHOUT_HOSTS = {each: 1 for each in COMPONENTS if each not in {"executor-environment", "executor-data", "executor-job"}}
READY_SECONDS = 90.0
MARK = "TEST_SYSTEM"


class System(dev.System):
    """Use as a context manager. `counts`: how many of each component; `settings`: AIRAVATA_* values over what is given to all."""

    def __init__(
        self, servers: Any, directory: Path, *, database_url: str, kafka: str, topic_prefix: str, partitions: int = 12, counts: Mapping[str, int] | None = None, **settings: Any
    ) -> None:
        given = {
            "ENVIRONMENT": topic_prefix.strip("."),
            "TOPIC_PREFIX": topic_prefix,
            "PARTITIONS": str(partitions),
            "LIVE_EXPERIMENTS_MAX": "0",
            "WATCH_INTERVAL_MS": "200",
            MARK: str(directory),
            **{key.upper(): str(value) for key, value in settings.items()},
        }
        super().__init__(directory, database_url, kafka, given)
        self.servers, self.counts = servers, dict(counts or dict.fromkeys(COMPONENTS, 1))
        self.rescued, self.apis = 0.0, self.counts.get("api", 1)
        self.gateway: Gateway | Any = None

    # ---- life -------------------------------------------------------------------------------------------------------------------------------------
    def __enter__(self) -> "System":
        try:
            self.prepare()
            self.tokens = admin.bootstrap(read(self.environment), gateway="lab")
            for component, copies in self.counts.items():
                for copy in range(copies):
                    self.daemon(component, copy, **self._own(component, copy)).start()
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(self.await_ready, self.daemons))
            self.gateway = Gateway([self.url_of(copy) for copy in range(self.apis)], self.tokens["gateway_token"], besides=self.ended)
        except BaseException:
            self.end()
            raise
        return self

    def _own(self, component: str, copy: int) -> dict[str, str]:
        """Each sink hands over to an API server of its own."""
        return {"INTERNAL_URL": f"http://127.0.0.1:{self.port(f'internal-{copy % self.apis}')}"} if component == "event-sink" else {}

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """SIGKILL: it is as safe, and draining has tests of its own. Then whatever still bears our mark."""
        if self.gateway is not None:
            self.gateway.close()
        for each in self.daemons.values():
            if each.child is not None and self.alive(each):
                os.kill(each.child.pid, signal.SIGKILL)
        for each in self.daemons.values():
            if each.child is not None:
                each.child.wait(60.0)
        for pid in self.orphans():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> list[str]:
        """SIGTERM to all, then one after the other; names those that had to be killed."""
        for each in self.daemons.values():
            each.signal(15)
        killed = [name for name, each in self.daemons.items() if each.pid is not None and not each.stop()]
        wait_until(lambda: all(each.pid is None for each in self.daemons.values()), 5.0)
        return killed

    def orphans(self) -> list[int]:
        """Living processes with our mark that descend from no living component: what a killed one left behind."""
        living = {each.child.pid for each in self.daemons.values() if each.child is not None and self.alive(each)} | {os.getpid()}
        marked = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and int(entry.name) > 1 and self._marked(entry)}
        return sorted(each for each in marked - living if not living & set(_ancestors(each)))

    def _marked(self, entry: Path) -> bool:
        with suppress(OSError):
            return f"AIRAVATA_{MARK}={self.directory}".encode() in (entry / "environ").read_bytes().split(b"\0")
        return False

    @staticmethod
    def alive(daemon: Daemon) -> bool:
        return daemon.child is not None and daemon.child.poll() is None

    def await_ready(self, name: str, seconds: float = READY_SECONDS) -> None:
        daemon = self.daemons[name]
        wait_until(lambda: self.ready(name) is None or not self.alive(daemon), seconds)
        missing = self.ready(name)
        if missing is not None:
            raise AssertionError(f"{name} is not ready within {seconds:.0f} s: {missing}; alive {self.alive(daemon)}, log {daemon.log}\n{daemon.tail(15)}")

    # ---- harm -------------------------------------------------------------------------------------------------------------------------------------
    def pid_of(self, component: str, copy: int = 0) -> int:
        child = self.daemons[f"{component}-{copy}"].child
        assert child is not None
        return child.pid

    def kill(self, component: str, copy: int = 0) -> None:
        """SIGKILL to the process alone (its workers must notice by themselves), with proof."""
        victim = self.daemons[f"{component}-{copy}"]
        assert self.alive(victim), f"{victim.name} was gone before, exit {victim.child and victim.child.returncode}: {victim.tail(60)}"
        self.rescued += self.rescues_of(victim.name)
        assert victim.child is not None
        os.kill(victim.child.pid, signal.SIGKILL)
        assert victim.child.wait(60.0) == -signal.SIGKILL, victim.child.returncode

    def asked_to_stop(self, component: str, seconds: float, copy: int = 0) -> None:
        """SIGTERM, twice; it must end with 0 in that time. Who does not is aborted, so that its log says where its threads were."""
        daemon = self.daemons[f"{component}-{copy}"]
        assert daemon.child is not None
        daemon.child.terminate()
        daemon.child.terminate()
        try:
            code = daemon.child.wait(seconds)
        except subprocess.TimeoutExpired:
            daemon.child.send_signal(signal.SIGABRT)
            daemon.child.wait(30.0)
            raise AssertionError(f"{daemon.name} did not stop within {seconds:.0f} s: {daemon.tail(100)}") from None
        assert code == 0, f"{daemon.name} ended with {code}: {daemon.tail(20)}"

    def revive(self, component: str, copy: int = 0, *, wait: bool = True, **settings: str) -> None:
        """Start it again. `settings`: of this life alone, for example failpoints."""
        del self.daemons[f"{component}-{copy}"]
        anew = self.daemon(component, copy, **self._own(component, copy), **{key.upper(): value for key, value in settings.items()})
        anew.start()
        if wait:
            self.await_ready(anew.name)

    def freeze(self, component: str, copy: int = 0) -> None:
        pid = self.pid_of(component, copy)
        os.kill(pid, signal.SIGSTOP)
        assert wait_until(lambda: state_of(pid) == "T", 30.0), f"{component}-{copy} is not stopped"

    def frozen(self, component: str, copy: int = 0) -> bool:
        """By itself, at a fail point with mode pause."""
        return state_of(self.pid_of(component, copy)) == "T"

    def thaw(self, component: str, copy: int = 0) -> None:
        pid = self.pid_of(component, copy)
        os.kill(pid, signal.SIGCONT)
        assert wait_until(lambda: state_of(pid) != "T", 30.0), f"{component}-{copy} is still stopped"

    # ---- what is left behind ------------------------------------------------------------------------------------------------------------------------
    def connection(self) -> Any:
        return connect(self.database_url)

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

    def metric(self, name: str, metric: str, **labels: str) -> float:
        """A figure of an instance's /metrics, summed over all labels that are not given."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        with urllib.request.urlopen(f"http://{self.admin_address(name)}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{metric} ", f"{metric}{{")) and all(each in line for each in wanted))

    def rescues_of(self, name: str) -> float:
        if not name.startswith("scheduler"):
            return 0.0
        with suppress(OSError):
            return self.metric(name, "airavata_rescued_total")
        return 0.0

    def rescues(self) -> float:
        """By the sweepers of all schedulers, those killed since included."""
        return self.rescued + sum(self.rescues_of(name) for name in self.daemons)

    def quiet(self, seconds: float = 120.0) -> None:
        """Nothing waits to be sent."""
        self.until(lambda: self.outbox_rows() == 0, seconds, lambda: self.rows("SELECT topic, part, created_at, UTC_TIMESTAMP(6) FROM outbox LIMIT 5"))

    def until(self, condition: Callable[[], Any], seconds: float, told: Callable[[], object] = lambda: "") -> None:
        if not wait_until(lambda: bool(condition()), seconds, 0.05):
            raise AssertionError(f"not within {seconds:.0f} s: {told()}; {self.ended()}")

    def ended(self) -> str:
        """For who waits in vain: the components that have ended, each with the end of its log."""
        dead = [f"{each.name} ended with {each.child.returncode}:\n{each.tail(50)}" for each in self.daemons.values() if each.child and not self.alive(each)]
        return "\n".join([f"logs in {self.directory}", *dead])


def state_of(pid: int) -> str:
    """The letter in /proc: T is stopped; empty once it is gone, also when it goes while it is looked at."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


def _ancestors(pid: int) -> Iterator[int]:
    with suppress(OSError, IndexError):
        while pid > 1:
            yield pid
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def ledger(path: Path) -> list[str]:
    """Tokens in the order in which the remote program itself wrote that it started."""
    return [line.split()[0] for line in path.read_text().splitlines() if line.endswith(" start")] if path.exists() else []
