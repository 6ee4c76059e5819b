"""compose.yaml, as `docker compose` reads it: the client's own, else Debian's, unpacked into `.dev/lib` (13 MB, once). Reading needs no engine."""

import copy
import re
import shutil
import subprocess
from functools import cache
from typing import Any

import yaml

from tests.deployment import debian
from tests.deployment.locked import ROOT

SUITE = "trixie"
UNPACKED = ROOT / ".dev" / "lib" / "docker-compose" / SUITE
PROFILES = ("core", "observe", "cluster", "chaos")
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


@cache
def program() -> tuple[str, ...]:
    """Raises Unavailable."""
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], check=False, capture_output=True, timeout=30).returncode == 0:
        return ("docker", "compose")
    if not UNPACKED.exists():
        UNPACKED.parent.mkdir(parents=True, exist_ok=True)
        debian.unpack("docker-compose", SUITE, UNPACKED)
    return (str(UNPACKED / "usr" / "libexec" / "docker" / "cli-plugins" / "docker-compose"),)


def told() -> str:
    """A line for the end of a run."""
    version = subprocess.run([*program(), "version", "--short"], check=True, capture_output=True, text=True, timeout=30).stdout.strip()
    return f"read by {'docker compose' if program()[0] == 'docker' else 'Debian docker-compose'} {version}"


def asked(path: str, *profiles: str) -> "subprocess.CompletedProcess[str]":
    """The file as it is understood, with these profiles; .env says nothing here."""
    words = [*program(), "--env-file", "/dev/null", *(word for each in profiles for word in ("--profile", each)), "-f", path, "config"]
    return subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)


def file(**given: str) -> dict[str, Any]:
    """With variables replaced, by their defaults unless given; the caller's own copy."""
    return copy.deepcopy(_read(tuple(sorted(given.items()))))


@cache
def _read(given: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    values = dict(given)
    found: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(lambda each: values.get(each[1], each[2]), (ROOT / "compose.yaml").read_text()))
    return found
