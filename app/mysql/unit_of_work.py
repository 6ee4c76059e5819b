"""One transaction of this system: state, outgoing messages and positions together, or nothing.

A unit's name is the name of its fail points (`<name>.before`, `.after` around COMMIT), span, metric and log line. A fault before COMMIT means nothing happened;
a connection lost while COMMIT is on its way is OutcomeUnknown, and the caller looks at the unit's witness with a *locking* read.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import TypeAlias

from sqlalchemy import Connection, Engine, exc

from app import failpoint
from app.errors import OutcomeUnknown, StoreUnavailable
from app.mysql import faults

Transaction: TypeAlias = Connection
UnitOfWork: TypeAlias = Callable[[str], AbstractContextManager[Transaction]]


def unit_of_work(engine: Engine, *, nudge: Callable[[set[int]], None] | None = None) -> UnitOfWork:
    """A maker of units, used as `with begin("scheduler.commit") as tx`; raises Contention, StoreUnavailable, OutcomeUnknown, Misconfigured, InvariantViolated.

    `nudge` is told the relay shards that got rows, after COMMIT: lossy, it only shortens the relay's wait.
    """

    @contextmanager
    def begin(name: str) -> Iterator[Transaction]:
        with _translated(), engine.connect() as connection:
            shards: set[int] = set()
            callbacks: list[Callable[[], None]] = []
            connection.info.update(shards=shards, after_commit=callbacks)
            yield connection
            failpoint.hit(f"{name}.before")
            _commit(connection, name)
        failpoint.hit(f"{name}.after")
        if nudge is not None and shards:
            nudge(shards)
        for callback in callbacks:
            callback()

    return begin


def after_commit(tx: Transaction, callback: Callable[[], None]) -> None:
    """Run this once the unit has surely committed; never after a rollback or an unknown outcome."""
    tx.info["after_commit"].append(callback)


def _commit(connection: Connection, name: str) -> None:
    try:
        connection.commit()
    except exc.DBAPIError as fault:
        if faults.number(fault) in faults.LOST or isinstance(faults.translate(fault), StoreUnavailable):
            connection.invalidate()
            raise OutcomeUnknown(f"{name}: the connection ended during COMMIT") from fault
        raise


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (exc.DBAPIError, exc.TimeoutError) as fault:
        ours = faults.translate(fault) if isinstance(fault, exc.DBAPIError) else StoreUnavailable(str(fault)[:200])
        if ours is None:
            raise
        raise ours from fault


def now(tx: Transaction) -> datetime:
    """MySQL's clock, UTC, naive as the driver gives it: the one clock of all decisions."""
    found: datetime = tx.exec_driver_sql("SELECT UTC_TIMESTAMP(6)").scalar_one()
    return found
