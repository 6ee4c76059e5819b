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
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Any

from app.dev.servers import ROOT
from tests.chaos import every_point, headline, random_run, report, rolling
from tests.chaos.outcome import Case, Outcome, Undecidable, say
from tests.chaos.rig import RUNS, commit, private_servers
from tests.chaos.victims import VICTIMS

Document = dict[str, Any]
PARTS: dict[str, Any] = {"points": every_point, "headline": headline, "random": random_run, "rolling": rolling}  # Each with `rig`, and `run` on it.
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


class Stage:
    """A plan's run directory, servers and system, its own, on the database it names. Raised in the background: the next part's while this one is judged, which leaves a core idle."""

    def __init__(self, plan: Document, database: str) -> None:
        self.plan, self.part = plan, PARTS[plan["kind"]]
        self.database = plan.setdefault("database", database)
        self.directory = RUNS  # Named by the time at which it begins.
        self._stack, self._pool = ExitStack(), ThreadPoolExecutor(1)
        self._rig: Future[Any] | None = None

    def begin(self) -> Future[Any]:
        if self._rig is None:
            self.directory = RUNS / "runs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{self.plan['kind']}-{self.plan['seed']}"
            say(f"{self.plan['kind']} on {self.database}, seed {self.plan['seed']}: {self.directory.relative_to(ROOT)}")
            self._rig = self._pool.submit(self._raise)
        return self._rig

    def _raise(self) -> Any:
        native = self._stack.enter_context(private_servers(self.database))
        return self._stack.enter_context(self.part.rig(self.directory, native, self.plan, kind=self.database))

    def carry_out(self, when_healed: Callable[[], object]) -> Outcome:
        """A part that breaks down is an outcome, too: it failed."""
        raised, began, kind = self.begin(), time.monotonic(), self.plan["kind"]
        try:
            rig = raised.result()
            rig.when_healed = when_healed
            outcome = self.part.run(rig, say=say)
        except Undecidable as why:
            say(f"UNDECIDED: {kind}: {why}")
            self.directory.mkdir(parents=True)
            (self.directory / "figures.md").write_text(f"UNDECIDED: {why}.\n")
            outcome = Outcome(kind, self.directory)
        except Exception as fault:
            traceback.print_exc()
            outcome = Outcome(kind, self.directory, 1, cases=[Case("the part runs to its end", f"{type(fault).__name__}: {fault}"[:1000])])
        outcome.seconds = time.monotonic() - began
        return outcome

    def close(self) -> None:
        self._pool.shutdown()
        self._stack.close()


def carry_out(drawn: Sequence[Document], *, database: str) -> list[Outcome]:
    """One after the other; at any time at most two stages stand."""
    outcomes = []
    with ExitStack() as interrupted:
        stages = [Stage(plan, database) for plan in drawn]
        for stage in stages:
            interrupted.callback(stage.close)
        for stage, following in zip_longest(stages, stages[1:]):
            outcomes.append(stage.carry_out(following.begin if following else lambda: None))
            stage.close()
            kind, failed = stage.plan["kind"], outcomes[-1].failed
            say(f"{kind}: checker {outcomes[-1].verdict}, {len(outcomes[-1].cases) - len(failed)} cases passed, {len(failed)} failed")
    return outcomes


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
