"""The one page: each promise with its verdict and how often it was exercised, each fault planned and proven, take-over times, counts, and how to repeat it. Also as JSON.

A promise is BROKEN if any part of the run broke it, HELD if a part that requires it found it held, UNDECIDED otherwise.
"""

import json
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.dev.servers import ROOT
from tests.chaos.outcome import Outcome
from tests.chaos.rig import commit

Document = dict[str, Any]
REPORTS = ROOT / ".dev" / "reports"


def gather(lane: str, seed: int, outcomes: Sequence[Outcome], *, repeat: str) -> Document:
    parts = [_part(each) for each in outcomes]
    return {
        "lane": lane, "seed": seed, "repeat": repeat, "commit": commit(), "machine": f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}",
        "load": [round(each, 1) for each in os.getloadavg()], "seconds": round(sum(each.seconds for each in outcomes)), "parts": parts,
        "promises": _promises(parts), "faults": _summed(parts, "faults"), "takeovers": [each["takeovers"] for each in parts if each["takeovers"]],
        "counts": _added(parts),
        "points": next((each["points"] for each in parts if each["points"]), {}),
        "failed": [f"{each['part']}: {case['name']}: {case['why']}" for each in parts for case in each["cases"] if case["why"]],
    }  # fmt: skip


def _part(outcome: Outcome) -> Document:
    verdict, takeovers, unmet, points = (_json(outcome.run / name) for name in ("verdict.json", "takeovers.json", "unmet.json", "points.json"))
    return {
        "part": outcome.part, "run": str(outcome.run.relative_to(ROOT)), "seconds": round(outcome.seconds), "exit": outcome.verdict, "cases": [vars(each) for each in outcome.cases],
        "promises": verdict.get("promises", {}), "faults": verdict.get("faults", {}), "unproven": verdict.get("unproven", []), "counts": verdict.get("counts", {}), "takeovers": takeovers, "points": points, "figures": _text(outcome.run / "figures.md"), **(unmet or {}),
    }  # fmt: skip


def _json(path: Path) -> Document:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _text(path: Path) -> str:
    """What a part measured and nobody judges, as it wants to be shown; empty for most."""
    return path.read_text() if path.exists() else ""


def _promises(parts: Sequence[Document]) -> Document:
    found: Document = {}
    for name in sorted({name for part in parts for name in part["promises"]}, key=lambda each: int(each[1:])):
        told = [part["promises"][name] for part in parts if name in part["promises"]]
        verdicts = {each["verdict"] for each in told}
        required = [each for each in told if each.get("required")]
        held = any(each["verdict"] == "HELD" for each in required or told)
        exercised: Counter[str] = sum((Counter(each.get("exercised", {})) for each in told), Counter())
        verdict = "BROKEN" if "BROKEN" in verdicts else "HELD" if held and all(each["verdict"] == "HELD" for each in required) else "UNDECIDED"
        found[name] = {"title": told[0].get("title", ""), "verdict": verdict, "required": bool(required), "exercised": dict(exercised), "reasons": [each for one in told for each in one.get("reasons", [])][:5]}
    return found


def _summed(parts: Sequence[Document], key: str) -> Document:
    found: dict[str, Counter[str]] = {}
    for part in parts:
        for kind, counts in part[key].items():
            found.setdefault(kind, Counter()).update(counts)
    return {kind: dict(counts) for kind, counts in sorted(found.items(), key=lambda each: (len(each[0]), each[0]))}


