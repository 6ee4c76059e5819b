"""What a log line says, and what it never says."""

import ast
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from app.errors import StoreUnavailable
from app.messages.envelope import Subject
from observability import logs

ROOT = Path(__file__).parents[2]
PEM = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----"


def written(event: str = "it happened", *, level: str = "info", form: str = "json", repeats: logs.Repeats | None = None, **fields: Any) -> str:
    found: Any = {"event": event, **fields}
    for each in logs.processors(form, repeats or logs.Repeats()):
        found = each(None, level, found)
    return str(found)


def told(event: str = "it happened", **more: Any) -> dict[str, Any]:
    return dict(json.loads(written(event, **more)))


def test_a_line_begins_with_the_fixed_fields_and_its_event_is_a_constant() -> None:
    line = told("The batch raised: again", count=3)
    assert list(line) == ["ts", "level", "event", "count"]
    assert (line["event"], line["level"], line["count"]) == ("the_batch_raised_again", "info", 3)
    assert len(line["ts"]) == len("2026-11-23T14:00:00.000000Z")


def test_every_line_of_a_process_names_it_also_from_a_thread() -> None:
    program = (
        "import threading\nfrom observability import logs\nlogs.configure(component='relay', instance='relay-1', version='1.2.3')\n"
        "t = threading.Thread(target=lambda: logs.logger('x').warning('in a thread', fault=ValueError('bad')))\nt.start()\nt.join()\n"
        "import logging\nlogging.getLogger('sqlalchemy.pool').warning('Bearer %s', 'abcdefghijkl')"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    ours, library = (json.loads(line) for line in ended.stderr.splitlines())
    assert list(ours)[:6] == list(logs.FIXED)
    assert (ours["component"], ours["instance"], ours["version"], ours["part"]) == ("relay", "relay-1", "1.2.3", "x")
    assert (library["event"], library["part"], library["message"]) == ("library", "sqlalchemy.pool", "Bearer ***")


def test_a_fault_is_told_with_its_class_and_whether_trying_again_helps() -> None:
    line = told(level="warning", fault=StoreUnavailable("MySQL is away " + "x" * 1000))
    assert (line["error_class"], line["retriable"], len(line["error"])) == ("StoreUnavailable", True, 500)
    assert "stack" not in line
    assert told(fault="said so")["error"] == "said so"


def test_a_bug_is_told_with_its_stack() -> None:
    try:
        raise ValueError("odd")
    except ValueError as fault:
        line = told(level="error", exc_info=fault)
    assert (line["error_class"], line["retriable"], line["error"]) == ("ValueError", False, "odd")
    assert "test_a_bug_is_told_with_its_stack" in line["stack"]


# ---- secrets ------------------------------------------------------------------------------------------------------------------------------------------
SECRETS = {
    "a private key": PEM, "a key whose end was cut off": PEM[:60], "a bearer token": "Authorization: Bearer c2VjcmV0LXRva2Vu", "a token of ours": "airv_0123456789ab_c2VjcmV0c2VjcmV0",
    "a URL's password": "mysql://root:c2VjcmV0@db:3306/x", "a password with slashes": "mysql://root:c2VjcmV0/c2VjcmV0@db/x", "a password beside its name": 'password="c2VjcmV0"',
    "JSON": '{"secret_key": "c2VjcmV0"}', "a web token": "eyJhbGciOiJIUzI1NiJ9.c2VjcmV0.c2VjcmV0",
}  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_the_shape_of_a_secret_is_masked_wherever_it_stands(secret: str) -> None:
    for line in (written(error=secret), written(fault=ValueError(f"no: {secret}!")), written(deep={"a": [{"b": secret}]}), written(secret), written(tuple_of=(secret,), form="console")):
        assert "c2VjcmV0" not in line


@pytest.mark.parametrize("name", ["password", "mysql_password", "token", "Authorization", "private_key", "passphrase", "api_key", "script", "stdin", "parameters", "payload"])
def test_what_is_secret_by_its_name_is_masked_whatever_it_is(name: str) -> None:
    for value in ("c2VjcmV0", ["c2VjcmV0"], {"x": "c2VjcmV0"}, b"c2VjcmV0"):
        assert told(**{name: value})[name] == "***"
        assert told(outer={name: value})["outer"][name] == "***"


def test_what_is_no_secret_stays() -> None:
    kept = {"host": "login1.example.org", "url": "https://api.example.org/x", "fingerprint": "SHA256:abc", "attempt": 3, "late": True, "gone": None, "script_sha256": "ab"}
    assert {name: told(**kept)[name] for name in kept} == kept
    assert told(raw=b"12345")["raw"] == "5 bytes"


# ---- size, and terminals --------------------------------------------------------------------------------------------------------------------------------
@given(st.dictionaries(st.text(min_size=1, max_size=20), st.one_of(st.text(max_size=50), st.lists(st.text(max_size=20), max_size=5), st.integers())), st.text())
def test_whatever_is_logged_is_one_line_of_json_that_no_terminal_obeys(fields: dict[str, Any], event: str) -> None:
    fields = {name: value for name, value in fields.items() if name not in {"event", "exc_info", "stack_info", "stack", "exception"}}
    line = written(event, **fields)
    assert "event" in json.loads(line)
    assert all(" " <= each <= "~" for each in line)


@pytest.mark.parametrize("fields", [{"error": "x" * 100_000}, {f"f{n}": "ü" * 2000 for n in range(20)}, {f"f{n}": 1 for n in range(5000)}, {"rows": ["y" * 500] * 500}])
def test_a_line_is_at_most_8_kib_and_still_says_what_happened(fields: dict[str, Any]) -> None:
    line = written("big", **fields)
    assert len(line.encode()) <= 8192
    assert json.loads(line)["event"] == "big"


def test_a_forged_line_and_ansi_stay_text() -> None:
    forged = 'x\n{"level": "info"}\x1b[31m\x9b\u202e'
    assert len(written(name=forged).splitlines()) == 1
    console = written(name=forged, bare="\x1b[31m\x9b\u202e", form="console")  # The renderer itself quotes only what has blanks in it.
    assert len(console.splitlines()) == 1
    assert not any(each in console for each in "\x1b\x9b\u202e")


# ---- repeats ----------------------------------------------------------------------------------------------------------------------------------------------
def test_a_repeated_warning_is_written_once_a_second_with_how_many_were_left_out() -> None:
    at, counted = [0.0], list[str]()
    repeats = logs.Repeats(lambda: at[0], counted.append)

    def say(event: str = "kafka is away", level: str = "warning", part: str = "consumer") -> dict[str, Any] | None:
        try:
            return told(event, level=level, repeats=repeats, part=part)
        except structlog.DropEvent:
            return None

    first = say()
    assert first is not None
    assert "suppressed" not in first
    assert [say() for _ in range(3)] == [None] * 3
    assert say(part="relay") is not None
    assert say("other") is not None
    assert all(say(level="error") for _ in range(3)), "errors are all written"
    at[0] = 1.0
    again = say()
    assert again is not None
    assert again["suppressed"] == 3
    at[0] = 2.0
    assert "suppressed" not in (say() or {})
    assert counted == ["kafka_is_away"] * 3


# ---- the code ---------------------------------------------------------------------------------------------------------------------------------------------
def log_calls() -> list[tuple[Path, ast.Call]]:
    files = [path for folder in ("app", "components", "outbox_relay", "observability") for path in (ROOT / folder).rglob("*.py")]
    calls = [(path, node) for path in files for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return [(path, node) for path, node in calls if node.func.attr in {"debug", "info", "warning", "error"} and "log" in ast.unparse(node.func.value).lower()]  # type: ignore[attr-defined]


def test_what_is_said_is_a_constant_and_values_are_fields() -> None:
    calls = log_calls()
    assert len(calls) > 40
    assert [f"{path.name}:{node.lineno}" for path, node in calls if not (len(node.args) == 1 and isinstance(node.args[0], ast.Constant))] == []


def test_the_ids_of_a_subject_and_of_a_key_become_fields() -> None:
    assert logs.of(Subject("gw_1", "exp_1", "prc_1", "tsk_1", "NOOP", 2, 1)) == {"gateway_id": "gw_1", "experiment_id": "exp_1", "process_id": "prc_1", "task_id": "tsk_1", "attempt": 2, "epoch": 1}
    assert logs.of_key("prc_1-tsk_1") == {"process_id": "prc_1", "task_id": "tsk_1"}
    with logs.about(gateway_id="gw_1", experiment_id=None):
        assert (told()["gateway_id"], "experiment_id" in told()) == ("gw_1", False)
    assert "gateway_id" not in told()


def test_a_line_names_the_span_that_is_under_way() -> None:
    for traceparent, ids in ((f"00-{'a' * 32}-{'b' * 16}-01", ("a" * 32, "b" * 16)), ("", (None, None))):
        found: Any = {"event": "x"}
        for each in logs.processors("json", logs.Repeats(), lambda told=traceparent: told):
            found = each(None, "info", found)
        line = json.loads(found)
        assert (line.get("trace_id"), line.get("span_id")) == ids


def test_librdkafka_writes_lines_of_ours(tmp_path: Path) -> None:
    program = (
        "from observability import logs\nlogs.configure(component='x', instance='x-1', version='1')\n"
        "from confluent_kafka import Consumer\n"
        "c = Consumer({'bootstrap.servers': '127.0.0.1:9', 'group.id': 'g'}, logger=logs.library('rdkafka'))\n"
        "c.subscribe(['t'])\nfor _ in range(15):\n    c.poll(0.1)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    assert lines
    assert {(line["event"], line["part"]) for line in lines} == {("library", "rdkafka")}


def test_libraries_are_heard_from_warning_on_and_paramiko_only_when_all_is_lost() -> None:
    program = "from observability import logs\nlogs.configure(component='x', instance='x-1')\nimport logging\nlogging.getLogger('uvicorn').info('hm')\nlogging.getLogger('paramiko.transport').error('hm')"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr == ""
    assert logging.getLogger("x") is logs.library("x")


SPEAKS = (
    "import sys\nfrom observability import logs\nlost = []\nlogs.configure(component='x', instance='x-1', form=sys.argv[1], lost=lambda: lost.append(1))\n"
    "for n in range(40):\n    logs.logger('a').error('said \\ud800', value='y' * 3000 + '\\udfff', more='z' * 3000, n=n)\nprint(len(lost))"
)


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(("stderr", "lost"), [("reader gone", 40), ("reader stuck", 29), ("2>/dev/full", 40), ("2>&-", 40), ("2>/dev/null", 0)])
def test_a_line_that_cannot_be_written_is_lost_and_counted_and_stops_nothing(form: str, stderr: str, lost: int) -> None:
    reading, writing = os.pipe()
    if stderr == "reader gone":
        os.close(reading)
    ended = subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {stderr if stderr.startswith("2") else ""}', sys.executable, "-c", SPEAKS, form], cwd=ROOT, stdout=subprocess.PIPE, stderr=writing, timeout=300, check=True
    )
    assert int(ended.stdout) >= lost
    assert lost or int(ended.stdout) == 0
    if stderr == "reader stuck":
        assert 40 - int(ended.stdout) > 4, "what the pipe had room for is there"
        os.close(reading)
    os.close(writing)


def test_a_reader_that_reads_again_finds_whole_lines() -> None:
    program = SPEAKS + "\nsys.stdout.flush()\nsys.stdin.readline()\nlogs.logger('a').error('again')"
    with subprocess.Popen([sys.executable, "-c", program, "json"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        assert int(child.stdout.readline()) > 0
        first, *_ = child.stderr.readline(), child.stdin.write("\n"), child.stdin.close()
        lines = [first, *child.stderr.read().splitlines()]
    assert child.returncode == 0
    assert json.loads(lines[-1])["event"] == "again"
    assert len([line for line in lines if line.startswith("{") and line.rstrip().endswith("}")]) >= len(lines) - 1, "at most the last before the stop is half a line"


def test_logging_loads_nothing_that_draws_and_leaves_it_to_who_does() -> None:
    """A tenth of a second of CPU in each process."""
    code = "import sys, observability.logs; assert not [each for each in sys.modules if each.startswith('rich')]; import rich.table"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
