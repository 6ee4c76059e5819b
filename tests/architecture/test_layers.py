"""`make test` leaves nothing out: every layer is run, one that is cut into parts loses no test, a failure is told, and no more run at once than should."""

import time
from pathlib import Path

import pytest

from tests import run

ELSEWHERE = {"images", "nemeses"}  # `make test-images`, `make chaos-night`.
PARTS = [part for _, parts in run.WAVES for part in parts if not part.gate]


def test_every_layer_that_has_tests_is_run() -> None:
    assert {each.parent.name for each in run.ROOT.glob("tests/*/test_*.py")} - ELSEWHERE == {each.layer for each in PARTS}


@pytest.mark.parametrize("layer", sorted({each.layer for each in PARTS}))
def test_a_layer_that_is_cut_loses_no_test(layer: str) -> None:
    """It is cut by an expression and its opposite, or a database's half is run again on the other database."""
    cut = [(each.words, each.database) for each in PARTS if each.layer == layer]
    mariadb = [words for words, database in cut if database == "mariadb"]
    assert mariadb in ([], [("-m", "database")])
    rest = [words for words, database in cut if database != "mariadb"]
    if rest != [()]:
        (_, one), (_, other) = sorted(rest, key=lambda words: words[1].startswith("not "))
        assert other.replace("(", "").replace(")", "") == f"not {one}"


def test_a_part_that_fails_fails_the_run_and_no_more_run_at_once_than_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(run, "REPORTS", tmp_path)
    good, bad = (run.Part(name, words=("timeit", "-n1", "-r1", statement), gate=True) for name, statement in (("good", "pass"), ("bad", "1/0")))
    first, both = run.Run(time.monotonic()), run.Run(time.monotonic())
    first.together([good], 1)
    both.together([bad, good], 1)
    told = [line.partition("  ")[2] for line in capsys.readouterr().out.splitlines() if line.startswith("---")]
    assert (first.bad, both.bad) == (False, True)
    assert told == ["good begins", "good ended with 0", "bad begins", "bad ended with 1", "good begins", "good ended with 0"]


def test_one_layer_asked_for_is_all_that_runs_and_whole_where_the_databases_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(layer: str) -> list[run.Part]:
        return [part for _, parts in run.chosen([layer]) for part in parts]

    monkeypatch.delenv(run.DATABASES, raising=False)
    assert {each.layer for each in asked("acceptance")} == {"acceptance"}
    assert len(asked("acceptance")) == 2
    assert asked("images") == [run.Part("images")]
    monkeypatch.setenv(run.DATABASES, "mysql")
    assert asked("acceptance") == [run.Part("acceptance")]
