"""One transaction of this system: state, outgoing messages and positions together, or nothing.

A unit's name is the name of its fail points (`<name>.before`, `.after` around COMMIT), span, metric and journal line; one whose name ends in `.read` writes nothing and has
none. Each run of a unit is a *step*, `<name>#<12 hex digits>`: the journal and every message it sends name it. A fault before COMMIT means nothing happened; a connection lost
while COMMIT is on its way is OutcomeUnknown, and the caller looks at the unit's witness with a *locking* read.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine, exc

from app import failpoint, instance, journal
from app.errors import Fenced, InvariantViolated, OutcomeUnknown, StoreUnavailable
from app.messages.codec import SCHEMA_VERSION_BEFORE
from app.mysql import faults
from observability import metrics, tracing

_NOTHING = nullcontext()
Transaction: TypeAlias = Connection
UnitOfWork: TypeAlias = Callable[[str], AbstractContextManager[Transaction]]


def unit_of_work(engine: Engine, *, nudge: Callable[[set[int]], None] | None = None, spans: bool = False, compatibility: int = SCHEMA_VERSION_BEFORE) -> UnitOfWork:
    """A maker of units, used as `with begin("scheduler.commit") as tx`; raises Contention, StoreUnavailable, OutcomeUnknown, Misconfigured, InvariantViolated.

    `nudge` is told the relay shards that got rows, after COMMIT: lossy, it only shortens the relay's wait. `spans`: a unit is a span of its own where one is under way (the API).
    `compatibility`: the schema version of the messages they send.
    """

    @contextmanager
    def begin(name: str) -> Iterator[Transaction]:
        step = f"{name}#{instance.fresh_bytes(6).hex()}"
        told: dict[str, Any] | None = {} if (journal.on() or failpoint.on()) and not name.endswith(".read") else None
        shards: set[int] = set()
        callbacks: list[Callable[[], None]] = []
        with tracing.unit(name) if spans else _NOTHING, _measured(name), _recorded(name, step, told), _translated(), _connected(engine) as connection:
            connection.info.update(shards=shards, after_commit=callbacks, step=step, told=told, verdicts={}, compatibility=compatibility)
            yield connection
            if told is not None:
                failpoint.hit(f"{name}.before", **told)
            _commit(connection, name)
        if nudge is not None and shards:
            nudge(shards)
        for callback in callbacks:
            callback()

    return begin


def after_commit(tx: Transaction, callback: Callable[[], None]) -> None:
    """Run this once the unit has surely committed; never after a rollback or an unknown outcome."""
    tx.info["after_commit"].append(callback)


def tell(tx: Transaction, **told: Iterable[object]) -> None:
    """What the journal's `unit.end` says of this unit, and its fail points can be aimed by: a text, or values of a list, each once. Nothing where nobody listens."""
    found = tx.info["told"]
    if found is not None:
        for name, values in told.items():
            if isinstance(values, str):
                found[name] = values
            else:
                found.setdefault(name, {}).update(dict.fromkeys(values))


def judged(tx: Transaction, verdicts: Mapping[bytes, str]) -> None:
    """What became of messages (by mid) that were not simply applied: late, requeued, dead_letter. Their spans and metrics say so, once this has committed."""
    tx.info["verdicts"].update(verdicts)


def carries(tx: Transaction, how: str, messages: Iterable[tuple[bytes, str]]) -> None:
    """The same for messages (mid, key) that come `in` or go `out`: their ids, and the processes that their keys name."""
    if tx.info["told"] is not None:
        found = list(messages)
        tell(tx, **{how: (mid.hex() for mid, _ in found)}, process=(key.partition("-")[0] for _, key in found if key.startswith("prc_")))


@contextmanager
def _measured(name: str) -> Iterator[None]:
    """What only reads goes by its component's name alone: its callers have figures of their own."""
    began, outcome = time.monotonic(), "rolled_back"
    try:
        yield
        outcome = "committed"
    except OutcomeUnknown:
        outcome = "unknown"
        raise
    except Fenced:
        outcome = "fenced"
        raise
    finally:
        metrics.observe("airavata_unit_of_work_seconds", time.monotonic() - began, name=f"{name.partition('.')[0]}.read" if name.endswith(".read") else name, outcome=outcome)


def _connected(engine: Engine) -> Connection:
    began = time.monotonic()
    connection = engine.connect()
    metrics.observe("db_client_connection_wait_time_seconds", time.monotonic() - began)
    return connection


@contextmanager
def _recorded(name: str, step: str, told: dict[str, Any] | None) -> Iterator[None]:
    """The journal's line before the unit and the one after it; in between, once all is done, its fail point."""
    if told is None:
        yield
        return
    journal.write("unit.begin", unit=name, step=step)
    outcome = "rolled_back"
    try:
        yield
        failpoint.hit(f"{name}.after", **told)
        outcome = "fenced" if told.get("fenced") and not told.get("ranges") else "committed"
    except OutcomeUnknown:
        outcome = "unknown"
        raise
    finally:
        journal.write("unit.end", unit=name, step=step, outcome=outcome, **{key: value if isinstance(value, str) else list(value) for key, value in told.items()})


def _commit(connection: Connection, name: str) -> None:
    try:
        connection.commit()
    except exc.DBAPIError as fault:
        if faults.number(fault) in faults.LOST or isinstance(faults.translate(fault), StoreUnavailable):
            connection.invalidate()
            metrics.count("airavata_mysql_errors_total", class_="unknown_commit")
            raise OutcomeUnknown(f"{name}: the connection ended during COMMIT") from fault
        raise


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (exc.DBAPIError, exc.TimeoutError) as fault:
        ours = faults.translate(fault) if isinstance(fault, exc.DBAPIError) else StoreUnavailable(str(fault)[:200])
        if faults.number(fault) != faults.DUPLICATE:  # That is an answer: its statement's author expects it.
            metrics.count("airavata_mysql_errors_total", class_=faults.kind(fault))
        if isinstance(ours, InvariantViolated):
            metrics.count("airavata_invariant_violations_total", invariant="check")
        if ours is None:
            raise
        raise ours from fault


def now(tx: Transaction) -> datetime:
    """MySQL's clock, UTC, naive as the driver gives it: the one clock of all decisions."""
    found: datetime = tx.exec_driver_sql("SELECT UTC_TIMESTAMP(6)").scalar_one()
    return found
