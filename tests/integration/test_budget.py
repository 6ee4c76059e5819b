"""The connection budget of a host, shared by all replicas: never more than its slots, renewed while used, given back when cold and when an executor leaves, given up in turn."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.mysql import engine, hosts
from app.mysql.answering import Answering
from app.mysql.unit_of_work import unit_of_work
from components.task_executors.executor import Work
from components.task_executors.remote import Workers
from components.task_executors.remote_host import HostAddress
from components.task_executors.slots import AT_ONCE, Slots
from components.task_executors.ways import Way
from tests.support.remote_orders import TYPES, a_snapshot, an_order

PLACE: Any = None
pytestmark = pytest.mark.mysql
WAY = Way(HostAddress("login1", 22, "u", (), b""), "cmp_1", "crd_1", 1, connections=2)


class Pool:
    """Has as many connections as it is told."""

    def __init__(self, connected: int = 0) -> None:
        self.connected, self.busy_ones, self.kept = connected, connected, [99]

    def connections(self) -> Counter[str]:
        return Counter({WAY.slot: self.connected})

    def busy(self) -> Counter[str]:
        return Counter({WAY.slot: self.busy_ones})

    def keep(self, _slot: str, most: int, *, end_busy: bool = False) -> None:
        self.kept.append(most)
        self.connected = min(self.connected, most)

    def close(self) -> None: ...


@pytest.fixture
def unit(database: str) -> Any:
    connected = engine.connect(database, size=1, idle_seconds=60)
    yield unit_of_work(connected)
    connected.dispose()


def a_pool(unit: Any, owner: str, connected: int = 0) -> Any:
    pool: Any = Pool(connected)
    found = Slots(pool, owner, Answering(unit, gap_seconds=float("inf")))
    found.unit_of_work.since = AT_ONCE
    return found


def may(unit: Any, slots: Slots, planned: int = 0, way: Way = WAY) -> bool:
    with unit("test.claim") as tx:
        return slots.claim(tx, way, planned)


def tend(unit: Any, slots: Slots) -> None:
    slots.due_at = AT_ONCE
    slots.tend()


def owners(unit: Any, where: str = "n < 100") -> list[str | None]:
    with unit("test.look") as tx:
        return [row[0] for row in tx.exec_driver_sql(f"SELECT owner FROM host_slots WHERE {where} ORDER BY n").all()]


def run_out(unit: Any, where: str = "1 = 1") -> None:
    with unit("test.silence") as tx:
        tx.exec_driver_sql(f"UPDATE host_slots SET until = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND WHERE {where}")


def test_all_replicas_together_have_no_more_connections_than_the_host_allows(unit: Any) -> None:
    one, two = a_pool(unit, "one"), a_pool(unit, "two")
    assert [may(unit, one, 0), may(unit, one, 1), may(unit, one, 2), may(unit, two, 0)] == [True, True, False, False]
    assert owners(unit) == ["one", "one"]
    run_out(unit, "n = 1")  # One died: its lease ran out.
    assert [may(unit, two, 0), may(unit, two, 1)] == [True, False]


def test_a_lease_that_ran_out_while_mysql_was_away_is_not_taken_from_an_owner_who_could_not_renew_it(unit: Any) -> None:
    one, two = a_pool(unit, "one", 2), a_pool(unit, "two")
    one.pool.busy_ones = 0
    assert [may(unit, one, 0), may(unit, one, 1)] == [True, True]
    run_out(unit)
    two.unit_of_work.since = time.monotonic()
    assert not may(unit, two)
    assert owners(unit) == ["one", "one"]
    two.unit_of_work.since = AT_ONCE
    may(unit, two)
    assert owners(unit) == ["two", "one"]  # It had a lease's time to renew it, and did not.


def test_a_slot_is_renewed_while_used_and_given_back_when_cold(unit: Any) -> None:
    slots = a_pool(unit, "one")
    assert may(unit, slots)
    slots.pool.connected = 1
    run_out(unit)
    tend(unit, slots)
    assert owners(unit, "until > UTC_TIMESTAMP(6) + INTERVAL 5 SECOND") == ["one"]
    slots.pool.connected = 0
    tend(unit, slots)
    assert owners(unit) == [None, None]


def test_what_others_have_by_now_is_ended_and_what_was_claimed_unknown_to_us_is_found(unit: Any) -> None:
    slots = a_pool(unit, "one", 2)
    with unit("test.other") as tx:
        tx.exec_driver_sql("INSERT INTO host_slots VALUES ('login1:22', 0, 'two', UTC_TIMESTAMP(6) + INTERVAL 9 SECOND), ('login1:22', 1, 'one', UTC_TIMESTAMP(6))")
    tend(unit, slots)
    assert (slots.held, slots.pool.kept[-1]) == ({WAY.slot: [1]}, 1)


def test_who_has_none_for_the_longest_time_is_next_and_who_has_some_gives_one_up(unit: Any) -> None:
    one, two, three = a_pool(unit, "one"), a_pool(unit, "two"), a_pool(unit, "three")
    two.waits[WAY.slot] = (time.monotonic() - 5.0, time.monotonic())
    assert [may(unit, one, 0), may(unit, one, 1), may(unit, two), may(unit, three)] == [True, True, False, False]
    with unit("test.slow") as tx:  # On a slow machine they would have to look again meanwhile.
        tx.exec_driver_sql("UPDATE host_slots SET until = UTC_TIMESTAMP(6) + INTERVAL 1 MINUTE WHERE n > 100")
    one.pool.connected = 2
    tend(unit, one)
    assert (one.pool.kept[-1], one.allowed(WAY), owners(unit)) == (2, 1, ["one", "one"])
    one.tend()
    assert (one.pool.kept[-2:], owners(unit)) == ([1, 2], ["one", None])
    assert [may(unit, each, planned) for each, planned in ((one, 1), (three, 0), (two, 0))] == [False, False, True]
    assert [each for each in owners(unit, "n > 100") if each] == []


def test_a_budget_that_was_lowered_takes_the_higher_slots(unit: Any) -> None:
    slots = a_pool(unit, "one")
    assert [may(unit, slots, 0), may(unit, slots, 1)] == [True, True]
    lowered = Way(WAY.address, "cmp_1", "crd_1", 2, connections=1)
    assert [may(unit, slots, 0, lowered), may(unit, slots, 1, lowered)] == [True, False]


class OneWorker(Pool):
    """Has workers enough; `started` tells for which orders. What they do takes for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.free, self.freed, self.started = 8, False, list[str]()

    def poll(self) -> list[Any]:
        return []

    def connections(self) -> Counter[str]:
        return Counter(f"login{each[0]}:22" for each in self.started)

    busy = connections

    def start(self, order: Any, *_: Any, connect: bool) -> bool:
        self.started.append(order.token)
        self.free -= 1
        return True


