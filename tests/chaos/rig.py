"""The system under chaos: two of every component on private servers, two fork hosts, clients that tell what they ask, and everything a run must leave behind.

`Rig` is tests/support/system.py with a journal, a fail-point file and a number of copies per component, a keeper that restarts what dies (as Kubernetes would) unless it is
told to leave it, and a run directory (tests/checker/formats.py). A run ends with `finish`: healed, quiet (P2), SIGTERM, collect, judge.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from app.dev.process import start_time
from app.dev.servers import ROOT, Native
from tests.chaos import collect, expectations, tenants
from tests.chaos.bounds import SSH_CONNECTIONS
from tests.chaos.client import Client
from tests.chaos.lines import Lines
from tests.chaos.links import Links
from tests.chaos.quiet import await_quiet
from tests.chaos.senses import Sampler, Tick
from tests.chaos.tenants import Tenant
from tests.chaos.workload import LAB, NEIGHBOUR
from tests.support.servers import end_leftovers
from tests.support.system import COMPONENTS, System

Document = dict[str, Any]
RUNS = ROOT / ".dev" / "chaos"
TWO = dict.fromkeys(COMPONENTS, 2)
QUIET_SECONDS = 120.0
RESTART_SECONDS = 0.2
VISITED = 4
_numbers = itertools.count(1)
EFFECT = Path(__file__).with_name("effect.sh")
INPUTS = [
    {"name": "seed", "type": "STRING", "required": True, "order": 1, "on_command_line": True},
    {"name": "seconds", "type": "FLOAT", "order": 2, "on_command_line": True, "default": 0},
    {"name": "status", "type": "INTEGER", "order": 3, "on_command_line": True, "default": 0},
    {"name": "manner", "type": "STRING", "order": 4, "on_command_line": True, "default": "plain"},
    {"name": "data", "type": "URI", "order": 5, "on_command_line": True},
]
OUTPUTS = [
    {"name": "result", "type": "URI", "required": True, "search_glob": "result.txt"},
    {"name": "said", "type": "STDOUT", "required": True},
    {"name": "complained", "type": "STDERR", "required": True},
]


@dataclass(frozen=True)
class Exit:
    """A component ended; `code` as Popen tells it (-9: SIGKILL). `asked`: the harness meant it to."""

    name: str
    pid: int
    code: int
    mono: float
    asked: bool


@contextmanager
def private_servers(kind: str = "mysql") -> Iterator[Native]:
    """Servers of this process alone, gone with it; those of a killed run are ended first."""
    for each in (RUNS / "servers").glob("[0-9]*"):
        if start_time(int(each.name.partition("-")[0])) is None:
            end_leftovers(each)
            subprocess.run(["rm", "-rf", str(each)], check=True)
    base = RUNS / "servers" / f"{os.getpid()}-{next(_numbers)}"
    native = Native(base)
    try:
        native.together(kind, "kafka", "sshd")
        yield native
    finally:
        native.close()
        subprocess.run(["rm", "-rf", str(base)], check=True)


class Rig(System):
    """Use as a context manager. `run`: the run directory, made here. `plan` is written before anything starts. `linked`: every connection goes through the fault proxy."""

    def __init__(self, run: Path, native: Native, plan: Document, *, kind: str = "mysql", counts: Mapping[str, int] = TWO, linked: bool = False, **settings: Any) -> None:
        self.run, self.native, self.plan, self.kind, self.linked = run, native, plan, kind, linked
        self.schema = f"chaos{os.getpid()}_{time.monotonic_ns() % 10**9}"
        run.mkdir(parents=True)
        (run / "plan.json").write_text(json.dumps(plan, indent=1))
        server, self.password = native.database(kind), os.urandom(16).hex()
        account = f"{self.schema}@'127.0.0.1'"
        server.execute(f"CREATE DATABASE {self.schema}", f"CREATE USER {account} IDENTIFIED BY '{self.password}'", f"GRANT ALL ON *.* TO {account} WITH GRANT OPTION")
        url = replace(server, user=self.schema, password=self.password).url(self.schema)
        given = {"partitions": 100, "placement_width": 16, **settings}
        super().__init__(native, run / "system", database_url=url, kafka=native.kafka(), topic_prefix=f"{self.schema}.", counts=counts, **given)
        self.marked = collect.mark(self.database_url)
        self.links = Links(self.database_url, self.kafka)
        self.client_lines, self.nemesis_lines, self.samples = (Lines(run / f"{name}.jsonl", name) for name in ("client", "nemesis", "samples"))
        self.down: set[str] = set()  # Left alone by the keeper: whoever struck it starts it again.
        self.hosts_died: set[int] = set()  # By their numbers: a job that was under way there may be lost.
        self.exits: list[Exit] = []
        self.meant: list[tuple[str, int, float, float]] = []  # Ends that a nemesis provokes: name, code, from when to when.
        self.lives = 0
        self.when_healed: Callable[[], None] = lambda: None
        self._stack, self._reviving = ExitStack(), threading.RLock()

    # ---- life -------------------------------------------------------------------------------------------------------------------------------------
    def __enter__(self) -> Self:
        super().__enter__()
        self.gateway.close()
        self.gateway = self.client = Client(self.gateway.urls, self.tokens["gateway_token"], tenant=self.tokens["gateway_id"], lines=self.client_lines)
        operator = Client(self.gateway.urls, self.tokens["operator_token"], tenant="operator", lines=self.client_lines, session="operator")
        self.tenants = {LAB: tenants.tenant(self.client), NEIGHBOUR: tenants.neighbour(operator)}
        operator.close()
        self._stack.callback(self.tenants[NEIGHBOUR].client.close)
        self.places = self._places()
        self.tick = Tick()
        groups = sorted({row[0] for row in self.rows("SELECT DISTINCT consumer_group FROM positions")})
        hosts = {f"fork-{n}": self.native.daemons[f"sshd-{n}"].pid or 0 for n in (1, 2)}
        self.sampler = Sampler(self.samples, rows=self.rows, kafka=self.kafka, groups=groups, processes=self.pids, hosts=hosts, tick=self.tick)
        self._stopped = threading.Event()
        self._keeper = threading.Thread(target=self._look_after, name="keeper", daemon=True)
        self._keeper.start()
        self._stack.callback(self.tick.close)
        self._stack.callback(self.sampler.close)
        self._stack.callback(self._keeper.join, 60.0)
        self._stack.callback(self._stopped.set)
        return self

    def _own(self, component: str, copy: int) -> dict[str, str]:
        """Both copies share a struck directory: a point armed for both strikes one of them."""
        self.lives += 1
        self.points(component, copy).touch()
        own = super()._own(component, copy) | {
            "JOURNAL": str(self._directory("journal")), "JOURNAL_WHO": f"{component}/{copy}",
            "FAILPOINTS": f"@{self.points(component, copy)}", "STRUCK_DIRECTORY": str(self.run / "struck" / component),
        }  # fmt: skip
        return own | (self.links.own(component, copy, internal_url=own.get("INTERNAL_URL", ""), nudge_to=self.environment["AIRAVATA_NUDGE_TO"]) if self.linked else {})

    def _directory(self, name: str) -> Path:
        made = self.run / name
        made.mkdir(parents=True, exist_ok=True)
        return made

    def points(self, component: str, copy: int) -> Path:
        """The file a copy reads its fail points from, again whenever it changes."""
        return self._directory("failpoints") / f"{component}-{copy}"

    def arm(self, component: str, *entries: str, copies: Sequence[int] = (0, 1)) -> None:
        """Read by the running processes within 50 ms. A point that struck before strikes anew."""
        for each in entries:
            for root in (self.run / "scratch").glob("*/scratch/.airavata"):
                for mark in root.glob(f"struck.{each.partition('=')[0]}.*"):
                    mark.unlink()
            (self.run / "struck" / component / f"{each.partition('=')[0]}.{each.partition('=')[2].split('@')[0].split('?')[0]}.struck").unlink(missing_ok=True)
        for copy in copies:
            file = self.points(component, copy)
            file.with_suffix(".new").write_text("\n".join(entries))
            file.with_suffix(".new").rename(file)  # Nobody reads half a line.

    def disarm(self, component: str) -> None:
        self.arm(component, copies=range(self.counts[component]))

    def pids(self) -> dict[str, int]:
        return {"/".join(name.rsplit("-", 1)): each.child.pid for name, each in list(self.daemons.items()) if each.child is not None and self.alive(each)}

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self.end()
        self.links.close()
        with suppress(Exception):
            self.native.database(self.kind).execute(f"DROP DATABASE {self.schema}", f"DROP USER {self.schema}@'127.0.0.1'")

    # ---- places -----------------------------------------------------------------------------------------------------------------------------------
    def host_directory(self, number: int) -> Path:
        """Of a fork host: its scratch, the ledger program and the ledger, which stands outside every work directory."""
        return self._directory("scratch") / f"fork-{number}"

    def _places(self) -> Document:
        client = self.client
        storage = client.storage(self.run / "storage")
        module = client.post("/application-modules", {"name": client.a_name("effect"), "module_version": "1"})["id"]
        interface = client.post("/application-interfaces", {"name": client.a_name("effect"), "module_ids": [module], "inputs": INPUTS, "outputs": OUTPUTS})["id"]
        hosts = {}
        for number in (1, 2):
            base = self.host_directory(number)
            ssh = self.native.ssh_host(number)
            host = hosts[number] = client.host(self.links.host(number, ssh) if self.linked else ssh, base / "scratch", limits={"connections": SSH_CONNECTIONS, "connections_per_minute": 600})
            deployment = {"module_id": module, "compute_resource_id": host, "executable_path": str(EFFECT), "environment": {"LEDGER": str(base / "ledger")}}
            client.post("/application-deployments", deployment)
        return {"storage": storage, "effect": interface, "hosts": hosts, "shape": self.tenants[LAB].shape}

    def tenant(self, launch: Mapping[str, Any]) -> Tenant:
        """Whose launch it is."""
        return self.tenants[launch.get("tenant", LAB)]

    def stranger(self, launch: Mapping[str, Any]) -> Client:
        """One whose launch it is not."""
        return next(each.client for each in self.tenants.values() if each is not self.tenant(launch))

    def body(self, launch: Mapping[str, Any]) -> Document:
        """What is sent to POST /experiments for a launch of the plan."""
        tenant, effect = self.tenant(launch), launch["application"] == "effect"
        made = tenant.marked({"name": launch["name"], "application_interface_id": self.places["effect"] if effect else tenant.shape, "inputs": launch["inputs"], "launch": True})
        if effect:
            made |= {
                "compute_resource_id": self.places["hosts"][launch["host"]], "output_storage_id": self.places["storage"], "cleanup_strategy": launch["cleanup_strategy"],
                "scheduling": {"wall_time_seconds": launch["wall_time_seconds"]},
            }  # fmt: skip
        return made

    def launch(self, launch: Mapping[str, Any]) -> str:
        return self.tenant(launch).client.carry_out(launch, self.body(launch))

    def visit(self, launched: Mapping[str, Mapping[str, Any]]) -> None:
        """Each tenant looks at what it launched last, and asks for what the other did."""
        for tenant in self.tenants.values():
            tenant.client.look()
            for experiment in [each for each, launch in launched.items() if self.tenant(launch) is tenant][-VISITED:]:
                tenant.client.look(experiment)
                self.stranger(launched[experiment]).trespass(experiment)

    # ---- death and resurrection ---------------------------------------------------------------------------------------------------------------------
    def _look_after(self) -> None:
        """Starts again whatever ends by itself; whoever is in `down` is left to whoever put it there."""
        while not self._stopped.wait(0.05):
            for name, daemon in list(self.daemons.items()):
                if name not in self.down and daemon.child is not None and not self.alive(daemon):
                    self.exits.append(Exit(name, daemon.child.pid, daemon.child.returncode, time.monotonic(), asked=False))
                    time.sleep(RESTART_SECONDS)
                    self.restart(name)

    def restart(self, name: str, *, wait: bool = False, looked_after: bool = True) -> None:
        """A new life of a component; the keeper looks after it again, unless told otherwise."""
        component, _, copy = name.rpartition("-")
        with self._reviving:  # Whoever comes second finds it alive.
            if not self.alive(self.daemons[name]):
                self.revive(component, int(copy), wait=wait)
        if looked_after:
            self.down.discard(name)

    def recycle(self, name: str) -> None:
        """SIGTERM, and a new life at once."""
        alone = name in self.down
        self.down.add(name)
        child = self.daemons[name].child  # Whose end others may see first, and give it a new life.
        self.signal(name, signal.SIGTERM)
        self.await_end(name, 60.0, child)
        self.restart(name, looked_after=not alone)

    def strike(self, name: str) -> tuple[float, int]:
        """SIGKILL by pidfd, so that no pid given anew is hit; (when, wait status). It stays down until `restart`."""
        self.down.add(name)
        child = self.daemons[name].child
        assert child is not None
        handle = os.pidfd_open(child.pid)
        try:
            struck = time.monotonic()
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
        return struck, self.await_end(name)

    def await_end(self, name: str, seconds: float = 30.0, child: "subprocess.Popen[bytes] | None" = None) -> int:
        """The wait status of one that is in `down`."""
        child = child or self.daemons[name].child
        assert child is not None
        code = child.wait(seconds)
        self.exits.append(Exit(name, child.pid, code, time.monotonic(), asked=True))
        return code

    def status_of(self, pid: int) -> int | None:
        """How a life of a component ended, whoever saw it; None while it lives."""
        for daemon in list(self.daemons.values()):
            if daemon.child is not None and daemon.child.pid == pid and daemon.child.poll() is not None:
                return daemon.child.returncode
        return next((each.code for each in self.exits if each.pid == pid), None)

    def signal(self, name: str, number: int) -> float:
        child = self.daemons[name].child
        assert child is not None
        at = time.monotonic()
        os.kill(child.pid, number)
        return at

    def bugs(self) -> list[Exit]:
        """Ends that nobody meant: 70 is a bug, 78 a refusal to start, 75 fenced three times by a stranger."""
        return [each for each in self.exits if not each.asked and each.code != 0 and not any(name == each.name and code == each.code and since <= each.mono <= until for name, code, since, until in self.meant)]

    # ---- the end of a run -----------------------------------------------------------------------------------------------------------------------------
    def finish(self, launched: Mapping[str, Mapping[str, Any]]) -> int:
        """Everything is healed: wait until quiet, SIGTERM, collect, judge. 0: all HELD and each launch came to what its plan says; 1: something BROKEN; 2: undecided."""
        self.nemesis_lines.write("healed")
        self.when_healed()
        seconds, found = await_quiet(self, QUIET_SECONDS)
        self.nemesis_lines.write("quiet", quiet=not found, asked_seconds=round(seconds, 2), open=found)
        unmet = expectations.unmet(self, launched)
        self.visit(launched)
        self._stack.close()
        killed = self.stop()
        bugs = [f"{each.name} ended by itself with {each.code}" for each in self.bugs()] + [f"{name} did not end in time after SIGTERM" for name in killed]
        (self.run / "unmet.json").write_text(json.dumps({"unmet": unmet, "bugs": bugs, "counted": expectations.counted(self)}, indent=1))
        self._tell_canaries()
        hosts = [self._host(number) for number in (1, 2)]
        told = {"journal": True, "lives": self.lives, "commit": commit(), "versions": self._versions(), "machine": f"{os.cpu_count()} cores", "repeat": f"python -m tests.chaos replay {self.run}"}
        collect.collect(self.run, database_url=self.database_url, kafka=self.kafka, topic_prefix=self.settings["TOPIC_PREFIX"], marked=self.marked, hosts=hosts, told=told)
        verdict = subprocess.run([sys.executable, "-m", "tests.checker", str(self.run)], cwd=ROOT, check=False).returncode
        return 1 if unmet or bugs else verdict

    def _tell_canaries(self) -> None:
        bearers = [self.tokens["operator_token"], *(each.client.token for each in self.tenants.values())]
        told = {"tenants": {each.client.tenant: [each.canary] for each in self.tenants.values()}, "secrets": tenants.secrets_of(self.directory, bearers, self.password, self.rows)}
        file = self.run / "canaries.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(told, indent=1))

    def _host(self, number: int) -> collect.Host:
        base = self.host_directory(number)
        storages = {self.places["storage"]: self.run / "storage"} if number == 1 else {}
        return collect.Host(f"fork-{number}", [base / "scratch"], [base / "ledger"], storages, self.native.daemons[f"sshd-{number}"].log)

    def _versions(self) -> dict[str, str]:
        jars = sorted((ROOT / ".dev/lib/kafka").glob("kafka_*.jar"))
        return {self.kind: str(self.one("SELECT VERSION()")), "kafka": jars[0].stem.partition("-")[2] if jars else "unknown"}


def commit() -> str:
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=False, capture_output=True, text=True)
    return told.stdout.strip() or "unknown"
