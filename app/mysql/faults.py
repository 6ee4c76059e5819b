"""Driver faults become ours here, by error number and never by text.

Whether a lost connection means *nothing happened* or *unknown* depends on where it was lost: the unit of work knows if COMMIT was on its way.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from app.errors import AiravataError, Contention, InvariantViolated, Misconfigured, StoreUnavailable

LOST = frozenset({1053, 1152, *range(1154, 1162), 1184, 1835, 1927, 2006, 2013, 2014, 2045, 2055, 4031})  # shutdown, aborted, broken packets, time-outs, gone away, reply lost
AWAY = frozenset({1037, 1040, 1041, 1077, 1078, 1079, 1203, 1226, 2002, 2003, 2005})  # cannot connect, too many connections, out of memory, shutting down
REFUSED_FOR_NOW = frozenset({1021, 1290, 1792, 1836, 3100, 3572, 1114})  # disk full, read-only, table full, replication hook
CONTENTION = frozenset({1020, 1205, 1213})  # snapshot conflict, lock wait (one statement only is rolled back: we roll back all), deadlock
SETTINGS = frozenset({1044, 1045, 1049, 1130, 1142, 1698, 2059, 2061})  # access denied, unknown database, host not allowed, authentication plugin
SCHEMA_BEHIND = frozenset({1054, 1146})  # unknown column, no such table: migrations have not run yet
DUPLICATE = 1062
DRIVERS_OWN = frozenset({"InterfaceError", "InternalError"})  # Without a number: a closed connection; one whose server answered out of turn, as a refused or ended one does, and which the driver closes.


class NameTaken(Exception):
    """A write of something whose name is unique found it there."""


@contextmanager
def unique_name() -> Iterator[None]:
    """Around such a write. Raises NameTaken."""
    try:
        yield
    except exc.DBAPIError as fault:
        if number(fault) == DUPLICATE:
            raise NameTaken from fault
        raise


def number(fault: BaseException) -> int:
    """The server's or driver's error number, 0 if there is none."""
    original = fault.orig if isinstance(fault, exc.DBAPIError) else fault
    args = getattr(original, "args", ())
    return args[0] if args and isinstance(args[0], int) else 0


def kind(fault: BaseException) -> str:
    """As the metric `airavata_mysql_errors_total` says it."""
    code = number(fault)
    if code in CONTENTION:
        return "lock_wait" if code == 1205 else "deadlock"
    return "read_only" if code in REFUSED_FOR_NOW else "gone" if isinstance(translate(fault), StoreUnavailable) else "other"  # type: ignore[arg-type]


def translate(fault: Exception) -> AiravataError | None:
    """Our error for a driver's fault; None for what is a bug of ours and must surface as it is (1062 included: the statement's author expects it)."""
    code = number(fault)
    original = fault.orig if isinstance(fault, exc.DBAPIError) else fault
    text = f"MySQL {code}: {original.args[1] if original and len(original.args) > 1 else original}"[:300]
    if code in CONTENTION:
        return Contention(text)
    if code in LOST | AWAY | REFUSED_FOR_NOW | SCHEMA_BEHIND or isinstance(original, OSError | exc.TimeoutError) or (code == 0 and type(original).__name__ in DRIVERS_OWN):
        return StoreUnavailable(text)
    if code in SETTINGS:
        return Misconfigured(f"{text}. Check AIRAVATA_MYSQL_URL and the account's grants")
    if code in {3819, 4025}:  # a CHECK said no (MySQL, MariaDB)
        return InvariantViolated(text)
    return None
