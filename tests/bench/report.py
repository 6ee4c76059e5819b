"""The table for people, in Markdown, from what a run measured; each bar beside its figure."""

from collections.abc import Iterator
from typing import Any

from tests.bench import telemetry

BARS = {"cpu_ms_per_task": 1.2, "tasks_per_second": 1000, "hop_p50": 25, "hop_p99": 80, "first_p50": 30, "takeover_p99": 3.0, "idle": 5.0}


def table(found: dict[str, Any]) -> str:
    return "\n".join([*_head(found), *_bars(found), *_costs(found), *_instruments(found), *_telemetry(found), *_kills(found)]) + "\n"


def _head(found: dict[str, Any]) -> Iterator[str]:
    yield f"Measured {found['at']}: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in found["settings"].items()) + "."
    yield ""


def _bars(found: dict[str, Any]) -> Iterator[str]:
    yield from ("| figure | bar | " + " | ".join(_names(found)) + " |", "|---|---|" + "---:|" * len(_names(found)))
    rows = [
        ("tasks/s at saturation", "≥ 1,000 on two idle cores", lambda w: w["tasks_per_second"]),
        ("experiments/s", "", lambda w: w["experiments_per_second"]),
        ("CPU ms per task, everything counted", "≤ 1.2 (w1)", lambda w: w["cpu_ms_per_task"]),
        ("hop alone p50 / p99, ms", "≤ 25 / 80", lambda w: _pair(w["alone"]["hop_ms"])),
        ("hop at half load p50 / p99, ms", "", lambda w: _pair(w["half_load"]["hop_ms"])),
        ("launch answered → first task, alone p50 / p99, ms", "≤ 30 p50", lambda w: _pair(w["alone"]["launch_to_first_task_ms"])),
        ("commits per task", "", lambda w: w["commits_per_task"]),
        ("fsyncs of the engine per task", "", lambda w: w["fsyncs_per_task"]),
        ("outbox rows per task", "", lambda w: w["outbox_rows_per_task"]),
        ("rows per Kafka transaction", "", lambda w: w["relay_rows_per_batch"]),
        ("partitions per Kafka transaction", "", lambda w: w["partitions_per_kafka_transaction"]),
        ("MySQL errors", "", lambda w: int(w["mysql_errors"])),
        ("cores used by the system", "", lambda w: w["cores_used"]),
        ("cores used by others meanwhile", "", lambda w: w["cores_used_elsewhere"]),
        ("load (1 min), steal %", "", lambda w: f"{w['load_1m']:.1f}, {w['steal_percent']}"),
    ]
    for title, bar, value in rows:
        yield f"| {title} | {bar} | " + " | ".join(str(value(found[name])) for name in _names(found)) + " |"
    yield f"| idle system, % of one core | ≤ 5 | {found['idle']['percent_of_a_core']} ({found['idle']['commits_per_second']} commits/s) |" + " |" * (len(_names(found)) - 1)
    if "takeover_seconds" in found:
        gaps = found["takeover_seconds"]
        yield f"| take-over after SIGKILL of a scheduler, p50 / p99 / max, s ({gaps['kills']} kills) | p99 ≤ 3 | {gaps['p50']:.2f} / {gaps['p99']:.2f} / {gaps['max']:.2f} |" + " |" * (len(_names(found)) - 1)
    yield ""


def _costs(found: dict[str, Any]) -> Iterator[str]:
    yield from ("| process | " + " | ".join(f"{name}: CPU ms per task" for name in _names(found)) + " | messages per batch | idle, % of a core | peak RSS, MiB |", "|---|" + "---:|" * (len(_names(found)) + 3))
    for process, rss in found["rss_peak_mib"].items():
        costs = [str(found[name]["cpu_ms_per_task_by_process"].get(process, "")) for name in _names(found)]
        batches = found[_names(found)[0]]["messages_per_consumer_batch"].get(process, "")
        yield f"| {process} | " + " | ".join(costs) + f" | {batches} | {found['idle']['by_process'].get(process, '')} | {rss} |"
    yield ""


def _instruments(found: dict[str, Any]) -> Iterator[str]:
    if "instruments" not in found:
        return
    told, costs = found["instruments"], found["instruments"]["nanoseconds"]
    yield from ("| instruments, w1 | |", "|---|---:|")
    yield f"| fail point unarmed, without / with arguments, ns | {costs['hit']} / {costs['hit_with_arguments']} |"
    yield f"| journal line not written / step id, ns | {costs['line']} / {costs['step']} |"
    yield f"| met per task: points / lines / units of work | {told['hits_per_task']} / {told['lines_per_task']} / {told['units_per_task']} |"
    yield f"| both off, % of the CPU of a task (bar: < 1) | {told['off_percent']} |"
    yield f"| journal on: CPU ms per task, off / on | {told['cpu_ms_per_task_off']} / {told['cpu_ms_per_task_on']} |"
    yield ""


def _telemetry(found: dict[str, Any]) -> Iterator[str]:
    if "telemetry" in found:
        yield from (*telemetry.lines(found["telemetry"]), *telemetry.lines_of_days(found["bad_days"]))


def _kills(found: dict[str, Any]) -> Iterator[str]:
    if "w3" not in found:
        return
    yield from ("| w3: killed | completed of 20 | seconds in all | slowest step, ms | attempts begun again |", "|---|---:|---:|---:|---:|")
    for component, told in found["w3"].items():
        yield f"| {component} | {told['completed']} | {told['seconds']} | {told['slowest_step_ms']} | {told['attempts_begun_again']} |"
    yield f"\nRescues by the sweeper: {found['rescues']:.0f}."


def _names(found: dict[str, Any]) -> list[str]:
    return [name for name in ("w1", "w2") if name in found]


def _pair(told: dict[str, float]) -> str:
    return f"{told['p50']} / {told['p99']}"
