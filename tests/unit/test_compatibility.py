"""Two releases side by side: today's, and the next one as it would be if its messages had the next version; made of today's by that one edit, run in a process of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.errors import Unreadable
from app.messages import codec
from app.messages.codec import SCHEMA_VERSION

ROOT = Path(__file__).parents[2]
NEXT = SCHEMA_VERSION + 1
WRITES = """
from app.messages import codec, commands
from app.messages.envelope import Envelope, Subject
from app.settings import read
import os
message = Envelope(mid=bytes(16), topic="t", partition=0, subject=Subject("g", "e", "p"), body=commands.RunTask("att_1"))
print(codec.encode(message, version=read(os.environ, database=False).compatibility).headers.hex())
"""
READS = """
from app.messages import codec
import sys
print(codec.decode("t", 0, codec.headers_of(bytes.fromhex(sys.argv[1])), b'{"attempt_id": "att_1"}').body.attempt_id)
"""


def run(release: Path, *words: str, **told: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRAVATA_")} | {f"AIRAVATA_{name}": value for name, value in told.items()}
    return subprocess.run([sys.executable, *words], cwd=release, env={**environment, "PYTHONPATH": f"{release}:{ROOT}"}, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def next_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    release = tmp_path_factory.mktemp("next")
    shutil.copytree(ROOT / "app", release / "app", ignore=shutil.ignore_patterns("__pycache__"))
    path = release / "app" / "messages" / "codec.py"
    today = path.read_text()
    path.write_text(today.replace(f"\nSCHEMA_VERSION = {SCHEMA_VERSION} ", f"\nSCHEMA_VERSION = {NEXT} "))
    assert path.read_text() != today
    return release


@pytest.fixture
def written(next_release: Path) -> Callable[..., str]:
    """What the next release writes, told this; the stored headers in hex."""

    def write(**told: str) -> str:
        done = run(next_release, "-c", WRITES, **told)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return write


def read_today(row: str) -> str:
    body = codec.decode("t", 0, codec.headers_of(bytes.fromhex(row)), b'{"attempt_id": "att_1"}').body
    return str(getattr(body, "attempt_id", body))


def test_a_release_writes_what_the_one_before_reads_until_it_is_told_otherwise(written: Callable[..., str]) -> None:
    assert [read_today(written()), read_today(written(COMPATIBILITY=str(SCHEMA_VERSION)))] == ["att_1", "att_1"]
    with pytest.raises(Unreadable, match=f"schema_version {NEXT} is newer than {SCHEMA_VERSION}"):
        read_today(written(COMPATIBILITY=str(NEXT)))


def test_a_release_reads_what_it_writes_and_what_the_one_before_wrote(next_release: Path, written: Callable[..., str]) -> None:
    for row in (written(), written(COMPATIBILITY=str(NEXT))):
        assert run(next_release, "-c", READS, row).stdout == "att_1\n"


@pytest.mark.parametrize("told", ["0", str(NEXT), "newest"])
def test_a_version_that_a_release_cannot_write_ends_it_with_78_and_one_line(told: str) -> None:
    done = run(ROOT, "-m", "outbox_relay", MYSQL_URL="mysql://a:b@127.0.0.1:9/c", COMPATIBILITY=told)
    assert (done.returncode, done.stderr) == (78, f"relay: AIRAVATA_COMPATIBILITY: expected a whole number from {max(1, SCHEMA_VERSION - 1)} to {SCHEMA_VERSION}, got '{told}'\n")


def test_the_next_release_refuses_what_is_beyond_itself_and_its_neighbour(next_release: Path) -> None:
    done = run(next_release, "-c", WRITES, COMPATIBILITY=str(NEXT + 1))
    assert f"AIRAVATA_COMPATIBILITY: expected a whole number from {SCHEMA_VERSION} to {NEXT}, got '{NEXT + 1}'" in done.stderr
