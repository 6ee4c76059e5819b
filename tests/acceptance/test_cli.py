"""The command line against a whole system: what a newcomer does from the first login to a result, what goes wrong on the way, and what an operator looks at."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app import admin
from app.dev.compute_host import SshHost
from app.dev.servers import ROOT
from app.mysql import dead_letters
from app.mysql.unit_of_work import now
from app.settings import read
from tests.support.system import System

pytestmark = pytest.mark.one_database  # Each of its hundred commands is a process of half a second, and they speak HTTP.
Told = subprocess.CompletedProcess[str]
SHAPE = {
    "module": {"name": "nothing"},
    "interface": {
        "name": "shape",
        "planner": "shape",
        "inputs": [{"name": "edges", "type": "STRING", "required": True}, {"name": "behaviour", "type": "STRING"}],
    },
}
WORD_COUNT = """
module: {name: wc, module_version: "1"}
interface:
  name: word-count
  inputs: [{name: text, type: URI, required: true, standard_input: true}]
  outputs: [{name: count, type: STDOUT}]
deployments:
  - {host: laptop, executable_path: /usr/bin/wc}
"""


class Cli:
    """`airavata` as a process with a home of its own."""

    def __init__(self, url: str, home: Path) -> None:
        self.environment = {"HOME": str(home), "PATH": os.environ["PATH"], "AIRAVATA_URL": url, "TERM": "xterm"}
        self.argv = [sys.executable, "-c", "from app.cli import main; main()"]

    def __call__(self, *words: str, stdin: str = "", **more: str) -> Told:
        environment = {**self.environment, **more}
        return subprocess.run([*self.argv, *words], cwd=ROOT, env=environment, input=stdin, capture_output=True, text=True, timeout=90, check=False)

    def told(self, *words: str, **more: str) -> str:
        """What it prints; it must succeed."""
        done = self(*words, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *words: str, **more: str) -> Any:
        return json.loads(self.told(*words, "-o", "json", **more))


@pytest.fixture
def cli(system: System, tmp_path: Path) -> Cli:
    """Logged in as the gateway's administrator."""
    made = Cli(system.url, tmp_path)
    made.told("login", AIRAVATA_TOKEN=system.gateway.token)
    return made


@pytest.fixture
def shape(cli: Cli, tmp_path: Path) -> Callable[..., list[str]]:
    """Words that run a graph of no-ops."""
    (tmp_path / "shape.json").write_text(json.dumps(SHAPE))
    cli.told("app", "apply", "-f", str(tmp_path / "shape.json"))
    return lambda edges, behaviour="": ["run", "shape", "-i", f"edges={edges}", "-i", f"behaviour={behaviour}"]


