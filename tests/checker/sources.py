"""Is the evidence whole? Each source against what the manifest promised of it, and each planned fault against its proof."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from tests.checker.evidence import Evidence

NAMES = ("client", "nemesis", "samples", "journal", "binlog", "tables", "kafka", "groups", "hosts")


@dataclass
class Source:
    records: int = 0
    torn: int = 0
    faults: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def complete(self) -> bool:
        return not self.faults


def check(evidence: Evidence) -> dict[str, Source]:
    """After the walk. A source that is not there at all is incomplete, except a journal that was never promised."""
    found = {name: Source() for name in NAMES}
    for name, files in evidence.lines.items():
        for each in files:
            found[name].records += each.count
            found[name].torn += each.torn
            found[name].faults += each.faults
    for name in ("client", "nemesis", "samples"):
        if not evidence.lines[name]:
            found[name].faults.append(f"there is no {name}.jsonl")
    _journal(evidence, found["journal"])
    _binlog(evidence, found["binlog"])
    _tables(evidence, found["tables"])
    _kafka(evidence, found["kafka"], found["groups"])
    if not evidence.manifest.get("hosts"):
        found["hosts"].faults.append("no host was looked at")
    for host in evidence.manifest.get("hosts") or ():
        if not (evidence.run / "hosts" / host / "control.jsonl").exists():
            found["hosts"].faults.append(f"hosts/{host}/control.jsonl was not collected")
    return found


def _journal(evidence: Evidence, source: Source) -> None:
    if not evidence.manifest.get("journal"):
        source.note = "not kept"
        return
    lives, told = len(evidence.seen.get("journal.lives", ())), evidence.manifest.get("lives", 0)
    if lives < told or not lives:
        source.faults.append(f"{lives} lives have a journal, {told} processes were started")


def _binlog(evidence: Evidence, source: Source) -> None:
    files, end = evidence.seen.get("binlog.files") or [], evidence.seen.get("binlog.end")
    told = evidence.manifest.get("binlog") or {}
    if not files or not told:
        source.faults.append("there is no binary log")
        return
    numbers = [int(name.rsplit(".", 1)[-1]) for name in files]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        source.faults.append(f"binary log files are missing between {files[0]} and {files[-1]}: {len(files)} read")
    if (files[0], files[-1]) != (told["from"][0], told["to"][0]):
        source.faults.append(f"read {files[0]} to {files[-1]}, the run wrote {told['from'][0]} to {told['to'][0]}")
    if end is None:
        source.faults.append("the decoded binary log is cut: no end mark")
    elif end != evidence.seen["binlog.counted"]:
        source.faults.append(f"the decoded binary log is cut: {evidence.seen['binlog.counted']} there, {end} written")


def _tables(evidence: Evidence, source: Source) -> None:
    there = evidence.seen.get("tables", {})
    for table, told in (evidence.manifest.get("tables") or {"tasks": 0}).items():
        said, counted = there.get(table, (None, -1))
        if not said == counted == told:
            source.faults.append(f"table {table}: {counted} rows there, {told} in the snapshot")


def _kafka(evidence: Evidence, source: Source, groups: Source) -> None:
    there = evidence.seen.get("kafka", {})
    for topic, parts in (evidence.manifest.get("topics") or {"(none)": {}}).items():
        for isolation in ("committed", "uncommitted"):
            end = there.get((topic, isolation))
            if end is None:
                source.faults.append(f"{topic} ({isolation}) was not read, or is cut")
                continue
            short = [part for part, (low, high) in parts.items() if end.get(part, [1, -1])[0] > low or end.get(part, [1, -1])[1] < high]
            if short:
                source.faults.append(f"{topic} ({isolation}): partitions {', '.join(short[:5])} were not read from their start to the noted end")
            if any(low > 0 for low, _ in parts.values()) and topic not in evidence.renewed:
                source.faults.append(f"{topic} does not begin at its beginning any more")
    groups.records = sum(len(parts) for topics in evidence.committed.values() for parts in topics.values())
    if not (evidence.run / "kafka/groups.json").exists():
        groups.faults.append("kafka/groups.json was not collected")


@dataclass
class Faults:
    """Planned and proven, by kind; `unproven`: fault → why, with the promises it was planned for (empty: all).

    `at_least`: how many a plan of faults by chance asks for, {"faults": 600, "kinds": 20}; those that found nothing to strike are then only not counted.
    """

    planned: Counter[str] = field(default_factory=Counter)
    proven: Counter[str] = field(default_factory=Counter)
    unproven: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    at_least: dict[str, int] = field(default_factory=dict)

    def for_promise(self, number: str) -> list[str]:
        if not self.at_least:
            return [why for why, promises in self.unproven if not promises or number in promises]
        found = {"faults": self.proven.total(), "kinds": len(+self.proven)}
        return [f"{found[what]} {what} were proven, {least} asked" for what, least in self.at_least.items() if found[what] < least]


def faults(plan: dict[str, Any], lines: list[Any]) -> Faults:
    """A fault without its three lines, or with a proof that is empty, has not happened."""
    said: dict[str, dict[str, Any]] = defaultdict(dict)
    for line in lines:
        if str(line.get("kind", "")).startswith("fault."):
            said[str(line.get("fault"))][line["kind"]] = line
    found = Faults(at_least=dict(plan.get("proven_at_least") or {}))
    planned = {str(each["fault"]): each for each in plan.get("faults") or ()}
    for name in [*planned, *(each for each in said if each not in planned)]:
        one, lines_of = planned.get(name, {}), said[name]
        kind = str(one.get("kind") or lines_of.get("fault.start", {}).get("fault_kind", "?"))
        found.planned[kind] += 1
        lacking = [each for each in ("fault.start", "fault.proof", "fault.end") if each not in lines_of]
        if "fault.proof" in lines_of and not lines_of["fault.proof"].get("evidence"):
            lacking.append("evidence in its proof")
        if lacking:
            found.unproven.append((f"{kind} {name}: no {', no '.join(lacking)}", frozenset(one.get("for") or ())))
        else:
            found.proven[kind] += 1
    return found
