"""`make bench`: w1, w2, w3, idle cost and take-over on servers of its own; a table for people, `.dev/reports/bench.json` and `bench.md` for the record.

A figure of this machine at this moment: load, steal and what others used stand beside it. CPU per task is the bar that a busy machine moves least.
"""

import argparse
import json
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient

from app.dev.servers import ROOT, Native
from tests.bench import instruments, report, telemetry
from tests.bench.measure import Meter
from tests.bench.workloads import SHAPES, Bench, at
from tests.support import takeover
from tests.support.servers import end_leftovers
from tests.support.system import WITHOUT_HOSTS, System

BASE = ROOT / ".dev" / "bench"
KILLED = ("scheduler", "relay", "generator", "executor-noop", "event-sink", "api")


def measured(arguments: argparse.Namespace, native: Native) -> dict[str, Any]:
    found: dict[str, Any] = {"at": at(), "settings": settings(arguments)}
    with running(arguments, native, "one", {}) as system:
        bench = Bench(system, meter(arguments, native, system), connections=arguments.connections)
        say("warming up")
        bench.warm(arguments.scale)
        for name in arguments.workloads:
            say(f"{name}: saturation")
            found[name] = bench.saturated(name, arguments.scale)
            say(f"{name}: half load, one at a time")
            found[name] |= {"half_load": part(bench.half(name, found[name])), "alone": part(bench.alone(name))}
        say("idle")
        found["idle"] = bench.resting()
        found["rss_peak_mib"] = bench.meter.rss()
    if "w1" in found:
        found["instruments"] = instrumented(arguments, native, found["w1"]["cpu_ms_per_task"])
    if arguments.telemetry:
        for name, measure in (("telemetry", telemetry.costs), ("bad_days", telemetry.bad_days)):
            found[name] = measure(
                lambda name, more: running(arguments, native, name, more), lambda system: Bench(system, meter(arguments, native, system), connections=arguments.connections), scale=arguments.scale, say=say
            )
    if arguments.kills:
        with running(arguments, native, "two", {"lease_seconds": "4"}, copies=2) as system:
            bench = Bench(system, meter(arguments, native, system))
            say("w3: each component killed")
            found["w3"] = {component: bench.killed(component) for component in KILLED}
            say(f"take-over: {arguments.kills} kills of a scheduler")
            gaps = [takeover.kill_round(system, bench.interface)[0].seconds for _ in range(arguments.kills)]
            found["takeover_seconds"] = {"kills": len(gaps), "p50": takeover.quantile(gaps, 0.5), "p99": takeover.quantile(gaps, 0.99), "max": max(gaps), "all": gaps}
            found["rescues"] = system.rescues()
    return found


def instrumented(arguments: argparse.Namespace, native: Native, off: float) -> dict[str, Any]:
    """Off: nanoseconds times how often a task of w1 meets them. On: what w1 costs then."""
    say("instruments: counted")
    journals = BASE / "journal"
    with running(arguments, native, "counted", {"journal": str(journals), "failpoints": "*=count@*"}) as system:
        Bench(system, meter(arguments, native, system)).load(SHAPES["w1"], experiments=200, window=100)
        counted = instruments.met(journals, 200 * SHAPES["w1"].tasks)
    say("instruments: journal on")
    with running(arguments, native, "journal", {"journal": str(BASE / "journal-on")}) as system:
        bench = Bench(system, meter(arguments, native, system), connections=arguments.connections)
        bench.warm(arguments.scale)
        on = bench.saturated("w1", arguments.scale)["cpu_ms_per_task"]
    costs = instruments.nanoseconds()
    return {"nanoseconds": costs, **counted, "off_percent": instruments.price(costs, counted, off), "cpu_ms_per_task_off": off, "cpu_ms_per_task_on": on}


@contextmanager
def running(arguments: argparse.Namespace, native: Native, name: str, more: dict[str, str], copies: int = 1) -> Iterator[System]:
    """A system of its own. Its topics go with it: a thousand partitions of each of twenty systems are more than a broker's heap holds."""
    database, prefix = native.database(arguments.database), f"bench-{name}-{arguments.width}-{arguments.partitions}."
    schema = f"bench_{name}"
    database.execute(f"DROP DATABASE IF EXISTS {schema}", f"CREATE DATABASE {schema}")
    with System(
        native, BASE / name, database_url=database.url(schema), kafka=native.kafka(), topic_prefix=prefix, partitions=arguments.partitions, counts=dict.fromkeys(WITHOUT_HOSTS, copies),
        placement_width=arguments.width, relay_shards=arguments.shards, log_level="warning", **more,
    ) as system:  # fmt: skip
        yield system
    kafka = AdminClient({"bootstrap.servers": native.kafka()})
    for future in kafka.delete_topics([topic for topic in kafka.list_topics(timeout=30.0).topics if topic.startswith(prefix)], operation_timeout=60.0).values():
        future.result()


def meter(arguments: argparse.Namespace, native: Native, system: System) -> Meter:
    pids = {name: native.daemons[name].pid for name in (arguments.database, "kafka")}
    return Meter(system, {name: pid for name, pid in pids.items() if pid is not None})


def part(told: dict[str, Any]) -> dict[str, Any]:
    return {key: told[key] for key in ("tasks_per_second", "cpu_ms_per_task", "hop_ms", "launch_to_first_task_ms", "relay_rows_per_batch", "load_1m", "steal_percent", "cores_used_elsewhere")}


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    cpu = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "unknown")
    return {
        "database": arguments.database, "partitions": arguments.partitions, "placement_width": arguments.width, "relay_shards": arguments.shards, "launch_limits": "off",
        "client_connections": arguments.connections, "scale": arguments.scale, "python": platform.python_version(), "cpu": cpu, "cores": len(Path("/proc/stat").read_text().split("\ncpu")) - 1,
        "windows": {name: SHAPES[name].window for name in arguments.workloads},
    }  # fmt: skip


def say(text: str) -> None:
    print(f"--- {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--database", choices=("mysql", "mariadb"), default="mysql")
    parser.add_argument("--workloads", type=lambda text: text.split(","), default=list(SHAPES))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full number of experiments")
    parser.add_argument("--partitions", type=int, default=100)
    parser.add_argument("--width", type=int, default=4, help="placement width: 4 as in the embedded system, 16 as in production")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--kills", type=int, default=20, help="0 leaves w3 and take-over out")
    parser.add_argument("--telemetry", action=argparse.BooleanOptionalAction, default=True, help="what tracing costs at each sampling ratio, on twelve systems, and with a collector's bad days")
    arguments = parser.parse_args()
    end_leftovers(BASE / "servers")
    shutil.rmtree(BASE, ignore_errors=True)
    native = Native(BASE / "servers", jvm=("-Xmx1g",))  # Both compilers, as in production.
    try:
        say(f"starting {arguments.database} and Kafka")
        native.together(arguments.database, "kafka")
        found = measured(arguments, native)
    finally:
        native.close()
    reports = ROOT / ".dev" / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    (reports / "bench.json").write_text(json.dumps(found, indent=1) + "\n")
    (reports / "bench.md").write_text(report.table(found))
    print(report.table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
