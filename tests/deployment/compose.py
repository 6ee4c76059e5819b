"""compose.yaml, as `docker compose` would read it. The judge is `docker compose config` where the client has it; else the library it is made of, built from its Go module
into `.dev/lib` (half a minute, once), which knows the format but no profiles.
"""

import copy
import re
import shutil
import subprocess
from functools import cache
from typing import Any

import yaml

from tests.deployment import locked
from tests.deployment.locked import ROOT

VERSION = "v2.16.2"
BUILT = ROOT / ".dev" / "lib" / "compose-go" / VERSION
PROFILES = ("core", "observe", "cluster", "chaos")
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


@cache
def judge() -> tuple[str, ...]:
    """A command that prints the file as understood, or fails. Raises NotHad."""
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], check=False, capture_output=True, timeout=30).returncode == 0:
        return ("docker", "compose", *(word for each in PROFILES for word in ("--profile", each)), "-f", "{}", "config")
    if not (BUILT / "cmd").exists():
        locked.built("github.com/compose-spec/compose-go/v2/cmd", VERSION, BUILT)
    return (str(BUILT / "cmd"), "{}")


def told() -> str:
    """A line for the end of a run."""
    words = judge()
    return (
        "read by `docker compose config`"
        if words[0] == "docker"
        else f"read by compose-go {VERSION}, since this docker has no compose: each profile by our rules alone"
    )


def asked(path: str) -> "subprocess.CompletedProcess[str]":
    words = judge()
    return subprocess.run([each.replace("{}", path) for each in words], cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)


def file(**given: str) -> dict[str, Any]:
    """With variables replaced, by their defaults unless given; the caller's own copy."""
    return copy.deepcopy(_read(tuple(sorted(given.items()))))


@cache
def _read(given: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    values = dict(given)
    found: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(lambda each: values.get(each[1], each[2]), (ROOT / "compose.yaml").read_text()))
    return found
