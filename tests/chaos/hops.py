"""How old a message is when it is applied: from the COMMIT that wrote it to the COMMIT that moved a group's position over it, read from what a run left behind.

Both times are the binary log's, so of one clock, and say nothing that a process of ours claims. A requeued or delayed message counts from the row that was sent at last. MariaDB's log
tells whole seconds: there nothing is said.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from tests.chaos.lines import read
from tests.checker.evidence import Evidence
from tests.checker.reading import seconds_of
from tests.checker.report import quantile
from tests.checker.verdicts import Promise

Document = dict[str, Any]


class Hop(NamedTuple):
    """`sent`: when the message was committed, in seconds of the epoch."""

    group: str
    sent: float
    seconds: float


class Hops(Promise):
    """No promise: it only listens while the evidence is walked."""

    number, title, counts = "-", "hops", ("hops",)

    def __init__(self, evidence: Evidence) -> None:
        super().__init__(evidence)
        self.sent: dict[str, str] = {}
        self.hops: list[Hop] = []

    def transaction(self, tx: Any) -> None:
        self.sent |= {each.mid: tx.at for each in tx.sent if each.table == "outbox"}
        for group, record in tx.applied:
            at = self.sent.get(record.mid, "")
            if "." in at:
                self.hops.append(Hop(group.rpartition(".")[2], seconds_of(at), seconds_of(tx.at) - seconds_of(at)))


def of(run: Path) -> list[Hop]:
    evidence = Evidence(run)
    listener = Hops(evidence)
    evidence.walk([listener])
    return listener.hops


def phases(run: Path) -> list[tuple[str, float, float]]:
    """(name, since, until) of what `phase` lines of nemesis.jsonl began; one without a name only ends the last."""
    told = [(line["phase"], seconds_of(line["wall"])) for line in read(run / "nemesis.jsonl") if line["kind"] == "phase"]
    return [(name, since, until) for (name, since), (_, until) in pairwise(told)]


def figures(seconds: Sequence[float]) -> Document:
    """Milliseconds."""
    told = {name: quantile(seconds, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}
    return {"n": len(seconds), **{name: None if value is None else round(1000 * value, 1) for name, value in told.items()}}


def by_phase(run: Path) -> Mapping[str, Mapping[str, Document]]:
    """Phase → group (`all` first) → figures of the messages that were committed in it."""
    hops, found = of(run), {}
    for name, since, until in phases(run):
        within = [each for each in hops if since <= each.sent < until]
        groups = {group: [each.seconds for each in within if each.group == group] for group in sorted({each.group for each in within})}
        found[name] = {"all": figures([each.seconds for each in within]), **{group: figures(some) for group, some in groups.items()}}
    return found
