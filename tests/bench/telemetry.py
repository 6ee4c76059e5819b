"""What watching costs: CPU per task of w1 without telemetry and at each sampling ratio, in one run, each on a system of its own, in turns. And what a collector's bad days cost: tasks/s of one
system whose collector changes its manners from turn to turn, at a ratio as in production and with everything sampled.

The collector is ours, in this process, and keeps nothing; its work is not counted. A shared machine's pace changes by a tenth from one minute to the next, several times what is asked for, so MySQL is
the yardstick: it does the same for a task whether it is watched or not (but for the skeletons of what is sampled, a row written and deleted per experiment), and what it takes for that tells the pace of a turn.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from statistics import fmean, median
from typing import Any

from tests.bench.workloads import Bench
from tests.support.otlp_receiver import BAD_DAYS, receiver
from tests.support.system import System

ROUNDS, ROUNDS_OF_DAYS = 4, 4
RATIOS, RATIOS_OF_DAYS = ("0", "0.1", "1"), ("0.1", "1")
STORES, YARDSTICK = ("mysql", "kafka"), "mysql"
BARS = {"0": 2.0, "0.1": 8.0}  # Percent of the CPU of a task.
OFF, GOOD = "off", "good"
SHARE_BAR = 5.0  # Percent of the throughput with a good collector, more or less.
Running = Callable[[str, dict[str, str]], AbstractContextManager[System]]


def costs(running: Running, bench_of: Callable[[System], Bench], *, scale: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Case → CPU ms per task of each turn by process, and of all turns at the same pace; what it is more than without, in percent. Each case is first once."""
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
    return {"turns": turns, "spans_per_task": spans, **compared(turns)}


def compared(turns: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, Any]:
    """Of our own processes; what the stores take stands in every case alike, as it was without telemetry."""
    pace = median(turn[YARDSTICK] for found in turns.values() for turn in found)
    ours = {case: fmean(sum(cpu for process, cpu in turn.items() if process not in STORES) * pace / turn[YARDSTICK] for turn in found) for case, found in turns.items()}
    stores = pace + median(turn["kafka"] for turn in turns[OFF])
    percent = {case: round(100 * (cpu - ours[OFF]) / (ours[OFF] + stores), 2) for case, cpu in ours.items() if case != OFF}
    return {"cpu_ms_per_task": {case: round(cpu + stores, 3) for case, cpu in ours.items()}, "percent": percent}


def bad_days(running: Running, bench_of: Callable[[System], Bench], *, scale: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Sampling ratio → what `days` returns."""
    return {ratio: days(running, bench_of, ratio, scale=scale, say=say) for ratio in RATIOS_OF_DAYS}


def days(running: Running, bench_of: Callable[[System], Bench], ratio: str, *, scale: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Manners → tasks/s and MySQL's CPU ms per task of each turn, the mean of tasks/s at the same pace, and how far it is from that with a good collector, in percent."""
    turns: dict[str, list[tuple[float, float]]] = {each: [] for each in (GOOD, *BAD_DAYS)}
    with receiver() as collector, collector.manners(keeps=False), running(f"days_{ratio.replace('.', '')}", {"otlp_endpoint": collector.url, "trace_ratio": ratio}) as system:
        bench = bench_of(system)
        bench.warm(scale / 4)
        for number in range(ROUNDS_OF_DAYS):
            for day in sorted(turns, reverse=bool(number % 2)):
                say(f"ratio {ratio}, collector {day}: turn {number + 1} of {ROUNDS_OF_DAYS}")
                with collector.manners(**BAD_DAYS.get(day, {})):
                    told = bench.saturated("w1", scale / 4)
                turns[day].append((told["tasks_per_second"], told["cpu_ms_per_task_by_process"][YARDSTICK]))
                clear(system)
        lost = {outcome: sum(system.metric(name, "airavata_spans_total", outcome=outcome) for name in system.daemons) for outcome in ("exported", "export_failed", "queue_full")}
    pace = median(mysql for found in turns.values() for _, mysql in found)
    rates = {day: round(fmean(rate * mysql / pace for rate, mysql in found), 1) for day, found in turns.items()}
    return {"turns": turns, "tasks_per_second": rates, "spans": lost, "percent": {day: round(100 * (rates[day] / rates[GOOD] - 1), 2) for day in BAD_DAYS}}


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


def lines_of_days(found: Mapping[str, Any]) -> Iterator[str]:
    """The table, with its bar, and what became of the spans."""
    for ratio, told in found.items():
        yield from (f"| collector, w1, sampling ratio {ratio} | tasks/s at the same pace | from a good one, % | bar |", "|---|---:|---:|---:|", f"| {GOOD} | {told['tasks_per_second'][GOOD]} | | |")
        yield from (f"| {day} | {told['tasks_per_second'][day]} | {percent} | ± {SHARE_BAR:.0f} |" for day, percent in told["percent"].items())
        yield from ("", "Spans: " + ", ".join(f"{count:.0f} {outcome.replace('_', ' ')}" for outcome, count in told["spans"].items()) + ".", "")
