"""The headline (docs/chaos.md): the scheduler is killed and frozen in the middle of its graphs, and another goes on. Eight rounds, or as many as the plan says; any victim.

A round: top up → mid-graph → the victim that owns more of the busy partitions → strike → everything it owned is another's, and every graph in it has moved on → wake what was
frozen → a new life, balanced again. Take-over times are read afterwards from journals and topics (tests/chaos/takeovers.py); a round in which the harness itself lagged is made again.
"""

import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.dev.process import wait_until
from app.dev.servers import Native
from tests.chaos import bounds, proofs, takeovers, workload
from tests.chaos.outcome import Case, Outcome, Say
from tests.chaos.rig import Rig
from tests.chaos.victims import VICTIMS, Place, Victim, taken
from tests.support.system import System

Document = dict[str, Any]
LAG_MS_MAX = 250.0
AGAIN_MAX, AGAIN_SHARE = 8, 0.2  # Rounds thrown away because the harness lagged, before the run gives up: so many, or of many rounds that share.
OPEN, OPEN_MAX, CLIENTS = 40, 120, 16
LAUNCHES = 400  # In the plan; a longer run begins with the first again, under other keys.
MID_GRAPH_SECONDS = 120.0
STILL_OPEN = "SELECT COUNT(*) FROM experiments WHERE launched_at IS NOT NULL AND finished_at IS NULL"
MID_GRAPH_AT_LEAST = 10
MID_GRAPH = """SELECT COUNT(*) FROM processes p WHERE p.state = 'STARTED' AND EXISTS (SELECT 1 FROM tasks t WHERE t.process_id = p.id AND t.state = 'COMPLETED')
  AND EXISTS (SELECT 1 FROM tasks t WHERE t.process_id = p.id AND t.state = 'EXECUTING') AND EXISTS (SELECT 1 FROM tasks t WHERE t.process_id = p.id AND t.state = 'CREATED')"""
MOVES = "SELECT id, part, version FROM processes WHERE state IN ('CREATED', 'VALIDATED', 'STARTED')"
ROUNDS: Mapping[str, list[Document]] = {  # How each round strikes; other victims are killed freely.
    "scheduler": [
        *({"how": "kill"} for _ in range(3)),
        {"how": "scheduler.commit.before", "mode": "crash"},
        {"how": "scheduler.commit.after", "mode": "crash"},
        {"how": "scheduler.position.after", "mode": "crash"},
        {"how": "scheduler.poll.after", "mode": "pause"},
        {"how": "scheduler.position.after", "mode": "pause"},
    ]
}
EACH_SECONDS, MANY = 10.0, 30  # One take-over may take so long on a machine that others use; with many rounds the 99th percentile must keep the promise, else the median.
P24_SECONDS = {"scheduler": 3.0, "generator": 3.0, "relay": 5.0, "event-sink": 3.0, "executor-noop": 3.0, "executor-job": 13.0}
WORK_SECONDS = {"watcher": 20.0}  # More submissions than its host has connections: what the victim had in hand waits behind what came before. In the rounds of `executor` there is room for all, and 13 s.
EXERCISED: Mapping[str, Document] = {  # How often a run of N rounds must have exercised what it decides.
    "P1": {}, "P2": {}, "P3": {}, "P5": {}, "P6": {}, "P7": {}, "P8": {}, "P9": {}, "P10": {}, "P11": {}, "P12": {}, "P13": {}, "P14": {}, "P16": {"committed": 1}, "P18": {}, "P24": {}, "P25": {},
}  # fmt: skip


