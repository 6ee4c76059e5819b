"""The page for people, the same for machines, and JUnit for whoever runs the checker. All are written into the run's own directory."""

import json
import math
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from tests.checker.judge import Judgement
from tests.checker.reading import line_of
from tests.checker.verdicts import BROKEN, HELD, Verdict, Witness


def write(judged: Judgement) -> None:
    whole = as_json(judged)
    (judged.run / "verdict.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    (judged.run / "report.md").write_text(page(judged, whole))
    junit(judged, judged.run / "junit.xml")


def quantile(values: Sequence[float], share: float) -> float | None:
    """By nearest rank: a value that was measured; None of nothing."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else None


def as_json(judged: Judgement) -> dict[str, Any]:
    thrown = judged.thrown_away
    return {
        "verdict": judged.verdict,
        "promises": {each.promise.number: _promise(judged.run, each) for each in judged.verdicts},
        "sources": {name: {"complete": each.complete, "records": each.records, "torn": each.torn, "faults": each.faults[:20], "note": each.note} for name, each in judged.sources.items()},
        "faults": {kind: {"planned": planned, "proven": judged.faults.proven[kind]} for kind, planned in sorted(judged.faults.planned.items())},
        "unproven": [why for why, _ in judged.faults.unproven],
        "takeover": {
            component: {"n": len(some), "p50": quantile(some, 0.5) or 0.0, "p99": quantile(some, 0.99) or 0.0, "max": max(some, default=0.0), "thrown_away": thrown.get(component, 0)}
            for component, some in {**{each: [] for each in thrown}, **judged.takeover}.items()
        },
        "counts": {**judged.counts, **(judged.evidence.manifest.get("counters") or {})},
        "seconds": round(judged.seconds, 2),
    }  # fmt: skip


def _promise(run: Path, each: Verdict) -> dict[str, Any]:
    return {
        "title": each.promise.title, "verdict": each.verdict, "required": each.required, "exercised": dict(each.promise.exercised), "at_least": each.at_least, "reasons": each.reasons,
        "broken": each.broken, "witness": _witness(run, each.witness),
    }  # fmt: skip


def _witness(run: Path, witness: Witness | None) -> dict[str, Any] | None:
    if witness is None:
        return None
    return {"says": witness.says, "records": [{"file": place.file, "line": place.line, "text": line_of(run, place)} for place in witness.places]}


def page(judged: Judgement, whole: dict[str, Any]) -> str:
    """One page: three lists side by side, then what is broken or open, then how to repeat it."""
    manifest = judged.evidence.manifest
    promises = [(f"{number} {one['title']}", one["verdict"] + ("" if one["required"] else " (not required)"), _exercised(one)) for number, one in whole["promises"].items()]
    faults = [(kind, str(one["planned"]), str(one["proven"])) for kind, one in whole["faults"].items()]
    times = [(name, str(one["n"]), f"{one['p50']:.2f}", f"{one['p99']:.2f}", f"{one['max']:.2f}") for name, one in whole["takeover"].items()]
    lines = [f"# Chaos: {whole['verdict']}", "", "| promise | verdict | exercised | | fault | planned | proven | | take-over, s | n | p50 | p99 | max |", "|---|---|---:|---|---|---:|---:|---|---|---:|---:|---:|---:|"]
    for promise, fault, took in zip_longest(promises, faults, times):
        lines.append(_row([*(promise or ("",) * 3), "", *(fault or ("",) * 3), "", *(took or ("",) * 5)]))
    for number, one in whole["promises"].items():
        if one["verdict"] == BROKEN:
            lines += ["", f"## {number} {one['title']}: BROKEN, {one['broken']} times", "", one["witness"]["says"], ""]
            lines += [f"- `{each['file']}:{each['line']}` `{each['text'].replace('`', chr(39))}`" for each in one["witness"]["records"]]
    open_ones = [f"- {number}: {'; '.join(one['reasons'][:3])}" for number, one in whole["promises"].items() if one["verdict"] not in {HELD, BROKEN}]
    lines += _section("Undecided", open_ones)
    lines += _section("Not proven, and not counted", [f"- {why}" for why in whole["unproven"]])
    lines += _section("Not run", [f"- {each['kind']}: {each['reason']}" for each in judged.evidence.plan.get("not_run") or ()])
    lines += _section("Sources", [f"- {name}: {each['records']} records, {each['torn']} torn" + "".join(f"; {fault}" for fault in each["faults"][:3]) for name, each in whole["sources"].items()])
    lines += _section("Counts", [f"- {name}: {count}" for name, count in whole["counts"].items()])
    told = {"seed": judged.evidence.plan.get("seed"), **manifest, "judged in": f"{judged.seconds:.1f} s"}
    lines += _section("Run", [f"- {name}: {value}" for name, value in told.items() if isinstance(value, str | int | float) and not isinstance(value, bool)])
    return "\n".join(lines) + "\n"


def _exercised(one: dict[str, Any]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in one["exercised"].items() if count) or "0"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", f"## {title}", "", *lines] if lines else []


def junit(judged: Judgement, path: Path) -> None:
    """A required promise that is not HELD is a failure; one that is not required and undecided is skipped, with its reason."""
    suite = ET.Element("testsuite", name="promises", tests=str(len(judged.verdicts)), time=f"{judged.seconds:.3f}")
    for each in judged.verdicts:
        case = ET.SubElement(suite, "testcase", classname="checker", name=f"{each.promise.number} {each.promise.title}")
        text = each.witness.says if each.witness else "; ".join(each.reasons)
        if each.verdict == BROKEN or (each.required and each.verdict != HELD):
            ET.SubElement(case, "failure", message=f"{each.verdict}: {text}"[:1000])
        elif each.verdict != HELD:
            ET.SubElement(case, "skipped", message=text[:1000])
    suite.set("failures", str(len(suite.findall(".//failure"))))
    suite.set("skipped", str(len(suite.findall(".//skipped"))))
    ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)
