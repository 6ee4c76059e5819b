"""P24: how soon a successor acts once an owner of partitions, shards or attempts is gone."""

from bisect import bisect_left
from collections import defaultdict
from typing import Any

from tests.checker.evidence import Transaction
from tests.checker.promises.ownership import Claimed, Ownership, Where
from tests.checker.reading import Place


class TakenOver(Ownership):
    """`takeovers`: of partitions with waiting work, in time or not; `thrown_away`: the stopwatch ran late, or another fault was on; `idle`: nothing waited."""

    number, title, counts = "P24", "taken over in time", ("takeovers", "thrown_away", "idle")
    needs = frozenset({"journal", "nemesis", "binlog", "kafka"})
    BOUNDS = {"scheduler": 3.0, "generator": 3.0, "event-sink": 3.0, "relay": 5.0, "executor": 3.0, "executor-work": 13.0, "broker": 30.0, "mysql": 30.0, "all": 60.0}

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.times: dict[str, list[float]] = defaultdict(list)
        self.thrown: dict[str, int] = defaultdict(int)
        self.relays: list[tuple[float, str, int, Place]] = []
        self.published: dict[int, float] = {}  # outbox row → when the relay's transaction with it was committed
        self.rows: dict[str, int] = {}  # mid → outbox row
        self.works: dict[str, list[tuple[float, str, int, Place]]] = defaultdict(list)  # token → its starts
        self.over: dict[tuple[str, int], float] = {}  # token and epoch → when its owner was done with it
        self.ends: set[tuple[str, str, int, int]] = set()

    def journal(self, line: Any, place: Place) -> None:
        super().journal(line, place)
        if line["kind"] == "relay.transaction" and line.get("outcome") == "committed":
            self.relays.append((line["mono"], line["who"], line["shard"], place))
            self.published.update(dict.fromkeys(line.get("ids") or (), line["mono"]))
        elif line["kind"] == "attempt.start":
            self.works[line["token"]].append((line["mono"], line["who"], line["epoch"], place))
        elif line["kind"] == "attempt.end":
            self.over[line["token"], line["epoch"]] = line["mono"]

    def transaction(self, tx: Transaction) -> None:
        self.ends.update((each.group, each.topic, each.part, each.after) for each in tx.advances)
        self.rows.update((each.mid, each.id) for each in tx.sent if each.table == "outbox")

    def bound(self, component: str, proof: Any) -> float:
        told = self.evidence.plan.get("takeover_seconds") or {}
        name = str(proof.get("bound") or component)
        name = name if name in self.BOUNDS or name in told else name.split("-")[0]
        return float(told.get(name, self.BOUNDS.get(name, 60.0)))

    def conclude(self) -> None:
        self.sort()
        self.relays.sort()
        lag_max = float(self.evidence.plan.get("lag_ms_max", 250.0))
        for name, lines in self.faults.items():
            proof = lines.get("fault.proof")
            if proof is None or not proof.get("takeover"):
                continue
            target = str(lines.get("fault.start", {}).get("target", ""))
            component = target.split("/")[0]
            if proof.get("lag_ms") is None:
                self.doubt(f"fault {name}: the harness did not measure its own lag")
            elif proof["lag_ms"] > lag_max or self.disturbed(name, proof["struck"], self.bound(component, proof)):  # Thrown away before it is looked at.
                self.count("thrown_away")
                self.thrown[component] += 1
            elif component == "relay":
                self._relay(target, proof)
            else:
                self._consumer(target, component, proof)
                self._work(target, component, proof)

    def _judge(self, component: str, seconds: float, proof: Any, where: str, *places: Place) -> None:
        self.count("takeovers")
        self.times[component].append(seconds)
        if proof.get("spare", True) and seconds > self.bound(component, proof):
            self.broken(f"{component}: {where} was taken over after {seconds:.2f} s, {self.bound(component, proof):.0f} s are allowed", proof["place"], *places)

    def _relay(self, target: str, proof: Any) -> None:
        """Only a shard that has rows to send can show it: from the blow to the first batch of another life."""
        struck = proof["struck"]
        shards = {shard for mono, who, shard, _ in self.relays if who == target and mono <= struck}
        last = {shard: max((mono, who) for mono, who, held, _ in self.relays if held == shard and mono <= struck)[1] for shard in shards}
        for shard in (each for each, who in last.items() if who == target):
            after = next(((mono, place) for mono, _, held, place in self.relays if held == shard and mono > struck), None)
            if after is None:
                self.count("idle")
            else:
                self._judge("relay", after[0] - struck, proof, f"shard {shard}", after[1])

    def _consumer(self, target: str, component: str, proof: Any) -> None:
        struck = proof["struck"]
        for where, claims in self.claims.items():
            held = [each for each in claims if each.mono <= struck]
            if not held or held[-1].who != target or any(name == target and held[-1].mono < mono <= struck for mono, name in self.released[where]):
                continue
            self._partition(where, component, proof, [each for each in claims if each.mono > struck])

    def _work(self, target: str, component: str, proof: Any) -> None:
        """Attempts that the struck one had in hand: started again by whoever gets them, in a newer epoch. What nobody needed to start again (its job's id was stored) is not work."""
        struck = proof["struck"]
        for token, starts in self.works.items():
            held = [each for each in sorted(starts) if each[0] <= struck]
            if not held or held[-1][1] != target or self.over.get((token, held[-1][2]), struck + 1) <= struck:
                continue
            after = next((each for each in sorted(starts) if each[0] > struck and each[2] > held[-1][2]), None)
            if after is not None:
                self._judge(f"{component}-work", after[0] - struck, {**proof, "bound": "executor-work"}, f"attempt {token}", after[3])

    def _partition(self, where: Where, component: str, proof: Any, after: list[Claimed]) -> None:
        """Counts only work that waited when the successor claimed: what came later was never kept waiting by the take-over."""
        struck = proof["struck"]
        successor = next((each for each in self.done[where] if each.mono > struck and (*where, each.last + 1) in self.ends), None)
        claimed = after[0] if after else None
        if successor is None or claimed is None or successor.mono < claimed.mono:
            waiting = self._waiting(where, struck)
            if waiting is None:
                self.count("idle")
            elif successor is None:
                self.missing(f"{component}: {where[1]}[{where[2]}] was never taken over, and {waiting.type} waits at {waiting.offset}", proof["place"], waiting.place)
            return
        waited = [self.time_of(each) for each in self.evidence.between(*where, successor.first, successor.last + 1)[:1]]
        if not waited or waited[0] > claimed.mono:
            self.count("idle")
            return
        self._judge(component, successor.mono - max(struck, waited[0]), proof, f"{where[1]}[{where[2]}]", claimed.place, successor.place)

    def _waiting(self, where: Where, struck: float) -> Any:
        """A record that waited at the blow and lies beyond every committed range of the journals."""
        done = max((each.last for each in self.done[where]), default=-1)
        offsets = self.evidence.offsets.get(where[1:])
        if offsets is None or bisect_left(offsets, done + 1) >= len(offsets):
            return None
        return next(iter(self.evidence.between(*where, done + 1, offsets[-1] + 1)), None)

    def time_of(self, record: Any) -> float:
        """When it could be read: as the relay tells it. Its row is older: a relay that is slow, or is taken over itself, keeps no consumer's successor waiting."""
        told = None if record.marked else self.published.get(self.rows.get(record.mid, 0))  # A nemesis' copy is not there since its original is.
        return told or self.mono_of(record)
