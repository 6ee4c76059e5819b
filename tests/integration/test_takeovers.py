"""A take-over is counted when its predecessor was dead, with the gap that its work stood still; a rebalance among the living is none."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from app.mysql import engine, instances
from app.mysql.takeovers import DEAD_AFTER_SECONDS, WAIT_SECONDS, Takeovers
from app.mysql.unit_of_work import UnitOfWork, now, unit_of_work
from observability import metrics

pytestmark = pytest.mark.mysql
PLACE = ("event-sink", 3)


@pytest.fixture
def unit(database: str) -> Iterator[UnitOfWork]:
    made: Engine = engine.connect(database, size=1, idle_seconds=30)
    with unit_of_work(made)("test.beat") as tx:
        instances.beat(tx, "scheduler-1", component="scheduler", version="0", facts={})
        tx.exec_driver_sql("UPDATE instances SET heartbeat_at = UTC_TIMESTAMP(6) - INTERVAL 2 SECOND")
    yield unit_of_work(made)
    made.dispose()


def taken(unit: UnitOfWork, *, owner: str = "scheduler-1", waited_seconds: float = 0.0) -> Takeovers:
    """Its partition was claimed and a first batch committed there; that is long enough ago to look again."""
    made = Takeovers("task-scheduler")
    with unit("test.claim") as tx:
        made.claimed(tx, {PLACE: owner})
        made.waiting = {place: (who, beat, claimed - waited_seconds) for place, (who, beat, claimed) in made.waiting.items()}
        made.committed([PLACE], now(tx))
    made.committed_at = {who: (beat, first, learned - DEAD_AFTER_SECONDS - 1) for who, (beat, first, learned) in made.committed_at.items()}
    return made


def test_a_dead_predecessor_is_counted_once_with_the_time_from_its_last_heartbeat(unit: UnitOfWork) -> None:
    takeovers = taken(unit)
    for _ in range(2):
        takeovers.settle_soon(unit)
    assert metrics.value("airavata_takeovers_total", group="task-scheduler") == 1
    buckets = [line for line in metrics.exposition()[0].decode().splitlines() if line.startswith("airavata_takeover_gap_seconds_bucket") and line.endswith(" 1.0")]
    assert 'le="3.0"' in buckets[0], "two seconds, and what the test took"


def test_a_predecessor_that_still_beats_has_only_given_a_partition_away(unit: UnitOfWork) -> None:
    takeovers = taken(unit)
    with unit("test.beat") as tx:
        instances.beat(tx, "scheduler-1", component="scheduler", version="0", facts={})
    takeovers.settle_soon(unit)
    assert metrics.value("airavata_takeovers_total") == 0
    assert takeovers.committed_at == {}


def test_one_that_left_in_good_order_and_a_partition_without_work_say_nothing(unit: UnitOfWork) -> None:
    for takeovers in (taken(unit, owner="scheduler-gone"), taken(unit, waited_seconds=WAIT_SECONDS + 1)):
        takeovers.settle_soon(unit)
    assert metrics.value("airavata_takeovers_total") == 0
