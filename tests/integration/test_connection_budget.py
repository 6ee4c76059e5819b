"""The connection budget of a host, held by several pools at once against real sshd and databases: connections are counted by the kernel, not by us."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.errors import Transient
from app.messages.placement import Placement
from app.messages.topics import Topics
from app.mysql import engine, jobs
from app.mysql.answering import Answering
from app.mysql.unit_of_work import now, unit_of_work
from app.workflow.execution import Failed, Outcome, Submitted, Succeeded
from app.workflow.job import State
from components.task_executors import slots
from components.task_executors.executor import Work
from components.task_executors.layout import control_dir
from components.task_executors.remote import Workers
from components.task_executors.watch import Watcher
from components.task_executors.ways import Way
from components.task_executors.workers import CommitRequested, Pool
from tests.support import remote_orders
from tests.support.remote_orders import a_snapshot, an_order, shell
from tests.support.ssh_host import SshServer

pytestmark = pytest.mark.mysql
BUDGET = 3
PLACE: Any = None


class Ways:
    """Two hosts as they are in the catalogue."""

    def __init__(self, servers: Sequence[SshServer], budget: int) -> None:
        self.ways = {f"cmp_{n}": Way(each.address(), f"cmp_{n}", "crd_1", 1, budget) for n, each in enumerate(servers, 1)}
        self.remembered: dict[str, Any] = {}

    def find(self, _tx: Any, host: str, *_: Any) -> Way:
        return self.ways[host]

    def storages(self, *_: Any) -> dict[str, Any]:
        return {}


class Site:
    """Hosts, and the pools that want connections to them. `turn` is one turn of each."""

    def __init__(self, servers: Sequence[SshServer], unit: Any) -> None:
        self.servers, self.unit, self.ways = servers, unit, Ways(servers, BUDGET)
        self.executors: dict[str, Workers] = {}
        self.watchers: list[Watcher] = []
        self.outcomes: dict[str, Outcome] = {}
        self.frozen: set[str] = set()
        self.peaks = [0] * len(servers)

    def executor(self, name: str, *, size: int = 4, unit: Any = None) -> Workers:
        made = Workers(pool=Pool(size), unit_of_work=Answering(unit or self.unit), task_types=remote_orders.TYPES, ways=self.ways, owner=name)
        self.executors[name] = made
        return made

    def watcher(self) -> Watcher:
        made = Watcher(
            unit_of_work=Answering(self.unit), pool=Pool(2), ways=self.ways, instance="job", topics=Topics(), placement=Placement(4, 4, 2), interval_seconds=0.05, lease_seconds=10,
        )  # fmt: skip
        self.watchers.append(made)
        return made

    def order(self, executor: str, task_type: str, token: str, *, host: int = 1, seconds: float = 0.0, **parts: Any) -> str:
        snapshot = a_snapshot(self.servers[host - 1].scratch, host={"id": f"cmp_{host}", "job_manager": {"type": "FORK"}}, **parts)
        self.executors[executor].start(Work(an_order(task_type, token=token, snapshot=snapshot, model={"seconds": seconds}), PLACE))
        return token

    def a_job(self, host: int = 1) -> None:
        """That its watcher looks at for ever: it has no attempt that could end."""
        root = str(self.servers[host - 1].scratch)
        document = {"root": root, "control": control_dir(root, f"att_{host}")}
        row = jobs.Job(f"job_{host}", f"att_{host}", "tsk_1", "prc_1", "exp_1", f"cmp_{host}", 1, State.SUBMITTING, None, root, document, None, 300, None)
        with self.unit("test.job") as tx:
            jobs.prepare(tx, row, script_sha256="0" * 64, now=now(tx))
            jobs.submitted(tx, row.attempt_id, scheduler_job_id="1@b", document=document, now=now(tx))

    def turn(self) -> None:
        for name, each in self.executors.items():
            for happened in each.poll() if name not in self.frozen else ():
                if isinstance(happened, CommitRequested):
                    happened.answer(True)
                else:
                    self.outcomes[happened.token] = happened.outcome
        for watcher in self.watchers:
            watcher.turn()
        time.sleep(0.005)
        self.peaks = [max(peak, each.connections) for peak, each in zip(self.peaks, self.servers, strict=True)]

    def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        ends_at = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < ends_at, self.story()
            self.turn()

    def story(self) -> str:
        """Where everything stands, for a failure's text."""
        pools = {name: (each.slots.held, each.slots.yields, each.pool.connections(), each.pool.busy(), len(each.waiting)) for name, each in self.executors.items()}
        return f"{pools} {self.peaks} {len(self.outcomes)} ended"

    def run(self, tokens: Sequence[str]) -> list[Outcome]:
        self.until(lambda: all(each in self.outcomes for each in tokens))
        return [self.outcomes[each] for each in tokens]


@pytest.fixture
def site(tmp_path: Path, database: str) -> Iterator[Site]:
    servers = [SshServer(tmp_path / name) for name in ("one", "two")]
    connected = engine.connect(database, size=1, idle_seconds=60)
    made = Site(servers, unit_of_work(connected))
    try:
        for each in servers:
            each.start()
        made.ways = Ways(servers, BUDGET)
        yield made
    finally:
        for watcher in made.watchers:
            watcher.leave()
        for executor in made.executors.values():
            executor.close()
        for each in servers:
            each.stop()
        connected.dispose()


