"""A pool counts its connections by host, also those it is about to end, and takes no worker from another host where none may be opened."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from components.task_executors.remote_host import HostAddress
from components.task_executors.worker import Cooled
from components.task_executors.workers import Pool, _Worker

ONE, SAME_HOST, OTHER = HostAddress("one", 22, "u", (), b""), HostAddress("one", 22, "v", (), b""), HostAddress("other", 22, "u", (), b"")


class WithoutProcesses(Pool):
    """Workers do what they are told at once; `says` is what one tells."""

    def __init__(self, size: int) -> None:
        self.size, self.workers, self.events, self.freed, self.sent = size, [], [], False, list[Any]()

    def _new(self) -> _Worker:
        pipe: Any = SimpleNamespace(send=self.sent.append, recv=Cooled)
        self.workers.append(_Worker(SimpleNamespace(is_alive=lambda: False, join=lambda _: None, close=lambda: None), pipe))
        pipe.close = lambda: None
        return self.workers[-1]

    def begun(self, *addresses: HostAddress, connect: bool = True) -> Sequence[bool]:
        order, task_type = SimpleNamespace(token="t"), SimpleNamespace(deadline_seconds=60, once=False, failure_code="INTERNAL")
        return [self.start(order, task_type, each, connect=connect) for each in addresses]

    def ends(self) -> None:
        for each in self.workers:
            each.job = None

    def cools(self) -> None:
        for each in self.workers:
            self._hear(each)


def test_an_order_waits_in_front_of_a_pool_that_has_no_worker_free() -> None:
    pool = WithoutProcesses(2)
    assert pool.begun(ONE, OTHER, ONE) == [True, True, False]
    assert (pool.free, pool.connections()) == (0, {"one:22": 1, "other:22": 1})


def test_without_leave_to_connect_an_order_goes_to_a_warm_connection_or_nowhere() -> None:
    pool = WithoutProcesses(3)
    pool.begun(ONE, OTHER)
    pool.ends()
    assert pool.begun(ONE, ONE, OTHER, connect=False) == [True, False, True]
    assert (pool.connections(), pool.busy()) == ({"one:22": 1, "other:22": 1}, {"one:22": 1, "other:22": 1})


def test_a_worker_taken_from_another_host_counts_for_both_until_it_has_let_go() -> None:
    pool = WithoutProcesses(1)
    pool.begun(ONE)
    pool.ends()
    assert pool.begun(OTHER) == [True]
    assert pool.connections() == {"one:22": 1, "other:22": 1}
    pool.cools()
    assert (pool.connections(), pool.freed) == ({"other:22": 1}, True)
    pool.cools()  # A connection that had cooled just before: the new order connects again.
    assert pool.connections() == {"other:22": 1}


def test_another_user_of_a_full_host_takes_the_place_of_an_idle_connection() -> None:
    pool = WithoutProcesses(2)
    pool.begun(ONE)
    pool.ends()
    assert pool.begun(SAME_HOST, connect=False) == [True]
    assert pool.connections() == {"one:22": 1}


def test_idle_connections_go_first_and_busy_ones_only_where_they_must() -> None:
    pool = WithoutProcesses(3)
    pool.begun(ONE, ONE, ONE)
    pool.workers[1].job = None
    pool.keep("one:22", 1)
    assert (pool.connections(), pool.busy(), pool.sent[3:]) == ({"one:22": 3}, {"one:22": 3}, [None])
    pool.cools()
    assert pool.connections() == {"one:22": 2}
    pool.keep("one:22", 1, end_busy=True)
    assert (pool.connections(), [each.killed for each in pool.events]) == ({"one:22": 1}, [True])
