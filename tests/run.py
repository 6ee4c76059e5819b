"""Runs the layers in order, with a time stamp each, and closes with the counts per layer. `python tests/run.py [LAYER …]`; the exit code is 0 only if all passed."""

import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[1]
LAYERS = ("architecture", "unit", "checker_histories", "deployment", "conformance", "integration", "acceptance", "chaos")
GATES = {
    "ruff": [sys.executable, "-m", "ruff", "check", "."],
    "mypy": [sys.executable, "-m", "mypy"],
}


def counts(report: Path) -> dict[str, int]:
    suites = [suite.attrib for suite in ET.parse(report).iter("testsuite")] if report.exists() else []
    total = {key: sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")}
    failed = total["failures"] + total["errors"]
    return {"passed": total["tests"] - failed - total["skipped"], "failed": failed, "skipped": total["skipped"]}


def main(layers: list[str]) -> int:
    started = time.monotonic()
    reports = ROOT / ".dev" / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    lines, sums, bad = [], dict.fromkeys(("passed", "failed", "skipped"), 0), False

    def stage(name: str, argv: list[str]) -> int:
        print(f"--- {time.strftime('%H:%M:%S')} {name} (+{time.monotonic() - started:.0f} s)", flush=True)
        return subprocess.run(argv, cwd=ROOT, check=False).returncode

    if not layers:
        for name, argv in GATES.items():
            bad |= stage(name, argv) != 0
    for layer in layers or LAYERS:
        if not any((ROOT / "tests" / layer).glob("test_*.py")):
            continue
        report, began = reports / f"{layer}.xml", time.monotonic()
        report.unlink(missing_ok=True)
        code = stage(layer, [sys.executable, "-m", "pytest", f"tests/{layer}", "-q", f"--junitxml={report}", "-o", "junit_family=xunit2"])
        told = counts(report)
        bad |= code != 0
        lines.append(f"{layer:<14}{told['passed']:>6} passed {told['failed']:>4} failed {told['skipped']:>4} skipped {time.monotonic() - began:>7.0f} s")
        for key in sums:
            sums[key] += told[key]
    print(f"--- {time.strftime('%H:%M:%S')} done in {time.monotonic() - started:.0f} s")
    print("\n".join(lines))
    print(f"{sums['passed']} passed, {sums['failed']} failed" + (f", {sums['skipped']} skipped" if sums["skipped"] else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
