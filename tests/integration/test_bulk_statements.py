"""What is written in bulk is one statement, however many rows: PyMySQL sends row by row, silently, as soon as one value of an INSERT is not a bare placeholder."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from app.messages.envelope import Record
from app.messages.ids import named
from app.messages.placement import Placement
from app.mysql import attempts, engine, events, outbox, outputs, positions, processes, tasks
from app.mysql.attempts import Held
from app.mysql.positions import Locked, Position
from app.mysql.unit_of_work import Transaction, unit_of_work
from app.workflow import attempt, process
from app.workflow.generation import NewTask
from app.workflow.graph import Attempt, Edge, Process, Task
from app.workflow.task import State
from tests.support.filled import NOW, name

pytestmark = pytest.mark.mysql
MANY = range(40)
NEW = [NewTask(name("tsk", n), name("prc", n), "a", "NOOP", {}, 0) for n in MANY]
EDGES = [(name("prc", n), Edge(name("tsk", n), name("tsk", n + 1), "SUCCESS")) for n in MANY]
MOVED = [Task(name("tsk", n), name("prc", n), "a", "NOOP", State.SCHEDULED, NOW, 0, 2, 1, 1) for n in MANY]
STARTED = [
    Process(name("prc", n), name("exp", n), name("gw", 1), 0, process.State.STARTED, 2, 1, 1, 0, "", NOW, NOW) for n in MANY
]  # fmt: skip
FRESH = [Attempt(name("att", n), name("tsk", n), name("prc", n), 1, attempt.State.DISPATCHED, 1, fresh=True) for n in MANY]
ENDED = [(Held(name("att", n), name("tsk", n), name("prc", n), 1, attempt.State.RUNNING, 1, "x", NOW), attempt.State.SUCCEEDED, {}) for n in MANY]
EVENTS = [
    events.New(
        {"id": named("evt", n.to_bytes(16, "big")), "experiment_id": name("exp", 1), "gateway_id": name("gw", 1), "process_id": name("prc", 1), "task_id": None, "type": "ProcessChanged"},
        NOW, late=False,
    )
    for n in MANY
]  # fmt: skip
LOCKED = Locked({("t", part): Position("", 0, "x", 1) for part in MANY}, NOW)
RECORDS = [Record(n.to_bytes(16, "big"), "t", n % 4, "k", b"", b"{}") for n in MANY]

BULK: dict[str, tuple[int, Callable[[Transaction], Any]]] = {
    "tasks.insert": (2, lambda tx: tasks.insert(tx, NEW, EDGES, now=NOW)),
    "tasks.save": (1, lambda tx: tasks.save(tx, MOVED)),
    "processes.save": (1, lambda tx: processes.save(tx, STARTED, now=NOW)),
    "attempts.dispatch": (1, lambda tx: attempts.dispatch(tx, FRESH, now=NOW)),
    "attempts.finish": (1, lambda tx: attempts.finish(tx, ENDED, now=NOW)),
    "outbox.append_records": (1, lambda tx: outbox.append_records(tx, RECORDS, placement=Placement(4, 4, 2), now=NOW)),
    "positions.advance": (1, lambda tx: positions.advance(tx, "g", {("t", part): 1 for part in MANY}, LOCKED)),
    "outputs.expect": (1, lambda tx: outputs.expect(tx, name("exp", 1), [(f"o{n}", "STRING") for n in MANY], now=NOW)),
    "events.append": (3, lambda tx: events.append(tx, EVENTS, now=NOW)),  # What is there, the last number, the insert.
}


@pytest.fixture
def connected(shared_database: str) -> Iterator[Engine]:
    made = engine.connect(shared_database, size=1)
    yield made
    made.dispose()


@pytest.mark.parametrize("function", BULK)
def test_rows_written_in_bulk_are_one_statement(connected: Engine, function: str) -> None:
    expected, call = BULK[function]
    with unit_of_work(connected)("test.bulk") as tx:
        before = questions(tx)
        call(tx)
        sent = questions(tx) - before - 1
        tx.rollback()
    assert sent == expected


def questions(tx: Transaction) -> int:
    """Statements of this session so far, as the server counts them; asking is one more."""
    return int(tx.exec_driver_sql("SHOW SESSION STATUS LIKE 'Questions'").one()[1])
