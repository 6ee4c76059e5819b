"""The nudge reaches every relay behind one name, and a name server that is away holds nobody up."""

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.dev.process import wait_until
from app.errors import Misconfigured
from app.nudge import Nudge
from outbox_relay.__main__ import bound


def a_receiver() -> socket.socket:
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(30.0)
    return receiver


def found(*receivers: socket.socket) -> list[tuple[Any, ...]]:
    """As getaddrinfo answers."""
    return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", each.getsockname()) for each in receivers]


@pytest.fixture
def nudging() -> Iterator[Callable[..., Nudge]]:
    """`nudging(resolve)` → a nudge of a name, closed with the test."""
    made: list[Nudge] = []

    def make(resolve: Callable[..., Any]) -> Nudge:
        made.append(Nudge("relay:9465", resolve=resolve))
        return made[-1]

    yield make
    for each in made:
        each.socket.close()


def test_every_address_of_the_name_is_told_which_shards_got_rows(nudging: Callable[..., Nudge]) -> None:
    with a_receiver() as one, a_receiver() as other:
        nudge = nudging(lambda *_: found(one, other))
        assert wait_until(lambda: len(nudge.addresses) == 2, 30.0)
        nudge.send({1, 0})
        assert [one.recv(100), other.recv(100)] == [b"0,1", b"0,1"]


def test_a_name_server_that_does_not_answer_holds_nobody_up(nudging: Callable[..., Nudge]) -> None:
    """`send` returns while the look-up hangs, asks for no second one, and goes to those who were known."""
    asked, answers = [], threading.Event()

    def hanging(*name: Any) -> list[tuple[Any, ...]]:
        asked.append(name)
        answers.wait(60.0)
        return found(receiver)

    with a_receiver() as receiver:
        nudge = nudging(hanging)
        for _ in range(3):
            nudge.looked = float("-inf")  # Five seconds later.
            nudge.send({0})
        assert (len(asked), nudge.addresses) == (1, [])
        answers.set()
        assert wait_until(lambda: bool(nudge.addresses), 30.0)
        nudge.send({0})
        assert receiver.recv(100) == b"0"


def test_a_name_that_is_not_known_is_no_error_and_is_asked_for_again(nudging: Callable[..., Nudge]) -> None:
    with a_receiver() as receiver:
        known = threading.Event()

        def at_last(*_: Any) -> list[tuple[Any, ...]]:
            if not known.is_set():
                raise socket.gaierror(-2, "Name or service not known")
            return found(receiver)

        nudge = nudging(at_last)
        nudge.looking.join(30.0)
        nudge.send({0})
        known.set()
        nudge.looked = float("-inf")  # Five seconds later.
        nudge.send({0})
        assert wait_until(lambda: bool(nudge.addresses), 30.0)


def test_a_relay_that_cannot_listen_where_it_is_told_says_so_and_ends_instead_of_looking_for_rows_alone() -> None:
    with pytest.raises(Misconfigured, match="AIRAVATA_NUDGE_LISTEN"):
        bound(("192.0.2.1", 9465))  # Nobody's address.
    with bound(("127.0.0.1", 0)) as receiver, a_receiver() as sender:
        sender.sendto(b"1", receiver.getsockname())
        receiver.settimeout(30.0)
        assert receiver.recv(10) == b"1"
