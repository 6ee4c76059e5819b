"""The MySQL accounts of docs/deploying.md have the rights that are needed."""

import re
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

import migrations
from app.dev.databases import DatabaseAddress
from app.mysql import engine, instances
from app.mysql.unit_of_work import unit_of_work

PAGE = (Path(__file__).parents[2] / "docs" / "deploying.md").read_text()
USUAL, FURTHER = (found.replace("`", "") for found in re.search(r"`(SELECT[^`]*)` on the schema; `migrations` also `([^`]*)`", PAGE).groups())


def account(server: DatabaseAddress, url: str, user: str, rights: str) -> str:
    """A user of this schema with these rights alone; its URL."""
    schema = make_url(url).database
    server.execute(
        f"CREATE OR REPLACE USER {user}@'%' IDENTIFIED BY 'pw'" if server.kind == "mariadb" else f"CREATE USER {user}@'%' IDENTIFIED BY 'pw'",
        f"GRANT {rights} ON {schema}.* TO {user}@'%'",
    )
    return make_url(url).set(username=user, password="pw").render_as_string(hide_password=False)


@pytest.fixture
def names(empty_database: str, database_server: DatabaseAddress):
    """Users that go with their test."""
    made = [f"{make_url(empty_database).database}_{each}" for each in ("m", "c")]
    yield made
    database_server.execute(*(f"DROP USER IF EXISTS {each}@'%'" for each in made))


def test_the_accounts_of_the_page_can_migrate_and_run(empty_database: str, database_server: DatabaseAddress, names: list[str]) -> None:
    migrator = account(database_server, empty_database, names[0], f"{USUAL}, {FURTHER}")
    component = account(database_server, empty_database, names[1], USUAL)
    migrations.upgrade(migrator)
    connected = engine.connect(component, size=1)
    engine.check_settings(connected)
    assert migrations.check(connected) is migrations.Schema.CURRENT
    with unit_of_work(connected)("test.beat") as tx:
        instances.beat(tx, "relay-of-a-test", component="relay", version="1", facts={})
        instances.remove(tx, "relay-of-a-test")
    connected.dispose()
