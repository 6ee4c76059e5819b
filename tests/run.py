"""Runs the layers in order, with a time stamp each, and closes with the counts per layer. `python tests/run.py [LAYER …]`; the exit code is 0 only if all passed.

What needs no servers runs at once. Layers that mostly wait run in parts at once: one a database, and what asks for none; who kills schedulers beside who kills the others. Each part
has servers of its own.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[1]
WITHOUT_SERVERS = ("unit", "architecture", "checker_histories", "deployment")
GROUPS = (WITHOUT_SERVERS, *((each,) for each in ("conformance", "integration", "acceptance", "observability", "chaos")))
Parts = tuple[tuple[str, list[str]], ...]  # Database, and what to select.
MARIADB = ("mariadb", ["-m", "database"])
SCHEDULERS = "scheduler_killed or instruments or judged or frozen_between"
AT_ONCE: dict[str, Parts] = {
    "integration": (("mysql", ["-m", "database"]), MARIADB, ("mysql", ["-m", "not database"])), "acceptance": (("mysql", []), MARIADB),
    "chaos": (("mysql", ["-k", f"not ({SCHEDULERS})"]), ("mysql", ["-k", SCHEDULERS])),
}  # fmt: skip
DATABASES = "AIRAVATA_TEST_DATABASES"
GATES = {
    "ruff": [sys.executable, "-m", "ruff", "check", "."],
    "mypy": [sys.executable, "-m", "mypy"],
}


def counts(reports: list[Path]) -> dict[str, int]:
    suites = [suite.attrib for report in reports if report.exists() for suite in ET.parse(report).iter("testsuite")]
    total = {key: sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")}
    failed = total["failures"] + total["errors"]
    return {"passed": total["tests"] - failed - total["skipped"], "failed": failed, "skipped": total["skipped"]}


def begin(layer: str, report: Path, *, shown: bool) -> list[tuple["subprocess.Popen[bytes]", Path]]:
    """Its parts, with their reports. The first is `shown` as it goes, the others when they have ended."""
    parts = AT_ONCE.get(layer, ()) if DATABASES not in os.environ else ()
    running: list[tuple[subprocess.Popen[bytes], Path]] = []
    for number, (database, words) in enumerate(parts or (("", []),), 1):
        told = report.with_stem(f"{report.stem}-{number}-{database}") if database else report
        told.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "pytest", f"tests/{layer}", "-q", "--durations=10", "--durations-min=5", f"--junitxml={told}", "-o", "junit_family=xunit2", *words]
        environment = {**os.environ, **({DATABASES: database} if database else {})}
        out = told.with_suffix(".log").open("wb") if running or not shown else None
        running.append((subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=out, stderr=out), told))
    return running


def end(running: list[tuple["subprocess.Popen[bytes]", Path]], *, shown: bool) -> bool:
    """Whether all passed."""
    codes = [each.wait() for each, _ in running]
    for _, told in running[shown:]:
        print(told.with_suffix(".log").read_text(), flush=True)
    return not any(codes)


def main(layers: list[str]) -> int:
    started = time.monotonic()
    reports = ROOT / ".dev" / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    lines, sums, bad = [], dict.fromkeys(("passed", "failed", "skipped"), 0), False

    def stage(name: str) -> None:
        print(f"--- {time.strftime('%H:%M:%S')} {name} (+{time.monotonic() - started:.0f} s)", flush=True)

    for name, argv in GATES.items() if not layers else ():
        stage(name)
        bad |= subprocess.run(argv, cwd=ROOT, check=False).returncode != 0
    for group in [(layer,) for layer in layers] or GROUPS:
        stage(" ".join(group))
        began = time.monotonic()
        running = {layer: begin(layer, reports / f"{layer}.xml", shown=layer == group[0]) for layer in group}
        for layer, parts in running.items():
            bad |= not end(parts, shown=layer == group[0])
            told = counts([report for _, report in parts])
            lines.append(f"{layer:<18}{told['passed']:>6} passed {told['failed']:>4} failed {told['skipped']:>4} skipped {time.monotonic() - began:>7.0f} s")
            for key in sums:
                sums[key] += told[key]
    print(f"--- {time.strftime('%H:%M:%S')} done in {time.monotonic() - started:.0f} s")
    print("\n".join(lines))
    print(f"{sums['passed']} passed, {sums['failed']} failed" + (f", {sums['skipped']} skipped" if sums["skipped"] else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
