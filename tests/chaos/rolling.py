"""Rolling: every copy of every component is replaced while experiments keep coming, in the order an upgrade has; nothing is lost, nothing happens twice, everybody ends with 0 in time.

Two plans. A *rolling restart* stays with this tree. A *mixed fleet* begins with the release before what travels last changed (app/messages, migrations), on this tree's schema, rolls
forward, back in an order by chance, and forward again; whenever a component is half-way one of its copies is killed, of the old release, of the new one, of either. Each step counts
only with its proof: wait statuses, and which release a life ran (tests/chaos/fleet.py). What a message had to wait meanwhile is measured (hops.py) and printed, not judged.
"""

import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.dev.servers import Native
from tests.chaos import fleet, hops, proofs, workload
from tests.chaos.fleet import Fleet
from tests.chaos.headline import EXERCISED
from tests.chaos.lines import read
from tests.chaos.outcome import Case, Outcome, Say, Undecidable
from tests.checker.reading import seconds_of

Document = dict[str, Any]
ORDER = ("event-sink", "executor-environment", "executor-data", "executor-job", "executor-noop", "generator", "scheduler", "relay", "api")  # docs/deploying.md, upgrading.
SETTINGS = {"partitions": 12, "placement_width": 4}
CLIENTS, LAUNCHES, PER_SECOND = 16, 120, 1.0
BEFORE_SECONDS, AFTER_SECONDS = 20.0, 5.0
NO_HISTORY = "the history of this clone does not reach back to the commit before app/messages or migrations last changed: there is no older release to mix with"