def draw(seed: int, *, victim: str = "scheduler", rounds: int = 8) -> Document:
    """The plan: what each round strikes, and the launches that are topped up with, in their order."""
    pattern = ROUNDS.get(victim, [{"how": "kill"}])
    drawn = [{"fault": f"h{n + 1}", "victim": victim, **pattern[n % len(pattern)]} for n in range(rounds)]
    component = VICTIMS[victim].component
    faults = [{"fault": each["fault"], "kind": "N2" if each.get("mode") == "pause" else "N1", "target": component} for each in drawn]
    zombies = sum(each["how"] == "scheduler.poll.after" for each in drawn)
    required = {**EXERCISED, **bounds.REQUIRED, "P24": {"takeovers": rounds}} | ({"P4": {"zombies": zombies}} if zombies else {})
    launches = [each for n in range(LAUNCHES // OPEN) for each in workload.headline(seed, n * OPEN)]
    seconds = {component: max(EACH_SECONDS, P24_SECONDS[component])} | ({"executor-work": WORK_SECONDS[victim]} if victim in WORK_SECONDS else {})
    return {"seed": seed, "kind": "headline", "launches": launches, "rounds": drawn, "faults": faults, "required": required, "takeover_seconds": seconds, "lag_ms_max": LAG_MS_MAX, "caps": dict(bounds.CAPS)}


@dataclass
class Run:
    """The state of a headline run: what was launched, and what each round came to."""

    rig: Rig
    launched: dict[str, Document] = field(default_factory=dict)  # Experiment → its launch.
    rounds: list[Document] = field(default_factory=list)
    drawn: int = 0
    missed: int = 0

    def launch(self, count: int) -> None:
        """At once, as many users would; the plan's launches in their order, round and round."""
        launches = self.rig.plan["launches"]
        some = [launches[(self.drawn + n) % len(launches)] for n in range(count)]
        again = [each | {"key": f"{each['key']}-{(self.drawn + n) // len(launches)}"} for n, each in enumerate(some)]
        self.drawn += count
        with ThreadPoolExecutor(CLIENTS) as pool:
            self.launched |= dict(zip(pool.map(self.rig.launch, again), again, strict=True))

    def top_up(self) -> None:
        """Up to 40 open experiments, as far as they do not end while others are launched."""
        self.launch(max(0, OPEN - self.rig.one(STILL_OPEN)))

    def mid_graph(self, victim: Victim) -> None:
        """The condition, and the victim has work; eight more at a time where those that are open do not come to it (they ended, or all wait for a slow host)."""
        deadline = time.monotonic() + MID_GRAPH_SECONDS
        while not wait_until(lambda: self.rig.one(MID_GRAPH) >= MID_GRAPH_AT_LEAST and victim.busier(self.rig)[2] > 0, 0.5, 0.05):
            assert time.monotonic() < deadline, f"only {self.rig.one(MID_GRAPH)} processes are mid-graph, {self.rig.one(STILL_OPEN)} experiments open"
            if self.rig.one(STILL_OPEN) < OPEN_MAX:
                self.launch(8)


def rig(directory: Path, native: Native, plan: Document, **settings: Any) -> Rig:
    return Rig(directory, native, plan, **settings)


def run(rig: Rig, *, say: Say) -> Outcome:
    outcome, plan = Outcome("headline", rig.run), rig.plan
    going = Run(rig)
    victim = VICTIMS[plan["rounds"][0]["victim"]]
    rig.until(victim.balanced(rig), 120.0, lambda: "not balanced")
    thrown_away = 0
    for round_ in plan["rounds"]:
        again = 0
        while not strike(going, victim, round_, again, say=say):
            again, thrown_away = again + 1, thrown_away + 1
            assert thrown_away <= max(AGAIN_MAX, AGAIN_SHARE * len(plan["rounds"])), f"the harness lagged more than {LAG_MS_MAX:.0f} ms in {thrown_away} rounds: the machine is too busy to time anything"
        outcome.cases.append(Case(f"round {round_['fault']} {round_['how']} {round_.get('mode', '')}".strip()))
    (rig.run / "rounds.json").write_text(json.dumps(going.rounds, indent=1, default=str))
    outcome.verdict = rig.finish(going.launched)
    outcome.cases.append(timed(rig.run, victim, going.rounds, len(plan["rounds"])))
    return outcome


def timed(directory: Path, victim: Victim, rounds: list[Document], planned: int) -> Case:
    """Take-over times, left in takeovers.json: the checker's, and what they are made of."""
    verdict = json.loads((directory / "verdict.json").read_text()).get("takeover", {}).get(victim.component, {})
    broken_down = takeovers.broken_down(directory, victim, rounds)
    told = {"victim": rounds[0]["victim"], "summary": takeovers.summary(broken_down, verdict), "rounds": broken_down}
    (directory / "takeovers.json").write_text(json.dumps(told, indent=1))
    name, bound = "p99" if planned >= MANY else "p50", P24_SECONDS[victim.component]
    return Case(f"take-over {name} ≤ {bound:.0f} s", "" if 0 < verdict.get(name, 0.0) <= bound else f"{name} is {verdict.get(name)}")


@dataclass(frozen=True)
class Blow:
    """Who was struck and what it owned; `share`: of the busy places. `left_at`: when it was out of its group."""

    copy: int
    owned: Mapping[Place, int]
    share: float
    proof: proofs.Proof
    left_at: float | None


def strike(going: Run, victim: Victim, round_: Document, again: int, *, say: Say) -> bool:
    """One round; False if it has to be made again because the stopwatch cannot be trusted."""
    rig, fault = going.rig, round_["fault"] + (f".{again}" if again else "")
    while (blow := struck(going, victim, round_, fault)) is None:
        say(f"round {fault}: its work went to another before it was struck; once more")
    name, target, proof = f"{victim.component}-{blow.copy}", f"{victim.component}/{blow.copy}", blow.proof
    standing = {(row[0], row[1]): row[2] for row in rig.rows(MOVES) if any(place[1] == row[1] for place in blow.owned)}
    rig.until(lambda: not still(rig, standing), 60.0, lambda: f"processes stand still: {still(rig, standing)[:5]}")
    lag = rig.tick.lag_ms(proof.struck)
    good = lag <= LAG_MS_MAX
    rig.nemesis_lines.write(
        "fault.proof", fault=fault, struck=proof.struck, evidence=proof.evidence, spare=True, takeover=True, lag_ms=lag, **({"zombie": True} if round_["how"] == "scheduler.poll.after" else {})
    )
    woken = proofs.woken(rig, name) if round_.get("mode") == "pause" else None
    if woken is not None:
        rig.until(lambda: proofs.rejoined_or_ended(rig, name, woken), 60.0, lambda: f"{name} neither rejoined nor ended after it was woken")
        rig.strike(name)
    whole_again(rig, victim, blow.copy)
    rig.nemesis_lines.write("fault.end", fault=fault, healed=time.monotonic(), **({"woken": woken} if woken is not None else {}))
    told = {"share": blow.share, "lag_ms": lag, "good": good, "processes": len(standing), "held": sorted(blow.owned), "left_at": blow.left_at}
    going.rounds.append({**round_, "fault": fault, "target": target, "struck": proof.struck, **told})
    say(f"round {fault}: {target} {round_['how']} {round_.get('mode', '')}; {blow.share:.0%} of the busy partitions, {len(standing)} graphs, lag {lag:.0f} ms{'' if good else ': thrown away'}")
    return good


def struck(going: Run, victim: Victim, round_: Document, fault: str) -> Blow | None:
    """Mid-graph, the copy that owns more of the busy partitions, until all it owned is another's. None: it missed, and the round begins anew under its name."""
    rig = going.rig
    going.top_up()
    going.mid_graph(victim)
    copy, owned, share = victim.busier(rig)
    name, was = f"{victim.component}-{copy}", rig.pid_of(victim.component, copy)
    kind, detail = "N2" if round_.get("mode") == "pause" else "N1", round_ | {"share": round(share, 3)}
    rig.nemesis_lines.write("fault.start", fault=fault, fault_kind=kind, target=f"{victim.component}/{copy}", detail=detail)
    with takeovers.Membership(rig.kafka, f"{rig.settings['ENVIRONMENT']}.{victim.group}") as members:
        try:
            proof = proofs.killed(rig, name) if round_["how"] == "kill" else proofs.at_point(rig, name, round_["how"], round_["mode"])
        except proofs.NotProven:
            if victim.busier(rig)[0] == copy:
                raise
            proof = None
        else:
            if victim.fed:
                going.launch(victim.fed)
            rig.until(lambda: not taken(victim, rig, owned, was), 60.0, lambda: f"not taken over: {taken(victim, rig, owned, was)[:5]}")
    return Blow(copy, owned, share, proof, members.left_at(proof.struck)) if proof is not None else missed(going, victim, copy)


def missed(going: Run, victim: Victim, copy: int) -> None:
    """Its work went to another before it came to its point: a rebalance that nobody asked for, as on a busy machine. Nothing of the try stays."""
    going.missed += 1
    assert going.missed <= AGAIN_MAX, f"in {going.missed} rounds the victim had lost its work before it was struck"
    whole_again(going.rig, victim, copy)


def whole_again(rig: Rig, victim: Victim, copy: int) -> None:
    """Nobody is armed, the copy lives (a new life, unless it did) and is looked after, and each has its part of the work."""
    rig.disarm(victim.component)
    if rig.frozen(victim.component, copy):  # One that missed came to its point after all, just now.
        rig.thaw(victim.component, copy)
    rig.restart(f"{victim.component}-{copy}")
    rig.until(victim.balanced(rig), 60.0, lambda: "not balanced again")


def still(system: System, standing: Mapping[tuple[str, int], int]) -> list[tuple[str, int]]:
    """Processes that have neither moved nor ended since."""
    now = {(row[0], row[1]): row[2] for row in system.rows(MOVES)}
    return [each for each, version in standing.items() if now.get(each) == version]


