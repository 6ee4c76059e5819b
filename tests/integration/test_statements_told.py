"""Statements are measured always, and told as spans where one is under way: by verb and table, a bulk as one with its rows, a failed one with the driver's number, what sets up a session never."""

from collections.abc import Iterator

import pytest
from sqlalchemy import exc

from app.mysql import engine
from observability import metrics, tracing
from tests.support.told_spans import Collected

pytestmark = pytest.mark.mysql
ABOVE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NAMES = ("CREATE", "INSERT told", "UPDATE told", "SELECT told", "SELECT not_there")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collected]:
    collected = Collected()
    monkeypatch.setattr(tracing, "_process", tracing._Process(exporting=collected))
    yield collected


def measured() -> list[float]:
    return [metrics.value("db_client_operation_duration_seconds", statement=name) for name in NAMES]


def test_each_statement_of_ours_is_measured_and_told_once(empty_database: str, told: Collected) -> None:
    connected, before = engine.connect(empty_database, size=1), measured()
    with tracing.within(ABOVE), connected.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE told (id INT PRIMARY KEY, n INT)")
        connection.exec_driver_sql("INSERT INTO told (id, n) VALUES (%s, %s)", [(1, 1), (2, 2), (3, 3)])
        connection.exec_driver_sql("UPDATE told SET n = %s WHERE id = %s", [(7, 1), (8, 2)])  # To the driver that is two.
        assert connection.exec_driver_sql("SELECT SUM(n) FROM told").scalar_one() == 18
        with pytest.raises(exc.ProgrammingError):
            connection.exec_driver_sql("SELECT 1 FROM not_there")
        connection.commit()
    with connected.connect() as connection:  # Nothing is under way.
        connection.exec_driver_sql("SELECT SUM(n) FROM told")
    connected.dispose()
    ours = [each for each in told if each.name in NAMES]
    assert [(each.name, each.attributes.get("db.operation.batch.size"), each.attributes.get("error.type")) for each in ours] == [
        ("CREATE", None, None), ("INSERT told", 3, None), ("UPDATE told", 2, None), ("SELECT told", None, None), ("SELECT not_there", None, "1146"),
    ]  # fmt: skip
    assert {each.parent.span_id for each in told} == {int(ABOVE[36:52], 16)}
    assert {each.name.partition(" ")[0] for each in told} <= {"CREATE", "INSERT", "UPDATE", "SELECT", "SHOW"}
    assert [after - earlier for after, earlier in zip(measured(), before, strict=True)] == [1, 1, 1, 2, 1]
