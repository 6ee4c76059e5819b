"""The one page and the exit code of a chaos run follow from what its parts left behind; take-over times from lines of journals."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import report, takeovers
from tests.chaos.outcome import Case, Outcome
from tests.chaos.victims import VICTIMS


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(report, "REPORTS", tmp_path / "reports")
    return tmp_path


def a_part(runs: Path, part: str, verdicts: dict[str, str], *, exit_code: int = 0, why: str = "", required: bool = True) -> Outcome:
    directory = runs / part
    directory.mkdir()
    promises = {name: {"title": "says so", "verdict": verdict, "required": required, "exercised": {"records": 3}, "reasons": []} for name, verdict in verdicts.items()}
    (directory / "verdict.json").write_text(json.dumps({"promises": promises, "faults": {"N1": {"planned": 2, "proven": 2}}, "counts": {"experiments": 5, "rescues": 0}}))
    return Outcome(part, directory, exit_code, 1.0, [Case("one case", why)])


def told(*outcomes: Outcome) -> dict[str, Any]:
    return report.gather("commit", 7, outcomes, repeat="python -m tests.chaos commit --seed 7")


def test_all_held_is_a_pass_and_the_page_sums_what_the_parts_saw(runs: Path) -> None:
    found = told(a_part(runs, "points", {"P7": "HELD"}), a_part(runs, "headline", {"P7": "HELD", "P24": "HELD"}))
    assert (report.code(found), report.tally(found)) == (0, (4, 0))
    page = report.write(found)
    assert "| P7 says so | HELD | 6 records |" in page
    assert "| N1 | 4 | 4 |" in page
    assert "Counts: 10 experiments, 0 rescues." in page
    assert "--seed 7" in page


def test_one_broken_promise_breaks_the_run_also_where_it_is_not_required(runs: Path) -> None:
    found = told(a_part(runs, "points", {"P7": "HELD"}), a_part(runs, "random", {"P7": "BROKEN"}, exit_code=1, required=False))
    assert (found["promises"]["P7"]["verdict"], report.code(found)) == ("BROKEN", 1)
    assert report.tally(found)[1] == 1


def test_a_required_promise_that_one_part_could_not_decide_leaves_the_run_undecided(runs: Path) -> None:
    found = told(a_part(runs, "points", {"P15": "UNDECIDED"}, exit_code=2), a_part(runs, "headline", {"P15": "HELD"}, required=False))
    assert (found["promises"]["P15"]["verdict"], report.code(found)) == ("UNDECIDED", 2)


def test_a_failed_case_fails_the_run_and_says_why(runs: Path) -> None:
    found = told(a_part(runs, "points", {"P7": "HELD"}, why="no struck file"))
    assert report.code(found) == 1
    assert "points: one case: no struck file" in report.write(found)


def a_line(kind: str, mono: float, who: str = "scheduler/1", **more: Any) -> str:
    return json.dumps({"n": 1, "who": who, "life": "b", "mono": mono, "wall": f"2026-11-25T00:00:{mono - 100:09.6f}Z", "kind": kind, **more}) + "\n"


def test_a_take_over_is_broken_down_until_the_last_of_what_the_victim_held_is_claimed(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    lines = a_line("unit.begin", 111.2, unit="scheduler.claim", step="s")
    lines += "".join(a_line("partition.claim", 111.2 + part / 10, topic="t", partition=part, epoch=2, next_offset=5) for part in (1, 2))
    (tmp_path / "journal" / "scheduler-1.b.jsonl").write_text(lines)
    struck = {"fault": "h1", "how": "kill", "target": "scheduler/0", "struck": 110.0, "share": 0.5, "lag_ms": 3.0, "good": True, "held": [["t", 1], ["t", 2], ["t", 3]], "left_at": 111.1}
    (found,) = takeovers.broken_down(tmp_path, VICTIMS["scheduler"], [struck, struck | {"struck": 200.0, "good": False}])
    assert (found["out_of_group"], found["assigned"], found["claimed"], found["unclaimed"]) == (1.1, 1.2, 1.4, 1)
    assert takeovers.summary([found], {"n": 7, "max": 1.6}) == {"kills": 1, "out_of_group": 1.1, "assigned": 1.2, "claimed": 1.4, "n": 7, "max": 1.6}