def test_from_login_to_a_result(cli: Cli, ssh: SshHost, tmp_path: Path) -> None:
    assert cli.json("whoami")["role"] == "gateway-admin"
    assert ((tmp_path / ".config" / "airavata" / "default.token").stat().st_mode & 0o777) == 0o600
    name = f"cli-{os.getpid()}-{tmp_path.name.replace('_', '-').lower()}"[-60:].strip("-")
    key = cli.json("credential", "add", name)
    ssh.authorize(key["public_key"])
    where = ["--host", ssh.address, "--port", str(ssh.port), "--credential", name, "--login", ssh.login, "--scratch", str(tmp_path / "scratch")]
    (tmp_path / "scratch").mkdir()
    refused = cli("host", "add", name, *where, stdin="n\n")
    assert (refused.returncode, "SHA256:" in refused.stderr) == (4, True)
    assert json.loads(cli.told("host", "add", name, *where, "--yes", "-o", "json"))["state"] == "ENABLED"
    assert cli("host", "trust", name, stdin="n\n").returncode == 4
    assert f"{name} is ENABLED" in cli("host", "trust", name, "--yes").stderr
    (tmp_path / "store").mkdir()
    cli.told("storage", "add", name, "--root", str(tmp_path / "store"))
    (tmp_path / "app.yaml").write_text(WORD_COUNT.replace("laptop", name).replace("word-count", name))
    assert {each["did"] for each in cli.json("app", "apply", "-f", str(tmp_path / "app.yaml"))["items"]} <= {"created", "unchanged"}
    assert {each["did"] for each in cli.json("app", "apply", "-f", str(tmp_path / "app.yaml"))["items"]} == {"unchanged"}
    (tmp_path / "words.txt").write_text("to be or not to be\n")
    run = ["run", name, "--host", name, "-i", f"text=@{tmp_path / 'words.txt'}", "--queue", "default", "--storage", name, "--key", name]
    waited = cli(*run, "--wait")
    assert waited.returncode == 0, waited.stdout + waited.stderr
    assert f"{name}: COMPLETED, NORMAL_COMPLETION" in waited.stdout
    assert re.search(r"run +TaskSucceeded|JOB_SUBMISSION|job", waited.stdout)
    experiment = cli.told(*run).strip()
    assert cli.json("experiment", "show", experiment)["name"] == name
    assert cli.told("logs", experiment).split() == ["1", "6", "19"]
    assert cli.told("outputs", experiment, "--get", "count").split() == ["1", "6", "19"]
    path = Path(cli.told("outputs", experiment, "--get", "count", "-o", str(tmp_path / "results")).strip())
    assert path.read_text().split() == ["1", "6", "19"]
    assert cli("outputs", experiment, "--get", "nothing").returncode == 3
    cli.told("host", "drain", name)
    again = cli("run", name, "--host", name, "-i", "text=data:,x")
    assert (again.returncode, "disabled" in again.stderr) == (2, True)
    cli.told("host", "enable", name)
    cli.told("experiment", "rm", experiment)
    assert cli("experiment", "show", experiment).returncode == 3


def test_a_run_that_fails_is_1_and_says_why(cli: Cli, shape: Callable[..., list[str]]) -> None:
    failed = cli(*shape("a>b", "a:fail_for_good=1"), "--wait")
    assert failed.returncode == 1
    assert "INTERNAL: This no-op was told to fail for good." in failed.stdout
    assert re.search(r"a +TaskFailed RUNNING → FAILED attempt 1 · This no-op", failed.stdout)


def test_waiting_may_end_before_the_run_does(cli: Cli, shape: Callable[..., list[str]]) -> None:
    experiment = cli.told(*shape("a>b", "a:sleep_ms=12000")).strip()
    late = cli("watch", experiment, "--timeout", "0.2")
    assert (late.returncode, f"airavata watch {experiment}" in late.stderr) == (8, True)
    watching = subprocess.Popen([*cli.argv, "watch", experiment], cwd=ROOT, env=cli.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    assert "ExperimentChanged" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=60)
    assert (watching.returncode, "the run goes on" in said) == (130, True)
    assert cli("watch", experiment).returncode == 0
    events = [json.loads(line) for line in cli.told("events", experiment, "-f").splitlines()]
    assert [each["seq"] for each in events] == list(range(1, len(events) + 1))
    assert cli.json("events", experiment)["items"] == events


def test_a_terminal_shows_the_graph(cli: Cli, shape: Callable[..., list[str]]) -> None:
    leader, follower = pty.openpty()
    words = [*cli.argv, *shape("stage>run run>fetch", "run:fail=1"), "--wait"]
    watching = subprocess.Popen(words, cwd=ROOT, env={**cli.environment, "COLUMNS": "120", "LINES": "40"}, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    drawn, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            drawn += os.read(leader, 65_536)
        except OSError:  # The terminal's other end is closed.
            break
    os.close(leader)
    assert watching.wait(60) == 0
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn.decode()).splitlines()
    last = {line.split()[1]: line.split() for line in lines if line.split()[:1] == ["●"]}
    assert {name: words[3] for name, words in last.items()} == {"stage": "1", "run": "2", "fetch": "1"}
    assert any(line.split()[:2] == ["○", "fetch"] and line.rstrip().endswith("run") for line in lines)
    assert any("TaskFailed" in line and "This no-op was told to fail 1 times" in line for line in lines)
    assert any("shape: COMPLETED, NORMAL_COMPLETION" in line for line in lines)


