"""The rig as a cluster keeps it: each component a Deployment that rolls with maxSurge 1 and maxUnavailable 0 (k8s/base/every-deployment.yaml), from this tree or from an older one.

A component has a slot more than copies. A copy is replaced by starting the next life in the free slot and, when that one is ready, telling the old one to stop: never are there fewer
ready than there should be. Who asks the API goes to whoever is ready and not stopping, as through a Service; nudges go to every relay, as by a headless one.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import app
from app.dev.process import Daemon
from app.dev.servers import ROOT, Native
from tests.chaos.links import Nudges
from tests.chaos.rig import Rig
from tests.deployment.table import DEPLOYMENTS

Document = dict[str, Any]
PACKAGES = ("app", "outbox_relay", "components", "observability", "migrations", "airavata_workflow")
TRAVELS = ("app/messages", "migrations")  # What two releases must agree on.
PLUG_IN_GRACE = 40  # Of the executor of no-ops, which no cluster has.


@dataclass(frozen=True)
class Release:
    """`version` is what a life of it says at its start."""

    version: str
    tree: Path


class NotOfThatRelease(AssertionError):
    """A life that should run one release does not say and show so."""


def previous(root: Path = ROOT) -> str:
    """The newest commit before what travels last changed, the working tree included; empty where the history does not reach so far."""
    if _git(root, "diff", "--quiet", "HEAD", "--", *TRAVELS) is None:
        return _git(root, "rev-parse", "--verify", "--quiet", "HEAD") or ""
    last = _git(root, "log", "-1", "--format=%H", "--", *TRAVELS)
    return (last and _git(root, "rev-parse", "--verify", "--quiet", f"{last}^")) or ""


def _git(root: Path, *words: str) -> str | None:
    told = subprocess.run(["git", *words], cwd=root, check=False, capture_output=True, text=True)
    return told.stdout.strip() if told.returncode == 0 else None


def exported(revision: str, tree: Path) -> Release:
    """The product of a revision in a directory of its own. Its version bears the revision, so that each life says in its own journal which tree it was imported from."""
    tree.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", revision, *PACKAGES], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive, check=True)
    stamp = f"+{revision[:9]}"
    with (tree / "app/__init__.py").open("a") as file:
        file.write(f'\nVERSION += "{stamp}"  # Written by the harness.\n')
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(tree)], check=True)
    version = subprocess.run([sys.executable, "-c", "import app; print(app.VERSION)"], cwd=tree, check=True, capture_output=True, text=True).stdout.strip()
    if not version.endswith(stamp):
        raise NotOfThatRelease(f"python in {tree} imports {version}")
    return Release(version, tree)


class Headless(Nudges):
    """One address for all relays: each datagram goes to every slot, and is lost where none listens."""

    def __init__(self, ports: list[int]) -> None:
        super().__init__(("127.0.0.1", 0))
        self.ports = ports

    def datagram_received(self, data: bytes, _: Any) -> None:
        for port in self.ports:
            self.transport.sendto(data, ("127.0.0.1", port))


class Fleet(Rig):
    """`plan`: `copies` by component, `begins` (old or new: the release all start with), `revision` (what old is)."""

    def __init__(self, run: Path, native: Native, plan: Document, **settings: Any) -> None:
        super().__init__(run, native, plan, counts=plan["copies"], **settings)
        self.releases = {"new": Release(app.VERSION, ROOT)}
        if plan["revision"]:
            self.releases["old"] = exported(plan["revision"], run / "releases" / plan["revision"][:9])
        self.runs: dict[str, str] = {}  # Name of a copy → release of its next life.
        self.since: dict[str, float] = {}
        self.service = self.links.proxy.link("service", "api", ("127.0.0.1", self.port("internal-0")))
        nudges = [self.port(f"nudge-{slot}") for slot in range(self.counts["relay"] + 1)]
        loop = self.links.proxy.loop
        transport, _ = self.links.proxy.run(loop.create_datagram_endpoint(lambda: Headless(nudges), local_addr=("127.0.0.1", 0)))
        self._stack.callback(loop.call_soon_threadsafe, transport.close)
        self.nudge_to = f"127.0.0.1:{transport.get_extra_info('sockname')[1]}"

    def _own(self, component: str, copy: int) -> dict[str, str]:
        return super()._own(component, copy) | {"NUDGE_TO": self.nudge_to} | ({"INTERNAL_URL": f"http://{self.service.address}"} if component == "event-sink" else {})

    def daemon(self, component: str, copy: int = 0, **settings: str) -> Daemon:
        made = super().daemon(component, copy, **settings)
        release = self.runs.setdefault(made.name, self.plan["begins"])
        self.since.setdefault(made.name, time.monotonic())
        made.directory_of_work = self.releases[release].tree
        return made

    # ---- copies -------------------------------------------------------------------------------------------------------------------------------------
    def slots(self, component: str) -> list[str]:
        return [f"{component}-{slot}" for slot in range(self.counts[component] + 1)]

    def living(self, component: str) -> list[str]:
        """Those that serve, the longest first."""
        return sorted((each for each in self.slots(component) if each in self.daemons and self.alive(self.daemons[each])), key=lambda each: self.since[each])

    def replace(self, component: str, to: str) -> Document:
        """One step of a roll, and its evidence. Whoever is not of the release goes first, then the oldest. Raises if the new life does not become ready, or is not what it should be."""
        out = min(self.living(component), key=lambda each: (self.runs[each] == to, self.since[each]))
        comes = next(each for each in self.slots(component) if each not in self.living(component))
        self.down.add(comes)
        self.daemons.pop(comes, None)
        self.runs[comes], self.since[comes] = to, time.monotonic()
        slot = int(comes.rpartition("-")[2])
        self.daemon(component, slot, **self._own(component, slot)).start()
        self.await_ready(comes)
        self.down.discard(comes)
        evidence = {"came": self.told(comes), "ready_seconds": round(time.monotonic() - self.since[comes], 3), "went": self.told(out)}
        return {**evidence, **self.stopped(out)}

    def stopped(self, name: str) -> Document:
        """SIGTERM; how it ended and after how long. Who does not end within its grace is aborted, so that its log says where its threads were: wait status −6."""
        child, component = self.daemons[name].child, name.rpartition("-")[0]
        assert child is not None
        self.down.add(name)
        struck = self.signal(name, signal.SIGTERM)
        self.route(without=name)
        try:
            code = self.await_end(name, grace(component))
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGABRT)
            code = self.await_end(name)
        return {"struck": struck, "wait_status": code, "stop_seconds": round(time.monotonic() - struck, 3)}

    def route(self, without: str = "") -> None:
        """The Service: its endpoints are who serves and is not stopping."""
        slots = [int(each.rpartition("-")[2]) for each in self.living("api") if each != without]
        for each in self.tenants.values():
            each.client.urls = [self.url_of(slot) for slot in slots]
        self.service.target = ("127.0.0.1", self.port(f"internal-{slots[-1]}"))

    def told(self, name: str) -> Document:
        """Which release a living copy runs, as its own journal and /proc say. Raises NotOfThatRelease."""
        component, _, slot = name.rpartition("-")
        pid, release = self.pid_of(component, int(slot)), self.releases[self.runs[name]]
        starts = [json.loads(path.read_bytes().partition(b"\n")[0]) for path in (self.run / "journal").glob(f"{name}.*.jsonl")]
        start = max((each for each in starts if each["pid"] == pid), key=lambda each: float(each["mono"]))
        found = {"life": start["life"], "version": start["version"], "tree": str(Path(f"/proc/{pid}/cwd").readlink())}
        if (found["version"], Path(found["tree"])) != (release.version, release.tree.resolve()):
            raise NotOfThatRelease(f"{name} should run {release}, and is {found}")
        return {"name": name, "release": self.runs[name], **found}


def grace(component: str) -> float:
    """Seconds until a cluster kills it."""
    row = DEPLOYMENTS.get(component)
    return float(row.grace_seconds if row is not None else PLUG_IN_GRACE)


def releases_seen(run: Path, releases: Mapping[str, str]) -> dict[str, int]:
    """Release → how many lives said in their journals that they ran it. `releases`: version → release."""
    found = dict.fromkeys(releases.values(), 0)
    for path in (run / "journal").glob("*.jsonl"):
        start = json.loads(path.read_bytes().partition(b"\n")[0])
        if start.get("version") in releases:
            found[releases[start["version"]]] += 1
    return found