class Ways:
    """Host n is the n-th login, and takes one connection."""

    remembered: dict[str, Any] = {}

    def find(self, _tx: Any, host: str, *_: Any) -> Way:
        return Way(HostAddress(f"login{host}", 22, "u", (), b""), host, "crd_1", 1, connections=1)

    def storages(self, *_: Any) -> dict[str, Any]:
        return {}


class Site:
    """An executor's `Workers` over a pool that never ends anything; `units` tells what it asked of MySQL."""

    def __init__(self, unit: Any) -> None:
        self.unit, self.units, self.pool = unit, list[str](), OneWorker()
        pool: Any = self.pool
        ways: Any = Ways()
        self.workers = Workers(pool=pool, unit_of_work=Answering(self.count), task_types=TYPES, ways=ways, owner="one")

    @contextmanager
    def count(self, name: str) -> Iterator[Any]:
        self.units.append(name)
        with self.unit(name) as tx:
            yield tx

    def give(self, *tokens: str) -> None:
        """The first character of a token is its host."""
        for each in tokens:
            self.workers.start(Work(an_order("NAP", token=each, snapshot=a_snapshot(host={"id": each[0]})), PLACE))

    def turn(self) -> list[Any]:
        return list(self.workers.poll())


def test_what_waits_for_a_full_host_takes_no_capacity_and_is_no_reason_to_ask(unit: Any) -> None:
    site = Site(unit)
    site.give(*(f"1-{n}" for n in range(50)))
    site.turn()
    site.workers.retry_at = time.monotonic() + 60.0
    assert (site.pool.started, site.workers.standing) == (["1-0"], 49)
    asked = len(site.units)
    for n in range(50, 60):
        site.give(f"1-{n}")
        site.turn()
    assert (site.units[asked:], site.workers.standing) == ([], 59)
    site.give("2-0")
    site.turn()
    assert (site.pool.started, site.units[asked:], site.workers.standing) == (["1-0", "2-0"], ["executor.begin"], 59)


def test_who_waits_for_a_worker_takes_capacity(unit: Any) -> None:
    site = Site(unit)
    site.pool.free = 0
    site.give("1-0", "2-0")
    site.turn()
    assert (site.pool.started, site.workers.standing) == ([], 0)


def test_one_looks_whether_a_host_is_mended_however_many_wait_and_wherever(unit: Any) -> None:
    with unit("test.circuit") as tx:
        hosts.open_circuit(tx, compute_resource_id="1", credential_id="crd_1", condition="AUTH_REQUIRED", detail="the key was refused", host_version=1)
        tx.exec_driver_sql("UPDATE host_circuits SET since = UTC_TIMESTAMP(6) - INTERVAL 61 SECOND")
    one, two = Site(unit), Site(unit)
    two.give("1-9")
    with unit("test.read") as tx:
        two.workers._read_circuits(tx)  # As old as it may be.
    one.give("1-0", "1-1", "1-2")
    told = [*one.turn(), *two.turn()]
    assert (one.pool.started, two.pool.started) == (["1-0"], [])
    assert [(each.token, each.outcome.condition) for each in told] == [("1-1", "AUTH_REQUIRED"), ("1-2", "AUTH_REQUIRED"), ("1-9", "AUTH_REQUIRED")]


def test_an_executor_that_leaves_gives_its_slots_back_at_once(unit: Any) -> None:
    ways: Any = None
    pool: Any = Pool()
    leaving = Workers(pool=pool, unit_of_work=Answering(unit), task_types={}, ways=ways, owner="one")
    assert may(unit, leaving.slots)
    leaving.close()
    assert owners(unit) == [None, None]
    assert may(unit, a_pool(unit, "two"))
