"""A test's schema is a copy of one that was migrated: the same in everything that the database shows of it."""

from typing import Any

import migrations
from app.dev.databases import DatabaseAddress
from tests.conftest import a_schema, cursor, shown, to_head


def said(url: str) -> list[str]:
    """MySQL repeats the character set that a collation implies where it was given once."""
    return [each.replace(" CHARACTER SET utf8mb4 COLLATE", " COLLATE") for each in shown(url)]


def besides_tables(url: str) -> list[Any]:
    kinds = (("trigger", "triggers"), ("routine", "routines"), ("event", "events"), ("table", "views"))
    with cursor(url) as at:
        at.execute(" UNION ALL ".join(f"SELECT '{table}' FROM information_schema.{table} WHERE {kind}_schema = DATABASE()" for kind, table in kinds))
        return list(at.fetchall())


def test_a_copied_schema_is_what_the_migrations_make(database_server: DatabaseAddress, shared_database: str) -> None:
    assert migrations.current(shared_database) == migrations.head(), "one at least is there to be copied"
    for migrated in a_schema(database_server):
        migrations.upgrade(migrated)
        for copied in a_schema(database_server):
            to_head(copied)
            assert said(copied) == said(migrated)
            assert besides_tables(migrated) == [], "what is no table would not be copied"
            assert migrations.current(copied) == migrations.head()
