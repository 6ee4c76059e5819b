"""What a driver's fault means to us is read from its number, never from its text (app/mysql/faults.py). The numbers' names are the driver's own."""

import socket
import threading

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


def test_a_server_that_answers_a_greeting_out_of_turn_is_away() -> None:
    """As one that goes down while a client shakes hands: its refusal bears a number that the driver does not expect, and the driver's fault none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=out_of_turn, args=(server,), daemon=True).start()
        with pytest.raises(pymysql.err.InternalError) as fault:
            pymysql.connect(host="127.0.0.1", port=server.getsockname()[1], user="u", password="p", connect_timeout=10)
    assert faults.number(fault.value) == 0
    assert isinstance(faults.translate(fault.value), StoreUnavailable)


def out_of_turn(server: socket.socket) -> None:
    def packet(number: int, body: bytes) -> bytes:
        return len(body).to_bytes(3, "little") + bytes([number]) + body

    capabilities = (0xFFFF & ~0x0800).to_bytes(2, "little")  # All but TLS.
    greeting = b"\x0a8.4.0\0" + bytes(4) + b"12345678\0" + capabilities + b"\xff\x02\0" + b"\x0f\0" + b"\x15" + bytes(10) + b"123456789012\0" + b"mysql_native_password\0"
    client, _ = server.accept()
    with client:
        client.sendall(packet(0, greeting))
        client.recv(4096)
        client.sendall(packet(1, b"\xff\x1d\x04#08S01Server shutdown in progress"))


@pytest.mark.parametrize(
    ("number", "ours"),
    [
        (ER.LOCK_DEADLOCK, Contention), (ER.LOCK_WAIT_TIMEOUT, Contention), (ER.OPTION_PREVENTS_STATEMENT, StoreUnavailable), (ER.NO_SUCH_TABLE, StoreUnavailable),
        (ER.ACCESS_DENIED_ERROR, Misconfigured), (3819, InvariantViolated), (ER.DUP_ENTRY, type(None)), (ER.PARSE_ERROR, type(None)), (ER.NET_PACKET_TOO_LARGE, type(None)),
    ],
)  # fmt: skip
def test_contention_refusals_and_wrong_settings_are_told_apart_and_a_bug_stays_what_it_is(number: int, ours: type) -> None:
    assert isinstance(faults.translate(pymysql.err.OperationalError(number, "no")), ours)
