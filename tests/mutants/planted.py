"""The planted mistakes: one patch each, and what expected.toml says of it. A patch is kept true by `faults`: it applies to this tree, compiles, is small, and changes something.

Keys of expected.toml, by a patch's number: `mistake`, `breaks` (the promises of its row), `layers`, `must` (the promise that layer C must find BROKEN), and how C provokes it:
`part`, a part of the chaos suite by its command line; or `arm`, a small run of tests/mutants/provoked.py with those fail points, with the keys that page explains.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
LINES_MAX = 15
LAYERS = "UISMC"


@dataclass(frozen=True)
class Planted:
    patch: Path
    told: dict[str, Any]

    @property
    def number(self) -> str:
        return self.patch.name.partition("-")[0]

    @cached_property
    def text(self) -> str:
        return self.patch.read_text()

    @property
    def files(self) -> list[str]:
        return re.findall(r"(?m)^\+\+\+ b/(.+)$", self.text)

    @property
    def lines(self) -> int:
        """Removed and added."""
        return len(re.findall(r"(?m)^(?:-(?!-- a/)|\+(?!\+\+ b/))", self.text))


def all_of_them() -> list[Planted]:
    told = tomllib.loads((HERE / "expected.toml").read_text())
    return [Planted(patch, told.get(patch.name.partition("-")[0], {})) for patch in sorted(HERE.glob("*.patch"))]


def some(numbers: Sequence[str]) -> list[Planted]:
    """By number (`22b`), by row (`22`), or all."""
    return [each for each in all_of_them() if not numbers or {each.number, each.number.rstrip("abc"), each.number.rstrip("abc").lstrip("0")} & set(numbers)]


def apply(planted: Planted, copy: Path) -> str:
    """Into a copy that lies where git knows no repository, or is told so; what went wrong, or nothing."""
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(copy.parent)}
    ran = subprocess.run(["git", "apply", "-p1", str(planted.patch)], cwd=copy, env=environment, check=False, capture_output=True, text=True)
    return ran.stderr.strip()


def faults(planted: Planted, directory: Path) -> list[str]:
    """What is wrong with a patch; `directory`: where the files it touches may be copied to."""
    found = [f"expected.toml says no {key}" for key in ("mistake", "breaks", "layers", "must") if not planted.told.get(key)]
    found += [] if "part" in planted.told or "arm" in planted.told else ["expected.toml does not say how it is provoked"]
    if not 0 < planted.lines <= LINES_MAX:
        found.append(f"{planted.lines} changed lines, 1 to {LINES_MAX} are allowed")
    for each in planted.files:
        (directory / each).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / each, directory / each)
    refused = apply(planted, directory)
    return [*found, f"does not apply: {refused}"] if refused else found + [fault for each in planted.files for fault in _compiled(directory / each, ROOT / each)]


def _compiled(changed: Path, original: Path) -> list[str]:
    try:
        tree = ast.parse(changed.read_text())
    except SyntaxError as fault:
        return [f"{original.relative_to(ROOT)} does not compile: {fault}"]
    if ast.dump(tree) == ast.dump(ast.parse(original.read_text())):
        return [f"{original.relative_to(ROOT)} says the same as before"]
    ran = subprocess.run([sys.executable, "-m", "ruff", "check", "-q", "--isolated", "--select", "F821,F823,E9", str(changed)], check=False, capture_output=True, text=True)
    return [ran.stdout.strip()[:300]] if ran.returncode else []


def strangers() -> list[str]:
    """Entries of expected.toml without a patch."""
    patches = {each.number for each in all_of_them()}
    return sorted(set(tomllib.loads((HERE / "expected.toml").read_text())) - patches)
