"""What a nemesis is: a fault that can be struck and healed, with measured proof that it struck. A fault without proof does not count; one that cannot be had here says so.

`unleash` and `tame` write its lines of nemesis.jsonl (tests/checker/formats.py). All state is in the instance, so that several can be on at a time.
"""

import random
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import pymysql
from confluent_kafka import KafkaException

from app.dev.process import wait_until
from tests.chaos.proofs import Proof
from tests.chaos.rig import Rig

Evidence = dict[str, Any]
Random = random.Random
CONSUMERS = ("generator", "scheduler", "executor-environment", "executor-data", "executor-job", "executor-noop")
KEY = b"nemesis"  # Of poisoned records.
POISONED = "k = %s OR k LIKE '%%\\_none%%'"  # A requeued copy has the key of what it is about.


class Undecided(Exception):
    """It cannot be had on this machine, or could not be shown to have struck; the text says why."""


class Nemesis:
    """`strike` returns only when the fault is on and proven, or raises Undecided and leaves nothing on. `heal` takes it back and may be called after a failed strike."""

    name: ClassVar[str]
    title: ClassVar[str]
    weight: ClassVar[int] = 2
    components: ClassVar[Sequence[str]] = ()
    variants: ClassVar[Sequence[str]] = ()

    def __init__(self, target: str = "", variant: str = "") -> None:
        self.target, self.variant = target, variant
        self.after: Evidence = {}  # What was seen since the strike; goes into fault.end.
        self.broken: list[str] = []  # What had to hold and did not.
        self.company: set[str] = set()  # Other faults that were on at any time since this one began.
        self.proof: Proof | None = None

    def aim(self, rig: Rig, rng: Random) -> None:
        """Draws what the plan left open: the target (`component/copy`; of a component alone a copy that holds something) and the variant."""
        if self.components and "/" not in self.target:
            wanted = (self.target,) if self.target else self.components
            living = [each for each in names(rig) if split(each)[0] in wanted and rig.alive(rig.daemons[daemon_name(each)])]
            busy = [each for each in living if held_by(rig, rig.pid_of(*split(each)))] if self.target else []
            if not living:
                raise Undecided(f"none of {', '.join(wanted)} lives just now")
            self.target = rng.choice(busy or living)
        if not self.variant and self.variants:
            self.variant = rng.choice(list(self.variants))

    def strike(self, rig: Rig, rng: Random) -> Proof:
        raise NotImplementedError

    def heal(self, rig: Rig) -> None:
        raise NotImplementedError

    def must(self, holds: bool, otherwise: str, *, alone: bool = False) -> None:
        """`alone`: it can be asked only of a system that bears no other fault besides; in company it is told and no more."""
        if not holds:
            (self.after.setdefault("in_company", []) if alone and self.company else self.broken).append(otherwise)


def unleash(nemesis: Nemesis, rig: Rig, fault: str, rng: Random, **detail: Any) -> Proof:
    """fault.start, the strike, fault.proof. A proof that times a take-over is written when the harness' own lag is known: by `tame`."""
    nemesis.aim(rig, rng)
    rig.nemesis_lines.write("fault.start", fault=fault, fault_kind=nemesis.name, target=nemesis.target, detail={"variant": nemesis.variant, **detail})
    try:
        nemesis.proof = proof = nemesis.strike(rig, rng)
    except Undecided as why:
        rig.nemesis_lines.write("fault.undecided", fault=fault, reason=str(why))
        raise
    if not proof.more.get("takeover"):
        rig.nemesis_lines.write("fault.proof", fault=fault, struck=proof.struck, evidence=proof.evidence, **proof.more)
    return proof


def tame(nemesis: Nemesis, rig: Rig, fault: str) -> None:
    """The healing and fault.end."""
    patiently(partial(nemesis.heal, rig))
    proof = nemesis.proof
    if proof is not None and proof.more.get("takeover"):
        rig.nemesis_lines.write("fault.proof", fault=fault, struck=proof.struck, evidence=proof.evidence, lag_ms=rig.tick.lag_ms(proof.struck), **proof.more)
    rig.nemesis_lines.write("fault.end", fault=fault, healed=time.monotonic(), broken=nemesis.broken, **nemesis.after)


# ---- where things are ---------------------------------------------------------------------------------------------------------------------------------
def names(rig: Rig) -> list[str]:
    """Every copy, as `component/copy`."""
    return ["/".join(each.rsplit("-", 1)) for each in rig.daemons]


def split(target: str) -> tuple[str, int]:
    component, _, copy = target.rpartition("/")
    return component, int(copy)


def daemon_name(target: str) -> str:
    return target.replace("/", "-")


def others(rig: Rig, target: str) -> list[str]:
    """The other copies of its component that live."""
    component, _ = split(target)
    return [each for each in names(rig) if each != target and split(each)[0] == component and rig.alive(rig.daemons[daemon_name(each)])]


def held_by(rig: Rig, pid: int) -> int:
    """Partitions, relay shards and hosts that an instance owns as MySQL has it."""
    tables = ("positions", "relay_shards", "host_watches")
    return sum(int(rig.one(f"SELECT COUNT(*) FROM {each} WHERE owner LIKE %s", f"%-{pid}-%")) for each in tables)


def arm(rig: Rig, target: str, entry: str) -> None:
    """One running copy; a point that struck before may strike again."""
    component, copy = split(target)
    rig.arm(component, entry, copies=[copy])


def disarm(rig: Rig, target: str) -> None:
    component, copy = split(target)
    rig.arm(component, copies=[copy])


class Tail:
    """Texts in log files since this was made."""

    def __init__(self, *files: Path) -> None:
        self.begins = {each: each.stat().st_size if each.exists() else 0 for each in files}

    @classmethod
    def of(cls, rig: Rig) -> "Tail":
        """Of all our processes."""
        return cls(*(each.log for each in rig.daemons.values()))

    def lines(self) -> Iterable[str]:
        for path, begin in self.begins.items():
            if path.exists():
                with path.open("rb") as file:
                    file.seek(begin)
                    yield from file.read().decode(errors="replace").splitlines()

    def count(self, *texts: str) -> int:
        """Lines with any of them."""
        return sum(any(text in line for text in texts) for line in self.lines())

    def counts(self, *texts: str) -> dict[str, int]:
        return {text: self.count(text) for text in texts}


def proven(condition: Callable[[], Any], seconds: float, why: str) -> None:
    """Waits for the proof; without it the fault is Undecided."""
    if not wait_until(lambda: bool(condition()), seconds, 0.05):
        raise Undecided(f"{why} (not within {seconds:.0f} s)")


AWAY = (pymysql.MySQLError, KafkaException, httpx2.HTTPError, OSError)  # What a question of the harness meets while another fault is on.


def patiently(ask: Callable[[], Any]) -> Any:
    """Ask MySQL or Kafka while they may be coming back: at most 60 s."""
    deadline = time.monotonic() + 60.0
    while True:
        try:
            return ask()
        except AWAY:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
