"""Fail points: how they are named, when they strike, once unless told otherwise, and never in production."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app import failpoint, journal
from app.errors import Misconfigured, OutcomeUnknown, StoreUnavailable
from app.failpoint import EVERY, Entry

ROOT = Path(__file__).parents[2]
HIT = """
import sys
from app import failpoint, journal
journal.begin(sys.argv[3], environment="test", who="victim/0")
failpoint.arm(sys.argv[1], environment="test", struck_directory=sys.argv[2])
for _ in range(3):
    failpoint.hit("relay.commit.after", shard=1)
print("went on")
"""
Arm = Callable[[str], None]


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Arm:
    monkeypatch.setattr(failpoint, "hit", failpoint.hit)  # Put back afterwards, like the journal.
    monkeypatch.setattr(journal, "write", journal.write)
    journal.begin(str(tmp_path / "journal"), environment="test", who="test/0")
    return lambda text: failpoint.arm(text, environment="test", struck_directory=str(tmp_path / "struck"))


def told(directory: Path) -> list[tuple[object, ...]]:
    """(point, reached, mode) of each hit in the journal."""
    lines = [json.loads(line) for file in directory.glob("*.jsonl") for line in file.read_text().splitlines()]
    return [(each["point"], each["reached"], each["mode"]) for each in lines if each["kind"] == "failpoint.hit"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("scheduler.commit.after=crash@3?process=prc_01k", [Entry("scheduler.commit.after", "crash", 3, (("process", "prc_01k"),))]),
        ("relay.commit.before=delay:22000; ssh.exec.after=raise:unknown@*", [Entry("relay.commit.before", "delay:22000"), Entry("ssh.exec.after", "raise:unknown", EVERY)]),
        ("# all of them\n*=count@*\n\n  purge.before=pause?a=1&b=2  \n", [Entry("*", "count", EVERY), Entry("purge.before", "pause", 1, (("a", "1"), ("b", "2")))]),
        ("", []),
    ],
)
def test_entries_are_read(text: str, wanted: list[Entry]) -> None:
    assert failpoint.parse(text) == wanted


@pytest.mark.parametrize("text", ["relay.commit.after", "relay.commit.after=melt", "a.b=crash@0", "a.b=delay", "a.b=raise", "a.b=raise:maybe", "a.b=crash?process", "A.b=crash", "a.b=crash@3x"])
def test_a_faulty_entry_is_refused_and_named(text: str) -> None:
    with pytest.raises(Misconfigured, match=re.escape(repr(text))):
        failpoint.parse(f"a.ok=crash; {text}")


def test_production_refuses_them() -> None:
    with pytest.raises(Misconfigured, match="AIRAVATA_FAILPOINTS"):
        failpoint.arm("relay.commit.after=count", environment="production")
    assert not failpoint.on()
    failpoint.hit("relay.commit.after", shard=1)


def test_a_point_strikes_at_the_hit_it_was_told_and_then_never_again(arm: Arm, tmp_path: Path) -> None:
    arm("a.b=raise:unknown@2; a.b=raise:definite@3")
    failpoint.hit("a.b")
    with pytest.raises(OutcomeUnknown):
        failpoint.hit("a.b")
    with pytest.raises(StoreUnavailable):
        failpoint.hit("a.b")
    failpoint.hit("a.b")
    assert told(tmp_path / "journal") == [("a.b", 2, "raise:unknown"), ("a.b", 3, "raise:definite")]
    assert sorted(each.name for each in (tmp_path / "struck").iterdir()) == ["a.b.raise:definite.struck", "a.b.raise:unknown.struck"]


def test_a_point_that_struck_in_another_life_passes_unless_it_strikes_every_time(arm: Arm) -> None:
    for life in range(2):
        arm("a.b=raise:unknown; c.d=raise:unknown@*")
        for _ in range(2):
            with pytest.raises(OutcomeUnknown):
                failpoint.hit("c.d")
        if life:
            failpoint.hit("a.b")
        else:
            with pytest.raises(OutcomeUnknown):
                failpoint.hit("a.b")


def test_conditions_fit_what_the_call_site_tells(arm: Arm) -> None:
    arm("a.b=raise:unknown?shard=1&process=prc_2")
    failpoint.hit("a.b")
    failpoint.hit("a.b", shard=1)
    failpoint.hit("a.b", shard=0, process={"prc_1": None, "prc_2": None})
    with pytest.raises(OutcomeUnknown):
        failpoint.hit("a.b", shard=1, process={"prc_1": None, "prc_2": None})


def test_every_point_can_be_counted_at_once(arm: Arm, tmp_path: Path) -> None:
    arm("*=count@*")
    for point in ("a.b", "c.d", "a.b"):
        failpoint.hit(point)
    assert told(tmp_path / "journal") == [("a.b", 1, "count"), ("c.d", 1, "count"), ("a.b", 2, "count")]


def test_a_file_arms_a_running_process_and_is_read_again_when_it_changes(arm: Arm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoint, "LOOK_SECONDS", 3600.0)
    file = tmp_path / "armed"
    arm(f"@{file}")
    failpoint.hit("a.b")
    file.write_text("a.b=raise:unknown@2\n")
    failpoint.hit("a.b")  # It has looked a short while ago.
    monkeypatch.setattr(failpoint, "LOOK_SECONDS", 0.0)
    failpoint.hit("a.b")
    file.write_text("a.b=raise:unknown@2\nc.d=raise:definite\n")
    with pytest.raises(StoreUnavailable):
        failpoint.hit("c.d")
    failpoint.hit("a.b")  # Armed again, it is the first time again.
    with pytest.raises(OutcomeUnknown):
        failpoint.hit("a.b")
    file.unlink()
    failpoint.hit("c.d")


def test_what_is_armed_again_in_the_same_life_strikes_again(arm: Arm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoint, "LOOK_SECONDS", 0.0)
    file = tmp_path / "armed"
    arm(f"@{file}")
    for _ in range(3):
        file.with_suffix(".new").write_text("a.b=raise:unknown\n")
        file.with_suffix(".new").rename(file)
        with pytest.raises(OutcomeUnknown):
            failpoint.hit("a.b")
        failpoint.hit("a.b")
        for struck in (tmp_path / "struck").glob("*"):
            struck.unlink()


def test_a_file_made_unreadable_ends_the_process(tmp_path: Path) -> None:
    (tmp_path / "armed").write_text("nonsense")
    ended = victim(tmp_path, f"@{tmp_path / 'armed'}")
    assert ended.returncode != 0
    assert "'nonsense'" in ended.stderr


@pytest.mark.parametrize(("mode", "status"), [("crash", -signal.SIGKILL), ("exit", 70)])
def test_the_process_ends_and_its_next_life_passes(tmp_path: Path, mode: str, status: int) -> None:
    first, second = victim(tmp_path, f"relay.commit.after={mode}@2?shard=1"), victim(tmp_path, f"relay.commit.after={mode}@2?shard=1")
    assert (first.returncode, first.stdout) == (status, "")
    assert (second.returncode, second.stdout) == (0, "went on\n")
    assert told(tmp_path / "journal") == [("relay.commit.after", 2, mode)]
    assert [each.name for each in (tmp_path / "struck").iterdir()] == [f"relay.commit.after.{mode}.struck"]


def test_a_paused_process_stands_in_state_t_until_it_is_continued(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HIT, "relay.commit.after=pause", str(tmp_path / "struck"), str(tmp_path / "journal")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert told(tmp_path / "journal") == [("relay.commit.after", 1, "pause")]
        child.send_signal(signal.SIGCONT)
        assert child.communicate(timeout=20)[0] == "went on\n"


def victim(tmp_path: Path, armed: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", HIT, armed, str(tmp_path / "struck"), str(tmp_path / "journal")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
