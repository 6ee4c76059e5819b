"""P4 P14 P24: who may act on a partition, how far Kafka is told that it was read, and how soon a successor acts."""

from bisect import bisect_left
from collections import defaultdict
from typing import Any, NamedTuple

from tests.checker.evidence import Transaction
from tests.checker.reading import Place, seconds_of
from tests.checker.tables import FACTS, role
from tests.checker.verdicts import Promise

Where = tuple[str, str, int]  # group, topic, partition
SETTLED_SECONDS, BLOW_SECONDS = 10.0, 3.0  # How long a healed fault is still felt; and how soon after a blow another disturbs what it shows.


class Claimed(NamedTuple):
    mono: float
    who: str
    life: str
    epoch: int
    place: Place


class Done(NamedTuple):
    """A committed range of a partition, as a journal tells it."""

    mono: float
    who: str
    life: str
    first: int
    last: int
    epoch: int  # The row's, as it was locked.
    place: Place


class Ownership(Promise):
    """Claims, releases and committed ranges of the journals, by partition; what P4 and P24 share."""

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.claims: dict[Where, list[Claimed]] = defaultdict(list)
        self.released: dict[Where, list[tuple[float, str]]] = defaultdict(list)
        self.done: dict[Where, list[Done]] = defaultdict(list)
        self.fenced: list[tuple[float, str]] = []
        self.faults: dict[str, dict[str, Any]] = defaultdict(dict)
        self.clock: tuple[float, float] | None = None  # mono, wall of one line: both clocks of this machine run alike

    def fault(self, line: Any, place: Place) -> None:
        if str(line["kind"]).startswith("fault."):
            self.faults[line["fault"]][line["kind"]] = {**line, "place": place}

    def journal(self, line: Any, place: Place) -> None:
        kind = line["kind"]
        if kind == "partition.claim":
            where = (line["group"], line["topic"], line["partition"])
            self.claims[where].append(Claimed(line["mono"], line["who"], line["life"], line["epoch"], place))
        elif kind == "partition.release":
            self.released[line["group"], line["topic"], line["partition"]].append((line["mono"], line["who"]))
        elif kind == "unit.end":
            self._unit(line, place)
        if self.clock is None and line.get("wall"):
            self.clock = (line["mono"], seconds_of(line["wall"]))

    def _unit(self, line: Any, place: Place) -> None:
        if line["outcome"] == "fenced" or line.get("fenced"):
            self.fenced.append((line["mono"], line["who"]))
        if line["outcome"] == "committed":
            for topic, part, first, last, epoch in line.get("ranges") or ():
                self.done[line.get("group", ""), topic, part].append(Done(line["mono"], line["who"], line["life"], first, last, epoch, place))

    def sort(self) -> None:
        for some in (self.claims, self.released, self.done):
            for found in some.values():
                found.sort()

    def mono_of(self, record: Any) -> float:
        """When its row was written, on the monotonic clock."""
        return (record.time - self.clock[1]) + self.clock[0] if self.clock is not None else 0.0


