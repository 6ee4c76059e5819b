"""The sweeper pushes on what nothing else will; it leaves alone whatever may still be pushed."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from app.messages.placement import Placement
from app.messages.topics import Topics
from app.mysql import engine, outbox, shards
from app.mysql.unit_of_work import UnitOfWork, unit_of_work
from components.task_scheduler.sweeper import Sweeper
from observability import metrics

TOPICS, PLACEMENT, AFTER_SECONDS = Topics(), Placement(4, 4, 2), 5
PART = 3
STUCK = (
    ("INSERT INTO processes (id, experiment_id, gateway_id, part, state, state_since, version, tasks_total, tasks_open, created_at, updated_at) "
    "VALUES ('prc_1', 'exp_1', 'gw_1', 3, 'STARTED', UTC_TIMESTAMP(6), 3, 1, 1, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) - INTERVAL 10 SECOND)"),
    "INSERT INTO tasks (id, process_id, name, type, state, state_since, waiting_for, attempt, epoch, burned, version) VALUES ('tsk_1', 'prc_1', 'a', 'NOOP', 'RETRY_WAIT', UTC_TIMESTAMP(6), 0, 1, 1, 1, 3)",
)
TIMER = "INSERT INTO timers (due_at, mid, process_id, topic, part, k, headers, payload) VALUES (UTC_TIMESTAMP(6) + INTERVAL 1 HOUR, 'm', 'prc_1', 't', 3, 'k', '', '')"


@pytest.fixture
def store(database: str) -> Iterator[Engine]:
    made = engine.connect(database, size=2, idle_seconds=30)
    with unit_of_work(made)("test.stuck") as tx:
        shards.ensure(tx, PLACEMENT.shards)
        for statement in STUCK:
            tx.exec_driver_sql(statement)
    yield made
    made.dispose()


def a_sweeper(unit: UnitOfWork, *quiet: int) -> Sweeper:
    """`quiet`: partition numbers whose ends were seen."""
    return Sweeper(unit_of_work=unit, placement=PLACEMENT, topics=TOPICS, after_seconds=AFTER_SECONDS, quiet=lambda _: quiet)


def waiting(unit: UnitOfWork) -> list[Any]:
    with unit("test.read") as tx:
        return list(outbox.waiting(tx, shard=PART % PLACEMENT.shards, turn=0, size=10))


def test_what_stands_still_is_pushed_on_once(store: Engine) -> None:
    unit = unit_of_work(store)
    sweeper = a_sweeper(unit, PART)
    assert (sweeper.sweep(), sweeper.sweep()) == (1, 0)
    assert metrics.value("airavata_rescued_total", kind="task") == 1
    (row,) = waiting(unit)
    assert (row.topic, row.part) == (TOPICS.scheduler, PART)


def test_a_push_that_moved_nothing_is_followed_by_another_message_and_not_by_a_copy(store: Engine) -> None:
    unit, mids = unit_of_work(store), set[bytes]()
    sweeper = a_sweeper(unit, PART)
    for _ in range(2):
        assert sweeper.sweep() == 1
        (row,) = waiting(unit)
        mids.add(row.mid)
        with unit("test.sent") as tx:
            outbox.delete(tx, [row.id], [row.mid])
    assert len(mids) == 2


def test_nothing_is_pushed_where_the_ends_were_not_seen(store: Engine) -> None:
    unit = unit_of_work(store)
    assert (a_sweeper(unit).sweep(), a_sweeper(unit, PART - 1).sweep()) == (0, 0)


@pytest.mark.parametrize("still_pushed", [TIMER, "UPDATE processes SET updated_at = UTC_TIMESTAMP(6)", "UPDATE tasks SET state = 'SCHEDULED'"])
def test_what_may_still_be_pushed_is_left_alone(store: Engine, still_pushed: str) -> None:
    unit = unit_of_work(store)
    with unit("test.pushed") as tx:
        tx.exec_driver_sql(still_pushed)
    assert a_sweeper(unit, PART).sweep() == 0
