"""`python -m tests.chaos LANE`: commit (every point once, the headline, a minute of random nemeses), hour, night, one part alone, or `replay RUN`.

Prints progress with time stamps and one page at the end, left in .dev/reports/chaos.md; the last line is `N passed, N failed`. Exit: 0 all well, 1 something broken, 2 undecided.
"""

import argparse
import json
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from app.dev.servers import ROOT, Native
from tests.chaos import every_point, headline, random_run, report, rolling
from tests.chaos.outcome import Case, Outcome, say
from tests.chaos.rig import RUNS, commit, private_servers
from tests.chaos.victims import VICTIMS

Document = dict[str, Any]
PARTS: dict[str, Callable[..., Outcome]] = {"points": every_point.run, "headline": headline.run, "random": random_run.run, "rolling": rolling.run}
DATABASES = ("mysql", "mariadb")
KEPT_RUNS = 20
NIGHT_ROUNDS = {"scheduler": 268, "generator": 30, "relay": 30, "executor": 30, "watcher": 10, "sink": 30}  # Of eight of the scheduler's two are freezes: 201 kills.


def plans(lane: str, seed: int, given: argparse.Namespace) -> list[Document]:
    points = [every_point.draw(seed)]
    match lane:
        case "points":
            return [every_point.draw(seed, mode=given.mode, hit=given.hit, only=given.only)]
        case "headline":
            return [headline.draw(seed, victim=each, rounds=given.rounds) for each in given.victim]
        case "random":
            return [random_run.draw(seed, seconds=given.seconds, kinds=given.only)]
        case "rolling":
            return [rolling.draw(seed), rolling.draw(seed, mixed=True)]
        case "commit":
            return [*points, headline.draw(seed), random_run.draw(seed, seconds=60.0)]
        case "hour":
            return [random_run.draw(seed, seconds=3600.0)]
        case "night":
            modes = [every_point.draw(seed + n, mode=mode) | {"database": database} for database in DATABASES for n, mode in enumerate(every_point.MODES)]
            kills = [headline.draw(seed, victim=victim, rounds=rounds) for victim, rounds in NIGHT_ROUNDS.items()]
            alone = [random_run.draw(seed + n, seconds=180.0, kinds=[kind]) for n, kind in enumerate(random_run.NEMESES)]
            return [*modes, *kills, *alone, random_run.draw(seed, seconds=3600.0)]
    raise SystemExit(f"there is no lane {lane}")


def carry_out(drawn: Sequence[Document], *, database: str) -> list[Outcome]:
    """Each plan in a run directory of its own, on servers of its own, on the database it names."""
    outcomes = []
    for plan in drawn:
        kind = plan.setdefault("database", database)
        directory = RUNS / "runs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{plan['kind']}-{plan['seed']}"
        say(f"{plan['kind']} on {kind}, seed {plan['seed']}: {directory.relative_to(ROOT)}")
        with private_servers(kind) as native:
            outcomes.append(_one(plan, directory, native, kind))
        say(f"{plan['kind']}: checker {outcomes[-1].verdict}, {len(outcomes[-1].cases) - len(outcomes[-1].failed)} cases passed, {len(outcomes[-1].failed)} failed")
    return outcomes


def _one(plan: Document, directory: Path, native: Native, kind: str) -> Outcome:
    """A part that breaks down is an outcome, too: it failed."""
    began = time.monotonic()
    try:
        return PARTS[plan["kind"]](directory, native, plan, say=say, kind=kind)
    except Exception as fault:
        traceback.print_exc()
        return Outcome(plan["kind"], directory, 1, time.monotonic() - began, [Case("the part runs to its end", f"{type(fault).__name__}: {fault}"[:1000])])


def forget_old_runs() -> None:
    kept = sorted((RUNS / "runs").glob("*"), key=lambda each: each.stat().st_mtime)
    for each in kept[:-KEPT_RUNS]:
        shutil.rmtree(each, ignore_errors=True)


def seed_of_commit() -> int:
    found = commit()
    return int(found[:7], 16) if found != "unknown" else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("lane", choices=["commit", "hour", "night", "points", "headline", "random", "rolling", "replay"])
    parser.add_argument("run", nargs="?", type=Path, help="replay: the run directory whose plan is carried out again")
    parser.add_argument("--seed", type=int, default=None, help="default: the commit's")
    parser.add_argument("--database", default="mysql", choices=DATABASES)
    parser.add_argument("--times", type=int, default=1, help="replay: how often; prints the hit rate")
    parser.add_argument("--mode", default="crash", help="points: what they do")
    parser.add_argument("--hit", type=int, default=1, help="points: at which hit")
    parser.add_argument("--only", nargs="*", default=[], help="points or nemeses to take")
    parser.add_argument("--victim", nargs="+", default=["scheduler"], choices=VICTIMS, help="headline: who is struck, one after the other")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0, help="random: how long")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else seed_of_commit()
    drawn = [json.loads((given.run / "plan.json").read_text())] * given.times if given.lane == "replay" else plans(given.lane, seed, given)
    forget_old_runs()
    outcomes = carry_out(drawn, database=given.database)
    repeat = f"python -m tests.chaos {' '.join(sys.argv[1:])}" + ("" if given.seed is not None or given.lane == "replay" else f" --seed {seed}")
    found = report.gather(given.lane, seed, outcomes, repeat=repeat)
    print(report.write(found))
    if given.lane == "replay":
        print(f"failed {sum(1 for each in outcomes if each.verdict or each.failed)} of {len(outcomes)} times")
    passed, failed = report.tally(found)
    print(f"{passed} passed, {failed} failed")
    return report.code(found)


if __name__ == "__main__":
    sys.exit(main())