def test_one_key_launches_once_and_faults_are_told_at_their_place(cli: Cli, shape: Callable[..., list[str]], tmp_path: Path) -> None:
    key = f"key-{tmp_path}"
    assert cli.told(*shape("a"), "--key", key) == cli.told(*shape("a"), "--key", key)
    assert cli(*shape("b"), "--key", key).returncode == 2
    cycle = cli(*shape("a>b b>a"))
    assert (cycle.returncode, "/inputs/edges: bad_format" in cycle.stderr) == (2, True)
    assert cli("run", "no-such-application").returncode == 3
    assert cli("outbox").returncode == 5
    assert cli("whoami", AIRAVATA_TOKEN="airv_wrong").returncode == 5


def test_tokens_and_projects(cli: Cli, system: System, tmp_path: Path) -> None:
    name = f"p-{os.getpid()}-{time.monotonic_ns()}"
    assert cli.json("project", "add", name)["name"] == name
    assert cli.json("project", "show", name)["name"] == name
    cli.told("project", "rm", name)
    assert cli("project", "show", name).returncode == 3
    made = cli.json("token", "add", name, "--user", "user-17", "--days", "1")
    assert cli.json("whoami", AIRAVATA_TOKEN=made["secret"])["user"] == "user-17"
    assert cli("app", "apply", "-f", str(tmp_path / "shape.json"), AIRAVATA_TOKEN=made["secret"]).returncode in {2, 5}
    cli.told("token", "rm", made["id"])
    assert cli.json("token", "show", made["id"])["revoked_at"] is not None
    gateway = cli.json("gateway", "add", name, AIRAVATA_TOKEN=system.tokens["operator_token"])
    assert cli.json("gateway", "show", name, AIRAVATA_TOKEN=system.tokens["operator_token"])["id"] == gateway["id"]


def test_operators_look_and_settle(cli: Cli, system: System) -> None:
    operator = {"AIRAVATA_TOKEN": system.tokens["operator_token"]}
    assert {each["shard"] for each in cli.json("outbox", **operator)["shards"]} == {0, 1}
    assert "scheduler" in {each["component"] for each in cli.json("consumers", **operator)["instances"]}
    assert "CONSUMER GROUP" in cli.told("consumers", **operator)
    letter = f"dlt_{time.monotonic_ns():026d}"
    with admin.opened(read(system.environment)) as begin, begin("test.letter") as tx:
        at = now(tx)
        dead_letters.set_aside(
            tx, [dead_letters.DeadLetter(letter, "g", "t", 0, 1, bytes(16), "k", b"", b"", None, "Unreadable", "no\x1b[31m good", 5, at)], now=at
        )
    assert letter in {each["id"] for each in cli.json("dead-letter", "ls", **operator)["items"]}
    assert "\x1b" not in cli.told("dead-letter", "ls", **operator)
    assert cli("dead-letter", "drop", letter, **operator).returncode == 2
    assert cli.json("dead-letter", "drop", letter, "--reason", "a test made it", **operator)["settled"] == "DROPPED"
    again = cli("dead-letter", "replay", letter, "--reason", "once more", **operator)
    assert (again.returncode, "DROPPED" in again.stderr) == (4, True)


def test_doctor_is_content_with_a_whole_system(cli: Cli, system: System) -> None:
    told = cli("doctor", "-o", "json", **system.environment)
    findings = json.loads(told.stdout)["findings"]
    assert [each for each in findings if not each["well"] and each["check"] not in {"host", "host key"}] == []
    assert {"clock", "mysql settings", "schema", "topics", "api"} <= {each["check"] for each in findings}
    assert Path(system.environment["AIRAVATA_TOKEN_KEY_FILE"]).read_text() not in told.stdout
