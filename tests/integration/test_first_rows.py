"""Rows that several instances make at their first need of them: who comes second finds the rival's row as good as its own, and goes on in the same transaction."""

import threading
from collections.abc import Callable

import pytest

from app.dev.process import wait_until
from app.mysql import engine, hosts, shards
from app.mysql.unit_of_work import Transaction, unit_of_work

FIRST_NEEDS: dict[str, Callable[[Transaction], None]] = {
    "relay shards": lambda tx: shards.ensure(tx, 2),
    "host watches": lambda tx: hosts.ensure_watch(tx, ["cmp_1", "cmp_2"]),
    "host slots": lambda tx: hosts.ensure_slots(tx, "127.0.0.1:22", 2),
}


@pytest.mark.parametrize("need", FIRST_NEEDS.values(), ids=FIRST_NEEDS)
def test_two_at_once_make_the_same_rows_and_neither_fails(database: str, need: Callable[[Transaction], None]) -> None:
    connected = engine.connect(database, size=2, idle_seconds=5)
    begin, told, faults = unit_of_work(connected), list[int](), list[BaseException]()

    def second() -> None:
        try:
            with begin("second") as tx:
                told.append(tx.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one())
                need(tx)
        except BaseException as fault:
            faults.append(fault)

    with begin("first") as tx:
        need(tx)
        rival = threading.Thread(target=second)
        rival.start()
        waits = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT' AND trx_mysql_thread_id = %s"  # Asked more often than each 0.1 s, InnoDB tells what it told before.
        assert wait_until(lambda: bool(told) and tx.exec_driver_sql(waits, (told[0],)).scalar_one() == 1, 30.0, 0.15), "the second never met the first's rows"
    rival.join(30.0)
    connected.dispose()
    assert faults == []
