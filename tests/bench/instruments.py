"""What the instruments cost while they are off: nanoseconds of an unarmed fail point and of a line that is not written, times how many of them a task meets.

How many is counted, not guessed: a small run with every point on `count` and the journal on. What that run costs more than the same run without is what the journal costs.
"""

import json
import timeit
from collections import Counter
from pathlib import Path
from typing import Any

from app import failpoint, instance, journal

ROUNDS, REPEATS = 50_000, 20


def nanoseconds() -> dict[str, float]:
    """Of one call, the best of twenty series: what others do on this machine only ever adds."""
    assert not failpoint.on() and not journal.on(), "they are switched on here"
    calls = {
        "hit": lambda: failpoint.hit("relay.produce.after"),
        "hit_with_arguments": lambda: failpoint.hit("relay.commit.after", shard=1),
        "line": lambda: journal.write("attempt.start", token="att_1", number=1, epoch=1, instance="i", task="tsk_1", type="NOOP"),
        "step": lambda: f"scheduler.commit#{instance.fresh_bytes(6).hex()}",
    }
    empty = min(timeit.repeat(lambda: None, number=ROUNDS, repeat=REPEATS))
    return {name: round(1e9 * max(0.0, min(timeit.repeat(call, number=ROUNDS, repeat=REPEATS)) - empty) / ROUNDS, 1) for name, call in calls.items()}


def met(directory: Path, tasks: int) -> dict[str, Any]:
    """Per task, from the journals of a run with `*=count@*`: points, lines and units of work."""
    kinds: Counter[str] = Counter()
    for file in directory.glob("*.jsonl"):
        with file.open("rb") as lines:
            kinds.update(json.loads(line)["kind"] for line in lines if line.endswith(b"\n"))
    lines_written = sum(kinds.values()) - kinds["failpoint.hit"]
    return {"hits_per_task": round(kinds["failpoint.hit"] / tasks, 2), "lines_per_task": round(lines_written / tasks, 2), "units_per_task": round(kinds["unit.begin"] / tasks, 2)}


def price(costs: dict[str, float], found: dict[str, Any], cpu_ms_per_task: float) -> float:
    """Percent of the CPU of a task that the instruments take while they are off; every point counted as one with arguments."""
    spent = found["hits_per_task"] * costs["hit_with_arguments"] + found["lines_per_task"] * costs["line"] + found["units_per_task"] * costs["step"]
    return round(100 * spent / 1e6 / cpu_ms_per_task, 3)
