"""Watching can never stop the work: with a collector that refuses, swallows, dawdles or is gone, as much is done as with a good one, memory stays bounded, what is lost is counted, and nobody
takes 2 s longer to leave.

One system, one endpoint whose manners change, load after load: so that all are measured by the same machine at the same hour. Every launch is sampled: nothing is spared.
"""

import json
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.bench.measure import Meter, rss_peak_mib
from tests.bench.workloads import SHAPES, Bench
from tests.observability.conftest import Build
from tests.support.otlp_receiver import Receiver
from tests.support.system import WITHOUT_HOSTS, System

EXPERIMENTS, WINDOW = 120, 60
ROUNDS_MIN, ROUNDS_MAX = 2, 6
SHARE_MIN, MIB_MORE_MAX, SECONDS_MORE_MAX = 0.95, 48.0, 2.0
DAYS: dict[str, dict[str, Any]] = {"good": {}, "slow": {"delay_seconds": 2.5}, "black hole": {"delay_seconds": 3600.0}, "refusing": {"answer": 503}}
LOST = ("export_failed", "queue_full")


@contextmanager
def a_day(collector: Receiver, kind: str) -> Iterator[None]:
    """The receiver's manners, for a while."""
    for name, value in {"delay_seconds": 0.0, "answer": 200, **DAYS[kind]}.items():
        setattr(collector, name, value)
    yield
    collector.delay_seconds, collector.answer = 0.0, 200


def lost(system: System) -> float:
    """Spans that were counted as lost, in all processes."""
    return sum(system.metric(name, "airavata_spans_total", outcome=outcome) for name in system.daemons for outcome in LOST)


def leaving_seconds(system: System, component: str, copy: int) -> float:
    victim, began = system.daemons[f"{component}-{copy}"], time.monotonic()
    victim.signal(signal.SIGTERM)
    assert victim.child is not None
    assert victim.child.wait(60.0) == 0
    return time.monotonic() - began


def test_as_much_is_done_as_on_a_good_day_and_what_is_lost_is_counted(build: Build, collector: Receiver) -> None:
    collector.keeps = False
    system = build({**WITHOUT_HOSTS, "generator": 2}, otlp_endpoint=collector.url, trace_delay_ms=200, log_level="warning")
    bench = Bench(system, Meter(system, {}), connections=8)
    shape = SHAPES["w1"]

    def load() -> float:
        return float(bench.load(shape, experiments=EXPERIMENTS, window=WINDOW)["tasks_per_second"])

    load()
    before = {name: rss_peak_mib(each.child.pid) for name, each in system.daemons.items() if each.child is not None}
    best = dict.fromkeys(DAYS, 0.0)
    for number in range(ROUNDS_MAX):  # Others use this machine too, which only ever takes away: the best of some rounds is what the system can.
        for kind in DAYS:
            counted = lost(system)
            with a_day(collector, kind):
                best[kind] = max(best[kind], load())
                if kind == "refusing":
                    system.until(lambda counted=counted: lost(system) > counted, 10.0)
        if number + 1 >= ROUNDS_MIN and min(best.values()) >= SHARE_MIN * best["good"]:
            break
    grown = {name: rss_peak_mib(each.child.pid) - before[name] for name, each in system.daemons.items() if each.child is not None}
    print(f"tasks/s by the collector's manners: {json.dumps(best)}; MiB more at the peak: {max(grown.values()):.1f}; spans lost and counted: {lost(system):.0f}")
    assert min(best.values()) >= SHARE_MIN * best["good"], best
    assert max(grown.values()) <= MIB_MORE_MAX, grown
    system.quiet()
    with a_day(collector, "good"):
        good = leaving_seconds(system, "generator", 0)
    with a_day(collector, "black hole"):
        bench.load(shape, experiments=20, window=20)
        bad = leaving_seconds(system, "generator", 1)
    assert bad <= good + SECONDS_MORE_MAX + 0.5, (good, bad)


def test_where_nobody_listens_the_work_goes_on_and_what_is_lost_is_counted(build: Build) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # Bound, never listening: every connection is refused, and nobody else gets the port.
        system = build(WITHOUT_HOSTS, otlp_endpoint=f"http://127.0.0.1:{reserved.getsockname()[1]}/v1/traces", trace_delay_ms=200)
        launched = [system.gateway.launch(system.gateway.shape(), {"edges": "a>b"}) for _ in range(5)]
        assert {system.gateway.wait(each)["outcome"] for each in launched} == {"NORMAL_COMPLETION"}
        system.until(lambda: lost(system) > 0, 15.0)
        assert system.one("SELECT COUNT(*) FROM skeletons") == 5
