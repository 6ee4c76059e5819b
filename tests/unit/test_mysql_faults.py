"""What a driver's fault means to us is read from its number, never from its text (app/mysql/faults.py). The numbers' names are the driver's own."""

import pymysql
import pytest
from pymysql.constants import CR, ER

from app.errors import Contention, InvariantViolated, Misconfigured, StoreUnavailable
from app.mysql import faults

MALFORMED_PACKET = 1835  # The driver has no name for it.
NETWORK = {name: value for name, value in vars(ER).items() if name.startswith("NET_") and name != "NET_PACKET_TOO_LARGE"} | {"MALFORMED_PACKET": MALFORMED_PACKET}


@pytest.mark.parametrize("number", [*NETWORK.values(), ER.SERVER_SHUTDOWN, ER.NEW_ABORTING_CONNECTION, CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST])
def test_a_connection_the_server_lost_is_lost_in_a_commit_and_the_store_is_away_elsewhere(number: int) -> None:
    assert number in faults.LOST
    assert isinstance(faults.translate(pymysql.err.OperationalError(number, "it broke")), StoreUnavailable)


@pytest.mark.parametrize(
    ("number", "ours"),
    [
        (ER.LOCK_DEADLOCK, Contention), (ER.LOCK_WAIT_TIMEOUT, Contention), (ER.OPTION_PREVENTS_STATEMENT, StoreUnavailable), (ER.NO_SUCH_TABLE, StoreUnavailable),
        (ER.ACCESS_DENIED_ERROR, Misconfigured), (3819, InvariantViolated), (ER.DUP_ENTRY, type(None)), (ER.PARSE_ERROR, type(None)), (ER.NET_PACKET_TOO_LARGE, type(None)),
    ],
)  # fmt: skip
def test_contention_refusals_and_wrong_settings_are_told_apart_and_a_bug_stays_what_it_is(number: int, ours: type) -> None:
    assert isinstance(faults.translate(pymysql.err.OperationalError(number, "no")), ours)
