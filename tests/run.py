"""Runs every gate and layer, and closes with the counts per layer. `python tests/run.py [LAYER …]`; the exit code is 0 only if all passed.

Tests of whole systems mostly wait. So the work is cut into parts (a database's half of a layer; who kills schedulers, who kills the others), each with servers of its own, and four run
at once, in the order of WAVES: what fails soonest, then the longest. Those that time a take-over come last, with nothing else beside them. What a part prints is shown when it has ended; every minute, how far each is.
"""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[1]
REPORTS = ROOT / ".dev" / "reports"
DATABASES = "AIRAVATA_TEST_DATABASES"
PROGRESS_SECONDS = 60.0


@dataclass(frozen=True)
class Part:
    """`words` select its tests; those of a gate are the whole command. `database`: the only one it runs on; empty: all."""

    layer: str
    which: str = ""
    words: tuple[str, ...] = ()
    database: str = ""
    gate: bool = False

    @property
    def name(self) -> str:
        return f"{self.layer} {self.which}".strip()

    @property
    def report(self) -> Path:
        return REPORTS / f"{self.name.replace(' ', '-')}.xml"

    @property
    def log(self) -> Path:
        return self.report.with_suffix(".log")

    def begin(self) -> "subprocess.Popen[bytes]":
        told = ("-q", "--durations=10", "--durations-min=5", f"--junitxml={self.report}", "-o", "junit_family=xunit2")
        words = self.words if self.gate else ("pytest", f"tests/{self.layer}", *told, *self.words)
        self.report.unlink(missing_ok=True)
        with self.log.open("wb") as out:
            environment = {**os.environ, **({DATABASES: self.database} if self.database else {})}
            return subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, env=environment, stdout=out, stderr=out)


SCHEDULERS = "scheduler_killed or instruments or judged or frozen_between or restored or generator_killed"
WAVES: tuple[tuple[int, list[Part]], ...] = (  # How many at once, and what.
    (4, [
        Part("ruff", words=("ruff", "check", "."), gate=True), Part("mypy", words=("mypy",), gate=True), Part("architecture"), Part("unit"), Part("deployment"), Part("checker_histories"),
        Part("integration", "mysql", ("-m", "database"), "mysql"), Part("integration", "mariadb", ("-m", "database"), "mariadb"), Part("integration", "others", ("-m", "not database"), "mysql"),
        Part("acceptance", "mysql", database="mysql"), Part("acceptance", "mariadb", ("-m", "database"), "mariadb"),
        Part("observability", "prometheus", ("-k", "prometheus")), Part("observability", "others", ("-k", "not prometheus")), Part("conformance"),
    ]),
    (2, [Part("chaos", "others", ("-k", f"not ({SCHEDULERS})")), Part("chaos", "schedulers", ("-k", SCHEDULERS))]),
)  # fmt: skip


@dataclass
class Run:
    """A run under way."""

    began: float
    bad: bool = False

    def say(self, text: str) -> None:
        print(f"--- {time.strftime('%H:%M:%S')} +{time.monotonic() - self.began:.0f} s  {text}", flush=True)

    def together(self, parts: list[Part], at_once: int) -> None:
        """All of them, in their order, so many at once."""
        waiting, running, told = list(parts), dict[Part, "subprocess.Popen[bytes]"](), time.monotonic()
        while waiting or running:
            while waiting and len(running) < at_once:
                running[waiting[0]] = waiting[0].begin()
                self.say(f"{waiting.pop(0).name} begins")
            for part in [each for each, process in running.items() if process.poll() is not None]:
                code = running.pop(part).returncode
                self.bad |= code != 0
                print(part.log.read_text(errors="replace"), end="")
                self.say(f"{part.name} ended with {code}")
            if time.monotonic() - told >= PROGRESS_SECONDS:
                told = time.monotonic()
                self.say("under way: " + ", ".join(f"{each.name} {how_far(each)}" for each in running))
            time.sleep(0.2)


def how_far(part: Part) -> str:
    """The last percentage that pytest wrote."""
    written = part.log.read_text(errors="replace")
    return written.rpartition("[")[2].partition("]")[0].strip() if "[" in written else "…"


def counts(parts: list[Part]) -> dict[str, int]:
    suites = [suite.attrib for each in parts if each.report.exists() for suite in ET.parse(each.report).iter("testsuite")]
    total = {key: sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")}
    failed = total["failures"] + total["errors"]
    return {"passed": total["tests"] - failed - total["skipped"], "failed": failed, "skipped": total["skipped"]}


def chosen(layers: list[str]) -> list[tuple[int, list[Part]]]:
    """What a run of these layers consists of. Where the caller names the databases, a layer is not cut."""
    known = {each.layer: each.gate for _, parts in WAVES for each in parts}
    whole = DATABASES in os.environ
    waves = [(at_once, [each for each in parts if (not layers or each.layer in layers) and not (whole and each.which)]) for at_once, parts in WAVES]
    rest = [Part(layer) for layer in layers or [each for each, gate in known.items() if not gate] if not any(part.layer == layer for _, parts in waves for part in parts)]
    return [*waves, *((1, [each]) for each in rest)]


def main(layers: list[str]) -> int:
    REPORTS.mkdir(parents=True, exist_ok=True)
    run, waves = Run(time.monotonic()), chosen(layers)
    for at_once, parts in waves:
        run.together(parts, at_once)
    run.say("done")
    sums = dict.fromkeys(("passed", "failed", "skipped"), 0)
    for layer in dict.fromkeys(each.layer for _, parts in waves for each in parts if not each.gate):
        told = counts([each for _, parts in waves for each in parts if each.layer == layer])
        print(f"{layer:<18}{told['passed']:>6} passed {told['failed']:>4} failed {told['skipped']:>4} skipped")
        for key in sums:
            sums[key] += told[key]
    print(f"{sums['passed']} passed, {sums['failed']} failed" + (f", {sums['skipped']} skipped" if sums["skipped"] else ""))
    return 1 if run.bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
