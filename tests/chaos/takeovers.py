"""Take-over times, read from what a headline run left behind: kill → out of the group → assigned → claimed → committed.

For each partition the victim held: the successor's claim, and its first commit if a message waited there before the claim (by its time in the topic). Partitions with nothing to
do are told apart, to their claim. Every time is CLOCK_MONOTONIC of a journal line; the blow's is the harness' own. The verdict on P24 is the checker's, not this table's.
"""

import json
import math
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient

from tests.chaos.lines import read
from tests.chaos.victims import Place, Victim

Document = dict[str, Any]
LOOK_SECONDS = 0.03


class Membership:
    """Asks the broker, over and over, how many members the victim's group has: when the dead one was out of it. Entered just before the blow."""

    def __init__(self, kafka: str, group: str) -> None:
        self.admin, self.group, self.seen = AdminClient({"bootstrap.servers": kafka, "log_level": 0}), group, list[tuple[float, int]]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Membership":
        self._look()
        self._thread.start()
        return self

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        with suppress(Exception):
            found = self.admin.describe_consumer_groups([self.group], request_timeout=2.0)[self.group].result()
            self.seen.append((time.monotonic(), len(found.members)))

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(3.0)

    def left_at(self, struck: float) -> float | None:
        """The first look after the blow that found fewer members than there were."""
        most = max((count for at, count in self.seen if at <= struck), default=0)
        return next((at for at, count in self.seen if at > struck and count < most), None)


def broken_down(run: Path, victim: Victim, rounds: Sequence[Document]) -> list[Document]:
    """One entry a round that was not thrown away: seconds since the blow, and the gaps of its partitions."""
    journals = [line for path in (run / "journal").glob(f"{victim.component}-*.jsonl") for line in read(path)]
    journals.sort(key=lambda line: line["mono"])
    stamps = _Stamps(run)
    ends = [each["struck"] for each in rounds[1:]] + [math.inf]
    return [_one(journals, stamps, victim, each, end) for each, end in zip(rounds, ends, strict=True) if each["good"]]


def _one(journals: Sequence[Document], stamps: "_Stamps", victim: Victim, round_: Document, end: float) -> Document:
    struck, dead = round_["struck"], round_["target"]
    after = [line for line in journals if struck < line["mono"] < end and line["who"] != dead]
    held = {tuple(place) for place in round_["held"]}
    claims: dict[Place, Document] = {}
    committed: dict[Place, float] = {}
    for line in after:
        for place in _claims(line, held):
            claims.setdefault(place, line)
        for place, first in _commits(line, held):
            claim = claims.get(place)
            if claim is not None and (first is None or stamps.at(*place, first) <= _wall(claim)):
                committed.setdefault(place, line["mono"])
    begun = [line["mono"] for line in after if line["kind"] == "unit.begin" and line["unit"].endswith((".claim", "relay.lease"))]
    return {
        "fault": round_["fault"], "how": round_["how"], "mode": round_.get("mode", ""), "share": round_["share"], "lag_ms": round_["lag_ms"],
        "out_of_group": _since(struck, round_.get("left_at")), "assigned": _since(struck, min(begun, default=None)),
        "claimed": _since(struck, max((line["mono"] for line in claims.values()), default=None)),
        "committed": sorted(_since(struck, mono) for mono in committed.values()),
        "idle_claimed": sorted(_since(struck, line["mono"]) for place, line in claims.items() if place not in committed),
        "unclaimed": len(held - set(claims)),
    }  # fmt: skip


def _claims(line: Document, held: set[Place]) -> list[Place]:
    """What of the victim's somebody owns from this line on. A relay owns a shard from R3; a watcher's claim does not say of which host."""
    if line["kind"] == "partition.claim":
        return [place for place in ((line["topic"], line["partition"]),) if place in held]
    if line["kind"] != "unit.end" or line["outcome"] != "committed":
        return []
    return [("shard", each) for each in line.get("shard", ())] if line["unit"] == "relay.settle" else list(held) if line["unit"] == "watch.claim" else []


def _commits(line: Document, held: set[Place]) -> list[tuple[Place, int | None]]:
    """What this line did in places of the victim's, and the first record it was about."""
    if line.get("outcome") != "committed":
        return []
    if line["kind"] == "relay.transaction":
        return [(("shard", line["shard"]), None)]
    if line["kind"] == "unit.end" and line["unit"] == "watch.commit":
        return [(place, None) for place in held]
    return [((topic, part), first) for topic, part, first, *_ in line.get("ranges", ()) if (topic, part) in held]


def _since(struck: float, mono: float | None) -> Any:
    return None if mono is None else round(mono - struck, 3)


def _wall(line: Document) -> float:
    return datetime.fromisoformat(line["wall"]).timestamp()


class _Stamps:
    """When a record was written (the time of its transaction, MySQL's clock), by place."""

    def __init__(self, run: Path) -> None:
        self.run, self.found = run, dict[str, dict[tuple[int, int], float]]()

    def at(self, topic: str, part: int, offset: int) -> float:
        """Infinity for what is not there (a marker)."""
        if topic not in self.found:
            self.found[topic] = {(each["p"], each["o"]): each["ts"] / 1000 for each in self._records(topic)}
        return self.found[topic].get((part, offset), math.inf)

    def _records(self, topic: str) -> Iterator[Document]:
        path = self.run / "kafka" / f"{topic}.committed.jsonl"
        if not path.exists():
            return
        with path.open() as lines:
            yield from (record for line in lines if "o" in (record := json.loads(line)))


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summary(rounds: Sequence[Document]) -> Document:
    """Of all partitions with waiting facts: n, p50, p99, max; and the medians of the parts."""
    gaps = [gap for each in rounds for gap in each["committed"]]
    slowest = [max(each["committed"]) for each in rounds if each["committed"]]
    if not gaps:
        return {"n": 0}
    parts = {name: quantile([each[name] for each in rounds if each[name] is not None] or [math.nan], 0.5) for name in ("out_of_group", "assigned", "claimed")}
    return {"n": len(gaps), "kills": len(rounds), "p50": quantile(gaps, 0.5), "p99": quantile(gaps, 0.99), "max": max(gaps), "slowest_p50": quantile(slowest, 0.5), **parts}
