"""What the scheduler is given to decide upon: whatever a batch names, with the successors that wait for it; and the order in which it is locked."""

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from app.mysql import engine, processes, tasks
from app.mysql.rows import inserting
from app.mysql.unit_of_work import unit_of_work
from app.workflow.generation import NewTask
from app.workflow.graph import Edge, Loaded
from tests.support.filled import NOW, TABLES, name
from tests.support.ssh_host import until

pytestmark = pytest.mark.mysql
PROCESS, (A, B, C, D) = name("prc", 1), (name("tsk", n) for n in range(4))
EDGES = [Edge(A, B, "SUCCESS"), Edge(B, C, "ENDED"), Edge(D, C, "SUCCESS")]
WAITING = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
WAITING_FOR = {A: 0, B: 1, C: 2, D: 0}


@pytest.fixture
def connected(shared_database: str) -> Iterator[Engine]:
    made = engine.connect(shared_database, size=1)
    yield made
    made.dispose()


@pytest.mark.parametrize(
    ("asked", "edges", "found"),
    [
        (([A], [], []), [EDGES[0]], {A, B}),
        (([B, D], [], []), EDGES[1:], {B, C, D}),
        (([], [PROCESS], []), [], {A, D}),
        (([A], [PROCESS], []), [EDGES[0]], {A, B, D}),  # A plan told again beside the end of a task that waited for nobody.
        (([], [PROCESS], [PROCESS]), EDGES, {A, B, C, D}),
    ],
)
def test_a_task_that_is_named_comes_with_its_edges_once_whatever_else_is_loaded(
    connected: Engine, asked: tuple[list[str], list[str], list[str]], edges: list[Edge], found: set[str]
) -> None:
    """`asked`: tasks named, processes whose roots are wanted, processes that are wanted whole."""
    loaded, (named, roots_of, all_of) = Loaded(), asked
    with unit_of_work(connected)("test.load") as tx:
        tasks.insert(tx, [NewTask(each, PROCESS, each, "NOOP", {}, many) for each, many in WAITING_FOR.items()], [(PROCESS, each) for each in EDGES], now=NOW)
        tasks.load(tx, loaded, named=named, roots_of=roots_of, all_of=all_of)
        tx.rollback()
    assert sorted((each.from_task, each.to_task) for some in loaded.successors.values() for each in some) == sorted((each.from_task, each.to_task) for each in edges)
    assert set(loaded.tasks) == found
    assert {each.id for each in loaded.by_process[PROCESS]} == found


def test_all_experiments_of_a_batch_are_locked_before_its_first_process(database: str) -> None:
    """While it waits for the last of them, whoever wants a process alone has it."""
    connected = engine.connect(database, size=3, idle_seconds=60)
    unit, found = unit_of_work(connected), list[Loaded]()
    experiments, ids = ([name(prefix, n) for n in range(3)] for prefix in ("exp", "prc"))

    def lock() -> None:
        with unit("test.lock") as tx:
            found.append(processes.lock(tx, experiments, ids))

    with unit("test.fill") as tx:
        for table in ("experiments", "processes"):
            columns, row = TABLES[table]
            tx.exec_driver_sql(inserting(table, columns), [tuple(row(n)) for n in range(3)])
    waits = threading.Thread(target=lock)
    with unit("test.rival") as rival, unit("test.third") as third:
        rival.exec_driver_sql("SELECT id FROM experiments WHERE id = %s FOR UPDATE", (experiments[-1],))
        waits.start()
        until(lambda: time.sleep(0.15) or third.exec_driver_sql(WAITING).scalar_one())  # What is asked again within 0.1 s is told from memory.
        free = third.exec_driver_sql("SELECT id FROM processes ORDER BY id FOR UPDATE SKIP LOCKED").scalars().all()
    waits.join()
    connected.dispose()
    assert free == ids
    assert [(sorted(each.experiments), sorted(each.processes)) for each in found] == [(experiments, ids)]


def test_a_process_that_is_named_with_another_experiment_is_not_there(database: str) -> None:
    connected = engine.connect(database, size=1)
    with unit_of_work(connected)("test.lock") as tx:
        for table in ("experiments", "processes"):
            columns, row = TABLES[table]
            tx.exec_driver_sql(inserting(table, columns), [tuple(row(n)) for n in range(2)])
        found = processes.lock(tx, [name("exp", 0), ""], [name("prc", 0), name("prc", 1), ""])
        tx.rollback()
    connected.dispose()
    assert (set(found.experiments), set(found.processes)) == ({name("exp", 0)}, {name("prc", 0)})
