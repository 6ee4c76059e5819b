"""A promise under judgement: what it counted, what contradicts it, what keeps it from being decided.

`broken` beats everything. `missing` is a contradiction that rests on something's absence: it convicts only if the promise's sources are complete, else it is a doubt.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from tests.checker.reading import Place

if TYPE_CHECKING:
    from tests.checker.evidence import Evidence

HELD, BROKEN, UNDECIDED = "HELD", "BROKEN", "UNDECIDED"
KEPT = 200  # Counter-examples beyond these are only counted.


@dataclass(frozen=True)
class Witness:
    says: str
    places: tuple[Place, ...]


class Promise:
    """Subclasses fill the class variables, override the hooks they need (evidence.py says when each is called) and `conclude`.

    `counts`: names of what it counts; the first is how often it was exercised. `needs`: sources, by their names in sources.py.
    """

    number: ClassVar[str]
    title: ClassVar[str]
    counts: ClassVar[tuple[str, ...]]
    needs: ClassVar[frozenset[str]] = frozenset()
    rests_on: ClassVar[frozenset[str]] = frozenset()  # Promises without which this one is not held.
    exists: ClassVar[bool] = True  # False: its part of the product is not built; shown, never required.

    def __init__(self, evidence: "Evidence") -> None:
        self.evidence = evidence
        self.exercised: Counter[str] = Counter(dict.fromkeys(self.counts, 0))
        self.found: list[Witness] = []
        self.absences: list[Witness] = []
        self.contradictions = 0
        self.doubts: list[str] = []

    def broken(self, says: str, *places: Place | None) -> None:
        self.contradictions += 1
        if len(self.found) < KEPT:
            self.found.append(Witness(says, tuple(each for each in places if each is not None)))

    def missing(self, says: str, *places: Place | None) -> None:
        if len(self.absences) < KEPT:
            self.absences.append(Witness(says, tuple(each for each in places if each is not None)))

    def doubt(self, reason: str) -> None:
        if reason not in self.doubts and len(self.doubts) < KEPT:
            self.doubts.append(reason)

    def count(self, name: str, times: int = 1) -> None:
        self.exercised[name] += times

    # ---- hooks, in the order in which the evidence is walked -------------------------------------------------------------------------------------
    def fault(self, line: Any, place: Place) -> None: ...
    def invoked(self, line: Any, place: Place) -> None: ...
    def answered(self, asked: Any, at: Place, line: Any, place: Place) -> None: ...
    def journal(self, line: Any, place: Place) -> None: ...
    def sample(self, line: Any, place: Place) -> None: ...
    def row(self, table: str, row: Any, place: Place) -> None: ...
    def record(self, record: Any, line: Any) -> None: ...
    def uncommitted(self, record: Any, line: Any) -> None: ...
    def transaction(self, tx: Any) -> None: ...
    def host(self, kind: str, host: str, line: Any, place: Place) -> None: ...
    def conclude(self) -> None: ...


@dataclass
class Verdict:
    """One line of the page."""

    promise: Promise
    verdict: str
    required: bool
    at_least: dict[str, int] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    witness: Witness | None = None
    broken: int = 0


def decide(promise: Promise, *, required: dict[str, int] | None, incomplete: Sequence[str], unproven: Sequence[str]) -> Verdict:
    """`required`: how often at least, by count; None: the plan does not ask for it. `incomplete`, `unproven`: why its sources or its faults cannot be relied on."""
    at_least = dict(required or {}) or {promise.counts[0]: 1}
    found = Verdict(promise, HELD, required is not None and promise.exists, at_least)
    lacking = [f"source incomplete: {each}" for each in incomplete]
    against = promise.found + ([] if lacking else promise.absences)
    found.broken = promise.contradictions + (0 if lacking else len(promise.absences))
    found.reasons = [*lacking, *(f"not proven: {each}" for each in unproven), *promise.doubts]
    if lacking and promise.absences:
        found.reasons.append(f"not counted, since a source is incomplete: {promise.absences[0].says}")
    found.reasons += [f"exercised {promise.exercised[name]} times, {least} asked: {name}" for name, least in at_least.items() if promise.exercised[name] < least]
    if against:
        found.verdict, found.witness = BROKEN, min(against, key=lambda each: (len(each.places), len(each.says)))
    elif found.reasons or not promise.exists:
        found.verdict = UNDECIDED
        found.reasons = found.reasons or ["this part of the product does not exist yet"]
    return found
