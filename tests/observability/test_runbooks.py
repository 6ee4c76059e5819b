"""Every command of every runbook was run: the command line's against one whole system, each with exit code 0; SQL against its schema; expressions read by promtool.

What is written in capitals stands for a value. Whoever adds a command that cannot be run here must say where it is.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from confluent_kafka import Producer

from app import cli
from app.dev.compute_host import SshHost
from app.dev.servers import ROOT
from app.messages import codec
from app.messages.envelope import Envelope, Subject
from app.messages.events import ExperimentLaunched
from app.settings import Settings, read
from tests.support.system import System

PAGES = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
SPANS = {span: page.name for page in PAGES for span in re.findall(r"`([^`]+)`", " ".join(page.read_text().split()))}
COMMANDS = sorted(span for span in SPANS if span.startswith("airavata "))
STATEMENTS = sorted(span for span in SPANS if re.match(r"(?:SELECT|INSERT|UPDATE|DELETE|CALL|SHOW|SET|ALTER) ", span))
EXPRESSIONS = sorted(span for span in SPANS if re.search(r"\b(?:airavata|db_client|http_server|messaging|process)[_:]\w+", span))
ELSEWHERE = {"airavata admin relay-state --settle SHARD": "tests/integration/test_doctor.py"}  # Wants all relays stopped.
FOREIGN = {  # Of Kafka's own distribution, of which we have the servers' part alone.
    "kafka-transactions.sh --bootstrap-server BROKER find-hanging --broker-id NUMBER",
    "kafka-transactions.sh --bootstrap-server BROKER abort --topic TOPIC --partition NUMBER --start-offset OFFSET",
}  # fmt: skip
OF_OPERATORS = {"outbox", "consumers", "dead-letter"}  # All else is asked with the token of the gateway whose host, run or credential it is.


def test_the_pages_say_nothing_that_looks_like_a_command_and_is_not_tried() -> None:
    assert {span for span in SPANS if re.match(r"[\w-]+\.sh |(?:make|kubectl|docker|mysql|kafka-\w+) ", span)} == FOREIGN
    assert set(ELSEWHERE) <= set(COMMANDS)
    assert len(COMMANDS) > 15
    assert len(STATEMENTS) > 1


@pytest.mark.parametrize("line", COMMANDS)
def test_the_command_line_takes_a_command_as_it_is_written(line: str) -> None:
    found: Any = typer.main.get_command(cli.root)
    _, *words = shlex.split(line.replace("SHARD", "0"))
    while hasattr(found, "commands"):
        assert words, f"{SPANS[line]}: {line} is not whole"
        assert words[0] in found.commands, f"{SPANS[line]}: {line}: no such command"
        found = found.commands[words.pop(0)]
    found.make_context(found.name, words)  # Raises for an option it has not, and for an argument that is missing.


@pytest.mark.parametrize("page", PAGES, ids=lambda each: each.stem)
def test_the_settings_of_a_page_exist(page: Path) -> None:
    for name in re.findall(r"AIRAVATA_([A-Z_]+)", page.read_text()):
        assert name.lower() in Settings.__dataclass_fields__, name


def test_prometheus_reads_every_expression(tmp_path: Path) -> None:
    rules = [{"record": f"runbook:{number}", "expr": expression} for number, expression in enumerate(EXPRESSIONS) if not expression.startswith("airavata ")]
    assert len(rules) > 20
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "runbooks", "rules": rules}]}))
    run = subprocess.run(["/usr/bin/promtool", "check", "rules", str(tmp_path / "rules.yml")], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


# ---- run ----------------------------------------------------------------------------------------------------------------------------------------------
@dataclass
class Night:
    """A system with what an operator finds at night: a run, a host, a credential nobody uses, messages that were set aside."""

    system: System
    home: Path
    experiment: str
    host: str
    credential: str
    letters: list[str] = field(default_factory=list)
    made: int = 0

    def value(self, word: str) -> str:
        self.made += word == "NAME"
        told = {"EXPERIMENT": self.experiment, "HOST": self.host, "CREDENTIAL": self.credential, "NAME": f"night-{os.getpid()}-{self.made}", "TEXT": "it is night"}
        return self.letters.pop() if word == "ID" else told.get(word, word)

    def airavata(self, *words: str) -> "subprocess.CompletedProcess[str]":
        token = self.system.tokens["operator_token" if words[0] in OF_OPERATORS else "gateway_token"]
        environment = {**self.system.environment, "HOME": str(self.home), "PATH": os.environ["PATH"], "AIRAVATA_URL": self.system.url, "AIRAVATA_TOKEN": token}
        argv = [sys.executable, "-c", "from app.cli import main; main()", *words]
        return subprocess.run(argv, cwd=ROOT, env=environment, input="y\n", capture_output=True, text=True, timeout=90, check=False)


@pytest.fixture(scope="module")
def night(watched: System, servers: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    gateway, directory, ssh = watched.gateway, tmp_path_factory.mktemp("night"), servers.ssh_host()
    assert isinstance(ssh, SshHost)
    credential = gateway.post("/credentials", {"name": gateway.a_name("spare"), "kind": "SSH_KEY", "source": "GENERATE"})["name"]
    host = gateway.get(f"/compute-resources/{gateway.host(ssh, directory / 'scratch')}")["name"]
    made = Night(watched, directory, gateway.launch(gateway.shape(), {"edges": "a>b", "behaviour": "a:fail=1"}), host, credential)
    gateway.wait(made.experiment)
    topic, producer, wanted = read(watched.environment).topics.launch, Producer({"bootstrap.servers": watched.kafka}), sum("ID" in each.split() for each in COMMANDS)
    for number in range(wanted):
        launched = codec.encode(Envelope(mid=bytes([number]) * 16, topic=topic, partition=0, subject=Subject("gw", "exp", "prc"), body=ExperimentLaunched()))
        producer.produce(topic, b"no message of ours", partition=0, headers=codec.headers_of(launched.headers))
    assert producer.flush(30.0) == 0
    waiting = "SELECT id FROM dead_letters WHERE settled IS NULL"
    watched.until(lambda: len(watched.rows(waiting)) >= wanted, 60.0)
    made.letters = [row[0] for row in watched.rows(waiting)]
    yield made


@pytest.mark.parametrize("line", [each for each in COMMANDS if each not in ELSEWHERE])
def test_a_command_does_what_the_page_wants_of_it(night: Night, line: str) -> None:
    done = night.airavata(*(night.value(word) for word in shlex.split(line)[1:]))
    assert done.returncode == 0, f"{SPANS[line]}: {line}: {done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("line", ELSEWHERE)
def test_what_cannot_run_on_a_living_system_runs_in_a_test_that_is_named(line: str) -> None:
    words = [word for word in shlex.split(line)[1:] if not word.isupper()]
    tests = [each for each in ast.walk(ast.parse((ROOT / ELSEWHERE[line]).read_text())) if isinstance(each, ast.FunctionDef) and each.name.startswith("test_")]
    assert any(set(words) <= {each.value for each in ast.walk(test) if isinstance(each, ast.Constant)} for test in tests)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_fits_the_schema(watched: System, statement: str) -> None:
    """In a transaction that is rolled back, of a topic that nobody reads."""
    with watched.connection() as connection, connection.cursor() as cursor:
        connection.begin()
        cursor.execute(statement.replace("<topic>", "no such topic"))
        connection.rollback()
