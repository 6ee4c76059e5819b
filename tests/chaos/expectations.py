"""As if nothing had happened: each experiment ended as its launch in the plan says, with the outputs whose bytes follow from its seed, and nobody had to help."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tests.chaos.lines import read

if TYPE_CHECKING:
    from tests.chaos.rig import Rig

ENDS = "SELECT e.id, e.state, e.outcome, GROUP_CONCAT(CONCAT(o.name, '=', COALESCE(o.sha256, '-'))) FROM experiments e LEFT JOIN outputs o ON o.experiment_id = e.id WHERE e.id IN ({}) GROUP BY e.id"
LOST = ("FAILED", "LOST_JOB")  # What a job may come to whose host died under it; P10 asks for its evidence.


def unmet(rig: "Rig", launched: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is not as planned, a line each. `launched`: experiment → its launch."""
    if not launched:
        return []
    rows = {row[0]: row[1:] for row in rig.rows(ENDS.format(",".join(["%s"] * len(launched))), *launched)}
    given_up = {experiment for experiment, launch in launched.items() if launch.get("host") in rig.hosts_died and rows.get(experiment, ())[:2] == LOST}
    return [
        f"{experiment} {launch['name']} ({launch['shape']}): {fault}"
        for experiment, launch in launched.items() if experiment not in given_up
        for fault in _faults(rows.get(experiment), launch["expect"])
    ]  # fmt: skip


def _faults(row: tuple[Any, ...] | None, expect: Mapping[str, Any]) -> list[str]:
    if row is None:
        return ["lost"]
    state, outcome, outputs = row
    found = dict(each.partition("=")[::2] for each in (outputs or "").split(","))
    faults = [] if (state, outcome) == (expect["state"], expect["outcome"]) else [f"{state} {outcome}, planned was {expect['state']} {expect['outcome']}"]
    return faults + [f"output {name} is {found.get(name)}, planned was {sha256}" for name, sha256 in expect.get("outputs", {}).items() if found.get(name) != sha256]


def counted(rig: "Rig") -> dict[str, int]:
    """Lines of the journals that should be none in an ordinary run, and rebalances that nobody asked for."""
    counts = dict.fromkeys(("rescue", "aside", "violation", "partition.release"), 0)
    for path in (rig.run / "journal").glob("*.jsonl"):
        for line in read(path):
            if line["kind"] in counts:
                counts[line["kind"]] += 1
    return counts
