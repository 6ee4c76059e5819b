"""Servers for tests, by capability: address given → native private → container. Started once per run under .dev/test, ended with it; a killed run's are ended at the next start."""

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from app.dev.databases import DatabaseAddress
from app.dev.process import start_time
from app.dev.servers import Native
from observability import metrics
from tests.support.containers import Containers
from tests.support.servers import Given, InOrder, end_leftovers

settings.register_profile("busy machine", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")
RUNS = Path(__file__).parents[1] / ".dev" / "test"
BASE = RUNS / str(os.getpid())
DATABASES = os.environ.get("AIRAVATA_TEST_DATABASES", "mysql,mariadb").split(",")
_serial = itertools.count()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what runs on each database, so that one database's half can be run alone (tests/run.py). What needs one, whichever, runs on the first."""
    again = []
    for item in items:
        if "database_kind" in getattr(item, "fixturenames", ()):
            if item.get_closest_marker("one_database") is None:
                item.add_marker("database")
            elif item.callspec.params["database_kind"] != DATABASES[0]:  # type: ignore[attr-defined]
                again.append(item)
    if again:
        items[:] = [item for item in items if item not in again]
        config.hook.pytest_deselected(items=again)


def pytest_runtest_setup() -> None:
    """Each test counts from 0; a name or a value that the catalogue does not know is an error. (A hook: hypothesis wants no fixture for this.)"""
    metrics.strict = True
    metrics.begin("")


@pytest.fixture(scope="session")
def native_servers() -> Iterator[Native]:
    for run in RUNS.glob("[0-9]*"):  # Of runs that were killed; a run that lives keeps its servers.
        if start_time(int(run.name)) is None:
            end_leftovers(run)
            shutil.rmtree(run, ignore_errors=True)
    native = Native(BASE)
    yield native
    native.close()
    shutil.rmtree(BASE, ignore_errors=True)


@pytest.fixture(scope="session")
def servers(native_servers: Native) -> Iterator[InOrder]:
    containers = Containers(BASE / "containers")
    yield InOrder(Given(os.environ), native_servers, containers)
    containers.close()


@pytest.fixture(scope="session", params=DATABASES)
def database_kind(request: pytest.FixtureRequest) -> str:
    """Every test that asks for a database runs on both."""
    return str(request.param)


@pytest.fixture(scope="session")
def database_server(servers: InOrder, database_kind: str) -> DatabaseAddress:
    return servers.database(database_kind)


def a_schema(server: DatabaseAddress) -> Iterator[str]:
    """A schema of its own, dropped afterwards; its URL."""
    name = f"t{os.getpid()}_{next(_serial)}"
    server.execute(f"CREATE DATABASE {name}")
    yield server.url(name)
    server.execute(f"DROP DATABASE IF EXISTS {name}")


_statements: dict[tuple[str | None, int | None], list[str]] = {}  # By server.


def to_head(url: str) -> None:
    """An empty schema. A server's first is migrated; the others are made as that one is shown, for a fiftieth of our CPU (tests/integration/test_schema_copied.py)."""
    import migrations

    server = (make_url(url).host, make_url(url).port)
    if server not in _statements:
        migrations.upgrade(url)
        _statements[server] = shown(url)
    else:
        with cursor(url) as at:
            for each in ("SET SESSION foreign_key_checks = 0", *_statements[server]):
                at.execute(each)


@contextmanager
def cursor(url: str) -> Iterator[Any]:
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection.connection.cursor()


def shown(url: str) -> list[str]:
    """The statements that make this schema: its tables, and the rows that its migrations put there."""
    with cursor(url) as at:
        at.execute("SHOW TABLES")
        made = []
        for (table,) in at.fetchall():
            at.execute(f"SHOW CREATE TABLE {table}")
            made.append(at.fetchall()[0][1])
            at.execute(f"SELECT * FROM {table}")
            made += [at.mogrify(f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(row))})", row) for row in at.fetchall()]
        return made


@pytest.fixture
def empty_database(database_server: DatabaseAddress) -> Iterator[str]:
    yield from a_schema(database_server)


@pytest.fixture
def database(empty_database: str) -> str:
    """A schema at head."""
    to_head(empty_database)
    return empty_database


@pytest.fixture(scope="session")
def kafka_bootstrap(servers: InOrder) -> str:
    return servers.kafka()


@pytest.fixture
def topic_prefix() -> str:
    """Topics of its own for each test."""
    return f"t{os.getpid()}-{next(_serial)}."


@pytest.fixture(scope="session")
def shared_database(database_server: DatabaseAddress) -> Iterator[str]:
    """A schema at head for tests that only read, or whose rows cannot meet."""
    for url in a_schema(database_server):
        to_head(url)
        yield url
