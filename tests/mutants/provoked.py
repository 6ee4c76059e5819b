"""`python -m tests.mutants.provoked NUMBER [--seed N]`: the small run that provokes one planted mistake, in the tree it is started in; the checker judges it.

Keys of expected.toml: `arm` (component or component/copy → entries of AIRAVATA_FAILPOINTS), `again_seconds` (armed anew, so that a point strikes again), `wake_seconds` (who
stopped itself goes on after that), `kill` (a copy killed once, when the points are armed), `weights`, `count`, `seconds` and `lasts` of the workload, `settings` of the system.
Everything is healed before the run ends; without the mistake it must end with every promise held. Last line: the run directory.
"""

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.chaos import workload
from tests.chaos.rig import RUNS, Rig, private_servers
from tests.mutants.planted import some

Recipe = Mapping[str, Any]
GRAPHS = {"diamond": 0.4, "chain": 0.3, "layered": 0.3}
SMALL = {"partitions": 12, "placement_width": 4}


def draw(seed: int, recipe: Recipe) -> dict[str, Any]:
    plan = workload.draw(seed, count=recipe.get("count", 40), seconds=recipe.get("seconds", 20.0), weights=recipe.get("weights", GRAPHS))
    for each in plan["launches"]:
        each["repeat_after"] = []
        if each["application"] == "effect" and "lasts" in recipe:
            each["inputs"]["seconds"] = recipe["lasts"]
    return plan | {"kind": "provoked", "recipe": dict(recipe), "bad_requests": [], "required": {}}


def arm(rig: Rig, recipe: Recipe) -> None:
    for who, entries in recipe.get("arm", {}).items():
        component, _, copy = who.partition("/")
        rig.arm(component, *entries, copies=[int(copy)] if copy else range(rig.counts[component]))


def heal(rig: Rig, recipe: Recipe) -> None:
    for who in recipe.get("arm", {}):
        rig.disarm(who.partition("/")[0])
    for pid in rig.pids().values():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def provoke(rig: Rig, recipe: Recipe, over: threading.Event) -> None:
    """Until it is over."""
    arm(rig, recipe)
    armed, stopped = time.monotonic(), dict[int, float]()
    if "kill" in recipe:
        rig.strike(recipe["kill"])
        rig.restart(recipe["kill"])
    while not over.wait(0.05):
        now = time.monotonic()
        if now - armed > recipe.get("again_seconds", float("inf")):
            arm(rig, recipe)
            armed = now
        for pid in rig.pids().values():
            if _stopped(pid) and now - stopped.setdefault(pid, now) > recipe.get("wake_seconds", float("inf")):
                os.kill(pid, signal.SIGCONT)
                del stopped[pid]
    heal(rig, recipe)


def _stopped(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
    return False


def run(directory: Path, plan: Mapping[str, Any], *, kind: str) -> int:
    """The checker's exit code, 1 also where a launch did not come to what its plan says."""
    recipe = plan["recipe"]
    with private_servers(kind) as native, Rig(directory, native, dict(plan), kind=kind, **{**SMALL, **recipe.get("settings", {})}) as rig:
        over, began = threading.Event(), time.monotonic()
        provoker = threading.Thread(target=provoke, args=(rig, recipe, over), daemon=True)
        provoker.start()

        def launch(each: Mapping[str, Any]) -> str:
            time.sleep(max(0.0, began + each["at"] - time.monotonic()))
            return rig.launch(each)

        with ThreadPoolExecutor(4) as clients:
            launched = dict(zip(clients.map(launch, plan["launches"]), plan["launches"], strict=True))
        time.sleep(max(0.0, began + recipe.get("seconds", 20.0) + recipe.get("wake_seconds", 0.0) - time.monotonic()))
        over.set()
        provoker.join(60.0)
        return rig.finish(launched)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.provoked", description=__doc__)
    parser.add_argument("number")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", default="mysql", choices=["mysql", "mariadb"])
    given = parser.parse_args()
    (planted,) = some([given.number])
    directory = RUNS / "runs" / f"{time.strftime('%Y%m%d-%H%M%S')}-provoked-{given.number}"
    code = run(directory, draw(given.seed, planted.told), kind=given.database)
    print(directory)
    return code


if __name__ == "__main__":
    sys.exit(main())
