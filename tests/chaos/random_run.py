"""Random nemeses: a plan is drawn first, then carried out. Every 2–8 s a fault, at most three at a time, kinds by weight, durations log-uniform; last everything is healed.

Who launches, who reads and who harms are threads of their own; each fault is told before it is made (`fault.start`), proven, and told when it is taken back.
"""

import itertools
import math
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from app.dev.servers import Native
from tests.chaos import bounds, workload
from tests.chaos.client import ROADS
from tests.chaos.nemeses.catalogue import NEMESES
from tests.chaos.nemeses.nemesis import AWAY, Undecided, patiently, tame, unleash
from tests.chaos.outcome import Case, Outcome, Say
from tests.chaos.rig import Rig

Document = dict[str, Any]
GAP_SECONDS, AT_ONCE = (2.0, 8.0), 3
CLIENTS, LOOK_SECONDS, AGAIN_SECONDS = 8, 0.3, 1.0
WAITING = 12  # Faults that may wait for their turn besides: those behind one that takes long, and harms what they do, do not keep back the others.
PROVEN_SHARE = 0.75  # Of faults and of kinds: where chance aims, some find nothing to strike. They do not count, and the report names them.
TRIES = 4  # A fault whose victim has just nothing to lose (no worker, no transaction under way) is aimed anew.
LASTS: Mapping[str, tuple[float, float]] = {  # Seconds, log-uniform; the others: (1, 8). A kill: until it is started again.
    "N1": (0.2, 10), "N2": (2, 12), "N3": (2, 4), "N5": (0.2, 20), "N6": (5, 20), "N7": (10, 30), "N10": (0.2, 10), "N16": (4, 15), "N24": (4, 15), "N25": (1, 30), "N33": (0.2, 3),
}  # fmt: skip
ORDINARY = (1.0, 8.0)
HARMS: Mapping[str, str] = {  # Two that harm the same thing are never on at once; those that harm everything are alone. The others harm what their own number says.
    "N5": "mysql", "N6": "mysql", "N7": "mysql", "N8": "mysql", "N9": "mysql", "N21": "mysql", "N10": "kafka", "N12": "relay", "N13": "relay", "N14": "relay", "N4": "relay", "N3": "locks", "N2": "locks",
    "N18": "groups", "N25": "host", "N26": "host", "N27": "host", "N30": "everything", "N33": "everything",
}  # fmt: skip
REQUIRED = ("P1", "P2", "P3", "P5", "P6", "P7", "P8", "P9", "P10", "P11", "P12", "P13", "P14", "P18", "P23", "P25")


def draw(seed: int, *, seconds: float, kinds: Sequence[str] = (), launches_per_second: float = 0.7) -> Document:
    """`kinds`: the nemeses to draw from, all by their weights if none is named. No two harm the same thing at once, and never are more than three on."""
    plan = workload.draw(seed, count=max(20, int(seconds * launches_per_second)), seconds=seconds)
    plan |= {"kind": "random", "seconds": seconds, "faults": faults(random.Random(seed + 1), seconds, kinds), "required": {**{each: {} for each in REQUIRED}, "P16": {"committed": 1}, **bounds.REQUIRED}, "caps": bounds.CAPS_OF_RANDOM_RUNS}
    counts = {"faults": len(plan["faults"]), "kinds": len({each["kind"] for each in plan["faults"]})}
    return plan | {"proven_at_least": {what: math.ceil(count * PROVEN_SHARE) for what, count in counts.items()}}


def faults(rng: random.Random, seconds: float, kinds: Sequence[str]) -> list[Document]:
    pool = [each for each in NEMESES if not kinds or each in kinds]
    drawn: list[Document] = []
    at = rng.uniform(*GAP_SECONDS)
    while at < seconds and pool:
        active = {HARMS.get(each["kind"], each["kind"]) for each in drawn if each["at"] + each["seconds"] > at}
        free = [each for each in pool if HARMS.get(each, each) not in active | ({"everything"} if active else set())]
        if len(active) < AT_ONCE and "everything" not in active and free:
            kind = rng.choices(free, [NEMESES[each].weight for each in free])[0]
            low, high = LASTS.get(kind, ORDINARY)
            lasts = math.exp(rng.uniform(math.log(low), math.log(high)))
            drawn.append({"fault": f"f{len(drawn) + 1}", "kind": kind, "at": round(at, 3), "seconds": round(lasts, 3), "seed": rng.getrandbits(32)})
        at += rng.uniform(*GAP_SECONDS)
    return drawn


