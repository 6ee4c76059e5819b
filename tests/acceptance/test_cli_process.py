"""The command line as a process: help in time, exit codes, and an HTTP server that misbehaves."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.cli.client import Client
from app.cli.exits import Exit, Failed

OURS = "from app.cli import main; main()"
AIRAVATA = [sys.executable, "-c", OURS]
ROOT = Path(__file__).parents[2]


def airavata(*words: str, home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {"HOME": str(home), "PATH": "/usr/bin:/bin", **environment}
    return subprocess.run([*AIRAVATA, *words], cwd=ROOT, env=clean, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)


HEAVY = {"sqlalchemy", "httpx2", "paramiko", "confluent_kafka", "alembic", "rich", "yaml"}
MEASURED = """import contextlib, resource, sys
with contextlib.suppress(SystemExit):
    {}
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, *sys.modules, file=sys.stderr)"""
FRAMEWORK = """import typer
    def one(number: int = 1) -> None: pass
    typer.run(one)"""


def help_of(what: str, *words: str) -> tuple[float, set[str]]:
    """Seconds of CPU that a fresh interpreter takes to tell it (so that a busy machine is no fault), and what it imported."""
    told = subprocess.run([sys.executable, "-c", MEASURED.format(what), *words, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Usage: " in told.stdout
    seconds, *imported = told.stderr.split()
    return float(seconds), set(imported)


@pytest.mark.parametrize("words", [(), ("run",), ("experiment",), ("doctor",), ("admin", "topics"), ("host", "add")])
def test_help_costs_no_more_than_typer_takes_for_one_option_and_imports_nothing_heavy(words: tuple[str, ...]) -> None:
    """The bar is typer's own help of one option, in the same run: seconds would judge the machine."""
    ours, alone = [], []
    for _ in range(3):
        seconds, imported = help_of(OURS, *words)
        assert not HEAVY & imported
        ours.append(seconds)
        alone.append(help_of(FRAMEWORK)[0])
    assert min(ours) < 1.3 * min(alone), (ours, alone)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("nonsense",), 2),
        (("run",), 2),
        (("whoami",), 5),
        (("--profile", "none", "whoami"), 2),
        (("--url", "http://127.0.0.1:9", "whoami"), 5),
        (("app", "apply", "-f", "missing.yaml"), 2),
        (("credential", "add", "key", "--private-key", "missing"), 2),
        (("dev", "reset"), 130),  # Asks, and nobody answers.
        (("admin", "migrate"), 78),
        (("doctor",), 78),
    ],
)
def test_exit_codes_without_a_server(tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    told = airavata(*words, home=tmp_path, AIRAVATA_MYSQL_URL="nonsense")  # Without it those of a running `airavata dev` would do.
    assert (told.returncode, told.stdout.strip()) == (code, "")
    assert told.stderr.strip()
    assert "Traceback" not in told.stderr


def test_settings_faults_are_told_line_by_line(tmp_path: Path) -> None:
    told = airavata("admin", "migrate", home=tmp_path, AIRAVATA_PARTITIONS="many", AIRAVATA_WHAT="1", AIRAVATA_MYSQL_URL="nonsense://user:hidden@host/x")
    assert told.returncode == 78
    assert "AIRAVATA_PARTITIONS: expected a whole number from 1 to 1000" in told.stderr
    assert "AIRAVATA_WHAT: unknown setting" in told.stderr
    assert "AIRAVATA_MYSQL_URL: expected A URL" in told.stderr
    assert "hidden" not in told.stderr


class Misbehaving:
    """Answers what it is told, in order; None breaks the connection off."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any] | None] = []
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                told.asked.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
                answer = told.answers.pop(0)
                if answer is None:
                    self.connection.close()
                    return
                body = answer[1] if isinstance(answer[1], bytes) else json.dumps(answer[1]).encode()
                self.send_response(answer[0])
                for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("ETag", '"3"'), ("Retry-After", "0")):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = do_PATCH = do  # noqa: N815  The base class spells them so.

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    made = Misbehaving()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_write_keeps_its_key_over_lost_answers_and_busy_servers(server: Misbehaving) -> None:
    server.answers = [None, (503, {"code": "unavailable"}), (409, {"code": "idempotency_in_flight"}), (201, {"id": "exp_1"})]
    assert Client(server.url, "airv_x").post("/experiments", {"name": "n"}) == {"id": "exp_1"}
    assert len({headers["idempotency-key"] for _, _, headers in server.asked}) == 1
    assert len(server.asked) == 4


def test_tries_are_bounded(server: Misbehaving) -> None:
    server.answers = [(503, {"code": "unavailable"})] * 9
    with pytest.raises(Failed) as gave_up:
        Client(server.url, "airv_x").get("/me")
    assert gave_up.value.code is Exit.SERVER
    assert len(server.asked) == 5


def test_a_delete_that_was_answered_into_the_void_is_done(server: Misbehaving) -> None:
    server.answers = [(200, {}), None, (404, {"code": "not_found"})]
    Client(server.url, "airv_x").delete("/projects/prj_1")
    assert server.asked[1][2]["if-match"] == '"3"'
    server.answers = [(200, {}), (404, {"code": "not_found"})]
    with pytest.raises(Failed) as gone:
        Client(server.url, "airv_x").delete("/projects/prj_1")
    assert gone.value.code is Exit.NOT_FOUND


@pytest.mark.parametrize(
    ("status", "code"), [(400, 2), (422, 2), (404, 3), (410, 3), (409, 4), (412, 4), (428, 4), (401, 5), (403, 5), (429, 6), (500, 6), (504, 6), (413, 2)]
)
def test_each_status_has_its_exit_code(server: Misbehaving, tmp_path: Path, status: int, code: int) -> None:
    server.answers = [
        (status, {"code": "x", "title": "It is so", "detail": "because", "errors": [{"pointer": "/a", "code": "required", "detail": "missing"}]})
    ] * 5
    told = airavata("whoami", home=tmp_path, AIRAVATA_URL=server.url, AIRAVATA_TOKEN="airv_x")
    assert (told.returncode, told.stdout) == (code, "")
    assert told.stderr == "It is so: because\n  /a: required: missing\n"


@pytest.mark.parametrize(("answer", "code"), [((404, ["hello"]), 3), ((200, b"<html>welcome</html>"), 2), ((302, {}), 2)])
def test_an_answer_that_is_not_the_apis_says_so(server: Misbehaving, tmp_path: Path, answer: tuple[int, Any], code: int) -> None:
    server.answers = [answer]
    told = airavata("whoami", home=tmp_path, AIRAVATA_URL=server.url, AIRAVATA_TOKEN="airv_x")
    assert (told.returncode, "Traceback" in told.stderr) == (code, False)
    assert "is this the API server?" in told.stderr


def test_an_output_form_nobody_knows_is_told_with_its_file(server: Misbehaving, tmp_path: Path) -> None:
    (tmp_path / ".config" / "airavata").mkdir(parents=True)
    (tmp_path / ".config" / "airavata" / "config.toml").write_text('[profiles.default]\noutput = "xml"\n')
    server.answers = [(200, {"user": "me"})]
    told = airavata("whoami", home=tmp_path, AIRAVATA_URL=server.url, AIRAVATA_TOKEN="airv_x")
    assert (told.returncode, "Traceback" in told.stderr) == (2, False)
    assert "expected table, json, yaml, ndjson, got 'xml'" in told.stderr


def test_what_a_refusal_says_obeys_no_terminal(server: Misbehaving, tmp_path: Path) -> None:
    server.answers = [(404, {"code": "not_found", "title": "No", "detail": "\x1b]0;owned\x07 of\nline", "errors": [{"pointer": "/\x9b2J", "code": "x", "detail": "y"}]})]
    told = airavata("whoami", home=tmp_path, AIRAVATA_URL=server.url, AIRAVATA_TOKEN="airv_x")
    assert told.stderr == "No: \ufffd]0;owned\ufffd of\ufffdline\n  /\ufffd2J: x: y\n"


def test_nobody_there_is_6(tmp_path: Path) -> None:
    told = airavata("whoami", home=tmp_path, AIRAVATA_URL="http://127.0.0.1:9", AIRAVATA_TOKEN="airv_secret")
    assert told.returncode == 6
    assert "no answer from http://127.0.0.1:9" in told.stderr
    assert "airv_secret" not in told.stderr


def test_login_keeps_a_token_that_works(server: Misbehaving, tmp_path: Path) -> None:
    server.answers = [(200, {"user": "me", "role": "user"}), (200, {"user": "me"})]
    assert airavata("--url", server.url, "login", home=tmp_path, AIRAVATA_TOKEN="airv_kept").returncode == 0
    told = airavata("whoami", "-o", "json", home=tmp_path)
    assert json.loads(told.stdout) == {"user": "me"}
    assert server.asked[1][2]["authorization"] == "Bearer airv_kept"


def test_a_token_that_cannot_be_kept_is_told_with_its_file(server: Misbehaving, tmp_path: Path) -> None:
    server.answers = [(200, {"user": "me", "role": "user"})]
    told = airavata("--url", server.url, "--profile", "no/such", "login", home=tmp_path, AIRAVATA_TOKEN="airv_lost")
    assert (told.returncode, "Traceback" in told.stderr, "airv_lost" in told.stderr) == (2, False, False)
    assert "no/such" in told.stderr


def test_who_has_seen_enough_of_a_list_ends_it_well(server: Misbehaving, tmp_path: Path) -> None:
    server.answers = [(200, {"items": [{"id": "x" * 1000}] * 500})]
    clean = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "AIRAVATA_URL": server.url, "AIRAVATA_TOKEN": "airv_x"}
    with subprocess.Popen([*AIRAVATA, "project", "ls", "-o", "ndjson"], cwd=ROOT, env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        listing.stdout.readline()
        listing.stdout.close()
        assert (listing.stderr.read(), listing.wait(60)) == (b"", 0)


def test_a_list_is_read_page_by_page(server: Misbehaving, tmp_path: Path) -> None:
    server.answers = [(200, {"items": [{"id": "prj_1"}], "next_cursor": "c1"}), (200, {"items": [{"id": "prj_2"}], "next_cursor": None})]
    told = airavata("project", "ls", "-o", "ndjson", home=tmp_path, AIRAVATA_URL=server.url, AIRAVATA_TOKEN="airv_x")
    assert [json.loads(line)["id"] for line in told.stdout.splitlines()] == ["prj_1", "prj_2"]
    assert "cursor=c1" in server.asked[1][1]
