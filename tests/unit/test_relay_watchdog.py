"""The watchdog ends a relay whose library hangs in one call, and no relay whose Kafka is slow in several."""

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import StoreUnavailable
from app.kafka import producer, state, unmarked
from app.messages.placement import Placement
from outbox_relay import __main__ as process
from outbox_relay import relay as relaying
from outbox_relay.relay import ShardRelay

UNMARKED = {("t", 0): (3, 5)}


def away(_name: str) -> Any:
    raise StoreUnavailable("away")


def a_shard() -> ShardRelay:
    return ShardRelay(
        shard=0, environment="e", brokers={}, state_topic="s", topics=["t"], placement=Placement(4, 4, 2), unit_of_work=away, owner="me", nudged=threading.Event(),
    )  # fmt: skip


@pytest.mark.parametrize(("hidden", "asked"), [({}, ["ranges", "last"]), (UNMARKED, ["ranges", "ranges", "records", "last"])], ids=["nothing hidden", "something hidden"])
def test_each_answer_of_R1_to_R3_is_waited_for_anew(monkeypatch: pytest.MonkeyPatch, hidden: unmarked.Ranges, asked: list[str]) -> None:
    shard, told = a_shard(), list[tuple[str, float | None]]()

    def answers(name: str, what: Any) -> Callable[..., Any]:
        return lambda *_: told.append((name, shard.busy_since)) or what

    monkeypatch.setattr(relaying, "LOOK_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(relaying, "TransactionalProducer", lambda *_: told.append(("init", shard.busy_since)) or SimpleNamespace(close=lambda: None))
    for module, name, what in ((unmarked, "ranges", hidden), (unmarked, "records", []), (state, "last", None)):
        monkeypatch.setattr(module, name, answers(name, what))
    with pytest.raises(StoreUnavailable):  # MySQL's.
        shard.hold(threading.Event())
    assert [name for name, _ in told] == ["init", *asked]
    since = [at for _, at in told if at is not None]
    assert since == sorted({at for _, at in told if at is not None}), "each began after the one before"
    assert (len(since), shard.busy_since) == (len(told), None)


def test_R6_is_waited_for_anew() -> None:
    shard, told = a_shard(), list[float | None]()
    began = shard.busy_since = time.monotonic()
    sends: Any = SimpleNamespace(produce=lambda *_, **__: None, commit=lambda: told.append(shard.busy_since))
    shard.commit(sends, state.StateRecord(1, [], [], "4/2"))
    assert told[0] is not None
    assert told[0] > began


def test_whatever_is_waited_for_ends_by_itself_before_the_watchdog_does() -> None:
    r1, ranges, memory, r6 = producer.INIT_SECONDS + 1, 3 * unmarked.TIMEOUT_SECONDS, 2 * state.TIMEOUT_SECONDS, producer.COMMIT_SECONDS + 1
    assert max(r1, ranges + relaying.LOOK_AGAIN_SECONDS, memory, r6) < process.HANG_SECONDS
