"""What the scheduler is given to decide upon: whatever a batch names, with the successors that wait for it."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from app.mysql import engine, tasks
from app.mysql.unit_of_work import unit_of_work
from app.workflow.generation import NewTask
from app.workflow.graph import Edge, Loaded
from tests.support.filled import NOW, name

pytestmark = pytest.mark.mysql
PROCESS, (A, B, C, D) = name("prc", 1), (name("tsk", n) for n in range(4))
EDGES = [Edge(A, B, "SUCCESS"), Edge(B, C, "ENDED"), Edge(D, C, "SUCCESS")]
WAITING = {A: 0, B: 1, C: 2, D: 0}


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
        tasks.insert(tx, [NewTask(each, PROCESS, each, "NOOP", {}, many) for each, many in WAITING.items()], [(PROCESS, each) for each in EDGES], now=NOW)
        tasks.load(tx, loaded, named=named, roots_of=roots_of, all_of=all_of)
        tx.rollback()
    assert sorted((each.from_task, each.to_task) for some in loaded.successors.values() for each in some) == sorted((each.from_task, each.to_task) for each in edges)
    assert set(loaded.tasks) == found
    assert {each.id for each in loaded.by_process[PROCESS]} == found
