"""What a database fault tells: its number decides what it means, and its text goes to logs and dead letters."""

import pytest
from sqlalchemy import exc

from app.mysql import engine
from app.mysql.unit_of_work import unit_of_work

pytestmark = pytest.mark.mysql


def test_a_faults_text_says_nothing_of_what_was_sent(shared_database: str) -> None:
    connected = engine.connect(shared_database, size=1)
    with pytest.raises(exc.DBAPIError) as raised, unit_of_work(connected)("test.faults") as tx:
        tx.exec_driver_sql("INSERT INTO gateways (id, name, state, document, version, created_at, updated_at) VALUES (%s, 'n', 'ACTIVE', '{}', 1, NOW(), NOW())", ("hush" * 100,))
    connected.dispose()
    assert "INSERT INTO gateways" in str(raised.value)
    assert "hush" not in str(raised.value)
