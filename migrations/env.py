"""Runs revisions: one migrator at a time (GET_LOCK), and no DDL that waits behind a long transaction while everybody else waits behind the DDL.

MySQL commits each DDL statement by itself, so a run may end between a statement and the note that it was made: every revision is re-runnable.
"""

from alembic import context
from sqlalchemy import Connection, create_engine, pool
from sqlalchemy.engine import make_url

import migrations
from app import failpoint
from app.errors import Contention, Misconfigured
from app.mysql import faults

OTHER_MIGRATOR_SECONDS = 60
METADATA_LOCK_SECONDS = 10  # Behind a waiting DDL every statement on that table waits.
ALIVE_SECONDS = 30  # Without a heartbeat: three leases of an executor's work.
STATEMENT_SECONDS_MAX = 3600  # An index on a large table; the connection must outlive it.


def connect(url: str) -> Connection:
    """A connection of its own kind: the components' short time-outs would cut a long DDL off."""
    timeouts = {"connect_timeout": 5, "read_timeout": STATEMENT_SECONDS_MAX, "write_timeout": STATEMENT_SECONDS_MAX}
    setup = (
        f"SET SESSION lock_wait_timeout = {METADATA_LOCK_SECONDS}, innodb_lock_wait_timeout = {METADATA_LOCK_SECONDS}, wait_timeout = {STATEMENT_SECONDS_MAX}"
    )
    options = {**timeouts, "charset": "utf8mb4", "init_command": setup}
    return create_engine(make_url(url).set(drivername="mysql+pymysql"), poolclass=pool.NullPool, connect_args=options).connect()


def take_lock(connection: Connection) -> None:
    """Held by the session, so it ends with the process; named by the database, since lock names are the server's."""
    taken = connection.exec_driver_sql(
        "SELECT GET_LOCK(CONCAT('airavata.migrations.', LEFT(SHA2(DATABASE(), 256), 32)), %s)", (OTHER_MIGRATOR_SECONDS,)
    ).scalar()
    if taken != 1:
        raise Contention(f"another migration has been running for {OTHER_MIGRATOR_SECONDS} s: wait for it, then try again")
    connection.commit()


def refuse_while_who_is_shut_out_lives(connection: Connection) -> None:
    """A contract step takes away what an earlier release uses: not while an instance of one has a heartbeat. One that starts meanwhile ends with its next."""
    found, lowest = migrations.stored(connection), migrations.lowest(migrations.head())
    if found is not None and migrations.lowest(found) < lowest:
        alive = connection.exec_driver_sql(f"SELECT id, version FROM instances WHERE heartbeat_at > UTC_TIMESTAMP(6) - INTERVAL {ALIVE_SECONDS} SECOND ORDER BY id").all()
        if older := [f"{each.id} ({each.version})" for each in alive if migrations.release(each.version) < lowest]:
            raise Misconfigured(f"this release's schema shuts out releases before {'.'.join(map(str, lowest))}, and {len(older)} of them run: {', '.join(older[:5])}. Roll them forward first")


def run() -> None:
    try:
        with connect(context.config.attributes["url"]) as connection:
            take_lock(connection)
            with connection.begin():
                refuse_while_who_is_shut_out_lives(connection)
            context.configure(connection=connection, transaction_per_migration=True, on_version_apply=lambda **_: failpoint.hit("migration.step.after"))
            context.run_migrations()
    except Exception as fault:
        ours = faults.translate(fault)
        raise (ours or fault) from fault


run()
