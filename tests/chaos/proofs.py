"""Proof that a blow struck: of a kill the wait status; of a fail point besides it the journal's line, written before the act, and the `struck` file. No proof, no fault."""

import json
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.dev.process import wait_until
from tests.chaos.lines import read
from tests.chaos.rig import Rig
from tests.support.system import state_of

STRIKE_SECONDS = 60.0
STATUSES: Mapping[str, int] = {"crash": -signal.SIGKILL, "exit": 70}


@dataclass(frozen=True)
class Proof:
    """`struck`: CLOCK_MONOTONIC of the blow. `evidence`: what was measured; empty proves nothing. `more`: further keys of the line, as `takeover`, `spare`, `zombie`."""

    struck: float
    evidence: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


class NotProven(AssertionError):
    """The blow may not have struck; the text says what is missing."""


def killed(rig: Rig, name: str) -> Proof:
    struck, status = rig.strike(name)
    if status != -signal.SIGKILL:
        raise NotProven(f"{name} ended with {status}, not by SIGKILL")
    return Proof(struck, {"wait_status": -status})


def at_point(rig: Rig, name: str, point: str, mode: str) -> Proof:
    """Arm one copy and wait until it has struck itself."""
    component, _, copy = name.rpartition("-")
    rig.down.add(name)
    hits = Hits(rig, component)
    rig.arm(component, f"{point}={mode}", copies=[int(copy)])
    return hits.proof(hits.wait(point, mode), mode)


@dataclass(frozen=True)
class Hit:
    """A `failpoint.hit`: whose (component-copy), where, when, of which process; `begun`: when the unit it struck in began."""

    name: str
    point: str
    mono: float
    pid: int
    worker: bool
    begun: float
    evidence: Mapping[str, Any]


class Hits:
    """The lines that a component's copies and their workers write from now on, and the `hits` file of each host."""

    def __init__(self, rig: Rig, component: str) -> None:
        self.rig, self.component = rig, component
        self.read: dict[Path, int] = {path: path.stat().st_size for path in self._files()}
        self.pids: dict[Path, int] = {}
        self.open: dict[Path, dict[str, float]] = {}  # Steps that have begun and not ended.
        self.found: list[Hit] = []

    def _files(self) -> list[Path]:
        return [*(self.rig.run / "journal").glob(f"{self.component}-[0-9]*.jsonl"), *(self.rig.run / "scratch").glob("*/scratch/.airavata/hits")]

    def wait(self, point: str, mode: str, seconds: float = STRIKE_SECONDS) -> Hit:
        """The first hit of this point. Raises NotProven if there is none in time."""
        if not wait_until(lambda: self.look(point, mode) is not None, seconds, 0.005):
            raise NotProven(f"{point} was not reached by {self.component} within {seconds:.0f} s")
        hit = self.look(point, mode)
        assert hit is not None
        return hit

    def look(self, point: str, mode: str) -> Hit | None:
        for path in self._files():
            begin = self.read.get(path, 0)
            if path.stat().st_size > begin:
                with path.open("rb") as file:
                    file.seek(begin)
                    text = file.read()
                whole = text[: text.rfind(b"\n") + 1]
                self.read[path] = begin + len(whole)
                self.found += [hit for line in whole.splitlines() if (hit := self._hit(path, line, mode)) is not None]
        return next((each for each in self.found if each.point == point), None)

    def _hit(self, path: Path, line: bytes, mode: str) -> Hit | None:
        if path.name == "hits":
            point, did, token, pid, at = line.decode().split()
            mono = time.monotonic() - (time.time() - float(at))
            return Hit(f"host {path.parts[-4]}", point, mono, int(pid), False, mono, {"host": path.parts[-4], "token": token}) if did == mode else None
        told = json.loads(line)
        if told["kind"] == "unit.begin":
            self.open.setdefault(path, {})[told["step"]] = told["mono"]
        elif told["kind"] == "unit.end" and "step" in told:  # A long line goes on in others, which bear lists alone.
            self.open.setdefault(path, {}).pop(told["step"], None)
        if told["kind"] != "failpoint.hit" or told["mode"] != mode:
            return None
        if path not in self.pids:
            with path.open() as file:
                self.pids[path] = json.loads(file.readline())["pid"]
        words = told["who"].split("/")
        evidence = {key: told[key] for key in ("who", "life", "n", "point", "reached")}
        unit = told["point"].rpartition(".")[0]
        begun = min((at for step, at in self.open.get(path, {}).items() if step.startswith(f"{unit}#")), default=told["mono"])
        return Hit("-".join(words[:2]), told["point"], told["mono"], self.pids[path], len(words) > 2, begun, evidence)

    def proof(self, hit: Hit, mode: str) -> Proof:
        """The first three of the four proofs: the line, the `struck` mark, and the status that the harness itself sees. Raises NotProven."""
        mark = self.rig.run / "struck" / self.component / f"{hit.point}.{mode}.struck"
        if hit.name.startswith("host "):
            mark = self.rig.run / "scratch" / hit.evidence["host"] / "scratch/.airavata" / f"struck.{hit.point}.{mode}"
        if not wait_until(lambda: mark.exists() or mark.is_symlink(), 1.0):
            raise NotProven(f"{hit.point}: a hit is told, and there is no {mark.name}")
        status = _status(self.rig, hit.name, mode, worker=hit.worker or hit.name.startswith("host "), pid=hit.pid)
        return Proof(hit.mono, {"journal": hit.evidence, "struck": mark.name, **status})


def _status(rig: Rig, name: str, mode: str, *, worker: bool, pid: int) -> dict[str, Any]:
    """A component is our child: its wait status. A worker is the executor's: that its pid is gone is all that can be seen."""
    if mode == "pause":
        if not wait_until(lambda: state_of(pid) == "T", 5.0):
            raise NotProven(f"{name} says it stopped, and is not in state T")
        return {"state": "T"}
    if mode not in STATUSES:
        return {"alive": rig.alive(rig.daemons[name])}
    if worker:
        if not wait_until(lambda: state_of(pid) in {"", "Z"}, 5.0):
            raise NotProven(f"worker {pid} of {name} lives on")
        return {"gone": pid}
    if not wait_until(lambda: rig.status_of(pid) is not None, 10.0, 0.005):
        raise NotProven(f"{name} lives on")
    status = rig.status_of(pid)
    if status != STATUSES[mode]:
        raise NotProven(f"{name} ended with {status}, not {STATUSES[mode]}")
    return {"wait_status": abs(STATUSES[mode])}


def woken(rig: Rig, name: str) -> float:
    """SIGCONT; when."""
    return rig.signal(name, signal.SIGCONT)


def rejoined_or_ended(rig: Rig, name: str, since: float) -> bool:
    """A woken zombie claims anew, or ends by itself."""
    component, _, copy = name.rpartition("-")
    if not rig.alive(rig.daemons[name]):
        return True
    return any(line["kind"] == "partition.claim" and line["mono"] > since for path in (rig.run / "journal").glob(f"{component}-{copy}.*.jsonl") for line in read(path))
