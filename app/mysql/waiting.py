"""What tells a waiting request that its experiment changed: the row's version and the last event's number."""

from collections.abc import Sequence

from app.mysql.rows import among
from app.mysql.unit_of_work import Transaction


def marks_of(tx: Transaction, experiment_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Experiment → (version, last seq). One statement for everybody who waits."""
    query = "SELECT e.id, e.version, (SELECT MAX(v.seq) FROM events v WHERE v.experiment_id = e.id) FROM experiments e WHERE e.id IN ({})"
    return {row[0]: (row[1], row[2] or 0) for row in among(tx, query, experiment_ids)}