@dataclass
class Going:
    """A run under way."""

    rig: Rig
    plan: Document
    say: Say
    began: float = field(default_factory=time.monotonic)
    launched: dict[str, Document] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    turn: threading.Condition = field(default_factory=threading.Condition)
    on: dict[str, tuple[str, set[str]]] = field(default_factory=dict)  # Fault → what it harms, and the faults that were on with it.
    alone: int = 0  # How many wait until nothing else is on: nobody overtakes them.

    def until(self, at: float) -> None:
        time.sleep(max(0.0, self.began + at - time.monotonic()))

    def launch(self, launch: Document) -> None:
        self.until(launch["at"])
        self.launched[self.rig.launch(launch)] = launch

    def keep_busy(self, harms: Sequence[Future[None]]) -> None:
        """The plan's launches again under other keys, while a fault still waits for something to strike."""
        for n, launch in enumerate(itertools.cycle(self.plan["launches"])):
            if all(each.done() for each in harms):
                return
            self.launch(launch | {"at": 0.0, "key": f"{launch['key']}-again-{n}"})
            time.sleep(AGAIN_SECONDS)

    def misbehave(self, number: int, bad: Document) -> None:
        self.until(bad["at"])
        good = {"application_interface_id": self.rig.places["shape"], "inputs": {"edges": "a>b"}, "launch": True}
        self.rig.client.misbehave(bad, good, f"marker-{self.plan['seed']}-{number}")

    def read(self) -> None:
        """Whoever launched looks at it, for P23, and whoever did not asks for it, for P19."""
        rng = random.Random(self.plan["seed"] + 2)
        while not self.over.wait(LOOK_SECONDS):
            if self.launched:
                experiment, launch = rng.choice(list(self.launched.items()))
                self.rig.tenant(launch).client.look(experiment)
                self.rig.stranger(launch).trespass(experiment, rng.choice(ROADS), in_trouble=True)

    @contextmanager
    def its_turn(self, name: str, harms: str) -> Iterator[set[str]]:
        """Not before it may be on together with those that are: the plan sees to that, and a slow fault before it delays it. Yields its company, which may yet grow."""

        def free() -> bool:
            others = {other for other, _ in self.on.values()}
            if harms == "everything":
                return not others
            return len(self.on) < AT_ONCE and not self.alone and harms not in others and "everything" not in others

        with self.turn:
            self.alone += harms == "everything"
            self.turn.wait_for(free)
            self.alone -= harms == "everything"
            company = set(self.on)
            for _, seen in self.on.values():
                seen.add(name)
            self.on[name] = (harms, company)
        try:
            yield company
        finally:
            with self.turn:
                del self.on[name]
                self.turn.notify_all()

    def harm(self, fault: Document) -> None:
        self.until(fault["at"])
        with self.its_turn(fault["fault"], HARMS.get(fault["kind"], fault["kind"])) as company:
            try:
                self._harm(fault, company)
            except Exception as broke:  # Said at once: what follows runs on what it left.
                self.say(f"{fault['fault']} {fault['kind']} broke down: {type(broke).__name__}: {broke}")
                raise

    def _harm(self, fault: Document, company: set[str]) -> None:
        """One fault, whole; aimed anew where its victim had nothing to lose. Without proof the checker decides what that costs."""
        rng, name = random.Random(fault["seed"]), fault["fault"]
        for number in range(TRIES):
            why, nemesis = "", NEMESES[fault["kind"]]()
            nemesis.company = company
            try:
                unleash(nemesis, self.rig, name, rng, seconds=fault["seconds"], tries=number)
                break
            except Undecided as fault_of_aim:
                why = str(fault_of_aim)
            except AWAY as fault_of_another:  # Another fault took away what this one needed; what it had begun is undone.
                why = f"its own question was not answered: {fault_of_another}"
                with suppress(AttributeError):  # It had not come far enough to have anything to undo.
                    patiently(partial(nemesis.heal, self.rig))
        if nemesis.proof is not None:
            time.sleep(fault["seconds"])
            tame(nemesis, self.rig, name)
        broken = "; ".join(nemesis.broken)
        if broken or not why:
            self.cases.append(Case(f"{fault['kind']} {name} struck", broken))
        told = f"UNDECIDED: {why}" if why else f"BROKEN: {broken}" if broken else f"{fault['seconds']:.1f} s"
        self.say(f"{name} {fault['kind']} {nemesis.title} {nemesis.variant} {nemesis.target}: {told}")


def rig(directory: Path, native: Native, plan: Document, **settings: Any) -> Rig:
    return Rig(directory, native, plan, linked=True, **settings)


def run(rig: Rig, *, say: Say) -> Outcome:
    plan = rig.plan
    going = Going(rig, plan, say)
    reader = threading.Thread(target=going.read, daemon=True)
    reader.start()
    with ThreadPoolExecutor(CLIENTS) as clients, ThreadPoolExecutor(AT_ONCE + WAITING) as nemeses:
        harms = [nemeses.submit(going.harm, each) for each in plan["faults"]]
        asked: list[Future[None]] = [*harms, *(clients.submit(going.launch, each) for each in plan["launches"])]
        asked += [clients.submit(going.misbehave, n, each) for n, each in enumerate(plan["bad_requests"])]
        going.until(plan["seconds"])
        asked.append(clients.submit(going.keep_busy, harms))
        wait(asked)
    going.over.set()
    reader.join(80.0)
    failed = [str(each.exception()) for each in asked if each.exception() is not None]
    outcome = Outcome("random", rig.run, rig.finish(going.launched), cases=going.cases)
    outcome.cases.append(Case("every client got an answer", "; ".join(failed)[:500]))
    return outcome
