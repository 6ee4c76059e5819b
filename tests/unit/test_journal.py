"""The journal: numbered lines that survive the death of their process, long ones in pieces, off unless asked for, refused in production."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from app import journal
from app.errors import Misconfigured

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("AIRAVATA_TEST_KILLS", "8"))  # 150 were tried by hand.
WRITERS = """
import os, sys, threading
from app import journal
journal.begin(sys.argv[1], environment="test", who="writer/0", role="writer")
def write(thread):
    told = 0
    while True:
        journal.write("test", thread=thread, told=told, filler=["x" * 50] * (told % 400))
        told += 1
        if told % 10 == 0:
            os.write(1, b"%d %d\\n" % (thread, told))
for thread in range(3):
    threading.Thread(target=write, args=(thread,)).start()
"""


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(journal, "write", journal.write)  # Put back afterwards.
    journal.begin(str(tmp_path), environment="test", who="scheduler/1", role="scheduler")
    return tmp_path


def lines(directory: Path) -> list[dict[str, Any]]:
    (file,) = directory.iterdir()
    return [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]  # Only the last can be torn, by a kill in the middle of its write.


def test_lines_are_numbered_and_bear_who_and_when(begun: Path) -> None:
    before = time.monotonic()
    journal.write("unit.begin", unit="scheduler.commit", step="scheduler.commit#1")
    first, second = lines(begun)
    assert (first["kind"], first["role"], first["pid"], second["kind"]) == ("life.start", "scheduler", os.getpid(), "unit.begin")
    assert [each["n"] for each in (first, second)] == [1, 2]
    assert first["life"] == second["life"]
    assert second["who"] == "scheduler/1"
    assert before <= float(str(second["mono"])) <= time.monotonic()
    assert str(second["wall"]).endswith("Z")
    assert [each.name for each in begun.iterdir()] == [f"scheduler-1.{first['life']}.jsonl"]


def test_a_long_list_goes_on_in_the_lines_that_follow(begun: Path) -> None:
    mids = [f"{each:032x}" for each in range(2000)]
    journal.write("unit.end", step="s", outcome="committed", out=mids, ranges=[["t", 0, 1, 2, 3]])
    journal.write("offset", group="g")
    told = lines(begun)[1:]
    assert all(len(json.dumps(each)) <= journal.LINE_BYTES_MAX for each in told)
    assert [each["kind"] for each in told] == ["unit.end"] * (len(told) - 1) + ["offset"]
    assert [each.get("more", False) for each in told] == [True] * (len(told) - 2) + [False, False]
    assert [mid for each in told for mid in each.get("out", [])] == mids
    assert [found for each in told for found in each.get("ranges", [])] == [["t", 0, 1, 2, 3]]
    assert [("step" in each, "outcome" in each) for each in told[:2]] == [(True, True), (False, False)]


def test_lines_of_three_threads_survive_a_sigkill_whole_and_without_gaps(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for kill in range(KILLS):
        directory = tmp_path / str(kill)
        with subprocess.Popen([sys.executable, "-c", WRITERS, str(directory)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            said = [writer.stdout.readline() for _ in range(chance.randrange(1, 60))]
            writer.send_signal(signal.SIGKILL)
            said += writer.stdout.readlines()
        assert writer.returncode == -signal.SIGKILL
        told = lines(directory)
        assert [each["n"] for each in told] == list(range(1, len(told) + 1)), seed
        for thread in range(3):
            mine = [each["told"] for each in told if each.get("thread") == thread]
            assert mine == list(range(len(mine))), seed
            assert len(mine) >= max([int(line.split()[1]) for line in said if line.endswith("\n") and line.split()[0] == str(thread)] or [0]), seed


def test_a_line_that_cannot_be_written_ends_the_process(tmp_path: Path) -> None:
    text = WRITERS.split("def write")[0] + "import os\nos.close(journal.write.file)\njournal.write('test')\nprint('went on')"
    ended = subprocess.run([sys.executable, "-c", text, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (70, "")
    assert "cannot be written" in ended.stderr


def test_it_is_off_unless_a_directory_is_named_and_refused_in_production(tmp_path: Path) -> None:
    journal.begin("", environment="production", who="scheduler/1")
    assert not journal.on()
    journal.write("unit.begin", unit="u", step="s")
    with pytest.raises(Misconfigured, match="AIRAVATA_JOURNAL"):
        journal.begin(str(tmp_path / "run"), environment="production", who="scheduler/1")
    assert not list(tmp_path.iterdir())
