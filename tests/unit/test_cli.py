"""What the command line decides by itself: forms, values, order of settings, what a picture shows."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer

from app.cli import applications, experiments, following, host_keys, live, root, session, show
from app.cli.exits import Exit, Failed
from app.cli.live import Picture
from app.cli.session import Choice, Format


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(session, "chosen", Choice())
    return tmp_path


def test_every_command_says_what_it_does() -> None:
    def silent(command: Any, name: str) -> list[str]:
        below = [each for key, one in getattr(command, "commands", {}).items() for each in silent(one, f"{name} {key}")]
        return below if command.help else [name, *below]

    assert silent(typer.main.get_command(root), "airavata") == []


def test_flag_beats_environment_beats_profile(at_home: Path) -> None:
    session.remember("http://profile.example.org", "airv_profile")
    assert session.url() == "http://profile.example.org"
    assert session.token() == "airv_profile"
    session.chosen = Choice(url="http://flag.example.org", token="airv_environment")
    assert session.url() == "http://flag.example.org"
    assert session.token() == "airv_environment"


def test_profiles_keep_each_other_and_tokens_are_for_their_owner_only(at_home: Path) -> None:
    session.remember("http://one.example.org", "airv_1")
    session.chosen = Choice(profile='with "quotes"')
    path = session.remember("http://two.example.org", "airv_2")
    assert path.stat().st_mode & 0o777 == 0o600
    assert session.token() == "airv_2"
    session.chosen = Choice()
    assert (session.url(), session.token()) == ("http://one.example.org", "airv_1")


def test_a_token_file_that_others_may_read_is_refused(at_home: Path) -> None:
    path = at_home / "token"
    path.write_text("airv_x")
    path.chmod(0o644)
    with pytest.raises(Failed, match="chmod 600") as refused:
        session.read_token(path)
    assert refused.value.code is Exit.AUTH


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        ("INTEGER", "3", 3),
        ("INTEGER", "3.5", "3.5"),
        ("FLOAT", "2.5", 2.5),
        ("FLOAT", "nan", "nan"),
        ("FLOAT", "1e400", "1e400"),
        ("STRING", "3", "3"),
        ("URI", "storage://sto_1/x", "storage://sto_1/x"),
        ("URI_COLLECTION", "a,b", ["a", "b"]),
    ],
)
def test_a_flag_becomes_what_the_interface_wants(kind: str, text: str, found: Any) -> None:
    assert experiments.value({"inputs": [{"name": "n", "type": kind}]}, "n", text) == found


def test_a_small_file_travels_inline_and_a_large_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("to be")
    (tmp_path / "large").write_bytes(bytes(experiments.INLINE_BYTES_MAX + 1))
    interface = {"inputs": [{"name": "n", "type": "URI"}]}
    assert experiments.value(interface, "n", f"@{tmp_path / 'words.txt'}") == "data:text/plain;base64,dG8gYmU="
    with pytest.raises(Failed, match="storage://"):
        experiments.value(interface, "n", f"@{tmp_path / 'large'}")


def test_cells_are_one_safe_line() -> None:
    assert show.cell(None) == "-"
    assert show.cell("2026-11-23T14:03:07.412345Z") == "2026-11-23 14:03:07"
    assert show.cell("a\x1b[31mred\nline") == "a\ufffd[31mred\ufffdline"
    assert show.cell({"a": [1]}) == '{"a": [1]}'


def test_lists_keep_the_apis_shape(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": "exp_1", "name": "é"}, {"id": "exp_2", "name": "b"}]
    show.items(rows, ("id", "name"), Format.JSON)
    assert json.loads(capsys.readouterr().out) == {"items": rows, "next_cursor": None}
    show.items(rows, ("id", "name"), Format.NDJSON)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows
    show.items(rows, ("id", "name"), Format.YAML)
    assert capsys.readouterr().out.startswith("items:\n- id: exp_1\n  name: é\n")
    show.items(rows, ("id", "name"), Format.TABLE)
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [["ID", "NAME"], ["exp_1", "é"], ["exp_2", "b"]]


def a_task(name: str, state: str, **more: Any) -> dict[str, Any]:
    return {"id": f"tsk_{name}", "name": name, "type": "JOB_SUBMISSION", "state": state, "attempt": 1, "reason": "", **more}


def test_tasks_are_drawn_after_what_they_wait_for() -> None:
    tasks = [a_task(each, "CREATED") for each in "dcba"]
    before = {"tsk_b": ["tsk_a"], "tsk_c": ["tsk_a"], "tsk_d": ["tsk_b", "tsk_c"]}
    assert [each["name"] for each in live.in_order(tasks, before)] == ["a", "c", "b", "d"]


def test_a_large_graph_is_folded_to_what_moves() -> None:
    tasks = [a_task(str(n), "COMPLETED") for n in range(900)] + [a_task("run", "EXECUTING"), a_task("bad", "FAILED")]
    shown = live.fold(tasks)
    assert len(shown) == live.ROWS_MAX
    assert {"run", "bad"} <= {each["name"] for each in shown}


def an_event(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "seq": 1,
        "type": kind,
        "occurred_at": "2026-11-23T14:03:08.020000Z",
        "task_id": "tsk_run",
        "task_type": "JOB_SUBMISSION",
        "attempt": 1,
        "epoch": 1,
        "data": {},
        **more,
    }


def test_the_picture_tells_waits_retries_and_take_overs(capsys: pytest.CaptureFixture[str]) -> None:
    picture = Picture({"id": "exp_1", "name": "count", "state": "EXECUTING"})
    tasks = [
        a_task("stage", "RETRY_WAIT", reason="disk full", next_attempt_at="2026-11-23T14:04:00.000000Z"),
        a_task("run", "CREATED"),
        a_task("old", "SCHEDULED"),
    ]
    events = [
        an_event("TaskStarted", data={"owner": "executor-a"}),
        an_event("TaskStarted", data={"owner": "executor-b"}),
        an_event("TaskChanged", from_state="EXECUTING", to_state="RETRY_WAIT", reason="disk full"),
    ]
    picture.apply(following.Step(events, {}), picture.experiment, tasks, [{"from_task": "tsk_stage", "to_task": "tsk_run"}])
    show.console().print(picture)
    told = capsys.readouterr().out
    assert "disk full; again at 14:04:00" in told
    assert next(line for line in told.splitlines() if line.split()[:2] == ["○", "run"]).rstrip().endswith("stage")
    assert "an executor" in told
    assert "attempt 1 taken over from executor-a by executor-b" in told
    assert "EXECUTING → RETRY_WAIT" in told


def test_a_line_per_event_tells_late_ones() -> None:
    line = following.sentence(an_event("TaskFailed", from_state="RUNNING", to_state="FAILED", reason="no\x07 disk", late=True), "run")
    assert line == "14:03:08 run              TaskFailed RUNNING → FAILED attempt 1 (late: moves nothing) · no\ufffd disk"


def test_out_of_time_is_8_and_in_doubt_7() -> None:
    status = {"id": "exp_1", "state": "EXECUTING", "conditions": []}
    assert following.out_of_time(status)[0] is Exit.STILL_RUNNING
    assert following.out_of_time({**status, "conditions": [{"code": "IN_DOUBT"}]})[0] is Exit.IN_DOUBT


@pytest.mark.parametrize("text", ["module: wc", "{module: {name: wc}, interface: wc}", "{module: {name: wc}, deployments: laptop}", "{module: {name: wc}, deployments: [laptop]}", "{module: {name: wc}, deployments: }"])
def test_an_application_file_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "app.yaml").write_text(text)
    with pytest.raises(Failed, match=r"app\.yaml: expected") as refused:
        applications.parsed(tmp_path / "app.yaml")
    assert refused.value.code is Exit.USAGE


def test_applying_compares_only_what_was_said() -> None:
    assert applications.holds({"a": [{"name": "x", "order": 1}], "b": 2}, {"a": [{"name": "x"}]})
    assert not applications.holds({"a": [{"name": "x"}]}, {"a": [{"name": "y"}]})
    assert not applications.holds({"a": []}, {"a": [{"name": "y"}]})


def test_a_fingerprint_is_spelled_as_ssh_keygen_does() -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB6rNzIvXYkXmkGRPl8NVBQyQRZW5MrNUCp5lbCqjgBE"
    assert host_keys.fingerprint(key).startswith("ssh-ed25519 SHA256:")
    assert host_keys.fingerprint("ssh-ed25519 !!") == "ssh-ed25519 (unreadable)"