class OneOwner(Ownership):
    """`zombies`: owners that came back with a batch in hand; `late_claims`: those stopped before their C0; `fenced`: units that found a newer epoch; `epochs`: raised in B; `acts`: compared with B."""

    number, title, counts = "P4", "one owner acts", ("zombies", "late_claims", "fenced", "epochs", "acts")
    needs = frozenset({"binlog", "journal", "nemesis"})
    OVERRULED_SECONDS = 3.0

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.epochs: dict[Any, tuple[int, Place]] = {}
        self.ends: dict[tuple[str, str, int, int], dict[int, Place]] = defaultdict(dict)  # where a position ended → by which epochs

    def transaction(self, tx: Transaction) -> None:
        for kind, _, after in tx.changes.get("positions", ()):
            if kind != "D":
                self._epoch((after["consumer_group"], after["topic"], after["part"]), after["owner_epoch"], tx.place)
        for advance in tx.advances:
            self.ends[advance.group, advance.topic, advance.part, advance.after].setdefault(advance.epoch, tx.place)
        rows: dict[tuple[str, int], int] = {}
        for kind, _, after in tx.changes.get("attempts", ()):
            if kind != "D":
                self._epoch(after["id"], after["epoch"], tx.place)
                rows[after["task_id"], after["number"]] = after["epoch"]
        for each in tx.fresh:
            if each.type in FACTS and (each.task, each.attempt) in rows:
                self.count("acts")
                if each.epoch != rows[each.task, each.attempt]:
                    self.broken(f"{each.type} of {each.task} attempt {each.attempt} was written by epoch {each.epoch}; the row's was {rows[each.task, each.attempt]}", tx.place)

    def _epoch(self, what: Any, epoch: int, place: Place) -> None:
        before = self.epochs.get(what)
        if before is not None and epoch < before[0] and what[1] not in self.evidence.renewed:
            self.broken(f"the epoch of {what} fell from {before[0]} to {epoch}", before[1], place)
        self.count("epochs", before is not None and epoch > before[0])
        self.epochs[what] = (epoch, place)

    def conclude(self) -> None:
        self.sort()
        self.count("fenced", len(self.fenced))
        for where, done in self.done.items():
            claims: dict[str, list[Claimed]] = defaultdict(list)
            for claim in self.claims[where]:
                claims[claim.life].append(claim)
            for each in done:
                self._acted(where, each, [claim for claim in claims.get(each.life, ()) if claim.mono <= each.mono])
        for lines in self.faults.values():
            proof, end = lines.get("fault.proof", {}), lines.get("fault.end", {})
            if proof.get("zombie") or proof.get("late_claim"):
                self._returned(str(lines.get("fault.start", {}).get("target", "")), proof, end)

    def _acted(self, where: Where, done: Done, claims: list[Claimed]) -> None:
        """By the epoch of its own last claim, and with the row under lock: both must be the row's as the transaction left it."""
        known = self.ends.get((*where, done.last + 1))
        if not known:
            return
        self.count("acts")
        row, place = next(iter(known.items()))
        if done.epoch not in known:
            self.broken(f"{done.who} says that the row of {where[1]}[{where[2]}] had epoch {done.epoch} when it moved to {done.last + 1}; it had {row}", done.place, place)
        elif claims and claims[-1].epoch not in known:
            self.broken(f"{done.who} moved {where[1]}[{where[2]}] to {done.last + 1} by its claim of epoch {claims[-1].epoch}; the row's was {row}", claims[-1].place, done.place, place)

    def _returned(self, who: str, proof: Any, end: Any) -> None:
        woken = end.get("woken")
        if woken is None:
            self.doubt(f"{who} was frozen, and nobody noted when it woke")
            return
        if proof.get("zombie"):
            fenced = any(mono >= woken and name == who for mono, name in self.fenced)
            self.count("zombies")
            if not fenced and not proof.get("transaction_ended"):
                self.doubt(f"{who} came back with a batch in hand, and no journal line says that it was fenced")
        if proof.get("late_claim"):
            self._late_claims(who, woken)

    def _late_claims(self, who: str, woken: float) -> None:
        """Each claim that it makes at once upon waking, of what another holds: overruled by a newer claim and, where records wait, a commit."""
        for where, claims in self.claims.items():
            for late in (each for each in claims if each.who == who and woken <= each.mono < woken + 1.0):
                before = [each for each in claims if each.mono < late.mono and each.who != who]
                gone = before and any(mono > before[-1].mono and mono <= late.mono and name == before[-1].who for mono, name in self.released[where])
                if not before or gone:
                    continue  # Nobody held it: it is the owner.
                self.count("late_claims")
                after = [each for each in claims if late.mono < each.mono <= late.mono + self.OVERRULED_SECONDS and each.epoch > late.epoch]
                if not after:
                    self.missing(f"{who}'s late claim of {where[1]}[{where[2]}] was not overruled within {self.OVERRULED_SECONDS:.0f} s", late.place, before[-1].place)
                    continue
                waits = [each for each in self.done[where] if each.mono > late.mono]
                if waits and waits[0].mono > late.mono + self.OVERRULED_SECONDS and self._waited(where, waits[0], late.mono):
                    self.broken(f"{where[1]}[{where[2]}] stood still for {waits[0].mono - late.mono:.1f} s after {who}'s late claim", late.place, waits[0].place)

    def _waited(self, where: Where, done: Done, since: float) -> bool:
        return any(self.mono_of(each) <= since for each in self.evidence.between(*where, done.first, done.last + 1)[:1])


class OffsetsBehind(Promise):
    """`samples`: with committed offsets and positions; `offsets`: compared."""

    number, title, counts = "P14", "offsets never run ahead", ("samples", "offsets")
    needs = frozenset({"samples", "kafka", "groups", "tables"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.taken: list[tuple[list[Any], dict[Where, int], Place]] = []
        self.by_hand: set[tuple[str, str, int, int]] = set()

    def fault(self, line: Any, place: Place) -> None:
        self.by_hand.update((group, topic, part, offset) for group, topic, part, offset in line.get("offsets_set") or ())

    def sample(self, line: Any, place: Place) -> None:
        if line.get("committed") and line.get("positions"):
            self.count("samples")
            self.taken.append((line["committed"], {(group, topic, part): offset for group, topic, part, offset in line["positions"]}, place))

    def conclude(self) -> None:
        last = [[group, topic, int(part), offset] for group, topics in self.evidence.committed.items() for topic, parts in topics.items() for part, offset in parts.items()]
        self.taken.append((last, dict(self.evidence.positions), Place("kafka/groups.json", 1)))
        for committed, positions, place in self.taken:
            for group, topic, part, offset in committed:
                position = positions.get((group, topic, part))
                if position is None or (group, topic, part, offset) in self.by_hand:
                    continue
                self.count("offsets")
                if offset > position:
                    for each in self.evidence.between(group, topic, part, position, offset)[:1]:
                        text = f"Kafka was told {offset} for {role(group)} in {topic}[{part}] while its position was {position}, and {each.type} lies at {each.offset}"
                        self.broken(text, place, each.place)


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
            elif proof["lag_ms"] > lag_max or self._disturbed(name, component, proof):  # Thrown away before it is looked at.
                self.count("thrown_away")
                self.thrown[component] += 1
            elif component == "relay":
                self._relay(target, proof)
            else:
                self._consumer(target, component, proof)
                self._work(target, component, proof)

    def _disturbed(self, name: str, component: str, proof: Any) -> bool:
        """Another fault was on, or had just been healed, within the bound: the bounds are of one fault alone. Of kills and freezes, as a headline has one after another, the first seconds count."""
        struck = proof["struck"]
        for other, lines in self.faults.items():
            start, end = lines.get("fault.start"), lines.get("fault.end")
            if other == name or start is None:
                continue
            blow = start.get("fault_kind") in {"N1", "N2"}
            until = (float(end["healed"]) if end else float("inf")) + (0.0 if blow else SETTLED_SECONDS)
            if start["mono"] <= struck + (BLOW_SECONDS if blow else self.bound(component, proof)) and until >= struck:
                return True
        return False

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
                self._judge(component, after[0] - struck, {**proof, "bound": "executor-work"}, f"attempt {token}", after[3])

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