# ---- the plan -----------------------------------------------------------------------------------------------------------------------------------------
def draw(seed: int, *, mixed: bool = False, copies: int = 2, twice: Sequence[str] = ORDER, before_seconds: float = BEFORE_SECONDS) -> Document:
    """`copies`: of each component. `twice`: the components of a mixed fleet that go back and forward again, and whose copies are killed. Without an older release its `revision` is empty."""
    rng = random.Random(seed)
    phases = [{"phase": "before", "moves": []}]
    if mixed:
        phases += [
            phase("forward", "new", ORDER, copies, dict.fromkeys(twice, "old")),
            phase("back", "old", rng.sample(twice, len(twice)), copies, dict.fromkeys(twice, "new")),
            phase("forward again", "new", [each for each in ORDER if each in twice], copies, {each: rng.choice(("old", "new")) for each in twice}),
        ]
    else:
        phases += [phase("roll", "new", ORDER, copies, {})]
    launches = [each for n in range(LAUNCHES // 40) for each in workload.headline(seed, n * 40)]
    plan = {"seed": seed, "kind": "rolling", "mixed": mixed, "revision": fleet.previous() if mixed else "", "begins": "old" if mixed else "new", "copies": dict.fromkeys(ORDER, copies)}
    return numbered(plan | {"before_seconds": before_seconds, "per_second": PER_SECOND, "launches": launches, "phases": phases})


def phase(name: str, to: str, order: Sequence[str], copies: int, killed: Mapping[str, str]) -> Document:
    """One time through the components. `killed`: component → the release of which a copy is struck while both run, or the only one that can be."""
    moves: list[Document] = []
    for component in order:
        steps: list[Document] = [{"act": "replace", "component": component, "to": to} for _ in range(copies)]
        if component in killed:
            steps.insert(1 if killed[component] == to else copies - 1, {"act": "kill", "component": component, "release": killed[component]})
        moves += steps
    return {"phase": name, "moves": moves}


def numbered(plan: Document) -> Document:
    """Each move is a fault by name, to be proven; what is required does not depend on them."""
    for number, move in enumerate((move for each in plan["phases"] for move in each["moves"]), 1):
        move["fault"] = f"m{number}"
    kinds = {"kill": "N1", "replace": "N34" if plan["mixed"] else "roll"}
    moves = [move for each in plan["phases"] for move in each["moves"]]
    faults = [{"fault": move["fault"], "kind": kinds[move["act"]], "target": move["component"]} for move in moves]
    required: Document = {name: least for name, least in EXERCISED.items() if name != "P24"}
    if plan["mixed"]:
        told = Counter(move["to"] for move in moves if move["act"] == "replace")
        required["P26"] = {"to_older": 1, "to_newer": 1, "forward": told["new"], "back": told["old"]}
    return plan | {"faults": faults, "required": required}


# ---- carried out --------------------------------------------------------------------------------------------------------------------------------------
class Load:
    """Launches at a steady pace, whatever becomes of the others: the plan's in their order, round and round."""

    def __init__(self, rig: Fleet, plan: Document) -> None:
        self.rig, self.launches, self.per_second = rig, plan["launches"], plan["per_second"]
        self.launched: dict[str, Document] = {}
        self.asked: list[Future[None]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as clients:
            for n in itertools.count():
                if self._over.wait(max(0.0, began + n / self.per_second - time.monotonic())):
                    return
                self.asked.append(clients.submit(self._one, n))

    def _one(self, n: int) -> None:
        again, number = divmod(n, len(self.launches))
        launch = self.launches[number]
        launch = launch | {"key": f"{launch['key']}-{again}"}
        self.launched[self.rig.launch(launch)] = launch

    @property
    def failed(self) -> list[str]:
        return [str(each.exception()) for each in self.asked if each.exception() is not None]


@dataclass
class Roll:
    """The moves of a plan, each told and proven, with what it came to."""

    rig: Fleet
    say: Say
    cases: list[Case] = field(default_factory=list)
    stops: list[tuple[str, float]] = field(default_factory=list)  # Component, seconds from SIGTERM to the end.

    def make(self, move: Document) -> None:
        lines, fault = self.rig.nemesis_lines, move["fault"]
        kind = next(each["kind"] for each in self.rig.plan["faults"] if each["fault"] == fault)
        lines.write("fault.start", fault=fault, fault_kind=kind, target=move["component"], detail=move)
        target, struck, evidence, why = (self.replaced if move["act"] == "replace" else self.killed)(move)
        lines.write("fault.proof", fault=fault, struck=struck, evidence=evidence)
        lines.write("fault.end", fault=fault, healed=time.monotonic())
        self.cases.append(Case(f"{fault} {move['act']} {target}", why))
        self.say(f"{fault} {move['act']} {target}{f': {why}' if why else ''}")

    def replaced(self, move: Document) -> tuple[str, float, Document, str]:
        component = move["component"]
        evidence = self.rig.replace(component, move["to"])
        code, seconds = evidence["wait_status"], evidence["stop_seconds"]
        self.stops.append((component, seconds))
        why = "" if code == 0 else f"ended with {code} {seconds:.1f} s after SIGTERM, its grace is {fleet.grace(component):.0f} s"
        went, came = evidence["went"], evidence["came"]
        return f"{went['name']} ({went['version']}) by {came['name']} ({came['version']}) in {evidence['ready_seconds']:.1f} + {seconds:.1f} s", evidence["struck"], evidence, why

    def killed(self, move: Document) -> tuple[str, float, Document, str]:
        """SIGKILL to the oldest copy of that release, and a new life of the same one."""
        of_it = [each for each in self.rig.living(move["component"]) if self.rig.runs[each] == move["release"]]
        assert of_it, f"no {move['component']} of the {move['release']} release lives: {self.rig.runs}"
        name = of_it[0]
        was = self.rig.told(name)
        proof = proofs.killed(self.rig, name)
        self.rig.restart(name, wait=True)
        return f"{name} ({was['version']})", proof.struck, {**proof.evidence, "was": was, "is": self.rig.told(name)}, ""


def rig(directory: Path, native: Native, plan: Document, **settings: Any) -> Fleet:
    """Raises Undecidable for a mixed fleet whose older release the history does not reach."""
    if plan["mixed"] and not plan["revision"]:
        raise Undecidable(NO_HISTORY)
    return Fleet(directory, native, plan, **SETTINGS, **settings)


def run(rig: Fleet, *, say: Say) -> Outcome:
    plan = rig.plan
    outcome, roll, load = Outcome("mixed fleet" if plan["mixed"] else "rolling restart", rig.run), Roll(rig, say), Load(rig, plan)
    if plan["mixed"]:
        rig.nemesis_lines.write("releases", older=declared(rig.releases["old"]), newer=declared(rig.releases["new"]))
    with load:
        for each in plan["phases"]:
            rig.nemesis_lines.write("phase", phase=each["phase"])
            if not each["moves"]:
                time.sleep(plan["before_seconds"])
            for move in each["moves"]:
                roll.make(move)
        time.sleep(AFTER_SECONDS)
        rig.nemesis_lines.write("phase", phase="")
    outcome.verdict = rig.finish(load.launched)
    outcome.cases = [*roll.cases, *ends(rig, plan, load)]
    say("\n" + rolled(rig.run, roll.stops, len(load.launched)))
    return outcome


def declared(release: fleet.Release) -> Document:
    """`reads`: the newest schema version of a message that the release's own code reads."""
    asked = subprocess.run([sys.executable, "-c", "from app.messages import codec; print(codec.SCHEMA_VERSION)"], cwd=release.tree, check=True, capture_output=True, text=True)
    return {"version": release.version, "reads": int(asked.stdout)}


def ends(rig: Fleet, plan: Document, load: Load) -> list[Case]:
    """What must be true of the whole besides its moves."""
    codes = {name: each.child.poll() for name, each in rig.daemons.items() if each.child is not None and each.child.poll() != 0}
    lives = fleet.releases_seen(rig.run, {each.version: name for name, each in rig.releases.items()})
    counted = json.loads((rig.run / "unmet.json").read_text())["counted"]
    helped = [f"{kind}: {counted[kind]}" for kind in ("aside", "rescue", "violation") if counted[kind]]
    few = [f"{name}: {count}" for name, count in lives.items() if count < sum(plan["copies"].values())]
    return [
        Case("at the end everybody ended with 0", ", ".join(f"{name} with {code}" for name, code in codes.items())),
        Case(f"lives of each release: {', '.join(f'{count} {name}' for name, count in lives.items())}", ", ".join(few)),
        Case("every message was read by whom it met, and nobody had to help", ", ".join(helped)),
        Case("every client got an answer", "; ".join(load.failed)[:500]),
    ]


# ---- what is printed ------------------------------------------------------------------------------------------------------------------------------------
def rolled(run: Path, stops: Sequence[tuple[str, float]], launched: int) -> str:
    """The figures, left in rolling.json and figures.md (which the page shows)."""
    ages, answers = hops.by_phase(run), launches(run)
    slowest = {component: max(seconds for each, seconds in stops if each == component) for component in dict(stops)}
    told = {"launched": launched, "hops_ms": ages, "launches_ms": answers, "slowest_stop_seconds": slowest, "cores": os.cpu_count(), "load_1m": round(os.getloadavg()[0], 1), **came_to(run)}
    (run / "rolling.json").write_text(json.dumps(told, indent=1))
    text = page(told)
    (run / "figures.md").write_text(text)
    return text


def came_to(run: Path) -> Document:
    """Counter-examples: what was accepted and is not there or has not ended; what took effect or ran twice; rows and records that do not come out even, which may be either."""
    promises = json.loads((run / "verdict.json").read_text())["promises"]
    broken = {name: promises[name]["broken"] for name in promises}
    unmet = json.loads((run / "unmet.json").read_text())["unmet"]
    return {"lost": broken["P1"] + broken["P2"], "twice": broken["P7"] + broken["P9"], "uneven": broken["P11"], "not_as_planned": len(unmet)}


def launches(run: Path) -> Mapping[str, Document]:
    """Phase → figures of the launches that were asked in it, and how many requests got no answer, or were told to come again."""
    asked: dict[str, Document] = {}
    answered: dict[str, Document] = {}
    for line in read(run / "client.jsonl"):
        (asked if line["kind"] == "op.invoke" else answered)[line["op"]] = line
    found = {}
    for name, since, until in hops.phases(run):
        within = [(each, answered[op]) for op, each in asked.items() if op in answered and since <= seconds_of(each["wall"]) < until]
        seconds = [done["mono"] - each["mono"] for each, done in within if each["operation"] == "launch" and done["outcome"] == "ok"]
        found[name] = hops.figures(seconds) | {"without_answer": sum("status" not in done for _, done in within), "come_again": sum(done.get("status") in {429, 503} for _, done in within)}
    return found


def page(told: Document) -> str:
    ages, names = told["hops_ms"], list(told["hops_ms"])
    came = f"{told['lost']} lost (P1, P2), {told['twice']} twice (P7, P9), outbox and topics uneven {told['uneven']} times (P11), {told['not_as_planned']} launches not as planned"
    lines = [f"{told['launched']} launches: {came}. {told['cores']} cores, load {told['load_1m']} at the end.", ""]
    lines += ["| phase | launches answered | after, ms | no answer | come again | hops | p50 / p99 / max, ms |", "|---|---:|---|---:|---:|---:|---|"]
    for name in names:
        asked, hop = told["launches_ms"][name], ages[name]["all"]
        lines.append(f"| {name} | {asked['n']} | {spread(asked)} | {asked['without_answer']} | {asked['come_again']} | {hop['n']} | {spread(hop)} |")
    lines += ["", f"| hop to | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for group in sorted({group for groups in ages.values() for group in groups} - {"all"}):
        lines.append(f"| {group} | {' | '.join(spread(ages[name].get(group)) for name in names)} |")
    stops = ", ".join(f"{component} {seconds:.1f} of {fleet.grace(component):.0f}" for component, seconds in told["slowest_stop_seconds"].items())
    return "\n".join([*lines, "", f"SIGTERM to the end, slowest, s: {stops}.", ""])


def spread(figures: Mapping[str, Any] | None) -> str:
    return f"{figures['p50']} / {figures['p99']} / {figures['max']}" if figures and figures["n"] else "–"
