"""The checker is tested like a product: a good history is held in every promise, and each bad one breaks exactly the promise it was made for.

So a promise that always says HELD fails here, and so does one that convicts the innocent.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.checker import report
from tests.checker.__main__ import main
from tests.checker.judge import PROMISES, Judgement, judge
from tests.checker.verdicts import BROKEN, HELD, UNDECIDED
from tests.checker_histories.bad import BAD, history
from tests.checker_histories.innocent import INNOCENT
from tests.checker_histories.innocent import history as innocent
from tests.checker_histories.story import REQUIRED, good


def verdicts(judged: Judgement) -> dict[str, str]:
    return {each.promise.number: each.verdict for each in judged.verdicts}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Judgement:
    return judge(good().write(tmp_path_factory.mktemp("good")))


@pytest.mark.parametrize("number", REQUIRED)
def test_the_good_history_is_held(held: Judgement, number: str) -> None:
    found = next(each for each in held.verdicts if each.promise.number == number)
    assert found.verdict == HELD, (found.witness, found.reasons)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_breaks_its_promise_and_no_other(tmp_path: Path, name: str) -> None:
    judged = judge(history(name).write(tmp_path))
    broken = {each.promise.number: each.witness for each in judged.verdicts if each.verdict == BROKEN}
    assert list(broken) == [BAD[name][0]], broken
    witness = broken[BAD[name][0]]
    assert witness is not None
    assert all(report.line_of(tmp_path, place) for place in witness.places), witness
    assert judged.exit_code == 1


@pytest.mark.parametrize("name", INNOCENT)
def test_what_only_looks_like_a_broken_promise_breaks_none(tmp_path: Path, name: str) -> None:
    judged = judge(innocent(name).write(tmp_path))
    assert {each.promise.number: (each.verdict, each.witness) for each in judged.verdicts if each.required and each.verdict != HELD} == {}
    assert judged.exit_code == 0


def test_every_promise_that_exists_has_a_bad_history_and_there_are_at_least_40() -> None:
    made = Counter(promise for promise, _ in BAD.values())
    assert {each.number for each in PROMISES if each.exists} == set(made)
    assert sum(made.values()) >= 40


def test_what_does_not_exist_yet_is_shown_and_not_required(held: Judgement) -> None:
    later = {each.promise.number: (each.verdict, each.required) for each in held.verdicts if not each.promise.exists}
    assert later == {"P17": (UNDECIDED, False)}
    assert held.exit_code == 0


def test_the_page_the_verdict_and_junit_say_the_same(tmp_path: Path) -> None:
    judged = judge(history("a_message_is_lost").write(tmp_path))
    report.write(judged)
    told = json.loads((tmp_path / "verdict.json").read_text())
    assert (told["verdict"], told["promises"]["P11"]["verdict"]) == ("BROKEN", "BROKEN")
    assert all(each["text"] for each in told["promises"]["P11"]["witness"]["records"])
    page = (tmp_path / "report.md").read_text()
    assert "P11 the outbox is conserved | BROKEN" in page
    assert 'failures="2"' in (tmp_path / "junit.xml").read_text()  # P26 rests on P11.


@pytest.mark.parametrize(("name", "code"), [(None, 0), ("a_message_is_lost", 1)])
def test_the_exit_code_tells_the_verdict(tmp_path: Path, name: str | None, code: int) -> None:
    (good() if name is None else history(name)).write(tmp_path)
    assert main([str(tmp_path)]) == code


def test_work_that_waits_for_the_lease_of_its_owner_is_timed_by_itself(tmp_path: Path) -> None:
    judged = judge(history("an_executors_work_is_taken_over_too_late").write(tmp_path))
    assert [(name, len(times)) for name, times in judged.takeover.items() if name.startswith("executor")] == [("executor-job-work", 1)]
