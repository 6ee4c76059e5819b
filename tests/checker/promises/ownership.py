"""P4: who may act on a partition. What its owners did is read here for P24 (takeovers.py), too."""

from collections import defaultdict
from typing import Any, NamedTuple

from tests.checker.evidence import Transaction
from tests.checker.reading import Place, seconds_of
from tests.checker.tables import FACTS
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

    def disturbed(self, name: str, struck: float, seconds: float) -> bool:
        """Another fault was on within `seconds` of this one's blow, or had just been healed: bounds in time are of one fault alone. Of kills and freezes, as a headline has one after another, the first seconds count."""
        for other, lines in self.faults.items():
            start, end = lines.get("fault.start"), lines.get("fault.end")
            if other == name or start is None:
                continue
            blow = start.get("fault_kind") in {"N1", "N2"}
            until = (float(end["healed"]) if end else float("inf")) + (0.0 if blow else SETTLED_SECONDS)
            if start["mono"] <= struck + (BLOW_SECONDS if blow else seconds) and until >= struck:
                return True
        return False

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
        for name, lines in self.faults.items():
            proof, end = lines.get("fault.proof", {}), lines.get("fault.end", {})
            if proof.get("zombie") or proof.get("late_claim"):
                self._returned(name, str(lines.get("fault.start", {}).get("target", "")), proof, end)

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

    def _returned(self, name: str, who: str, proof: Any, end: Any) -> None:
        woken = end.get("woken")
        if woken is None:
            self.doubt(f"{who} was frozen, and nobody noted when it woke")
            return
        if proof.get("zombie"):
            fenced = any(mono >= woken and fenced == who for mono, fenced in self.fenced)
            self.count("zombies")
            if not fenced and not proof.get("transaction_ended"):
                self.doubt(f"{who} came back with a batch in hand, and no journal line says that it was fenced")
        if proof.get("late_claim"):
            self._late_claims(who, woken, alone=not self.disturbed(name, woken, self.OVERRULED_SECONDS))

    def _late_claims(self, who: str, woken: float, *, alone: bool) -> None:
        """Each claim that it makes at once upon waking, of what another holds: where records wait, overruled by a newer claim and a commit, in time where no other fault is on. Where none comes, nobody needs to."""
        for where, claims in self.claims.items():
            for late in (each for each in claims if each.who == who and woken <= each.mono < woken + 1.0):
                before = [each for each in claims if each.mono < late.mono and each.who != who]
                gone = before and any(mono > before[-1].mono and mono <= late.mono and name == before[-1].who for mono, name in self.released[where])
                if not before or gone:
                    continue  # Nobody held it: it is the owner.
                after = [each for each in claims if late.mono < each.mono <= late.mono + self.OVERRULED_SECONDS and each.epoch > late.epoch]
                waits = [each for each in self.done[where] if each.mono > late.mono]
                if not after:
                    if alone and waits and self._waited(where, waits[0], late.mono + self.OVERRULED_SECONDS / 2):  # It came early enough to be answered within the bound.
                        self.missing(f"{who}'s late claim of {where[1]}[{where[2]}] was not overruled within {self.OVERRULED_SECONDS:.0f} s", late.place, before[-1].place)
                    continue
                self.count("late_claims")
                if alone and waits and waits[0].mono > late.mono + self.OVERRULED_SECONDS and self._waited(where, waits[0], late.mono):
                    self.broken(f"{where[1]}[{where[2]}] stood still for {waits[0].mono - late.mono:.1f} s after {who}'s late claim", late.place, waits[0].place)

    def _waited(self, where: Where, done: Done, since: float) -> bool:
        return any(self.mono_of(each) <= since for each in self.evidence.between(*where, done.first, done.last + 1)[:1])
