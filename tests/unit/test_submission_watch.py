"""Verdicts: what a look proves, what it does not, and that absence alone proves nothing."""

from datetime import UTC, datetime, timedelta

import pytest

from app.workflow.execution import Failed, Succeeded
from app.workflow.job import State
from components.task_executors.submission.watch import Seen, Verdict, parse_look, unconfirmed, unwanted, verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RECEIPT = "pid=71 start=9 boot=b1 host=h/1 began=5"


def judged(*, wall: int = 100, since: datetime | None = None, **parts: object) -> Verdict:
    return verdict(Seen("att_1", **{"receipt": RECEIPT, **parts}), wall_time_seconds=wall, missing_since=since, now=NOW)


def test_an_exit_file_ends_a_job_whatever_else_is_seen() -> None:
    done = judged(code=0, alive="yes", rebooted=True, took_seconds=7)
    assert (done.state, done.outcome) == (State.COMPLETED, Succeeded({"exit_code": 0, "seconds": 7}))


@pytest.mark.parametrize(
    ("code", "signal", "words"),
    [(3, None, "exit status 3"), (137, 9, "signal 9"), (127, None, "not found"), (126, None, "may not be executed"), (255, None, "status 255")],
)
def test_a_failed_program_is_an_outcome_that_is_not_tried_again(code: int, signal: int | None, words: str) -> None:
    outcome = judged(code=code).outcome
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.exit_code, outcome.signal, outcome.transient) == ("APP_NONZERO_EXIT", code, signal, False)
    assert words in outcome.message


def test_a_job_that_runs_is_active_and_killed_only_beyond_its_wall_time() -> None:
    assert judged(alive="yes", ran_seconds=100) == Verdict(State.ACTIVE)
    assert judged(alive="yes", ran_seconds=101).kill
    assert judged(alive="group", ran_seconds=101).kill
    assert not judged(alive="yes", ran_seconds=10**9, wall=0).kill


@pytest.mark.parametrize("code", [None, 143])
def test_a_job_that_was_killed_for_its_wall_time_says_so(code: int | None) -> None:
    outcome = judged(killed=True, alive="no", code=code).outcome
    assert isinstance(outcome, Failed)
    assert outcome.code == "SCHEDULER_TIMEOUT"


def test_a_program_that_ended_well_just_before_the_kill_has_completed() -> None:
    assert judged(killed=True, code=0).state is State.COMPLETED


WHY = "canceled by somebody"
OVER = f"; its attempt had ended before: {WHY}"


@pytest.mark.parametrize(
    ("seen", "since", "state", "reason", "kill"),
    [
        ({"alive": "yes", "ran_seconds": 1}, None, State.ACTIVE, "active", True),
        ({"alive": "group", "ran_seconds": 1, "killed": True}, None, State.ACTIVE, "active", True),
        ({"alive": "no", "killed": True}, None, State.CANCELED, "canceled", False),
        ({"alive": "no", "killed": True, "code": 143, "took_seconds": 100}, None, State.CANCELED, "canceled", False),
        ({"alive": "no", "killed": True, "code": 143, "took_seconds": 101}, None, State.FAILED, "wall time exceeded", False),
        ({"alive": "no", "killed": True, "code": 0}, None, State.COMPLETED, "completed", False),
        ({"alive": "no", "code": 3}, None, State.FAILED, "exit status 3", False),
        ({"alive": "no"}, None, State.UNKNOWN, "not seen on the host", False),
        ({"alive": "no"}, NOW - timedelta(seconds=60), State.LOST, "it vanished from its host without leaving an exit status", False),
        ({"receipt": ""}, None, State.UNKNOWN, "not seen on the host", False),
        ({"receipt": ""}, NOW - timedelta(seconds=60), State.LOST, "it vanished from its host without leaving an exit status", False),
    ],
)  # fmt: skip
def test_a_job_whose_attempt_ended_before_it_moves_no_task_and_is_killed_while_it_runs(seen: dict[str, object], since: datetime | None, state: State, reason: str, kill: bool) -> None:
    shown = Seen("att_1", **{"receipt": RECEIPT, **seen})
    found = unwanted(judged(since=since, **seen), shown, was=State.SUBMITTED, stored=True, wall_time_seconds=100, why=WHY)
    assert (found.state, found.reason, found.outcome, found.kill) == (state, reason + OVER, None, kill)


@pytest.mark.parametrize(
    ("was", "seen", "since", "state", "kill", "missing"),
    [
        (State.SUBMITTING, {}, None, State.IN_DOUBT, True, None),
        (State.SUBMITTING, {"alive": "yes", "receipt": RECEIPT}, None, State.IN_DOUBT, True, None),
        (State.IN_DOUBT, {"alive": "yes", "receipt": RECEIPT}, None, State.ACTIVE, True, None),
        (State.IN_DOUBT, {}, NOW - timedelta(seconds=999), State.UNKNOWN, True, None),
        (State.UNKNOWN, {"cancelled": True}, None, State.UNKNOWN, False, NOW),
        (State.UNKNOWN, {"cancelled": True}, NOW - timedelta(seconds=60), State.CANCELED, False, NOW - timedelta(seconds=60)),
    ],
)  # fmt: skip
def test_a_job_that_may_not_have_started_is_barred_before_its_absence_counts(
    was: State, seen: dict[str, object], since: datetime | None, *, state: State, kill: bool, missing: datetime | None
) -> None:
    shown = Seen("att_1", **seen)
    found = unwanted(verdict(shown, wall_time_seconds=100, missing_since=since, now=NOW), shown, was=was, stored=False, wall_time_seconds=100, why=WHY)
    assert (found.state, found.kill, found.missing_since, found.reason.endswith(OVER)) == (state, kill, missing, True)


