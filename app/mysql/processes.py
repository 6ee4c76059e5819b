"""Processes, and with them the experiments they belong to: both are locked, since what ends one may end the other; all experiments before the first process."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from app.mysql.rows import among, from_json, in_order, inserting, marks, to_json
from app.mysql.unit_of_work import Transaction
from app.workflow import experiment, process
from app.workflow.graph import Experiment, Loaded, Process
from app.workflow.submission import Launch

_LOCK_EXPERIMENTS = "SELECT id, state, version, reason, outcome, failure, state_since, finished_at FROM experiments WHERE id IN ({}) ORDER BY id FOR UPDATE"
_LOCK = """SELECT id, experiment_id, gateway_id, part, state, version, tasks_total, tasks_open, tasks_failed, trace_context, created_at, state_since, reason, outcome, failure,
  deadline_at, finished_at, trace_keep FROM processes WHERE id IN ({}) ORDER BY id FOR UPDATE"""
# What never changes (snapshot; a task's model) may be NULL in the schema, so that these upserts of what does need not repeat it.
_SAVED = "state, version, tasks_total, tasks_open, tasks_failed, updated_at, state_since, reason, outcome, failure, finished_at, trace_keep"
_SAVE = inserting("processes", f"id, experiment_id, gateway_id, part, created_at, {_SAVED}", updating=_SAVED)
_INSERT = inserting("processes", "id, experiment_id, gateway_id, part, state, state_since, version, trace_context, snapshot, deadline_at, created_at, updated_at")
_TO_PLAN = "SELECT id, state, part, trace_context, snapshot FROM processes WHERE id IN ({}) ORDER BY id FOR UPDATE"


def lock(tx: Transaction, experiment_ids: Iterable[str], process_ids: Iterable[str]) -> Loaded:
    """The experiments named, then their processes, FOR UPDATE by key; of a join the server chooses what it locks first. A process of another experiment is as good as missing."""
    loaded = Loaded()
    for row in among(tx, _LOCK_EXPERIMENTS, filter(None, experiment_ids)):
        loaded.experiments[row[0]] = Experiment(row[0], experiment.State(row[1]), row[2], row[3], row[4], from_json(row[5]), row[6], row[7])
    for row in among(tx, _LOCK, filter(None, process_ids)):
        fields: list[Any] = list(row)
        fields[4], fields[14] = process.State(fields[4]), from_json(fields[14])
        if row[1] in loaded.experiments:
            loaded.processes[row[0]] = Process(*fields)
    return loaded


def save(tx: Transaction, processes: Sequence[Process], *, now: datetime) -> None:
    """Rows this transaction has locked, whole. One statement."""
    if processes:
        tx.exec_driver_sql(_SAVE, [
            (p.id, p.experiment_id, p.gateway_id, p.part, p.created_at, p.state, p.version, p.tasks_total, p.tasks_open, p.tasks_failed, now, p.state_since,
             p.reason, p.outcome, to_json(p.failure), p.finished_at, p.trace_keep)
            for p in processes
        ])  # fmt: skip


def save_experiments(tx: Transaction, experiments: Sequence[Experiment], *, now: datetime) -> None:
    """One statement for all that end (or start) alike: in a batch most do."""

    def alike(e: Experiment) -> tuple[str, str, str, str]:
        return e.state, e.reason, e.outcome or "", to_json(e.failure) or ""

    for (state, reason, outcome, failure), group in groupby(sorted(experiments, key=alike), key=alike):
        ids = in_order(each.id for each in group)
        finished_at = now if state in experiment.TERMINAL else None
        tx.exec_driver_sql(
            "UPDATE experiments SET state = %s, state_since = %s, reason = %s, outcome = %s, failure = %s, finished_at = %s, updated_at = %s, version = version + 1 "
            f"WHERE id IN ({marks(ids)})",
            (state, now, reason, outcome or None, failure or None, finished_at, now, *ids),
        )


def insert(tx: Transaction, launch: Launch, *, gateway_id: str, experiment_id: str, deadline_at: datetime | None, now: datetime) -> None:
    """The process row of a launch (CREATED), in the transaction that moves the experiment to LAUNCHED."""
    row = (launch.process_id, experiment_id, gateway_id, launch.part, process.State.CREATED, now, 1, launch.trace_context, to_json(launch.snapshot), deadline_at, now, now)
    tx.exec_driver_sql(_INSERT, row)


def lock_to_plan(tx: Transaction, process_ids: Iterable[str]) -> dict[str, Any]:
    """(id, state, part, trace_context, snapshot) of the processes to plan, FOR UPDATE."""
    return {row[0]: row for row in among(tx, _TO_PLAN, process_ids)}


def validated(tx: Transaction, process_ids: Sequence[str], tasks_total: int, *, now: datetime) -> None:
    """CREATED → VALIDATED for processes of equally many tasks: one statement."""
    ids = in_order(process_ids)
    tx.exec_driver_sql(
        f"UPDATE processes SET state = 'VALIDATED', state_since = %s, updated_at = %s, version = version + 1, tasks_total = %s, tasks_open = %s WHERE id IN ({marks(ids)})",
        (now, now, tasks_total, tasks_total, *ids),
    )


def snapshots(tx: Transaction, process_ids: Iterable[str]) -> dict[str, Any]:
    """The frozen snapshot of each process, decoded. A plain read: it never changes."""
    return {row[0]: from_json(row[1]) for row in among(tx, "SELECT id, snapshot FROM processes WHERE id IN ({})", process_ids)}


@dataclass(frozen=True)
class Place:
    """Where a process's messages go."""

    experiment_id: str
    gateway_id: str
    part: int
    trace_context: str


def places(tx: Transaction, process_ids: Iterable[str]) -> dict[str, Place]:
    """What never changes of a process, by a plain read."""
    return {row[0]: Place(*row[1:]) for row in among(tx, "SELECT id, experiment_id, gateway_id, part, trace_context FROM processes WHERE id IN ({})", process_ids)}
