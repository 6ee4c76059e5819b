"""Outputs of experiments: EXPECTED from the launch on, then STAGED, MISSING or FAILED as egress staging found them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from app.mysql.rows import inserting
from app.mysql.unit_of_work import Transaction
from app.workflow.execution import StagedOutput

_EXPECT = inserting("outputs", "experiment_id, name, type, position, state, updated_at")


def expect(tx: Transaction, experiment_id: str, declared: Sequence[tuple[str, str]], *, now: datetime) -> None:
    """(name, type) in their order, with the launch."""
    if declared:
        tx.exec_driver_sql(_EXPECT, [(experiment_id, name, kind, position, "EXPECTED", now) for position, (name, kind) in enumerate(declared)])


def staged(tx: Transaction, experiment_id: str, found: Sequence[StagedOutput], *, now: datetime) -> None:
    """What egress staging found; under the attempt's lock."""
    for each in found:
        tx.exec_driver_sql(
            "UPDATE outputs SET state = %s, uri = %s, size_bytes = %s, sha256 = %s, updated_at = %s WHERE experiment_id = %s AND name = %s",
            (each.state, each.uri, each.size_bytes, each.sha256, now, experiment_id, each.name),
        )


def of_experiment(tx: Transaction, experiment_id: str) -> list[Any]:
    """(name, type, state, uri, size_bytes, sha256) in their declared order."""
    query = "SELECT name, type, state, uri, size_bytes, sha256 FROM outputs WHERE experiment_id = %s ORDER BY position"
    return list(tx.exec_driver_sql(query, (experiment_id,)).all())
