"""What cannot be decided is UNDECIDED: a source that is cut, a fault without its proof, a nemesis that did nothing, a promise nobody exercised."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checker.judge import Judgement, judge
from tests.checker.verdicts import BROKEN, HELD, UNDECIDED
from tests.checker_histories.bad import BAD, history
from tests.checker_histories.story import OLDER, Story, good
from tests.checker_histories.world import EVENTS


def of(judged: Judgement, number: str) -> tuple[str, str]:
    found = next(each for each in judged.verdicts if each.promise.number == number)
    return found.verdict, "; ".join(found.reasons)


def edit(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


def without(path: Path, pattern: str) -> None:
    edit(path, lambda lines: [line for line in lines if not re.search(pattern, line)])


CUTS: dict[str, tuple[str, Callable[[Path], None], str]] = {  # what is done → a promise that rests on it, the cut, what must be said
    "the binary log has no end mark": ("P11", lambda run: without(run / "mysql/binlog/transactions.jsonl", '^{"end"'), "no end mark"),
    "a transaction is left out": ("P5", lambda run: edit(run / "mysql/binlog/transactions.jsonl", lambda lines: [*lines[:9], *lines[10:]]), "is cut"),
    "the binary log's first file is missing": ("P6", lambda run: edit(run / "mysql/binlog/transactions.jsonl", lambda lines: ['{"file": "binlog.000002"}\n', *lines[1:]]), "the run wrote binlog.000001"),
    "a binary log file between is missing": (
        "P8", lambda run: edit(run / "mysql/binlog/transactions.jsonl", lambda lines: [*lines[:-1], '{"file": "binlog.000003"}\n', lines[-1]]), "files are missing",
    ),
    "a topic is read halfway": ("P13", lambda run: edit(run / f"kafka/{EVENTS}.committed.jsonl", lambda lines: [*lines[:5], '{"end": {"0": [0, 5]}}\n']), "not read from their start"),
    "a topic has no end mark": ("P7", lambda run: without(run / f"kafka/{EVENTS}.uncommitted.jsonl", '^{"end"'), "was not read"),
    "a table lacks a row": ("P10", lambda run: edit(run / "mysql/tables/jobs.jsonl", lambda lines: lines[:-1]), "table jobs"),
    "a table is not there": ("P2", lambda run: (run / "mysql/tables/tasks.jsonl").unlink(), "table tasks"),
    "a journal has a gap": ("P16", lambda run: edit(run / "journal/scheduler-0.1.jsonl", lambda lines: [*lines[:3], *lines[4:]]), "jumps"),
    "a line in the middle of a journal is torn": ("P4", lambda run: edit(run / "journal/scheduler-0.1.jsonl", lambda lines: [lines[0][:20] + "\n", *lines[1:]]), "is not JSON"),
    "a life has no journal": ("P24", lambda run: edit(run / "manifest.json", lambda lines: [json.dumps({**json.loads("".join(lines)), "lives": 99})]), "99 processes were started"),
    "the clients' journal is missing": ("P1", lambda run: (run / "client.jsonl").unlink(), "no client.jsonl"),
    "the samples are missing": ("P14", lambda run: (run / "samples.jsonl").unlink(), "no samples.jsonl"),
    "a host was not looked at": ("P9", lambda run: (run / "hosts/fork-a/control.jsonl").unlink(), "was not collected"),
    "the groups' offsets were not asked": ("P14", lambda run: (run / "kafka/groups.json").unlink(), "groups.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_source_decides_nothing(tmp_path: Path, name: str) -> None:
    number, cut, says = CUTS[name]
    good().write(tmp_path)
    cut(tmp_path)
    judged = judge(tmp_path)
    verdict, reasons = of(judged, number)
    assert verdict in {UNDECIDED, BROKEN}  # A transaction left out may contradict the next one: that convicts, rightly or not, and never acquits.
    if verdict == UNDECIDED:
        assert says in reasons, reasons
    assert judged.exit_code != 0


def test_what_is_only_absent_from_a_cut_source_convicts_nobody(tmp_path: Path) -> None:
    history("a_message_is_lost").write(tmp_path)
    without(tmp_path / f"kafka/{EVENTS}.committed.jsonl", '^{"end"')
    verdict, reasons = of(judge(tmp_path), "P11")
    assert verdict == UNDECIDED
    assert "not counted, since a source is incomplete" in reasons


def test_a_torn_last_line_of_a_journal_is_counted_and_dropped(tmp_path: Path) -> None:
    good().write(tmp_path)
    with (tmp_path / "journal/scheduler-0.1.jsonl").open("a") as journal:
        journal.write('{"n": 999, "who": "sched')
    judged = judge(tmp_path)
    assert judged.exit_code == 0, [each.reasons for each in judged.verdicts if each.verdict != HELD]
    assert judged.sources["journal"].torn == 1


# ---- faults -------------------------------------------------------------------------------------------------------------------------------------------
def planned(story: Story, lines: int, **proof: object) -> Story:
    """A second fault, of which the nemesis wrote only its first `lines` lines."""
    story.plan["faults"].append({"fault": "f2", "kind": "N9", "target": "mysql"})
    told = [
        story.stamp("fault.start", fault="f2", fault_kind="N9", target="mysql"),
        story.stamp("fault.proof", fault="f2", struck=1.0, **{"evidence": {"commit_answers_lost": 1}, **proof}),
        story.stamp("fault.end", fault="f2", healed=1.0),
    ]
    story.nemesis[-2:-2] = told[:lines]
    return story


@pytest.mark.parametrize(("lines", "says"), [(0, "no fault.start"), (1, "no fault.proof"), (2, "no fault.end")])
def test_a_planned_fault_without_its_proof_leaves_everything_undecided(tmp_path: Path, lines: int, says: str) -> None:
    judged = judge(planned(good(), lines).write(tmp_path))
    assert judged.exit_code == 2
    assert {of(judged, number)[0] for number in ("P1", "P7", "P16")} == {UNDECIDED}
    assert says in of(judged, "P16")[1]
    assert (judged.faults.planned["N9"], judged.faults.proven["N9"]) == (1, 0)


def test_a_proof_without_evidence_is_none(tmp_path: Path) -> None:
    judged = judge(planned(good(), 3, evidence={}).write(tmp_path))
    assert judged.exit_code == 2
    assert "no evidence in its proof" in of(judged, "P1")[1]


def test_a_proven_fault_lets_the_promises_be_held(tmp_path: Path) -> None:
    judged = judge(planned(good(), 3).write(tmp_path))
    assert judged.exit_code == 0
    assert (judged.faults.planned["N9"], judged.faults.proven["N9"]) == (1, 1)


def test_a_fault_that_was_planned_for_one_promise_leaves_the_others_alone(tmp_path: Path) -> None:
    story = planned(good(), 1)
    story.plan["faults"][-1]["for"] = ["P16"]
    judged = judge(story.write(tmp_path))
    assert (of(judged, "P16")[0], of(judged, "P1")[0]) == (UNDECIDED, HELD)
    assert judged.exit_code == 2


@pytest.mark.parametrize(("faults", "kinds", "says"), [(4, 3, ""), (5, 3, "4 faults were proven, 5 asked"), (4, 4, "3 kinds were proven, 4 asked")])
def test_faults_drawn_by_chance_need_as_many_proofs_as_the_plan_asks(tmp_path: Path, faults: int, kinds: int, says: str) -> None:
    story = planned(good(), 1)
    story.plan["proven_at_least"] = {"faults": faults, "kinds": kinds}
    judged = judge(story.write(tmp_path))
    assert judged.exit_code == (2 if says else 0)
    assert [why for why, _ in judged.faults.unproven] == ["N9 f2: no fault.proof, no fault.end"]
    assert says in of(judged, "P1")[1]


def test_a_nemesis_that_does_nothing_leaves_its_promises_unexercised(tmp_path: Path) -> None:
    story = good()
    story.nemesis = [line for line in story.nemesis if not line["kind"].startswith("fault.")]
    story.plan["faults"] = []
    judged = judge(story.write(tmp_path))
    assert {of(judged, number)[0] for number in ("P4", "P24")} == {UNDECIDED}
    assert "exercised 0 times" in of(judged, "P24")[1]
    assert judged.exit_code == 2


def test_a_frozen_owner_that_never_said_fenced_was_no_zombie(tmp_path: Path) -> None:
    story = good()
    for line in story.journals["scheduler/0"]:
        if line.get("outcome") == "fenced":
            line["outcome"] = "rolled_back"
    assert of(judge(story.write(tmp_path)), "P4")[0] == UNDECIDED


def test_a_take_over_under_a_late_stopwatch_is_thrown_away_unseen(tmp_path: Path) -> None:
    story = good()
    story.plan["takeover_seconds"] = {"scheduler": 0.001}
    next(line for line in story.nemesis if line["kind"] == "fault.proof")["lag_ms"] = 251.0
    judged = judge(story.write(tmp_path))
    assert of(judged, "P24")[0] == UNDECIDED
    assert judged.thrown_away == {"scheduler": 1}
    assert judged.takeover == {}


# ---- releases -----------------------------------------------------------------------------------------------------------------------------------------
UNTRUE: dict[str, tuple[Callable[[Story], object], str]] = {  # what is otherwise → what must be said
    "nobody said which releases ran": (lambda s: s.nemesis.pop(0), "exercised 0 times, 1 asked: to_older"),
    "a life says it runs another release than was seen": (lambda s: s.journals["scheduler/0"][0].update(version=OLDER), "exercised 0 times, 1 asked: back"),
    "the one that went had ended before the other came": (lambda s: s.journals["api/0"][-1].update(mono=1.0), "exercised 0 times, 1 asked: forward"),
    "a message is lost": (BAD["a_message_is_lost"][1], "P11 is BROKEN"),
    "there are too few launches": (lambda s: s.plan["required"].update(P1={"launches": 1000}), "P1 is UNDECIDED"),
}


@pytest.mark.parametrize("name", UNTRUE)
def test_an_upgrade_is_safe_only_if_both_releases_lived_and_all_else_is_held(tmp_path: Path, name: str) -> None:
    otherwise, says = UNTRUE[name]
    story = good()
    story.plan["required"]["P26"] = dict.fromkeys(("to_older", "to_newer", "forward", "back"), 1)
    otherwise(story)
    verdict, reasons = of(judge(story.write(tmp_path)), "P26")
    assert (verdict, says in reasons) == (UNDECIDED, True), reasons


# ---- exercise -----------------------------------------------------------------------------------------------------------------------------------------
def test_a_promise_exercised_less_often_than_the_plan_asks_is_undecided(tmp_path: Path) -> None:
    story = good()
    story.plan["required"]["P1"] = {"launches": 1000}
    judged = judge(story.write(tmp_path))
    assert "exercised 3 times, 1000 asked: launches" in of(judged, "P1")[1]
    assert judged.exit_code == 2


def test_tenants_of_whom_one_said_nothing_could_not_have_been_mixed_up(tmp_path: Path) -> None:
    story = good()
    story.plan["required"]["P19"] = {"tenants": 2}
    assert of(judge(story.write(tmp_path / "both")), "P19")[0] == HELD
    story.client = [line for line in story.client if line["op"] != "theirs"]
    assert of(judge(story.write(tmp_path / "one")), "P19") == (UNDECIDED, "exercised 1 times, 2 asked: tenants")


def test_a_run_that_nobody_healed_says_nothing_about_its_end(tmp_path: Path) -> None:
    story = good()
    story.nemesis = [line for line in story.nemesis if line["kind"] != "healed"]
    assert of(judge(story.write(tmp_path)), "P2")[0] == UNDECIDED


def test_a_run_that_requires_nothing_is_not_held(tmp_path: Path) -> None:
    story = good()
    story.plan["required"] = {}
    assert judge(story.write(tmp_path)).exit_code == 2


def test_an_empty_directory_is_undecided(tmp_path: Path) -> None:
    assert judge(tmp_path).exit_code == 2


def test_a_task_blocked_by_what_the_plan_leaves_in_place_has_ended(tmp_path: Path) -> None:
    story = good()
    story.plan["left_in_place"] = ["HOST_KEY_CHANGED"]
    story.rows["tasks"]["tsk_d"] |= {"state": "BLOCKED", "failure": json.dumps({"condition": "HOST_KEY_CHANGED"})}
    for table, key in (("experiments", "exp_one"), ("processes", "prc_one")):
        story.rows[table][key]["state"] = "EXECUTING" if table == "experiments" else "STARTED"
    judged = judge(story.write(tmp_path))
    assert of(judged, "P2")[0] == HELD
