"""What a broker ended and never marked: readers of committed records are shown it once by the relay that comes next, whether its own had been told of the commit or not.

Found by a broker killed under load; docs/decisions/0011-ended-and-never-marked.md. That takes luck; here the fault proxy keeps the coordinator from hearing of the transaction and tells
the relay that it has been ended, which leaves the same: records of a producer that has nothing open, in partitions without a marker.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.dev import broker
from app.dev.process import Daemon
from app.dev.servers import ROOT, free_port
from app.kafka.producer import TransactionalProducer
from tests.chaos.proxy import Proxy
from tests.chaos.wire import Pretend
from tests.conftest import a_schema
from tests.support.delivery import Delivery, until
from tests.support.servers import InOrder

CREDULOUS = "transaction.partition.verification.enable=false\n"  # Else the partition's leader asks the coordinator whether it knows of the transaction.
Relay = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def empty_database(servers: InOrder) -> Iterator[str]:
    """Of one kind: what is tested is Kafka's."""
    yield from a_schema(servers.database("mysql"))


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[tuple[Daemon, str]]:
    (daemon,), bootstrap = broker.cluster({"kafka": tmp_path / "kafka"}, ROOT / ".dev/lib/kafka", [(free_port(), free_port())])
    with (tmp_path / "kafka" / "server.properties").open("a") as properties:
        properties.write(CREDULOUS)
    daemon.start()
    daemon.wait()
    yield daemon, bootstrap
    daemon.kill()


@pytest.fixture
def relay(tmp_path: Path, proxy: Proxy) -> Iterator[Relay]:
    running: list[subprocess.Popen[bytes]] = []

    def start(delivery: Delivery, *, unmarked_shard: int | None = None, failpoints: str = "") -> "subprocess.Popen[bytes]":
        (link,) = proxy.kafka(f"relay-{len(running)}", delivery.kafka)
        if unmarked_shard is not None:
            name = f".relay.{unmarked_shard}".encode()
            for api in ("AddPartitionsToTxn", "EndTxn"):
                link.order(Pretend(api, fits=lambda body: name in body))
        running.append(delivery.relay(tmp_path, f"relay-{len(running)}", failpoints=failpoints, kafka=link.address, ports=free_port))
        return running[-1]

    yield start
    for each in running:
        each.kill()
        each.wait(60)


def test_R1_what_a_broker_ended_and_never_marked_is_shown_once(database: str, kafka: tuple[Daemon, str], relay: Relay) -> None:
    daemon, bootstrap = kafka
    delivery = Delivery(database, bootstrap, f"u{os.getpid()}.")
    told, untold = ([delivery.message(f"m{part}{n}", part) for n in range(10) for part in parts] for parts in ((0, 2), (1, 3)))
    later = [delivery.message(f"later{n}", n % 4) for n in range(20)]
    idle = TransactionalProducer(delivery.brokers, "idle")
    try:
        first = relay(delivery, unmarked_shard=0)
        delivery.put(*told)  # Shard 0 believes that it is committed, and deletes.
        until(lambda: delivery.waiting() == 0)
        first.kill()
        first.wait(60)
        assert delivery.visible() == []
        assert sorted(delivery.visible(committed=False)) == sorted(each.mid for each in told)
        second = relay(delivery, unmarked_shard=1, failpoints="relay.commit.after=crash@1?shard=1")
        delivery.shows(told)
        delivery.put(*untold)  # Shard 1 dies before it deletes: its rows wait.
        assert second.wait(60) == -9
        assert delivery.waiting() == len(untold)
        assert len(delivery.visible(committed=False)) == len(told) + len(untold)
        third = relay(delivery)
        until(lambda: delivery.waiting() == 0)
        delivery.shows([*told, *untold])
        delivery.put(*later)
        until(lambda: delivery.waiting() == 0)
        delivery.shows([*told, *untold, *later])
        assert third.poll() is None
        daemon.kill()
        until(lambda: idle.worn, what="a producer to notice that every broker is gone")
    finally:
        delivery.close()
