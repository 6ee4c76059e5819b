"""The schema's history from empty to head and back, on each database."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

import migrations
from app.errors import Misconfigured
from app.lifecycle import Lifecycle
from app.mysql import engine, instances
from app.mysql.unit_of_work import unit_of_work
from app.settings import read
from migrations import Schema

ROOT = Path(__file__).parents[2]
UPGRADE = """
import sys
import migrations
from app import failpoint
failpoint.arm(sys.argv[2], environment="test")
migrations.upgrade(sys.argv[1])
"""

pytestmark = pytest.mark.mysql


@pytest.fixture
def connected(empty_database: str) -> Iterator[Engine]:
    made = engine.connect(empty_database, size=2, idle_seconds=30)
    yield made
    made.dispose()


def in_a_process(url: str, failpoints: str) -> int:
    return subprocess.run([sys.executable, "-c", UPGRADE, url, failpoints], cwd=ROOT, timeout=60, check=False).returncode


def described(connection: Connection) -> dict[str, dict[str, object]]:
    """What information_schema says of each table, without what two servers spell differently."""

    def ask(statement: str) -> list[tuple[object, ...]]:
        return [tuple(row) for row in connection.exec_driver_sql(statement)]

    here = "table_schema = DATABASE() AND table_name <> 'alembic_version'"
    found: dict[str, dict[str, Any]] = {}
    for name, engine_name, collation in ask(f"SELECT table_name, engine, table_collation FROM information_schema.tables WHERE {here}"):
        found[str(name)] = {"engine": engine_name, "collation": collation, "columns": {}, "indexes": {}, "checks": set()}
    columns = f"SELECT table_name, column_name, column_type, is_nullable, collation_name, extra, column_default FROM information_schema.columns WHERE {here}"
    for name, column, *rest in ask(columns):
        found[str(name)]["columns"][column] = plain(rest)
    for name, index, sequence, column, loose in ask(
        f"SELECT table_name, index_name, seq_in_index, column_name, non_unique FROM information_schema.statistics WHERE {here}"
    ):
        found[str(name)]["indexes"].setdefault((index, int(loose)), {})[int(sequence)] = column
    for name, check in ask(
        "SELECT table_name, constraint_name FROM information_schema.table_constraints WHERE table_schema = DATABASE() AND constraint_type = 'CHECK'"
    ):
        found[str(name)]["checks"].add(check)
    return found


def plain(column: list[object]) -> tuple[str, ...]:
    kind, nullable, collation, extra, default = (str(part).lower() for part in column)
    default = "none" if default in {"none", "null"} else default.strip("'")
    for width in ("int(11)", "bigint(20)", "smallint(6)"):  # MariaDB still tells the display width.
        kind = kind.replace(width, width.partition("(")[0])
    return kind, nullable, collation, extra, default


def test_up_down_and_up_again(empty_database: str, connected: Engine) -> None:
    assert migrations.check(connected) is Schema.BEHIND
    migrations.upgrade(empty_database)
    assert (migrations.current(empty_database), migrations.check(connected)) == (migrations.head(), Schema.CURRENT)
    with connected.connect() as connection:
        first = described(connection)
    migrations.downgrade(empty_database)
    assert migrations.current(empty_database) is None
    with connected.connect() as connection:
        assert described(connection) == {}
    migrations.upgrade(empty_database)
    with connected.connect() as connection:
        assert described(connection) == first


def test_a_run_killed_between_a_statement_and_its_note_goes_on(empty_database: str, connected: Engine) -> None:
    assert in_a_process(empty_database, "migration.step.after=crash@9") == -signal.SIGKILL
    with connected.connect() as connection:
        assert len(described(connection)) == 9
    assert migrations.current(empty_database) == "0008_r0_1"
    assert migrations.check(connected) is Schema.BEHIND
    migrations.upgrade(empty_database)
    assert migrations.check(connected) is Schema.CURRENT


def test_a_column_that_was_added_before_its_run_was_killed_is_not_added_again(empty_database: str, connected: Engine) -> None:
    migrations.upgrade(empty_database)
    with connected.connect() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0024_r0_1'")
        connection.commit()
    migrations.upgrade(empty_database)
    assert migrations.check(connected) is Schema.CURRENT


def test_two_runs_at_once_take_turns(empty_database: str, connected: Engine) -> None:
    codes: list[int] = []
    runs = [threading.Thread(target=lambda: codes.append(in_a_process(empty_database, ""))) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert codes == [0, 0, 0]
    assert migrations.check(connected) is Schema.CURRENT


def test_a_second_run_waits_for_a_frozen_first_and_takes_over_when_it_is_gone(empty_database: str, connected: Engine) -> None:
    first = subprocess.Popen([sys.executable, "-c", UPGRADE, empty_database, "migration.step.after=pause@3"], cwd=ROOT)
    _, status = os.waitpid(first.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    second = subprocess.Popen([sys.executable, "-c", UPGRADE, empty_database, ""], cwd=ROOT)
    until_waiting_for_the_lock(connected)
    assert migrations.current(empty_database) == "0002_r0_1"
    os.kill(first.pid, signal.SIGKILL)
    os.waitpid(first.pid, 0)
    first.returncode = -signal.SIGKILL
    assert second.wait(60) == 0
    assert migrations.check(connected) is Schema.CURRENT


def test_a_contract_step_waits_until_no_release_that_it_shuts_out_has_a_heartbeat(empty_database: str, connected: Engine, tmp_path: Path) -> None:
    """Revisions as a later release would have them: the last one takes away what release 0.0 used."""
    shutil.copytree(ROOT / "migrations", tmp_path / "migrations", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (tmp_path / "migrations" / "versions").glob("*.py"):
        path.write_text(path.read_text().replace('_r0_1"', '_r0_0"'))

    def upgrade() -> str:
        argv = [sys.executable, "-c", UPGRADE, empty_database, ""]
        done = subprocess.run(argv, cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode != 0) == ("Misconfigured" in done.stderr), done.stderr
        return done.stderr

    assert upgrade() == ""
    before = migrations.head().replace("_r0_1", "_r0_0")
    contract = 'from alembic import op\nrevision = "0900_r0_1"\ndown_revision = "{}"\ndef upgrade():\n    op.execute("DROP TABLE IF EXISTS skeletons")\n'
    (tmp_path / "migrations" / "versions" / "0900_contract.py").write_text(contract.format(before))
    unit = unit_of_work(connected)
    for version in ("0.0.9", "0.1.0"):
        with unit("test.beat") as tx:
            instances.beat(tx, f"scheduler-{version}", component="scheduler", version=version, facts={})
    told = upgrade()
    assert "shuts out releases before 0.1, and 1 of them run: scheduler-0.0.9 (0.0.9)" in told
    assert migrations.current(empty_database) == before
    with unit("test.silent") as tx:
        tx.exec_driver_sql("UPDATE instances SET heartbeat_at = heartbeat_at - INTERVAL 31 SECOND WHERE version = '0.0.9'")
    assert upgrade() == ""
    assert migrations.current(empty_database) == "0900_r0_1"
    with connected.connect() as connection:
        assert "skeletons" not in described(connection)
    assert migrations.check(connected) is Schema.CURRENT


def test_who_slept_through_a_contract_step_ends_with_its_next_heartbeat(database: str) -> None:
    connected = engine.connect(database, size=1)
    unit, lifecycle = unit_of_work(connected), Lifecycle("scheduler", read({"AIRAVATA_MYSQL_URL": database}))
    lifecycle.each_turn(unit)
    with unit("test.contract") as tx:
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = '0900_r0_2'")
        tx.exec_driver_sql("UPDATE instances SET heartbeat_at = heartbeat_at - INTERVAL 1 HOUR")
    lifecycle._beaten = 0.0
    with pytest.raises(Misconfigured, match="deploy the newer release"):
        lifecycle.each_turn(unit)
    with unit("test.look") as tx:
        assert all(row[6] - row[4] > timedelta(minutes=50) for row in instances.all_rows(tx)), "it beat no more"
    connected.dispose()


def until_waiting_for_the_lock(connected: Engine) -> None:
    for _ in range(10_000):
        with connected.connect() as connection:
            states = connection.exec_driver_sql("SELECT state FROM information_schema.processlist WHERE info LIKE 'SELECT GET_LOCK%%'").scalars().all()
        if any(state and "lock" in state.lower() for state in states):
            return
    pytest.fail("nobody waits for the lock")


@pytest.mark.parametrize(
    ("stored", "verdict"),
    [("0900_r0_1", Schema.CURRENT), ("0900_r0_2", Schema.AHEAD), ("0900_r1_0", Schema.AHEAD), ("what?", Schema.AHEAD), ("0001_r0_1", Schema.BEHIND)],
)
def test_a_schema_says_by_itself_whom_it_carries(empty_database: str, connected: Engine, stored: str, verdict: Schema) -> None:
    migrations.upgrade(empty_database)
    with connected.connect() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = %s", (stored,))
        connection.commit()
    assert migrations.check(connected) is verdict
    if verdict is Schema.AHEAD:
        with pytest.raises(Misconfigured, match="install the release"):
            migrations.upgrade(empty_database)
    else:
        migrations.upgrade(empty_database)
        assert migrations.current(empty_database) == (stored if verdict is Schema.CURRENT else migrations.head())


def test_each_revision_has_its_number_and_head_is_the_last() -> None:
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(ROOT / "migrations"))
    assert script.get_heads() == [migrations.head()]
    for revision in script.walk_revisions():
        assert Path(revision.path).name.startswith(revision.revision[:4])
