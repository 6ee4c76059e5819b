"""One run judged: the evidence walked, its sources checked, every promise decided."""

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.checker import sources
from tests.checker.evidence import Evidence
from tests.checker.promises import delivery, history, launches, offsets, outside, ownership, remote, states, takeovers, traces, upgrades
from tests.checker.sources import Faults, Source
from tests.checker.verdicts import BROKEN, HELD, UNDECIDED, Promise, Verdict, decide

PROMISES: tuple[type[Promise], ...] = (
    launches.Accepted, launches.Ended, launches.OneKey, ownership.OneOwner, states.LegalMoves, states.GraphObeyed, delivery.AppliedOnce, states.AttemptsAddUp, remote.OneExecution,
    remote.NoOrphan, delivery.OutboxConserved, delivery.OrderWithinKey, history.OneHistory, offsets.OffsetsBehind, delivery.SetAside, delivery.NoTornStep, outside.CancelHonoured,
    remote.WholeFiles, outside.TenantsApart, outside.SecretsInside, launches.Refused, outside.BoundsHold, launches.NoGoingBack, takeovers.TakenOver, traces.TraceWhole,
    upgrades.UpgradesSafe,
)  # fmt: skip


class Told(Promise):
    """No promise: what the report counts besides."""

    number, title, counts = "-", "counts", ()

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(evidence)
        self.nemesis: list[Any] = []
        self.told: Counter[str] = Counter()

    def fault(self, line: Any, place: Any) -> None:
        self.nemesis.append(line)

    def journal(self, line: Any, place: Any) -> None:
        if line["kind"] in {"late", "rescue", "violation", "aside"}:
            self.told[f"journal: {line['kind']}"] += 1
        elif line["kind"] == "failpoint.hit":
            self.told["fail points hit"] += 1

    def row(self, table: str, row: Any, place: Any) -> None:
        if table == "experiments":
            self.told[f"experiments {row['state']}"] += 1

    def transaction(self, tx: Any) -> None:
        self.told["transactions"] += 1
        self.told["rescues by the sweeper"] += sum(each.unit.startswith("sweeper") for each in tx.fresh)


@dataclass
class Judgement:
    run: Path
    evidence: Evidence
    verdicts: list[Verdict]
    sources: dict[str, Source]
    faults: Faults
    counts: dict[str, int]
    seconds: float
    takeover: dict[str, list[float]] = field(default_factory=dict)
    thrown_away: dict[str, int] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        if any(each.verdict == BROKEN for each in self.verdicts):
            return BROKEN
        return HELD if all(each.verdict == HELD for each in self.verdicts if each.required) and any(each.required for each in self.verdicts) else UNDECIDED

    @property
    def exit_code(self) -> int:
        return {HELD: 0, BROKEN: 1, UNDECIDED: 2}[self.verdict]


def judge(run: Path) -> Judgement:
    """Raises nothing for bad evidence: what cannot be read is a source that is not complete."""
    began = time.monotonic()
    evidence = Evidence(run)
    promises = [each(evidence) for each in PROMISES]
    told = Told(evidence)
    evidence.walk([*promises, told])
    found = sources.check(evidence)
    faults = sources.faults(evidence.plan, told.nemesis)
    required = evidence.plan.get("required") or {}
    verdicts: list[Verdict] = []
    for each in promises:
        for before in verdicts:
            if before.promise.number in each.rests_on and (before.verdict == BROKEN or (before.required and before.verdict != HELD)):
                each.doubt(f"{before.promise.number} is {before.verdict}")
        incomplete = [f"{name}: {fault}" for name in sorted(each.needs) for fault in found[name].faults[:3]]
        verdicts.append(decide(each, required=required.get(each.number), incomplete=incomplete, unproven=faults.for_promise(each.number)))
    takeover = next(each for each in promises if isinstance(each, takeovers.TakenOver))
    return Judgement(run, evidence, verdicts, found, faults, dict(sorted(told.told.items())), time.monotonic() - began, dict(takeover.times), dict(takeover.thrown))


