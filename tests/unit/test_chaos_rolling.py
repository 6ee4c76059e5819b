"""A roll's plan follows from its integer, its older release from the history, and a hop from two commits in the binary log; without an older release nothing is claimed."""

import json
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from app.messages import codec
from tests.chaos import __main__ as lanes
from tests.chaos import fleet, hops, report, rolling

SINK, TOPIC = "chaos1.event-sink", "chaos1.event-sink"


def moves(plan: dict[str, Any], phase: str) -> list[tuple[str, str, str]]:
    (found,) = [each["moves"] for each in plan["phases"] if each["phase"] == phase]
    return [(each["act"], each["component"], each.get("to") or each["release"]) for each in found]


def test_the_same_integer_gives_the_same_plan_and_another_one_another() -> None:
    first, again, other = (json.dumps(rolling.draw(seed, mixed=True)) for seed in (7, 7, 8))
    assert first == again != other


def test_a_mixed_fleet_goes_forward_back_and_forward_and_loses_a_copy_of_each_release_half_way() -> None:
    plan = rolling.draw(7, mixed=True)
    assert moves(plan, "forward")[:4] == [("replace", "event-sink", "new"), ("kill", "event-sink", "old"), ("replace", "event-sink", "new"), ("replace", "executor-environment", "new")]
    assert {each for act, each, release in moves(plan, "back") if (act, release) == ("kill", "new")} == set(rolling.ORDER)
    assert [each for act, each, _ in moves(plan, "forward again") if act == "kill"] == list(rolling.ORDER)
    assert len(plan["faults"]) == len({each["fault"] for each in plan["faults"]}) == 3 * 3 * len(rolling.ORDER)


def test_a_copy_that_is_the_only_one_is_killed_while_it_runs_the_release_named() -> None:
    plan = rolling.draw(7, mixed=True, copies=1, twice=("relay",))
    assert [each for each in moves(plan, "forward") if each[1] == "relay"] == [("kill", "relay", "old"), ("replace", "relay", "new")]
    assert moves(plan, "back") == [("kill", "relay", "new"), ("replace", "relay", "old")]


def test_only_a_mixed_fleet_must_show_that_upgrades_are_safe_by_each_of_its_replacements() -> None:
    assert "P26" not in rolling.draw(7)["required"]
    assert rolling.draw(7, mixed=True, copies=1, twice=("relay",))["required"]["P26"] == {"to_older": 1, "to_newer": 1, "forward": len(rolling.ORDER) + 1, "back": 1}


def test_what_a_release_reads_is_asked_of_its_own_tree(tmp_path: Path) -> None:
    (tmp_path / "app/messages").mkdir(parents=True)
    for file, text in (("app/__init__.py", ""), ("app/messages/__init__.py", ""), ("app/messages/codec.py", "SCHEMA_VERSION = 7\n")):
        (tmp_path / file).write_text(text)
    assert rolling.declared(fleet.Release("0.9", tmp_path)) == {"version": "0.9", "reads": 7}


def test_without_an_older_release_the_outcome_is_undecided_and_the_page_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(lanes, "ROOT", tmp_path)
    monkeypatch.setattr(lanes, "RUNS", tmp_path)
    monkeypatch.setattr(lanes, "private_servers", nullcontext)
    outcomes = lanes.carry_out([rolling.draw(7, mixed=True) | {"revision": ""}], database="mysql")
    found = report.gather("rolling", 7, outcomes, repeat="")
    assert report.code(found) == 2
    assert rolling.NO_HISTORY in capsys.readouterr().out
    assert f"UNDECIDED: {rolling.NO_HISTORY}" in report.page(found)


# ---- the older release ----------------------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    return tmp_path


def git(root: Path, *words: str) -> str:
    author = ["-c", "user.name=somebody", "-c", "user.email=somebody@localhost"]
    return subprocess.run(["git", *author, *words], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def commit(root: Path, file: str, text: str) -> str:
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(text)
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", text)
    return git(root, "rev-parse", "HEAD")


def test_the_older_release_is_the_commit_before_messages_or_migrations_last_changed(repository: Path) -> None:
    commit(repository, "app/messages/codec.py", "one")
    before = commit(repository, "app/api.py", "a change that does not travel")
    commit(repository, "migrations/0002.py", "two")
    head = commit(repository, "app/api.py", "another")
    assert fleet.previous(repository) == before
    (repository / "app/messages/codec.py").write_text("three, not committed yet")
    assert fleet.previous(repository) == head


def test_a_history_that_begins_with_them_has_no_older_release(repository: Path) -> None:
    assert fleet.previous(repository) == ""
    commit(repository, "app/messages/codec.py", "one")
    assert fleet.previous(repository) == ""


# ---- hops -----------------------------------------------------------------------------------------------------------------------------------------------
def lines(path: Path, *told: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in told))


def a_run(run: Path, at: str = "00:00:10.250000") -> Path:
    """One message, committed at second 10, over which the sink's position moves at `at`."""
    mid, kind = "0a" * 16, "TaskChanged"
    headers = codec.pack_headers([("mid", bytes.fromhex(mid)), ("type", kind.encode())]).hex()
    row = {"id": 1, "shard": 0, "part": 3, "mid": mid, "topic": TOPIC, "k": "prc_1", "headers": headers, "payload": ""}
    position = {"consumer_group": SINK, "topic": TOPIC, "part": 3, "next_offset": 0, "owner_epoch": 1}
    lines(run / "kafka" / f"{TOPIC}.committed.jsonl", {"p": 3, "o": 0, "k": "prc_1", "h": [["mid", mid], ["type", kind]], "v": "{}"}, {"end": {"3": [0, 1]}})
    written = {"t": 1, "at": "2026-11-26T00:00:10.000000Z", "rows": [["I", "outbox", row]]}
    applied = {"t": 2, "at": f"2026-11-26T{at}Z", "rows": [["U", "positions", position, {"next_offset": 1}]]}
    lines(run / "mysql/binlog/transactions.jsonl", {"file": "binlog.000001"}, written, applied, {"end": {"transactions": 2, "rows": 2}})
    phases = [{"n": n, "life": "a", "kind": "phase", "phase": name, "wall": f"2026-11-26T00:00:{second}Z"} for n, (name, second) in enumerate([("before", "05"), ("roll", "10"), ("", "20")], 1)]
    lines(run / "nemesis.jsonl", *phases)
    return run


def test_a_hop_lasts_from_the_commit_that_wrote_a_message_to_the_commit_that_moved_over_it_and_counts_where_it_began(tmp_path: Path) -> None:
    assert hops.by_phase(a_run(tmp_path)) == {
        "before": {"all": {"n": 0, "p50": None, "p99": None, "max": None}},
        "roll": {group: {"n": 1, "p50": 250.0, "p99": 250.0, "max": 250.0} for group in ("all", "event-sink")},
    }


def test_of_a_server_that_tells_whole_seconds_no_hop_is_told(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    log = run / "mysql/binlog/transactions.jsonl"
    log.write_text(log.read_text().replace(".000000Z", "Z").replace(".250000Z", "Z"))
    assert hops.of(run) == []
