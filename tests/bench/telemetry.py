"""What watching costs: CPU per task of w1 without telemetry and at each sampling ratio, in one run, each on a system of its own, in turns. And what a collector's bad days cost: tasks/s of one
system, all sampled, whose collector changes its manners from turn to turn.

The collector is ours, in this process, and keeps nothing; its work is not counted. Of each case the best turn counts: what others do on this machine only ever takes away. Of CPU it is the best
turn of each process: the broker's virtual machine takes four times as much for a task when it is new, which has nothing to do with watching.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from tests.bench.workloads import Bench
from tests.support.otlp_receiver import BAD_DAYS, receiver
from tests.support.system import System

ROUNDS, ROUNDS_OF_DAYS = 4, 4
RATIOS = ("0", "0.1", "1")
BARS = {"0": 2.0, "0.1": 8.0}  # Percent of the CPU of a task.
OFF, GOOD = "off", "good"
SHARE_BAR = 5.0  # Percent of the throughput with a good collector, more or less.
Running = Callable[[str, dict[str, str]], AbstractContextManager[System]]


def costs(running: Running, bench_of: Callable[[System], Bench], *, scale: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Case → CPU ms per task of each turn by process, the sum of their best, and what it is more than without, in percent. Each case is first once."""
    turns: dict[str, list[dict[str, float]]] = {each: [] for each in (OFF, *RATIOS)}
    spans: dict[str, float] = {}
    with receiver() as collector:
        collector.keeps = False
        for number in range(ROUNDS):
            for case in [*list(turns)[number:], *list(turns)[:number]]:
                say(f"telemetry {case}: turn {number + 1} of {ROUNDS}")
                more = {} if case == OFF else {"otlp_endpoint": collector.url, "trace_ratio": case}
                with running(f"telemetry_{number}_{case.replace('.', '')}", more) as system:
                    bench = bench_of(system)
                    bench.warm(scale / 4)
                    told = bench.saturated("w1", scale / 2)
                    turns[case].append(told["cpu_ms_per_task_by_process"])
                    spans[case] = round(sum(system.metric(name, "airavata_spans_total", outcome="exported") for name in system.daemons) / told["tasks"], 2)
    best = {case: round(sum(min(turn[process] for turn in found) for process in found[0]), 3) for case, found in turns.items()}
    return {"turns": turns, "cpu_ms_per_task": best, "spans_per_task": spans, "percent": {each: round(100 * (best[each] / best[OFF] - 1), 2) for each in RATIOS}}


def bad_days(running: Running, bench_of: Callable[[System], Bench], *, scale: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Manners → tasks/s and CPU ms per task of each turn, the best of them, and how far the first is from that of a good collector, in percent."""
    turns: dict[str, list[tuple[float, float]]] = {each: [] for each in (GOOD, *BAD_DAYS)}
    with receiver() as collector, collector.manners(keeps=False), running("telemetry_days", {"otlp_endpoint": collector.url}) as system:
        bench = bench_of(system)
        bench.warm(scale / 4)
        for number in range(ROUNDS_OF_DAYS):
            for day in sorted(turns, reverse=bool(number % 2)):
                say(f"collector {day}: turn {number + 1} of {ROUNDS_OF_DAYS}")
                with collector.manners(**BAD_DAYS.get(day, {})):
                    told = bench.saturated("w1", scale / 4)
                turns[day].append((told["tasks_per_second"], told["cpu_ms_per_task"]))
                clear(system)
        lost = {outcome: sum(system.metric(name, "airavata_spans_total", outcome=outcome) for name in system.daemons) for outcome in ("exported", "export_failed", "queue_full")}
    best, cheapest = {day: max(rate for rate, _ in found) for day, found in turns.items()}, {day: min(cpu for _, cpu in found) for day, found in turns.items()}
    return {"turns": turns, "tasks_per_second": best, "cpu_ms_per_task": cheapest, "spans": lost, "percent": {day: round(100 * (best[day] / best[GOOD] - 1), 2) for day in BAD_DAYS}}


def clear(system: System) -> None:
    """Nothing of a turn is sent in the next: queues run empty, and skeletons that wait for a better day are forgotten."""
    system.until(lambda: not sum(system.metric(name, "airavata_span_queue") for name in system.daemons), 60.0)
    system.rows("DELETE FROM skeletons")


def lines(found: Mapping[str, Any]) -> list[str]:
    """The table, with its bars."""
    told = ["| telemetry, w1 | CPU ms per task | more than without, % | bar | spans sent per task |", "|---|---:|---:|---:|---:|", f"| off | {found['cpu_ms_per_task'][OFF]} | | | |"]
    for each in RATIOS:
        bar = f"≤ {BARS[each]:.0f}" if each in BARS else "reported"
        told.append(f"| sampling ratio {each} | {found['cpu_ms_per_task'][each]} | {found['percent'][each]} | {bar} | {found['spans_per_task'][each]} |")
    return [*told, ""]


def lines_of_days(found: Mapping[str, Any]) -> list[str]:
    """The table, with its bar, and what became of the spans."""
    rates, cpu = found["tasks_per_second"], found["cpu_ms_per_task"]
    told = ["| collector, w1, all sampled | tasks/s, best of its turns | from a good one, % | bar | CPU ms per task |", "|---|---:|---:|---:|---:|", f"| good | {rates[GOOD]} | | | {cpu[GOOD]} |"]
    told += [f"| {day} | {rates[day]} | {percent} | ± {SHARE_BAR:.0f} | {cpu[day]} |" for day, percent in found["percent"].items()]
    return [*told, "", "Spans: " + ", ".join(f"{count:.0f} {outcome.replace('_', ' ')}" for outcome, count in found["spans"].items()) + ".", ""]
