"""Units of work that know whether MySQL answers: one that is away is asked once a moment, and what ran out meanwhile is nobody's proof of silence."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.errors import Contention, OutcomeUnknown, StoreUnavailable
from app.mysql.answering import LONG_AGO, Answering


class Server:
    """Fails as told."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.asked = 0

    @contextmanager
    def __call__(self, _name: str) -> Iterator[Any]:
        self.asked += 1
        yield None
        if self.fault is not None:
            raise self.fault


@pytest.mark.parametrize("fault", [StoreUnavailable("gone"), OutcomeUnknown("gone")])
def test_after_no_answer_what_comes_next_fails_without_asking_for_a_moment(fault: Exception) -> None:
    server = Server()
    unit = Answering(server)
    server.fault = fault
    for expected in (type(fault), StoreUnavailable, StoreUnavailable):
        with pytest.raises(expected), unit("test"):
            pass
    assert server.asked == 1
    server.fault, unit.away_until = None, LONG_AGO
    with unit("test"):
        pass
    assert server.asked == 2


def test_contention_is_an_answer() -> None:
    server = Server()
    unit = Answering(server)
    server.fault = Contention("deadlock")
    for _ in range(2):
        with pytest.raises(Contention), unit("test"):
            pass
    assert server.asked == 2


def test_silence_proves_something_only_when_mysql_has_answered_as_long() -> None:
    server = Server()
    unit = Answering(server)
    assert not unit.for_as_long_as(10.0)  # Just begun: nobody knows what was before.
    unit.since = LONG_AGO
    assert unit.for_as_long_as(10.0)
    server.fault = StoreUnavailable("gone")
    with pytest.raises(StoreUnavailable), unit("test"):
        pass
    assert not unit.for_as_long_as(10.0)
    server.fault, unit.away_until = None, LONG_AGO
    with unit("test"):
        pass
    assert not unit.for_as_long_as(10.0)


def test_who_did_not_ask_for_long_does_not_know_either() -> None:
    unit = Answering(Server())
    unit.since = LONG_AGO
    unit.answered_at -= 6.0
    assert not unit.for_as_long_as(10.0)
    with unit("test"):  # It was frozen, or this unit took that long.
        pass
    assert not unit.for_as_long_as(10.0)
