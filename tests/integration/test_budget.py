"""The connection budget of a host, shared by all replicas: never more than its slots, renewed while used, given back when cold and when an executor leaves."""

from types import SimpleNamespace
from typing import Any

import pytest

from app.mysql import engine
from app.mysql.unit_of_work import unit_of_work
from components.task_executors import remote
from components.task_executors.remote import Slots, Way, Workers
from components.task_executors.remote_host import HostAddress

pytestmark = pytest.mark.mysql
WAY = Way(HostAddress("login1", 22, "u", (), b""), "cmp_1", "crd_1", 1, connections=2)


@pytest.fixture
def unit(database: str) -> Any:
    connected = engine.connect(database, size=1, idle_seconds=60)
    yield unit_of_work(connected)
    connected.dispose()


def may(unit: Any, slots: Slots, in_use: int) -> bool:
    with unit("test.claim") as tx:
        return slots.may_connect(tx, WAY, in_use)


def owners(unit: Any) -> list[str | None]:
    with unit("test.look") as tx:
        return [row[0] for row in tx.exec_driver_sql("SELECT owner FROM host_slots ORDER BY n").all()]


def test_all_replicas_together_have_no_more_connections_than_the_host_allows(unit: Any) -> None:
    one, two = Slots("one"), Slots("two")
    assert [may(unit, one, 0), may(unit, one, 1), may(unit, one, 2), may(unit, two, 0)] == [True, True, False, False]
    assert owners(unit) == ["one", "one"]
    with unit("test.silence") as tx:  # One died: its lease ran out.
        tx.exec_driver_sql("UPDATE host_slots SET until = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND WHERE n = 1")
    assert [may(unit, two, 0), may(unit, two, 1)] == [True, False]


def test_a_slot_is_renewed_while_used_and_given_back_when_cold(unit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "RENEW_SECONDS", 0.0)
    monkeypatch.setattr(remote, "COLD_SECONDS", 0.0)
    slots = Slots("one")
    assert may(unit, slots, 0)
    with unit("test.old") as tx:
        tx.exec_driver_sql("UPDATE host_slots SET until = UTC_TIMESTAMP(6) WHERE owner = 'one'")
    slots.tend(unit, {WAY.slot: 1})
    with unit("test.look") as tx:
        assert tx.exec_driver_sql("SELECT COUNT(*) FROM host_slots WHERE owner = 'one' AND until > UTC_TIMESTAMP(6) + INTERVAL 5 SECOND").scalar_one() == 1
    slots.tend(unit, {})
    slots.tend(unit, {})
    assert owners(unit) == [None, None]


def test_an_executor_that_leaves_gives_its_slots_back_at_once(unit: Any) -> None:
    pool: Any = SimpleNamespace(close=lambda: None)
    ways: Any = None
    leaving = Workers(pool=pool, unit_of_work=unit, task_types={}, ways=ways, owner="one")
    assert may(unit, leaving.slots, 0)
    leaving.close()
    assert owners(unit) == [None, None]
    assert may(unit, Slots("two"), 0)
