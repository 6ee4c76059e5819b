"""`python -m tests.mutants check`: every patch applies, compiles and is small. `python -m tests.mutants kill [NUMBER…]`: each is applied to a copy of the tree, provoked there and
judged; the promise that expected.toml names must be BROKEN. `--healthy`: the same provocations without the mistakes; nothing may be BROKEN. Exit 1: a survivor.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.mutants.planted import ROOT, Planted, all_of_them, apply, faults, some, strangers

COPIES = ROOT / ".dev" / "mutants"


def check() -> int:
    found = [f"{each}: expected.toml names it, there is no patch" for each in strangers()]
    for each in all_of_them():
        with tempfile.TemporaryDirectory() as directory:
            found += [f"{each.patch.name}: {fault}" for fault in faults(each, Path(directory))]
    print("\n".join(found) or f"{len(all_of_them())} patches apply")
    return bool(found)


def copied(planted: Planted, *, healthy: bool) -> Path:
    """The tree as it stands, the patch applied; servers and libraries are shared. A short name: Unix sockets lie below it."""
    copy = COPIES / planted.number
    shutil.rmtree(copy, ignore_errors=True)
    told = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for each in filter(None, told.split("\0")):
        if (ROOT / each).is_file():
            (copy / each).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / each, copy / each)
    (copy / ".dev").mkdir()
    for each in (".dev/lib", ".venv"):
        (copy / each).symlink_to((ROOT / each).resolve())
    refused = "" if healthy else apply(planted, copy)
    if refused:
        raise SystemExit(f"{planted.patch.name}: {refused}")
    return copy


def kill(planted: Planted, *, seed: int, healthy: bool) -> tuple[str, str, str]:
    """Verdict on the promise, its witness, where the evidence lies."""
    copy = copied(planted, healthy=healthy)
    part = planted.told.get("part")
    argv = ["tests.chaos", *part] if part else ["tests.mutants.provoked", planted.number]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    with (copy / ".dev" / "kill.log").open("w") as log:
        subprocess.run([sys.executable, "-m", *argv, "--seed", str(seed)], cwd=copy, env=environment, check=False, stdout=log, stderr=log)
    runs = sorted((copy / ".dev" / "chaos" / "runs").glob("*/verdict.json"))
    if not runs:
        said = (copy / ".dev" / "kill.log").read_text().splitlines()
        return "NO VERDICT", said[-1][:200] if said else "it said nothing", str(copy / ".dev" / "kill.log")
    promises: Mapping[str, Any] = json.loads(runs[-1].read_text())["promises"]
    if healthy:
        broken = [f"{number}: {each['witness']['says']}" for number, each in promises.items() if each["verdict"] == "BROKEN"]
        return "BROKEN" if broken else "HELD", "; ".join(broken), str(runs[-1].parent)
    found = promises[planted.told["must"]]
    others = [number for number, each in promises.items() if each["verdict"] == "BROKEN" and number != planted.told["must"]]
    says = (found.get("witness") or {}).get("says", "; ".join(found["reasons"][:2]))
    return found["verdict"], says + (f" (also broken: {', '.join(others)})" if others else ""), str(runs[-1].parent)


def kill_all(chosen: Sequence[Planted], *, seed: int, healthy: bool) -> int:
    wanted, survivors = "HELD" if healthy else "BROKEN", []
    print("| mutant | must break | verdict | witness | evidence |\n|---|---|---|---|---|", flush=True)
    for each in chosen:
        verdict, witness, where = kill(each, seed=seed, healthy=healthy)
        print(f"| {each.patch.stem} | {each.told['must']} | {verdict} | {witness.replace('|', '/')} | {where} |", flush=True)
        survivors += [each.number] if verdict != wanted else []
    print(f"{len(chosen) - len(survivors)} passed, {len(survivors)} failed" + (f": {', '.join(survivors)}" if survivors else ""))
    return bool(survivors)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("act", choices=["check", "kill"])
    parser.add_argument("numbers", nargs="*", help="22b, 22 (all of a row), nothing for all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--healthy", action="store_true")
    given = parser.parse_args()
    return check() if given.act == "check" else kill_all(some(given.numbers), seed=given.seed, healthy=given.healthy)


if __name__ == "__main__":
    sys.exit(main())
