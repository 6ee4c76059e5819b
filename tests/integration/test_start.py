"""A process whose stores are not there yet waits, alive and not ready, and says for what; where waiting cannot help it ends with 78 and one line."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import httpx2
import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

import migrations
from app.dev.servers import free_port
from tests.support.line import line_to
from tests.support.rest import KEY, MASTER, until

pytestmark = pytest.mark.mysql
API, GENERATOR = "app.api", "components.workflow_generator"


class Process:
    def __init__(self, module: str, database: str, **settings: str) -> None:
        ports = {name: f"127.0.0.1:{free_port()}" for name in ("ADMIN_LISTEN", "PUBLIC_LISTEN", "INTERNAL_LISTEN")}
        told = {"MYSQL_URL": database, "KAFKA": "127.0.0.1:9", "TOKEN_KEY": KEY.decode(), "MASTER_KEY": MASTER.hex(), **ports, **settings}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRAVATA_")}
        environment = {**inherited, **{f"AIRAVATA_{name}": value for name, value in told.items()}}
        self.admin = ports["ADMIN_LISTEN"]
        self.child = subprocess.Popen([sys.executable, "-m", module], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def waits_for(self, what: str) -> bool:
        """Alive, not ready, and says so."""
        try:
            live, ready = (httpx2.get(f"http://{self.admin}{path}", timeout=30) for path in ("/livez", "/readyz"))
        except httpx2.TransportError:
            return False
        return (live.status_code, ready.status_code) == (200, 503) and what in ready.text

    def is_ready(self) -> bool:
        return httpx2.get(f"http://{self.admin}/readyz", timeout=30).status_code == 200

    def ended(self) -> tuple[int, str]:
        """Exit code and what it printed."""
        said = self.child.communicate(timeout=120)[1]
        return self.child.returncode, said


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    running: list[Process] = []

    def begin(module: str, database: str, **settings: str) -> Process:
        running.append(Process(module, database, **settings))
        return running[-1]

    yield begin
    for each in running:
        if each.child.poll() is None:
            each.child.kill()
            each.ended()


def test_mysql_away_at_the_start_is_waited_for(start: Callable[..., Process], database: str) -> None:
    url = make_url(database)
    with line_to(url.host or "", url.port or 0) as line:
        line.cut()
        near = url.set(host="127.0.0.1", port=line.port, query={"ssl_disabled": "true"}).render_as_string(hide_password=False).replace("mysql+pymysql", "mysql")
        process = start(API, near)
        until(lambda: process.waits_for("MySQL"))
        line.mend()
        until(process.is_ready)


def test_kafka_away_at_the_start_is_waited_for_and_a_stop_ends_the_wait(start: Callable[..., Process], database: str) -> None:
    process = start(GENERATOR, database.replace("mysql+pymysql", "mysql"))
    until(lambda: process.waits_for("Kafka"))
    process.child.send_signal(signal.SIGTERM)
    assert process.ended()[0] == 0


def test_a_server_that_is_read_only_at_the_start_is_waited_for(start: Callable[..., Process], database: str) -> None:
    engine = create_engine(make_url(database).set(drivername="mysql+pymysql"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("SET GLOBAL read_only = 1")
        try:
            process = start(API, database.replace("mysql+pymysql", "mysql"))
            until(lambda: process.waits_for("read-only"))
        finally:
            connection.exec_driver_sql("SET GLOBAL read_only = 0")
    engine.dispose()
    until(process.is_ready)


def test_a_schema_that_is_behind_is_waited_for(start: Callable[..., Process], empty_database: str) -> None:
    process = start(API, empty_database.replace("mysql+pymysql", "mysql"))
    until(lambda: process.waits_for("airavata admin migrate"))
    migrations.upgrade(empty_database)
    until(process.is_ready)


def test_a_schema_that_is_ahead_ends_it(start: Callable[..., Process], database: str) -> None:
    engine = create_engine(make_url(database).set(drivername="mysql+pymysql"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0900_r9_0'")
    engine.dispose()
    code, said = start(GENERATOR, database.replace("mysql+pymysql", "mysql")).ended()
    assert (code, "deploy the newer release" in said, "Traceback" in said) == (78, True, False)


def test_a_wrong_password_ends_it_without_being_shown(start: Callable[..., Process], shared_database: str) -> None:
    wrong = make_url(shared_database).set(drivername="mysql", password="not-the-one").render_as_string(hide_password=False)
    code, said = start(GENERATOR, wrong).ended()
    assert (code, "AIRAVATA_MYSQL_URL" in said, "not-the-one" in said, "Traceback" in said) == (78, True, False, False)