def test_executors_and_a_watcher_together_have_no_more_connections_than_the_hosts_allow(site: Site) -> None:
    for name in ("environment", "data", "job"):
        site.executor(name)
    site.watcher()
    site.a_job(1)
    site.a_job(2)
    site.run([site.order("environment", "ENV_SETUP", f"setup-{host}", host=host) for host in (1, 2)])
    site.until(lambda: len(site.watchers[0].hosts) == 2)
    tokens = [site.order("environment", "ENV_SETUP", f"env-{n}", host=1 + n % 2) for n in range(24)]
    tokens += [site.order("data", "NAP", f"data-{n}", host=1 + n // 12, seconds=0.1) for n in range(24)]
    tokens += [site.order("job", "JOB_SUBMISSION", f"job-{n}", host=1 + n % 2, **shell(":")) for n in range(12)]
    looked = {each.id: each.seen for each in site.watchers[0].hosts.values()}
    outcomes = site.run(tokens)
    assert all(isinstance(each, Succeeded | Submitted) for each in outcomes), outcomes
    site.until(lambda: all(each.seen > looked[each.id] for each in site.watchers[0].hosts.values()))
    assert site.peaks == [BUDGET, BUDGET]


def test_workers_that_die_leave_no_connection_uncounted(site: Site) -> None:
    pools = [site.executor(name).pool for name in ("environment", "data")]
    long = [site.order(name, "NAP", f"{name}-long", seconds=25.0) for name in ("environment", "data")]
    tokens = [site.order(name, "NAP", f"{name}-{n}", seconds=0.1) for n in range(9) for name in ("environment", "data")]

    def at_work() -> list[int]:
        return [each.process.pid for pool in pools for each in pool.workers if each.job is not None and each.job.order.token in long]

    site.until(lambda: len(at_work()) == 2)
    for pid in at_work():
        os.kill(pid, signal.SIGKILL)
    assert all(isinstance(each, Failed) and "Its worker died" in each.message for each in site.run(long))
    assert all(isinstance(each, Succeeded) for each in site.run(tokens))
    assert site.peaks[0] == BUDGET


def test_whoever_has_no_connection_to_a_busy_host_gets_one_in_turn(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others have always more to do there."""
    monkeypatch.setattr(slots, "RENEW_SECONDS", 1.0)
    for name in ("environment", "data", "job"):
        site.executor(name)
    site.watcher()
    waits = site.executor("late")
    tokens = iter(range(1000))

    def enough() -> bool:
        for name in ("environment", "data", "job"):
            while sum(map(len, site.executors[name].waiting.values())) < 3:
                site.order(name, "NAP", f"{name}-{next(tokens)}", seconds=0.05)
        return False

    site.until(lambda: enough() or site.peaks[0] == BUDGET)
    site.a_job()
    late = [site.order("late", "NAP", f"late-{n}") for n in range(3)]
    site.until(lambda: enough() or (all(each in site.outcomes for each in late) and any(each.looking for each in site.watchers[0].hosts.values())), seconds=45.0)
    assert not waits.waiting
    assert site.peaks[0] == BUDGET


def test_an_executor_that_was_silent_too_long_ends_what_runs_on_slots_that_are_others_now(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SLOT_SECONDS", 2)
    monkeypatch.setattr(slots, "RENEW_SECONDS", 0.5)
    silent, _ = site.executor("silent"), site.executor("other")
    for n in range(BUDGET):
        site.order("silent", "NAP", f"silent-{n}", seconds=25.0)
    site.until(lambda: silent.pool.busy().total() == BUDGET)
    site.frozen.add("silent")
    waits = [site.order("other", "NAP", f"other-{n}", seconds=25.0) for n in range(2)]
    site.until(lambda: site.servers[0].connections == BUDGET + 2)  # The leases have run out.
    site.frozen.clear()
    site.turn()
    assert site.servers[0].connections == BUDGET
    site.until(lambda: len(site.outcomes) == 2)
    assert all(isinstance(site.outcomes[each], Failed) for each in site.outcomes.keys() - waits)


def test_a_claim_that_was_rolled_back_gives_no_connection(site: Site) -> None:
    faults = [Transient("the connection is lost")]

    @contextmanager
    def failing(name: str) -> Iterator[Any]:
        with site.unit(name) as tx:
            yield tx
            if name == "executor.begin" and faults:
                raise faults.pop()

    first, second = site.executor("first", unit=failing), site.executor("second")
    site.frozen.add("second")
    tokens = [site.order("first", "NAP", f"first-{n}", seconds=0.5) for n in range(4)]
    site.turn()
    assert (faults, first.pool.connections().total()) == ([], 0)
    site.frozen = {"first"}
    tokens += [site.order("second", "NAP", f"second-{n}", seconds=1.0) for n in range(4)]
    site.until(lambda: second.pool.busy().total() == BUDGET)
    site.frozen.clear()
    site.run(tokens)
    assert site.peaks[0] == BUDGET
