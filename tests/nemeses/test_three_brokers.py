"""Three brokers: the leader of the shard's `__transaction_state` partition is killed while the relay's EndTxn is under way, and that EndTxn arrives after the producer has moved on.

Every row is in its topic once, the relay has gone to R1 with a new producer, and the broker refuses the late request by its epoch.
"""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from app.dev.process import wait_until
from app.dev.servers import Native, free_port
from tests.chaos import wire
from tests.chaos.proxy import Link, Proxy
from tests.chaos.wire import Hold
from tests.conftest import a_schema
from tests.support.delivery import Delivery, until
from tests.support.servers import InOrder

EPOCH_ERRORS = {47, 90}  # INVALID_PRODUCER_EPOCH, PRODUCER_FENCED
SHARD_0 = (0, 2)  # Its partitions.


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Native]:
    with closing(Native(tmp_path / "three")) as native:
        bootstrap = native.brokers(3)
        client = AdminClient({"bootstrap.servers": bootstrap})
        assert wait_until(lambda: len(client.list_topics(timeout=10).brokers) == 3, 60.0)
        yield native


def ends(links: list[Link]) -> dict[str, int]:
    """Link → EndTxn requests so far: only the shard's coordinator gets any, for the other shard has no rows."""
    return {each.name: each.count["asked.EndTxn"] for each in links}


def test_its_coordinator_killed_and_a_late_end_of_its_transaction_leave_every_row_once(three: Native, servers: InOrder, topic_prefix: str, tmp_path: Path) -> None:
    for url in a_schema(servers.database("mysql")):
        with closing(Proxy()) as proxy:
            import migrations

            migrations.upgrade(url)
            bootstrap = three.kafka()
            links = proxy.kafka("relay", bootstrap)
            delivery = Delivery(url, bootstrap, f"t{os.getpid()}{topic_prefix}", replication=3)
            with closing(delivery):
                the_story(delivery, proxy, three, [each.address for each in links], tmp_path)


def the_story(delivery: Delivery, proxy: Proxy, three: Native, addresses: list[str], tmp_path: Path) -> None:
    messages = [delivery.message(f"m{n}", SHARD_0[n % 2]) for n in range(60)]
    transactional_id, links = f"{delivery.environment}.relay.0", list(proxy.links.values())
    running = delivery.relay(tmp_path, kafka=",".join(addresses), ports=free_port)
    try:
        delivery.put(*messages[:10])
        until(lambda: delivery.waiting() == 0, 90)
        late = Hold("EndTxn", sever=False, fits=lambda body: wire.end_txn(body).transactional_id == transactional_id)
        for each in links:
            each.order(late)
        delivery.put(*messages[10:20])
        assert late.struck.wait(60.0)
        before = str(late.seen["link"])
        producers = sum(each.count["asked.InitProducerId"] for each in links)
        three.daemons[before.partition(">")[2]].kill()
        for each in links:
            each.orders.clear()
        until(lambda: delivery.waiting() == 0, 90, "the relay to go on without that broker")
        for batch in range(2, 5):
            delivery.put(*messages[batch * 10 : batch * 10 + 10])
            until(lambda: delivery.waiting() == 0, 90)
        asked = ends(links)
        delivery.put(*messages[50:])
        until(lambda: delivery.waiting() == 0, 90)
        after = next(each for each in links if each.count["asked.EndTxn"] > asked[each.name])
        assert after.name != before
        assert sum(each.count["asked.InitProducerId"] for each in links) > producers, "the relay went on with its old producer"
        assert wire.end_txn_error(late.release(after.target)) in EPOCH_ERRORS
        delivery.shows(messages)
        print(f"{before} killed, now {after.name}; EndTxn {late.seen['correlation']} held {late.seen['held_seconds']:.1f} s and refused")
    finally:
        running.kill()
        running.wait(10)