def test_another_start_that_the_guard_turned_away_is_told_with_the_end() -> None:
    assert judged(code=0, duplicate=True).evidence == ("duplicate_suppressed: its guard turned another start of this job away",)
    assert judged(code=0).evidence == ()
    assert judged(alive="yes", duplicate=True) == Verdict(State.ACTIVE)


@pytest.mark.parametrize("seen", [{"alive": "no"}, {"receipt": "", "alive": ""}])
def test_absence_is_no_verdict_before_its_window_is_over(seen: dict[str, str]) -> None:
    first = judged(**seen)
    assert (first.state, first.outcome, first.missing_since) == (State.UNKNOWN, None, NOW)
    assert judged(since=NOW - timedelta(seconds=59), **seen).state is State.UNKNOWN
    lost = judged(since=NOW - timedelta(seconds=60), **seen)
    assert isinstance(lost.outcome, Failed)
    assert (lost.state, lost.outcome.code) == (State.LOST, "LOST_JOB")
    assert "exit file: none" in lost.evidence


def test_a_job_seen_again_is_not_missing_any_more() -> None:
    assert judged(alive="yes", since=NOW - timedelta(seconds=59)).missing_since is None


def test_a_rebooted_host_has_lost_its_job_at_once() -> None:
    assert judged(alive="no", rebooted=True).state is State.LOST


def test_a_job_of_another_login_node_is_waited_for_through_its_wall_time() -> None:
    assert judged(alive="unknown", ran_seconds=10, since=NOW - timedelta(seconds=140)).state is State.UNKNOWN
    assert judged(alive="unknown", ran_seconds=10, since=NOW - timedelta(seconds=151)).state is State.LOST


def test_a_look_is_read_by_its_frame_and_for_the_tokens_asked_only() -> None:
    line = "att_1 boot=b2 here=h/1 now=30 pid=71 start=9 began=5 host=h/1 receipt_boot=b1 alive=no killed=1 code=3 began=5 ended=20 stdout=b3V0 stderr="
    noise = "Last login: never\nx att_1 code=0 x\nn att_2 code=0 n\n"
    found = parse_look(f"{noise}n {line} n\n".encode(), "n", {"att_1": "/scratch/.airavata/jobs/att_1"})
    assert list(found) == ["att_1"]
    assert found["att_1"] == Seen("att_1", "no", RECEIPT, "71@b1", rebooted=True, ran_seconds=25, code=3, took_seconds=15, killed=True, stdout_tail=b"out")


@pytest.mark.parametrize(
    "words",
    [
        "pid=71 start=9 began=5 host=h/1 receipt_boot=b\u00e91 alive=yes",
        f"pid=71 start=9 began={'9' * 4400} host=h/1 receipt_boot=b1 alive=yes",
        "pid=71 alive=yes",
        "pid=1 start=9 began=5 host=h/1 receipt_boot=b1 alive=no",
        f"pid=71 start=9 began=5 host=h/1 receipt_boot={'b' * 200} alive=yes",
        "refused=1",
    ],
)
def test_a_receipt_that_no_wrapper_of_ours_wrote_is_none_and_hides_no_other_job(words: str) -> None:
    lines = [f"att_1 boot=b1 here=h/1 now=30 {words}", "att_2 boot=b1 here=h/1 now=30 pid=72 start=9 began=5 host=h/1 receipt_boot=b1 alive=yes"]
    seen = parse_look("".join(f"\nn {each} n\n" for each in lines).encode(), "n", {"att_1": "/c/att_1", "att_2": "/c/att_2"})
    assert (seen["att_1"].receipt, seen["att_1"].job_id, seen["att_1"].answers[0]) == ("", None, "receipt: refused, it is broken or forged")
    assert seen["att_2"].job_id == "72@b1"


@pytest.mark.parametrize("code", ["\u00b2", "9" * 5000, "-1", "1000"])
def test_an_exit_file_that_no_wrapper_of_ours_wrote_is_none(code: str) -> None:
    (seen,) = parse_look(f"\nn att_1 boot=b1 now=30 code={code} n\n".encode(), "n", {"att_1": "/c/att_1"}).values()
    assert seen.code is None


def test_what_a_host_does_not_end_is_lost_and_says_so() -> None:
    seen = Seen("att_1", receipt=RECEIPT, alive="yes")
    means = unconfirmed(Verdict(State.ACTIVE, kill=True), seen, over=False)
    assert (means.state, means.kill, means.reason[:18], means.evidence) == (State.LOST, False, "CANCEL_UNCONFIRMED", seen.answers)
    assert isinstance(means.outcome, Failed)
    assert means.outcome.code == "LOST_JOB"
    assert unconfirmed(Verdict(State.ACTIVE, kill=True), seen, over=True).outcome is None
