"""What watching costs: CPU per task of w1 without telemetry and at each sampling ratio, in one run, each on a system of its own, in turns.

The collector is ours, in this process, and keeps nothing; its work is not counted. Of each case the cheapest turn counts: what others do on this machine only ever adds.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from tests.bench.workloads import Bench
from tests.support.otlp_receiver import receiver
from tests.support.system import System

ROUNDS = 3
RATIOS = ("0", "0.1", "1")
BARS = {"0": 2.0, "0.1": 8.0}  # Percent of the CPU of a task.
OFF = "off"
Running = Callable[[str, dict[str, str]], AbstractContextManager[System]]


def costs(running: Running, bench_of: Callable[[System], Bench], *, scale: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Case → CPU ms per task of each turn, the best of them, and what it is more than without, in percent."""
    turns: dict[str, list[float]] = {each: [] for each in (OFF, *RATIOS)}
    spans: dict[str, float] = {}
    with receiver() as collector:
        collector.keeps = False
        for number in range(ROUNDS):
            for case in turns:
                say(f"telemetry {case}: turn {number + 1} of {ROUNDS}")
                more = {} if case == OFF else {"otlp_endpoint": collector.url, "trace_ratio": case}
                with running(f"telemetry_{number}_{case.replace('.', '')}", more) as system:
                    bench = bench_of(system)
                    bench.warm(scale / 4)
                    told = bench.saturated("w1", scale / 2)
                    turns[case].append(told["cpu_ms_per_task"])
                    spans[case] = round(sum(system.metric(name, "airavata_spans_total", outcome="exported") for name in system.daemons) / told["tasks"], 2)
    best = {case: min(found) for case, found in turns.items()}
    return {"turns": turns, "cpu_ms_per_task": best, "spans_per_task": spans, "percent": {each: round(100 * (best[each] / best[OFF] - 1), 2) for each in RATIOS}}


def lines(found: Mapping[str, Any]) -> list[str]:
    """The table, with its bars."""
    told = ["| telemetry, w1 | CPU ms per task | more than without, % | bar | spans sent per task |", "|---|---:|---:|---:|---:|", f"| off | {found['cpu_ms_per_task'][OFF]} | | | |"]
    for each in RATIOS:
        bar = f"≤ {BARS[each]:.0f}" if each in BARS else "reported"
        told.append(f"| sampling ratio {each} | {found['cpu_ms_per_task'][each]} | {found['percent'][each]} | {bar} | {found['spans_per_task'][each]} |")
    return [*told, ""]
