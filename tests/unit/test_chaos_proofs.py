"""A hit is found in journals that are read while they are written, line by line: also behind one that was too long and goes on in the next."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app import journal
from tests.chaos.proofs import Hits
from tests.support.system import state_of


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr(journal, "write", journal.write)
    return SimpleNamespace(run=tmp_path, begin=lambda: journal.begin(str(tmp_path / "journal"), environment="test", who="scheduler/1"))


def test_a_hit_is_found_in_the_unit_that_is_open_and_not_in_one_that_has_ended(written: Any) -> None:
    hits = Hits(written, "scheduler")
    written.begin()
    journal.write("unit.begin", unit="scheduler.commit", step="scheduler.commit#1")
    journal.write("unit.end", unit="scheduler.commit", step="scheduler.commit#1", outcome="committed", **{"in": ["0" * 32] * 1000})
    journal.write("unit.begin", unit="scheduler.commit", step="scheduler.commit#2")
    journal.write("failpoint.hit", point="scheduler.commit.after", reached=1, mode="crash")
    found = hits.look("scheduler.commit.after", "crash")
    assert found is not None
    (file,) = (written.run / "journal").glob("*.jsonl")
    (begun,) = [line for line in file.read_text().splitlines() if "scheduler.commit#2" in line]
    assert f'"mono":{found.begun}' in begun
    assert (found.name, found.worker) == ("scheduler-1", False)


@pytest.mark.parametrize("gone", [FileNotFoundError, ProcessLookupError], ids=["before its file was opened", "before it was read"])
def test_a_process_that_goes_while_it_is_looked_at_is_gone(monkeypatch: pytest.MonkeyPatch, gone: type[OSError]) -> None:
    def goes(*_: Any, **__: Any) -> str:
        raise gone

    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(Path, "read_text", goes)
    assert state_of(1) == ""
