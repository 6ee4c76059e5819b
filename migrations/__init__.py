"""The schema's history: Alembic revisions, one re-runnable DDL statement each, and the question whether a database fits this release.

A revision id is `<number>_r<major>_<minor>`: its place in the one line of history, and the lowest release that may run on the schema it leaves. So a
database says by itself whether an older release (N−1 after an expand step) may go on. Revisions hold frozen SQL and never look at the code,
whose change would otherwise rewrite history; a test compares the states that both know. A revision that raises the lowest release is a *contract* step: it is
refused while an instance of an earlier one has a heartbeat (env.py). Who migrates: `airavata admin migrate`, never a component. Until the first release
a table's own revision is edited; from then on revisions are only added. There are no down-migrations in production.
"""

import re
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from app import VERSION
from app.errors import Misconfigured
from app.mysql.unit_of_work import Transaction, unit_of_work

if TYPE_CHECKING:
    from alembic.config import Config

_NAME = re.compile(r"(\d{4})_r(\d+)_(\d+)")


def release(version: str) -> tuple[int, int]:
    """1.2.3 → (1, 2)."""
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


RELEASE = release(VERSION)


class Schema(StrEnum):
    BEHIND = "BEHIND"  # Wait, not ready: migrations have not run yet.
    CURRENT = "CURRENT"  # Ours, or a later one that still carries this release.
    AHEAD = "AHEAD"  # A contract step has passed this release by: exit 78.


@cache
def head() -> str:
    """The revision this release needs; asked with each heartbeat, also of a process that can open no more files."""
    last = max((Path(__file__).parent / "versions").glob("[0-9]*_*.py"))
    found = re.search(r'^revision = "(.+)"$', last.read_text(), re.MULTILINE)
    return found[1] if found else ""


def check(engine: Engine) -> Schema:
    """What start-up and /readyz ask; reads one row. Raises StoreUnavailable or Misconfigured like any unit of work."""
    with unit_of_work(engine)("schema.check.read") as tx:
        return judge(stored(tx))


def judge(revision: str | None) -> Schema:
    """Whether this release can run on a schema at `revision` (None: empty)."""
    if revision is None:
        return Schema.BEHIND
    if _NAME.fullmatch(revision) is None or lowest(revision) > RELEASE:
        return Schema.AHEAD
    return Schema.BEHIND if revision[:4] < head()[:4] else Schema.CURRENT


def lowest(revision: str) -> tuple[int, int]:
    """The lowest release that may run on the schema it leaves."""
    found = _NAME.fullmatch(revision)
    assert found is not None, f"{revision} is no revision of ours"
    return int(found[2]), int(found[3])


def refuse_ahead(found: Schema) -> Schema:
    """What is asked at the start, and with each heartbeat: one who slept through a contract step must not go on. Raises Misconfigured."""
    if found is Schema.AHEAD:
        raise Misconfigured("the database's schema is newer than this release can read: deploy the newer release")
    return found


def stored(tx: Transaction) -> str | None:
    if not tx.exec_driver_sql("SHOW TABLES LIKE 'alembic_version'").first():
        return None
    revision: str | None = tx.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return revision


def current(url: str) -> str | None:
    """The revision a database is at, None when it is empty."""
    from app.mysql import engine

    connected = engine.connect(url, size=1)
    try:
        with unit_of_work(connected)("schema.current.read") as tx:
            return stored(tx)
    finally:
        connected.dispose()


def upgrade(url: str) -> None:
    """To head, under a lock that keeps a second run waiting. A later schema that carries this release is left alone; one beyond it raises Misconfigured."""
    found = current(url)
    if judge(found) is Schema.AHEAD:
        raise Misconfigured(f"the database is at revision {found}, beyond this release {'.'.join(map(str, RELEASE))}: install the release that migrated it")
    if judge(found) is Schema.BEHIND:
        from alembic import command

        command.upgrade(_configuration(url), "head")


def downgrade(url: str, target: str = "base") -> None:
    """For tests: back to `target`, dropping what later revisions made."""
    from alembic import command

    command.downgrade(_configuration(url), target)


def _configuration(url: str) -> "Config":
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    configuration.attributes["url"] = url
    return configuration