# ---- for people -----------------------------------------------------------------------------------------------------------------------------------------
def page(found: Mapping[str, Any]) -> str:
    lines = [f"# Chaos, lane {found['lane']}: {'passed' if passed(found) else 'FAILED'}", ""]
    lines += _table("promise", ["verdict", "exercised"], [(f"{name} {each['title']}", f"{each['verdict']}{'' if each['required'] else ' (not required)'}", _counts(each["exercised"])) for name, each in found["promises"].items()])
    lines += _table("fault", ["planned", "proven"], [(kind, each.get("planned", 0), each.get("proven", 0)) for kind, each in found["faults"].items()])
    lines += _table("take-over, s", ["kills", "n", "p50", "p99", "max", "out of the group", "assigned", "claimed"], [_takeover(each) for each in found["takeovers"]])
    lines += [f"**{each['part']}** {each['figures']}" for each in found["parts"] if each["figures"]]
    lines += [f"Counts: {_counts(found['counts'])}.", ""]
    if found["points"]:
        points = found["points"]
        lines += [f"Fail points: {points['known']} in the catalogue, {points['reached']} reached, {points['struck']} struck with four proofs; parts that do not exist yet: {points['absent']}.", ""]
    lines += [f"Not proven, so not counted: {each}" for part in found["parts"] for each in part["unproven"]]
    lines += [f"Failed: {each}" for each in found["failed"]] + [f"Not as planned: {each}" for part in found["parts"] for each in part.get("unmet", [])[:10] + part.get("bugs", [])[:10]]
    lines += ["", f"Seed {found['seed']}, commit {found['commit']}, {found['machine']}, load {found['load']}, {found['seconds']} s. Repeat it: `{found['repeat']}`. Evidence:"]
    lines += [f"- {each['part']}: `{each['run']}` ({each['seconds']} s, checker {each['exit']})" for each in found["parts"]]
    return "\n".join(lines) + "\n"


def _takeover(told: Mapping[str, Any]) -> tuple[Any, ...]:
    summary = told["summary"]
    return told["victim"], *(_seconds(summary.get(key)) for key in ("kills", "n", "p50", "p99", "max", "out_of_group", "assigned", "claimed"))


def _seconds(value: Any) -> Any:
    return f"{value:.2f}" if isinstance(value, float) else value if value is not None else "–"


def _added(parts: Sequence[Document]) -> dict[str, int]:
    """Zeros stay: that there were no rescues is told, too."""
    found = Counter[str]()
    for each in parts:
        found.update({key: value for key, value in each["counts"].items() if isinstance(value, int)})
    return dict(found)


def _counts(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{value:,} {key.replace('_', ' ')}" for key, value in counts.items() if isinstance(value, int)) or "–"


def _table(first: str, others: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    if not rows:
        return []
    head = [f"| {' | '.join([first, *others])} |", f"|---|{'---|' * len(others)}"]
    return [*head, *(f"| {' | '.join(str(each) for each in row)} |" for row in rows), ""]


def passed(found: Mapping[str, Any]) -> bool:
    return code(found) == 0


def code(found: Mapping[str, Any]) -> int:
    """1: a promise broken, a launch not as planned, a case failed. 2: undecided. 0: all well."""
    exits = {each["exit"] for each in found["parts"]}
    if found["failed"] or 1 in exits or any(each["verdict"] == "BROKEN" for each in found["promises"].values()):
        return 1
    return 2 if exits - {0} or not found["parts"] else 0


def write(found: Mapping[str, Any]) -> str:
    """The page, also left in .dev/reports."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    (REPORTS / "chaos.json").write_text(json.dumps(found, indent=1, default=str))
    text = page(found)
    (REPORTS / "chaos.md").write_text(text)
    return text


def tally(found: Mapping[str, Any]) -> tuple[int, int]:
    """(passed, failed): cases, and each promise a part requires."""
    cases = [case["why"] for part in found["parts"] for case in part["cases"]]
    required = [each["verdict"] != "HELD" for each in found["promises"].values() if each["required"] or each["verdict"] == "BROKEN"]
    unmet = sum(len(part.get("unmet", [])) + len(part.get("bugs", [])) for part in found["parts"])
    failed = sum(map(bool, cases)) + sum(required) + unmet
    return len(cases) + len(required) - sum(map(bool, cases)) - sum(required), failed
