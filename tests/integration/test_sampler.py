"""The sampler: one of several is elected, its figures are those of the database, and nothing of the old stays when it cannot read."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from app.api.sampler import Sampler
from app.mysql import engine
from app.mysql.unit_of_work import unit_of_work

pytestmark = pytest.mark.mysql
PROCESS = (
    "INSERT INTO processes (id, experiment_id, gateway_id, part, state, state_since, version, tasks_total, tasks_open, created_at, updated_at) "
    "VALUES ('prc_1', 'exp_1', 'gw_1', 3, '{}', UTC_TIMESTAMP(6), 3, 1, 1, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) - INTERVAL 400 SECOND)"
)
TASK = (
    "INSERT INTO tasks (id, process_id, name, type, state, state_since, waiting_for, attempt, epoch, burned, version, next_attempt_at, failure) "
    "VALUES ('tsk_{0}', 'prc_1', '{0}', '{1}', '{2}', UTC_TIMESTAMP(6) - INTERVAL 400 SECOND, 0, 1, 1, 1, 3, {3}, {4})"
)
CIRCUIT = "INSERT INTO host_circuits (compute_resource_id, credential_id, condition_code, since, detail, host_version) VALUES ('cmp_1', 'crd_1', 'HOST_KEY_CHANGED', UTC_TIMESTAMP(6), '', 1)"
LATE = "UTC_TIMESTAMP(6) - INTERVAL 100 SECOND"


@pytest.fixture
def store(database: str) -> Iterator[Engine]:
    made = engine.connect(database, size=2, idle_seconds=30)
    yield made
    made.dispose()


def a_sampler(database: str) -> Sampler:
    return Sampler(engine.connect(database, size=1, idle_seconds=30), shards=2, task_types=["NOOP"])


def write(store: Engine, *statements: str) -> None:
    with unit_of_work(store)("test.write") as tx:
        for each in statements:
            tx.exec_driver_sql(each)


def read(sampler: Sampler, name: str, **labels: str) -> float:
    sampler.turn()
    (found,) = [value for told, value, about in sampler.readings if told == name and labels.items() <= about.items()]
    return float(found)


def test_one_of_several_is_elected_and_another_when_its_session_has_ended(store: Engine, database: str) -> None:
    first, second = a_sampler(database), a_sampler(database)
    for _ in range(2):
        first.turn()
        second.turn()
        assert first.readings
        assert not second.readings
    first.database.dispose()
    second.turn()
    first.turn()
    assert second.readings
    assert not first.readings
    second.database.dispose()
    first.database.dispose()


def test_an_idle_system_is_told_with_zeros(store: Engine, database: str) -> None:
    sampler = a_sampler(database)
    for name in ("airavata_outbox_rows", "airavata_outbox_oldest_age_seconds"):
        assert read(sampler, name, shard="1") == 0
    assert read(sampler, "airavata_tasks", type="NOOP", state="SCHEDULED") == 0
    assert read(sampler, "airavata_timers_due", kind="retry") == 0
    assert read(sampler, "airavata_schema_revision_match") == 1
    assert read(sampler, "airavata_mysql_history_list_length") >= 0
    sampler.database.dispose()


def test_what_stays_too_long_is_told_as_stuck_and_what_is_in_time_is_not(store: Engine, database: str) -> None:
    sampler = a_sampler(database)
    assert read(sampler, "airavata_stuck", state="SCHEDULED") == 0
    held = "'{\"condition\": \"AUTH_REQUIRED\"}'"
    write(
        store, PROCESS.format("STARTED"), TASK.format("a", "NOOP", "SCHEDULED", "NULL", "NULL"), TASK.format("b", "ENV_SETUP", "BLOCKED", LATE, held),
        TASK.format("c", "NOOP", "RETRY_WAIT", "UTC_TIMESTAMP(6) + INTERVAL 1 HOUR", "NULL"), TASK.format("d", "NOOP", "EXECUTING", "NULL", "NULL"),
    )  # fmt: skip
    assert {state: read(sampler, "airavata_stuck", state=state) for state in ("SCHEDULED", "BLOCKED", "RETRY_WAIT", "CREATED")} == {"SCHEDULED": 1, "BLOCKED": 1, "RETRY_WAIT": 0, "CREATED": 0}
    assert read(sampler, "airavata_tasks_ready", type="NOOP") == 1
    assert 390 < read(sampler, "airavata_tasks_ready_oldest_age_seconds", type="NOOP") < 600
    assert read(sampler, "airavata_blocked_tasks", condition="AUTH_REQUIRED") == 1
    write(store, "UPDATE processes SET state = 'VALIDATED', updated_at = UTC_TIMESTAMP(6) - INTERVAL 61 SECOND")
    assert read(sampler, "airavata_stuck", state="VALIDATED") == 1
    sampler.database.dispose()


def test_a_host_that_shows_another_key_is_told_until_its_circuit_is_closed(store: Engine, database: str) -> None:
    sampler = a_sampler(database)
    write(store, CIRCUIT)
    assert read(sampler, "airavata_ssh_host_key_changed", host="cmp_1") == 1
    assert [read(sampler, "airavata_ssh_circuit_state", host="cmp_1", state=state) for state in ("open", "half_open", "closed")] == [1, 0, 0]
    write(store, "UPDATE host_circuits SET since = UTC_TIMESTAMP(6) - INTERVAL 61 SECOND")
    assert read(sampler, "airavata_ssh_circuit_state", host="cmp_1", state="half_open") == 1
    write(store, "DELETE FROM host_circuits")
    assert read(sampler, "airavata_ssh_host_key_changed", host="cmp_1") == 0
    assert read(sampler, "airavata_ssh_circuit_state", host="cmp_1", state="closed") == 1
    sampler.database.dispose()


def test_what_cannot_be_read_is_not_shown(store: Engine, database: str) -> None:
    sampler = a_sampler(database)
    sampler.turn()
    assert sampler.readings
    write(store, "RENAME TABLE dead_letters TO elsewhere")
    sampler.turn()
    assert sampler.readings == []
    sampler.database.dispose()


def test_its_session_cannot_write(store: Engine, database: str) -> None:
    sampler = a_sampler(database)
    sampler.turn()
    with pytest.raises(Exception, match=r"(?i)read.only"), sampler.unit_of_work("test.write") as tx:
        tx.exec_driver_sql("DELETE FROM timers")
    sampler.database.dispose()
