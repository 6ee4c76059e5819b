"""Watching can never stop the work: with a collector that is slow, swallows, refuses or is gone, all work is done, memory stays bounded, what is lost is counted, and nobody takes 2 s longer to leave.

One system, one receiver whose manners change; every launch is sampled, so nothing is spared. No speed is measured here: whoever waited for a collector would wait 2.5 to 3 s for each span, and work of
many thousand spans would not be done within its time. That throughput stays within 5 % is for `make bench` (tests/bench/telemetry.py), which has the minutes that such a figure needs.
"""

import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from observability.exporting import BATCH, QUEUE_MAX
from tests.bench.workloads import W1
from tests.observability.conftest import builder
from tests.support.otlp_receiver import BAD_DAYS, Receiver, receiver
from tests.support.servers import InOrder
from tests.support.system import WITHOUT_HOSTS, System

LAUNCHES, CLIENTS, DONE_SECONDS = 60, 8, 60.0
THREADS = 40  # An API server has fewer; each may put one span beyond the bound at the same moment.
MIB_MORE_MAX = 48.0
LONGER_SECONDS_MAX, BUSY_SECONDS = 2.0, 3.0  # A queue that is sent to the end would need 24 s: eight requests, each given up after 3 s.


@pytest.fixture(scope="module")
def moody() -> Iterator[Receiver]:
    with receiver() as made, made.manners(keeps=False):
        yield made


@pytest.fixture(scope="module")
def system(servers: InOrder, moody: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with ExitStack() as stack:
        build = builder(servers, tmp_path_factory.mktemp("days"), "days.", stack)
        yield build(WITHOUT_HOSTS, otlp_endpoint=moody.url, trace_delay_ms=200, log_level="warning")


@pytest.fixture(scope="module")
def at_start(system: System) -> dict[str, float]:
    """Memory of each process once a little work was done."""
    all_is_done(system)
    return rss_mib(system)


def rss_mib(system: System) -> dict[str, float]:
    status = {name: Path(f"/proc/{each.pid}/status").read_text() for name, each in system.daemons.items()}
    return {name: int(re.findall(r"VmRSS:\s+(\d+) kB", text)[0]) / 1024 for name, text in status.items()}


def counted(system: System, outcome: str) -> float:
    return sum(system.metric(name, "airavata_spans_total", outcome=outcome) for name in system.daemons)


def all_is_done(system: System) -> None:
    """Launches by several clients at once, and all of them end well within their time."""
    shape = system.gateway.shape()
    with ThreadPoolExecutor(CLIENTS) as clients:
        launched = set(clients.map(lambda _: system.gateway.launch(shape, {"edges": W1}), range(LAUNCHES)))
    well = "SELECT id FROM experiments WHERE outcome = 'NORMAL_COMPLETION'"
    system.until(lambda: launched <= {row[0] for row in system.rows(well)}, DONE_SECONDS, lambda: f"{len(launched - {row[0] for row in system.rows(well)})} of {LAUNCHES} are not done")


@pytest.mark.parametrize("day", BAD_DAYS)
@pytest.mark.usefixtures("at_start")
def test_all_work_is_done_and_what_is_lost_is_counted(system: System, moody: Receiver, day: str) -> None:
    outcome = "exported" if day == "slow" else "export_failed"
    before = counted(system, outcome)
    with moody.manners(**BAD_DAYS[day]):
        all_is_done(system)
        system.until(lambda: counted(system, outcome) > before, 15.0)


def leaving_seconds(system: System, component: str) -> float:
    victim, began = system.daemons[f"{component}-0"], time.monotonic()
    victim.signal(signal.SIGTERM)
    assert victim.child is not None
    assert victim.child.wait(60.0) == 0
    return time.monotonic() - began


def dropped(system: System) -> float:
    return system.metric("api-0", "airavata_spans_total", outcome="queue_full")


def fill(system: System, read: str) -> None:
    """Reads, each with its spans, until the API server's queue is full and has dropped some."""
    before, deadline = dropped(system), time.monotonic() + DONE_SECONDS
    with ThreadPoolExecutor(CLIENTS) as clients:
        while dropped(system) == before:
            assert time.monotonic() < deadline, f"{system.metric('api-0', 'airavata_span_queue'):.0f} spans queued and none dropped"
            list(clients.map(lambda _: system.gateway.get(read), range(200)))


def test_a_full_queue_stays_within_its_bound_and_holds_up_nobody_who_leaves(system: System, moody: Receiver, at_start: dict[str, float]) -> None:
    gateway = system.gateway
    read = f"/experiments/{gateway.wait(gateway.launch(gateway.shape(), {'edges': W1}))['id']}/trace"
    with moody.manners(**BAD_DAYS["black hole"]):
        fill(system, read)
        queued, grown = system.metric("api-0", "airavata_span_queue"), {name: rss - at_start[name] for name, rss in rss_mib(system).items()}
        all_is_done(system)  # Also with a full queue; and the scheduler has something to send.
        bad = {each: leaving_seconds(system, each) for each in ("scheduler", "api")}
    for each in bad:
        system.revive(each)
    good = {each: leaving_seconds(system, each) for each in bad}
    print(f"queued {queued:.0f}; MiB more than at the start {max(grown.values()):.1f}; seconds to leave with a black hole {bad}, with a good collector {good}")
    assert QUEUE_MAX - 2 * BATCH <= queued <= QUEUE_MAX + THREADS
    assert max(grown.values()) <= MIB_MORE_MAX, grown
    for each, seconds in bad.items():
        assert seconds <= good[each] + LONGER_SECONDS_MAX + BUSY_SECONDS, (each, bad, good)
