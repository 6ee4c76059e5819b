"""`make demo` in a clone of its own: the story to its end, again while it runs, again after a SIGKILL of everything, and stopped by `down`."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.dev import hmmer
from app.dev.process import start_time, wait_until
from app.dev.servers import ROOT
from tests.acceptance.test_whole_path import by_hand

PARTS = ("app", "components", "migrations", "observability", "outbox_relay", "docs")


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """The code of this checkout with a `.dev` of its own; what needs the network is shared."""
    where = tmp_path / "clone"
    for part in PARTS:
        shutil.copytree(ROOT / part, where / part)
    (where / ".dev").mkdir()
    (where / ".dev" / "lib").symlink_to(ROOT / ".dev" / "lib")
    (where / ".venv").symlink_to(ROOT / ".venv")
    yield where
    run(where, "app.dev.stack", "down")
    for pid in processes(where):
        os.kill(pid, signal.SIGKILL)


def run(where: Path, *module: str) -> str:
    done = subprocess.run([sys.executable, "-m", *module], cwd=where, check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def processes(where: Path) -> list[int]:
    """Everything the demo started that lives, by its pid files."""
    found = []
    for file in (where / ".dev").glob("run/**/*.pid"):
        words = file.read_text().split()
        if len(words) == 2 and int(words[0]) > 1 and start_time(int(words[0])) == words[1]:
            found.append(int(words[0]))
    return found


def hits(told: str) -> list[list[str]]:
    return [line.split() for line in told.splitlines() if re.match(r"  \w+ +[0-9.e-]+ +[0-9.]+$", line)]


def told_whole(told: str, tmp_path: Path) -> None:
    wanted = [line.split() for line in by_hand(tmp_path)]
    assert hits(told) == [[words[0], words[4], words[5]] for words in wanted]
    taken = re.search(r"killed after (\d+) of 12 tasks had started; the next task started ([0-9.]+) s later", told)
    assert taken, told[-3000:]
    assert "tasks lost: 0, run twice: 0" in told
    assert "curl -sH" in told
    assert "airavata dev down" in told


def test_the_demo_tells_its_story_twice_and_again_after_a_sigkill_of_everything(clone: Path, tmp_path: Path) -> None:
    assert hmmer.EXAMPLES.exists()
    told_whole(run(clone, "app.dev.demo"), tmp_path)
    first = set(processes(clone))
    told_whole(run(clone, "app.dev.demo"), tmp_path)
    assert first & set(processes(clone)), "the second run started everything anew"
    for pid in processes(clone):
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: processes(clone) == [], 20.0)
    told_whole(run(clone, "app.dev.demo"), tmp_path)
    run(clone, "app.dev.stack", "down")
    assert processes(clone) == []
