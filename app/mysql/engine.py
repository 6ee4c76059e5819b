"""Connections: how each is set up, and how a stale one is thrown away before use.

Every connection is READ COMMITTED with short server-side time-outs: a writer that is frozen or cut off loses its transaction to the *server*
(`wait_timeout`), so that it cannot hold its locks (docs/protocol.md, Writing).
"""

import re
import time
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

from pymysql.constants import FIELD_TYPE
from pymysql.converters import conversions
from pymysql.cursors import Cursor
from sqlalchemy import Engine, create_engine, event, exc
from sqlalchemy.engine import make_url

from app.errors import Misconfigured, StoreUnavailable
from app.mysql import faults
from app.mysql.unit_of_work import unit_of_work
from observability import metrics, tracing

DRIVER_TIMEOUT_SECONDS = 5
LOCK_WAIT_SECONDS = 5
SUMMARY_CHARACTERS = 600
OF_A_SESSION = frozenset({"SET", "COMMIT"})  # What SQLAlchemy says by a cursor when a connection is new: nobody's work.
_TABLE = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+(\w+)", re.IGNORECASE)


@lru_cache(maxsize=256)  # A batch says the same few times again and again.
def _escaped(at: datetime) -> str:
    return f"'{at.isoformat(' ')}'"


# The driver's own ways with times are regular expressions and formats in Python: a tenth of what a batch costs. Strict mode knows no zero dates, which alone they would read otherwise.
_CONVERSIONS = {**conversions, datetime: lambda at, _mapping: _escaped(at), FIELD_TYPE.DATETIME: datetime.fromisoformat, FIELD_TYPE.TIMESTAMP: datetime.fromisoformat}


def connect(url: str, *, size: int, idle_seconds: int = 2, lock_wait_seconds: int = LOCK_WAIT_SECONDS) -> Engine:
    """An engine whose pool never waits beyond 5 s.

    `size`: connections, equal to the threads that use them. `idle_seconds`: the server ends a session silent for that long (API 5, components 2).
    """
    engine = create_engine(
        make_url(url).set(drivername="mysql+pymysql"),
        pool_size=size,
        max_overflow=0,
        pool_reset_on_return=None,  # A unit of work ends its own transaction; the pool need not say ROLLBACK once more.
        pool_timeout=DRIVER_TIMEOUT_SECONDS,
        isolation_level="READ COMMITTED",
        hide_parameters=True,  # A fault's text goes to logs and dead letters; what users said and what is sealed does not.
        connect_args={
            "cursorclass": Watched,
            "conv": _CONVERSIONS,
            "connect_timeout": DRIVER_TIMEOUT_SECONDS,
            "read_timeout": DRIVER_TIMEOUT_SECONDS + LOCK_WAIT_SECONDS,  # A lock wait is an answer too.
            "write_timeout": DRIVER_TIMEOUT_SECONDS,
            "charset": "utf8mb4",
            "init_command": f"SET SESSION wait_timeout = {idle_seconds}, net_read_timeout = {idle_seconds}, net_write_timeout = {idle_seconds}, "
            f"innodb_lock_wait_timeout = {lock_wait_seconds}, time_zone = '+00:00', "
            "sql_mode = 'STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
        },
    )
    _throw_away_stale(engine, idle_seconds * 0.75)
    return engine


def _throw_away_stale(engine: Engine, after_seconds: float) -> None:
    """The server has ended a session that was silent too long: notice before use, without a ping per use."""

    @event.listens_for(engine, "checkin")
    def remember(_connection: Any, record: Any) -> None:
        record.info["used"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def look(_connection: Any, record: Any, _proxy: Any) -> None:
        used = record.info.get("used")
        if used is not None and time.monotonic() - used > after_seconds:
            record.info.clear()
            raise exc.DisconnectionError("idle beyond the server's time-out")


class Watched(Cursor):
    """Measures each statement, and tells a span of it below what is under way; its text and its values are in none. SQLAlchemy's events of a statement cost more (docs/benchmarks.md)."""

    many = False

    def execute(self, query: str, args: Any = None) -> Any:
        if self.many:  # A part of what is told as one.
            return super().execute(query, args)
        return self._watched(super().execute, query, args, 0)

    def executemany(self, query: str, args: Any) -> Any:
        self.many = True
        return self._watched(super().executemany, query, args, len(args))

    def _watched(self, run: Callable[[str, Any], Any], query: str, args: Any, rows: int) -> Any:
        began, error = tracing.now_ns(), ""
        try:
            return run(query, args)
        except Exception as fault:
            error = str(faults.number(fault) or type(fault).__name__)
            raise
        finally:
            self.many = False
            _told(query, rows, began, tracing.now_ns(), error)


@metrics.measuring
def _told(statement: str, rows: int, began: int, ended: int, error: str) -> None:
    verb, table, name = summary(statement[:SUMMARY_CHARACTERS])
    if verb in OF_A_SESSION:
        return
    metrics.observe("db_client_operation_duration_seconds", (ended - began) / 1e9, statement=name)
    if (under_way := tracing.current.get()) is not None:
        told = {
            "db.system.name": "mysql", "db.operation.name": verb, "db.collection.name": table, "db.query.summary": name, "db.operation.batch.size": rows if rows > 1 else None,
            "db.response.status_code": error,
        }  # fmt: skip
        tracing.tell(name, tracing.child(under_way.context), parent=under_way.context, start=began, end=ended, kind=tracing.CLIENT, attributes=told, error=error)


@lru_cache(maxsize=1024)
def summary(statement: str) -> tuple[str, str, str]:
    """(verb, table, both) of a statement's beginning."""
    found = _TABLE.search(statement)
    verb, table = statement.split(None, 1)[0].upper(), found[1].lower() if found else ""
    return verb, table, f"{verb} {table}".strip()


def check_settings(engine: Engine) -> None:
    """Ask the server, not the file, for what the protocol needs. Raises Misconfigured naming each setting; StoreUnavailable while it is away or read-only, as in a failover."""
    wanted = {"innodb_flush_log_at_trx_commit": {"1"}}
    if_binlog = {"sync_binlog": {"1"}, "binlog_format": {"ROW"}, "binlog_row_image": {"FULL"}}
    with unit_of_work(engine)("settings.check.read") as tx:
        found = {row[0]: str(row[1]) for row in tx.exec_driver_sql("SHOW GLOBAL VARIABLES")}
        isolation = str(tx.exec_driver_sql("SHOW SESSION VARIABLES WHERE Variable_name IN ('tx_isolation', 'transaction_isolation')").all()[0][1])  # MariaDB's name, MySQL's.
    if found.get("log_bin", "OFF") in {"ON", "1"}:
        wanted |= if_binlog
    faults = [f"{name} is {found[name]}, must be {' or '.join(sorted(values))}" for name, values in wanted.items() if name in found and found[name].upper() not in values]
    if isolation != "READ-COMMITTED":
        faults.append(f"this session's isolation is {isolation}, must be READ-COMMITTED")
    if faults:
        raise Misconfigured("unsafe MySQL settings: " + "; ".join(faults) + ". Set them on the server and start again")
    if found.get("read_only", "OFF").upper() not in {"0", "OFF"}:
        raise StoreUnavailable("the server is read-only")
