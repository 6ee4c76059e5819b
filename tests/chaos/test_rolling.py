"""Every component replaced under load, one short run judged whole: it begins with the release before what travels last changed and rolls to this one; some go back and forward again.

Where the history does not reach back to that release, the same run stays with this one. The long ones: `python -m tests.chaos rolling`.
"""

import json
from typing import Any

import pytest

from app.dev.servers import ROOT, Native
from tests.chaos import fleet, rolling
from tests.chaos.outcome import Outcome, say

TWICE = ("scheduler", "relay")


@pytest.fixture(scope="module")
def rolled(native_servers: Native, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    plan = rolling.draw(6, mixed=bool(fleet.previous()), copies=1, twice=TWICE, before_seconds=5.0)
    with rolling.rig(tmp_path_factory.mktemp("rolling") / "run", native_servers, plan) as rig:
        outcome = rolling.run(rig, say=say)
    reports = ROOT / ".dev" / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    (reports / "rolling.md").write_text((outcome.run / "figures.md").read_text())
    return outcome


def left(outcome: Outcome, name: str) -> dict[str, Any]:
    return dict(json.loads((outcome.run / name).read_text()))


def test_every_component_is_replaced_under_load_and_nothing_is_lost_or_done_twice(rolled: Outcome) -> None:
    assert rolled.failed == []
    assert rolled.verdict == 0, (rolled.run / "report.md").read_text()
    told = left(rolled, "rolling.json")
    assert (told["lost"], told["twice"], told["uneven"], told["not_as_planned"]) == (0, 0, 0, 0)
    assert set(told["slowest_stop_seconds"]) == set(rolling.ORDER)
    phases = list(told["hops_ms"])
    assert phases[:1] == ["before"]
    assert all(told["hops_ms"][each]["all"]["n"] > 0 for each in phases)


def test_two_releases_work_side_by_side_forward_and_back_with_copies_of_both_killed(rolled: Outcome) -> None:
    plan = left(rolled, "plan.json")
    if not plan["revision"]:
        pytest.skip(f"UNDECIDED: {rolling.NO_HISTORY}")
    faults = left(rolled, "verdict.json")["faults"]
    assert faults["N34"] == dict.fromkeys(("planned", "proven"), len(rolling.ORDER) + 2 * len(TWICE))
    assert faults["N1"] == dict.fromkeys(("planned", "proven"), 3 * len(TWICE))
    proofs = [line["evidence"] for line in rolling.read(rolled.run / "nemesis.jsonl") if line["kind"] == "fault.proof"]
    versions = [(each["went"]["version"], each["came"]["version"]) for each in proofs if "went" in each]
    assert all(old != new for old, new in versions)
    assert {each["was"]["release"] for each in proofs if "was" in each} == {"old", "new"}
