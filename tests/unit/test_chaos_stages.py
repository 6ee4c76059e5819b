"""The parts of a lane, one after the other: the next one's system is raised once the one before it is healed, a part that breaks down is an outcome, and nothing stays."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.dev.process import wait_until
from tests.chaos import __main__ as lanes
from tests.chaos.outcome import Outcome, Say


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []

    @contextmanager
    def servers(kind: str) -> Iterator[str]:
        told.append(f"{kind} starts")
        yield kind
        told.append(f"{kind} ends")

    class ARig(SimpleNamespace):
        when_healed: Callable[[], None]

        def __enter__(self) -> "ARig":
            told.append(f"{self.plan['seed']} stands")
            return self

        def __exit__(self, *_: object) -> None:
            told.append(f"{self.plan['seed']} gone")

    def run(rig: ARig, *, say: Say) -> Outcome:
        told.append(f"{rig.plan['seed']} struck")
        assert rig.plan["seed"] != 13, "it broke down"
        rig.when_healed()
        rig.plan["next_stands"](told)
        told.append(f"{rig.plan['seed']} judged")
        return Outcome("points", rig.run, 0)

    part = SimpleNamespace(rig=lambda directory, _native, plan, **_: ARig(run=directory, plan=plan), run=run)
    monkeypatch.setattr(lanes, "PARTS", {"points": part})
    monkeypatch.setattr(lanes, "private_servers", servers)
    monkeypatch.setattr(lanes, "RUNS", tmp_path)
    monkeypatch.setattr(lanes, "ROOT", tmp_path)
    return told


def a_plan(seed: int, database: str, *, then: int | None = None) -> dict[str, Any]:
    """`then`: whose system stands before this one is judged."""

    def next_stands(told: list[str]) -> None:
        assert then is None or wait_until(lambda: f"{then} stands" in told, 10.0)

    return {"kind": "points", "seed": seed, "database": database, "next_stands": next_stands}


def test_the_next_part_is_raised_while_one_is_judged_and_strikes_when_that_one_is_gone(told: list[str]) -> None:
    outcomes = lanes.carry_out([a_plan(1, "mysql", then=2), a_plan(2, "mariadb")], database="mysql")
    assert [each.verdict for each in outcomes] == [0, 0]
    first = ["mysql starts", "1 stands", "1 struck", "mariadb starts", "2 stands", "1 judged", "1 gone", "mysql ends"]
    assert told == [*first, "2 struck", "2 judged", "2 gone", "mariadb ends"]


def test_a_part_that_breaks_down_has_failed_and_the_next_one_goes_on(told: list[str]) -> None:
    outcomes = lanes.carry_out([a_plan(13, "mysql"), a_plan(2, "mariadb")], database="mysql")
    assert [each.verdict for each in outcomes] == [1, 0]
    assert "it broke down" in outcomes[0].failed[0].why
    assert told == ["mysql starts", "13 stands", "13 struck", "13 gone", "mysql ends", "mariadb starts", "2 stands", "2 struck", "2 judged", "2 gone", "mariadb ends"]


def test_what_stands_when_a_lane_is_interrupted_is_taken_down(told: list[str]) -> None:
    def interrupted(_: list[str]) -> None:
        assert wait_until(lambda: "2 stands" in told, 10.0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lanes.carry_out([a_plan(1, "mysql") | {"next_stands": interrupted}, a_plan(2, "mariadb")], database="mysql")
    assert {"1 gone", "mysql ends", "2 gone", "mariadb ends"} <= set(told)
    assert "2 struck" not in told
