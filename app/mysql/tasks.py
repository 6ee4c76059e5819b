"""Tasks and edges. Inserted by the generator, moved by the scheduler alone."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from app.mysql.rows import from_json, in_order, inserting, marks, to_json
from app.mysql.unit_of_work import Transaction
from app.workflow.generation import NewTask
from app.workflow.graph import Edge, Loaded, Task
from app.workflow.task import State

_SAVED = "state, state_since, waiting_for, version, attempt, epoch, burned, reason, doubt_since, next_attempt_at, failure, finished_at"
_COLUMNS = f"id, process_id, name, type, {_SAVED}"
_SAVE = inserting("tasks", _COLUMNS, updating=_SAVED)
_INSERT = inserting("tasks", "id, process_id, name, type, model, state, state_since, waiting_for, version")
_INSERT_EDGES = inserting("edges", "process_id, from_task, to_task, on_end")


def load(tx: Transaction, loaded: Loaded, *, named: Iterable[str], roots_of: Iterable[str], all_of: Iterable[str]) -> None:
    """Into `loaded`, FOR UPDATE by key: the tasks named and their direct successors, the tasks of `roots_of` that wait for nobody, every task of `all_of`."""
    tasks, roots, whole = in_order(named), in_order(roots_of), in_order(all_of)
    if whole:
        _add_edges(tx, loaded, f"process_id IN ({marks(whole)})", whole)
        _add_tasks(tx, loaded, f"process_id IN ({marks(whole)})", whole)
    tasks = [each for each in tasks if each not in loaded.tasks]
    if tasks:
        _add_edges(tx, loaded, f"from_task IN ({marks(tasks)})", tasks)
        near = in_order([*tasks, *(edge.to_task for each in tasks for edge in loaded.successors.get(each, ()))])
        _add_tasks(tx, loaded, f"id IN ({marks(near)})", near)
    if roots:  # Last: they come without their edges, and one of them may be named.
        _add_tasks(tx, loaded, f"process_id IN ({marks(roots)}) AND waiting_for = 0", roots)


def _add_edges(tx: Transaction, loaded: Loaded, where: str, ids: Sequence[str]) -> None:
    loaded.add_edges(Edge(*row) for row in tx.exec_driver_sql(f"SELECT from_task, to_task, on_end FROM edges WHERE {where}", tuple(ids)).all())


def _add_tasks(tx: Transaction, loaded: Loaded, where: str, ids: Sequence[str]) -> None:
    rows = tx.exec_driver_sql(f"SELECT {_COLUMNS} FROM tasks WHERE {where} ORDER BY id FOR UPDATE", tuple(ids)).all()
    loaded.add_tasks(_task(list(row)) for row in rows)


def _task(fields: list[Any]) -> Task:
    fields[4], fields[14] = State(fields[4]), from_json(fields[14])
    return Task(*fields)


def save(tx: Transaction, tasks: Sequence[Task]) -> None:
    """Rows this transaction has locked, whole. One statement."""
    if tasks:
        tx.exec_driver_sql(_SAVE, [
            (t.id, t.process_id, t.name, t.type, t.state, t.state_since, t.waiting_for, t.version, t.attempt, t.epoch, t.burned, t.reason, t.doubt_since,
             t.next_attempt_at, to_json(t.failure), t.finished_at)
            for t in tasks
        ])  # fmt: skip


def insert(tx: Transaction, tasks: Sequence[NewTask], edges: Sequence[tuple[str, Edge]], *, now: datetime) -> None:
    """The plans of a batch of processes: one statement for the tasks, one for the edges (with their process ids)."""
    if tasks:
        tx.exec_driver_sql(_INSERT, [(t.id, t.process_id, t.name, t.type, to_json(t.model), State.CREATED, now, t.waiting_for, 1) for t in tasks])
    if edges:
        tx.exec_driver_sql(_INSERT_EDGES, [(process_id, e.from_task, e.to_task, e.on_end) for process_id, e in edges])
