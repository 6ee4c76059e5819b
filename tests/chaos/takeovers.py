"""A take-over broken down: kill → out of the group → assigned → claimed, read from what a headline run left behind. The last part, → committed, is the checker's (P24).

Every time is CLOCK_MONOTONIC of a journal line, or of a look at the broker; the blow's is the harness' own.
"""

import math
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient

from tests.chaos.lines import read
from tests.chaos.victims import Place, Victim
from tests.checker.report import quantile

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
    """One entry a round that was not thrown away: seconds since the blow, until the last of what the victim held was claimed."""
    journals = [line for path in (run / "journal").glob(f"{victim.component}-[0-9].*.jsonl") for line in read(path)]
    journals.sort(key=lambda line: line["mono"])
    ends = [each["struck"] for each in rounds[1:]] + [math.inf]
    return [_one(journals, each, end) for each, end in zip(rounds, ends, strict=True) if each["good"]]


def _one(journals: Sequence[Document], round_: Document, end: float) -> Document:
    struck = round_["struck"]
    after = [line for line in journals if struck < line["mono"] < end and line["who"] != round_["target"]]
    held = {tuple(place) for place in round_["held"]}
    claims: dict[Place, float] = {}
    for line in after:
        for place in _claims(line, held):
            claims.setdefault(place, line["mono"])
    begun = [line["mono"] for line in after if line["kind"] == "unit.begin" and line["unit"].endswith((".claim", "relay.lease"))]
    times = {"out_of_group": round_.get("left_at"), "assigned": min(begun, default=None), "claimed": max(claims.values(), default=None)}
    told = {name: round_.get(name, "") for name in ("fault", "how", "mode", "share", "lag_ms")}
    return {**told, **{name: None if mono is None else round(mono - struck, 3) for name, mono in times.items()}, "unclaimed": len(held - set(claims))}


def _claims(line: Document, held: set[Place]) -> list[Place]:
    """What of the victim's somebody owns from this line on. A relay owns a shard from R3; a watcher's claim does not say of which host."""
    if line["kind"] == "partition.claim":
        return [place for place in ((line["topic"], line["partition"]),) if place in held]
    if line["kind"] != "unit.end" or line["outcome"] != "committed":
        return []
    return [("shard", each) for each in line.get("shard", ())] if line["unit"] == "relay.settle" else list(held) if line["unit"] == "watch.claim" else []


def summary(rounds: Sequence[Document], verdict: Document) -> Document:
    """Medians of the parts, and the checker's figures for the whole: of all partitions where work waited."""
    parts = {name: quantile([each[name] for each in rounds if each[name] is not None], 0.5) for name in ("out_of_group", "assigned", "claimed")}
    return {"kills": len(rounds), **parts, **verdict}
