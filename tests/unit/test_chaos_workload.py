"""The plan of a chaos run follows from its integer alone, and the ledger program says what the checker reads."""

import base64
import json
import os
import subprocess
from pathlib import Path
from random import Random

import pytest

from app.workflow import generation
from components.task_executors.noop.planner import plan
from tests.chaos import workload
from tests.chaos.lines import Lines, read

EFFECT = Path(workload.__file__).with_name("effect.sh")


def test_the_same_integer_gives_the_same_plan_and_another_one_another() -> None:
    first, again, other = (json.dumps(workload.draw(seed, count=60, seconds=30)) for seed in (7, 7, 8))
    assert first == again != other


@pytest.mark.parametrize("seed", range(20))
def test_every_graph_that_is_drawn_can_be_planned(seed: int) -> None:
    launches = workload.draw(seed, count=40, seconds=10)["launches"] + workload.headline(seed, 0) + workload.eight(Random(seed), seed, 0)
    for each in launches:
        if each["application"] == "shape":
            generation.check(plan({"inputs": each["inputs"]}))


def test_the_headline_has_40_experiments_of_the_kinds_it_promises() -> None:
    shapes = [each["shape"] for each in workload.headline(3, 0)]
    assert {shape: shapes.count(shape) for shape in set(shapes)} == {"planner": 16, "diamond": 12, "layered": 10, "wide": 2}


def test_the_ledger_program_tells_its_start_and_end_and_writes_the_bytes_that_follow_from_seed_and_input(tmp_path: Path) -> None:
    launch = workload.planned(Random(5), manner="exits")
    data = base64.b64decode(launch["inputs"]["data"].split(",")[1])
    (tmp_path / "data").write_bytes(data)
    told = {"LEDGER": str(tmp_path / "ledger"), "AIRAVATA_TOKEN": "att_1", "AIRAVATA_TASK": "tsk_1", "AIRAVATA_ATTEMPT": "1", "AIRAVATA_PROCESS": "prc_1"}
    argv = [launch["inputs"]["seed"], "0", "3", "noisy", "data"]
    assert subprocess.run([EFFECT, *argv], cwd=tmp_path, env={**os.environ, **told}, check=False, capture_output=True).returncode == 3
    start, end = (json.loads(line) for line in (tmp_path / "ledger").read_text().splitlines())
    assert (start["kind"], start["token"], start["task"], start["attempt"], start["process"], list(start["inputs"])) == ("start", "att_1", "tsk_1", "1", "prc_1", ["data"])
    assert (end["kind"], end["status"]) == ("end", "3")
    assert end["outputs"] == {"result.txt": launch["expect"]["outputs"]["result"]}


def test_lines_are_numbered_and_a_torn_last_one_is_left_out(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "client.jsonl", "client")
    lines.write("op.invoke", op="1")
    lines.write("op.return", op="1")
    with lines.path.open("ab") as file:
        file.write(b'{"n":3,"kin')
    assert [(each["n"], each["kind"]) for each in read(lines.path)] == [(1, "op.invoke"), (2, "op.return")]


def test_a_line_whose_lists_go_on_in_the_next_is_put_together_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"n":1,"kind":"unit.end","outcome":"committed","in":["a"],"more":true}\n{"n":2,"kind":"unit.end","in":["b"]}\n{"n":3,"kind":"late"}\n')
    assert read(path) == [{"n": 1, "kind": "unit.end", "outcome": "committed", "in": ["a", "b"]}, {"n": 3, "kind": "late"}]
