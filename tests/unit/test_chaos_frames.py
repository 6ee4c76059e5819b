"""A freeze frame: what a struck copy left undone may be done already, by another; it counts only if that one's journal says so, of this very process, since the blow."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app import journal
from tests.chaos import freeze_frames
from tests.chaos.freeze_frames import Frame, Subject

SUBJECT = Subject("exp_1")
DONE = {"unit": "timer.move", "outcome": "committed", "process": [SUBJECT.process]}


@pytest.fixture
def frame(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setattr(journal, "write", journal.write)
    monkeypatch.setattr(freeze_frames, "TOLD_SECONDS", 0.0)
    return Frame(SimpleNamespace(run=tmp_path), SUBJECT, None, time.monotonic(), 0.0, "scheduler-1", 1)


@pytest.mark.parametrize(
    ("who", "told", "counts"),
    [
        ("scheduler/0", DONE, True), ("scheduler/1", DONE, False), ("scheduler/0", DONE | {"outcome": "rolled_back"}, False), ("scheduler/0", DONE | {"unit": "lease.expire"}, False),
        ("scheduler/0", DONE | {"process": ["prc_other"]}, False), ("scheduler/0", {"unit": "timer.move", "outcome": "committed"}, False),
    ],
)  # fmt: skip
def test_another_copy_did_it_if_its_journal_says_so_of_this_process(frame: Any, who: str, told: dict[str, Any], counts: bool) -> None:
    journal.begin(str(frame.rig.run / "journal"), environment="test", who=who)
    journal.write("unit.end", step="timer.move#1", **told)
    assert frame.by_another("timer.move") is counts


def test_what_was_done_before_the_blow_does_not_count(frame: Any) -> None:
    journal.begin(str(frame.rig.run / "journal"), environment="test", who="scheduler/0")
    journal.write("unit.end", step="timer.move#1", **DONE)
    frame.struck = time.monotonic()
    assert not frame.by_another("timer.move")


@pytest.mark.parametrize(("who", "counts"), [("scheduler/0", True), ("scheduler/1", False)])
def test_what_is_about_no_process_another_did_for_all(frame: Any, who: str, counts: bool) -> None:
    journal.begin(str(frame.rig.run / "journal"), environment="test", who=who)
    journal.write("unit.end", unit="purge", step="purge#1", outcome="committed")
    assert frame.by_another("purge", for_all=True) is counts
    assert not frame.by_another("purge")
