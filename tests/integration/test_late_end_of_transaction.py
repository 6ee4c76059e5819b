"""A connection that breaks under EndTxn: the client repeats the request by itself and reports success, while the first copy may still arrive and end a *later* transaction.

Found by the fault proxy; docs/decisions/0006-repeated-end-of-transaction.md. The relay takes a new producer after every commit that took long enough for a repetition.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.dev.servers import free_port
from app.kafka.producer import TransactionalProducer
from tests.chaos import wire
from tests.chaos.proxy import Proxy
from tests.chaos.wire import Hold
from tests.support.delivery import Delivery, until

EPOCH_ERRORS = {47, 90}  # INVALID_PRODUCER_EPOCH, PRODUCER_FENCED
SHARD_0 = (0, 2)  # Its partitions.


@pytest.fixture
def delivery(database: str, kafka_bootstrap: str, topic_prefix: str) -> Iterator[Delivery]:
    made = Delivery(database, kafka_bootstrap, f"l{os.getpid()}{topic_prefix}")
    yield made
    made.close()


@pytest.fixture
def relay(delivery: Delivery, tmp_path: Path) -> Iterator[Callable[[str], "subprocess.Popen[bytes]"]]:
    running: list[subprocess.Popen[bytes]] = []

    def start(kafka: str) -> "subprocess.Popen[bytes]":
        running.append(delivery.relay(tmp_path, f"relay-{len(running)}", kafka=kafka, ports=free_port))
        return running[-1]

    yield start
    for each in running:
        each.kill()
        each.wait(10)


def test_a_commit_whose_end_may_have_been_sent_twice_is_told_from_one_sent_once(delivery: Delivery, proxy: Proxy) -> None:
    (link,) = proxy.kafka("relay", delivery.kafka)
    producer = TransactionalProducer({"bootstrap.servers": link.address}, f"{delivery.environment}.relay.0")
    told = []
    for broken in (False, True):
        order = Hold("EndTxn")
        if broken:
            link.order(order)
        producer.begin()
        producer.produce(delivery.topics.scheduler, 0, key=b"k", headers=[("mid", b"x" * 16)], payload=b"{}")
        producer.commit()
        told.append((order.struck.is_set(), producer.worn))
    assert told == [(False, False), (True, True)]


def test_an_end_of_transaction_that_comes_three_transactions_late_is_refused_and_no_row_is_seen_twice(delivery: Delivery, proxy: Proxy, relay: Callable[[str], "subprocess.Popen[bytes]"]) -> None:
    (link,) = proxy.kafka("relay", delivery.kafka)
    messages = [delivery.message(f"m{n}", SHARD_0[n % 2]) for n in range(40)]
    late = Hold("EndTxn", fits=lambda body: wire.end_txn(body).transactional_id.endswith(".relay.0"))
    link.order(late)
    victim = relay(link.address)
    for batch in range(3):
        delivery.put(*messages[batch * 10 : batch * 10 + 10])
        until(lambda: delivery.waiting() == 0, 40)
    assert late.struck.is_set()
    half_way = Hold("Produce", sever=False, fits=lambda body: delivery.topics.relay_state.encode() in body)
    link.order(half_way)
    delivery.put(*messages[30:])
    assert half_way.struck.wait(20.0)
    until(lambda: set(delivery.visible(committed=False)) >= {each.mid for each in messages}, what="the rows of the open transaction to be in the log")
    assert wire.end_txn_error(late.release(link.target)) in EPOCH_ERRORS
    victim.kill()
    relay(delivery.kafka)
    until(lambda: delivery.waiting() == 0, 40)
    delivery.shows(messages)
