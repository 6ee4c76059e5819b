"""A headline's round whose victim lost its work before it was struck begins anew under its name, and nothing of the try that missed stays; without such an excuse it fails."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos import headline, proofs, takeovers
from tests.chaos.headline import AGAIN_MAX, Run

ROUND = {"fault": "h7", "how": "scheduler.poll.after", "mode": "pause"}
BEGUN, ENDED = ["fault.start h7 scheduler/0", "at scheduler-0"], ["disarmed", "scheduler-0 lives", "balanced"]


class ARig:
    """Writes down what is done to it. `reached`: of each try, whether its point is; `frozen`: the copy that missed stops itself after all."""

    def __init__(self, *reached: bool, frozen: bool = False) -> None:
        self.reached, self.stopped, self.did = list(reached), frozen, list[str]()
        self.settings, self.kafka = {"ENVIRONMENT": "t"}, ""
        self.nemesis_lines = SimpleNamespace(write=lambda kind, **told: self.did.append(f"{kind} {told['fault']} {told['target']}"))
        self.pid_of, self.frozen = (lambda *_: 4711), (lambda *_: self.stopped)
        self.disarm, self.restart = (lambda _: self.did.append("disarmed")), (lambda name: self.did.append(f"{name} lives"))

    def at_point(self, name: str, *_: str) -> proofs.Proof:
        self.did.append(f"at {name}")
        if not self.reached.pop(0):
            raise proofs.NotProven("not reached")
        return proofs.Proof(100.0, {"state": "T"})

    def thaw(self, *_: object) -> None:
        self.stopped = False
        self.did.append("woken")

    def until(self, condition: Any, *_: object) -> None:
        assert condition()


class AVictim:
    """`busier`: which copy has more of the work, each time somebody asks."""

    component, group = "scheduler", "task-scheduler"

    def __init__(self, *busier: int, fed: int = 0) -> None:
        self.copies, self.fed = list(busier), fed

    def busier(self, _: object) -> tuple[int, dict[Any, int], float]:
        return self.copies.pop(0), {}, 0.9

    def balanced(self, rig: ARig) -> Any:
        return lambda: (rig.did.append("balanced"), not rig.stopped)[1]

    def rows(self, _: object) -> dict[Any, Any]:
        return {}


def a_try(rig: Any, victim: Any, monkeypatch: pytest.MonkeyPatch, *, missed: int = 0) -> headline.Blow | None:
    monkeypatch.setattr(proofs, "at_point", ARig.at_point)
    monkeypatch.setattr(takeovers, "Membership", lambda *_: nullcontext(SimpleNamespace(left_at=lambda struck: struck + 1.0)))
    going = Run(rig, missed=missed)
    monkeypatch.setattr(going, "top_up", lambda: None)
    monkeypatch.setattr(going, "mid_graph", lambda _victim: None)
    monkeypatch.setattr(going, "launch", lambda count: rig.did.append(f"{count} launched"))
    return headline.struck(going, victim, ROUND, "h7")


def test_a_victim_that_comes_to_its_point_is_struck_and_left_to_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = ARig(True)
    blow = a_try(rig, AVictim(0), monkeypatch)
    assert blow is not None
    assert (blow.copy, blow.left_at, rig.did) == (0, 101.0, BEGUN)


def test_one_for_whom_nothing_else_would_wait_is_fed_right_after_the_blow(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = ARig(True)
    assert a_try(rig, AVictim(0, fed=8), monkeypatch) is not None
    assert rig.did == [*BEGUN, "8 launched"]


def test_one_whose_work_went_to_another_missed_and_is_disarmed_looked_after_and_has_its_part_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = ARig(False)
    assert a_try(rig, AVictim(0, 1), monkeypatch) is None
    assert rig.did == [*BEGUN, *ENDED]


def test_one_that_came_to_its_point_too_late_is_woken_once_nobody_is_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = ARig(False, frozen=True)
    assert a_try(rig, AVictim(0, 1), monkeypatch) is None
    assert rig.did == [*BEGUN, "disarmed", "woken", *ENDED[1:]]


def test_one_that_kept_its_work_and_never_came_to_its_point_has_no_excuse(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(proofs.NotProven):
        a_try(ARig(False), AVictim(0, 0), monkeypatch)


def test_a_run_in_which_too_many_missed_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert a_try(ARig(False), AVictim(0, 1), monkeypatch, missed=AGAIN_MAX - 1) is None
    with pytest.raises(AssertionError, match=f"in {AGAIN_MAX + 1} rounds the victim had lost its work"):
        a_try(ARig(False), AVictim(0, 1), monkeypatch, missed=AGAIN_MAX)


def test_a_round_that_missed_begins_anew_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, said, tries = [], [], [None, headline.Blow(1, {}, 0.5, proofs.Proof(100.0), None)]
    monkeypatch.setattr(headline, "struck", lambda _, __, ___, fault: asked.append(fault) or tries.pop(0))
    monkeypatch.setattr(headline, "whole_again", lambda *_: None)
    rig: Any = SimpleNamespace(rows=lambda _: [], until=lambda *_: None, tick=SimpleNamespace(lag_ms=lambda _: 1.0), nemesis_lines=SimpleNamespace(write=lambda *_, **told: asked.append(told["fault"])))
    going, victim = Run(rig), AVictim()
    assert headline.strike(going, victim, {"fault": "h7", "how": "kill"}, 1, say=said.append)
    assert (asked, len(going.rounds)) == (["h7.1"] * 4, 1)
    assert said[0] == "round h7.1: its work went to another before it was struck; once more"
