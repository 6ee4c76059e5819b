"""A broker that ended transactions at its start and marked no partition: what it hid from readers is shown once, told or not told, by the relay that comes next.

Found by a broker killed under load; docs/decisions/0011-ended-and-never-marked.md. Here its markers are held back for sure: it writes them by a listener that leads nowhere.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.dev import broker
from app.dev.process import Daemon
from app.dev.servers import ROOT, free_port
from app.kafka import unmarked
from app.kafka.producer import TransactionalProducer
from tests.support.delivery import Delivery, until

NOWHERE = "listeners=PLAINTEXT://127.0.0.1:{port},MARKERS://127.0.0.1:{free},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners=PLAINTEXT://127.0.0.1:{port},MARKERS://127.0.0.1:9\n\
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,MARKERS:PLAINTEXT,CONTROLLER:PLAINTEXT\ninter.broker.listener.name=MARKERS\ntransaction.partition.verification.enable=false\n"  # It would go that way too.


class Broker:
    """`markers`: whether it can write any, from its next start on."""

    def __init__(self, base: Path) -> None:
        self.port, self.controller = free_port(), free_port()
        self.daemon, self.bootstrap = broker.kafka(base, ROOT / ".dev/lib/kafka", self.port, self.controller)
        self.properties = base / "server.properties"
        self.whole = self.properties.read_text()

    def start(self, *, markers: bool) -> Daemon:
        self.properties.write_text(self.whole if markers else self.whole + NOWHERE.format(port=self.port, controller=self.controller, free=free_port()))
        self.daemon.start()
        self.daemon.wait()
        return self.daemon


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path / "kafka")
    yield made
    made.daemon.kill()


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    running: list[subprocess.Popen[bytes]] = []

    def start(delivery: Delivery, failpoints: str = "") -> "subprocess.Popen[bytes]":
        running.append(delivery.relay(tmp_path, f"relay-{len(running)}", failpoints=failpoints, ports=free_port))
        return running[-1]

    yield start
    for each in running:
        each.kill()
        each.wait(60)


def test_what_a_broker_ended_and_never_marked_is_shown_once(database: str, kafka: Broker, relay: Callable[..., "subprocess.Popen[bytes]"]) -> None:
    kafka.start(markers=False)
    delivery = Delivery(database, kafka.bootstrap, f"u{os.getpid()}.")
    idle = TransactionalProducer(kafka.bootstrap, "idle")
    messages = [delivery.message(f"m{n}", n % 4) for n in range(40)]
    told, untold, later = [each for each in messages[:20] if each.partition % 2 == 0], [each for each in messages[:20] if each.partition % 2], messages[20:]
    try:
        first = relay(delivery)
        delivery.put(*told)  # Shard 0 is told that it is committed, and deletes.
        until(lambda: delivery.waiting() == 0)
        first.kill()
        first.wait(60)
        victim = relay(delivery, "relay.commit.after=crash@1?shard=1")
        delivery.put(*untold)  # Shard 1 is not: its rows wait.
        assert victim.wait(60) == -9
        assert delivery.visible() == []
        kafka.daemon.kill()
        until(lambda: idle.worn, what="a producer to notice that every broker is gone")
        kafka.start(markers=True)
        assert sorted(delivery.visible(committed=False)) == sorted(each.mid for each in messages[:20])
        until(lambda: unmarked.ranges(kafka.bootstrap, [(delivery.topics.scheduler, part) for part in range(4)]), what="the broker to end its transactions without marking them")
        last = relay(delivery)
        until(lambda: delivery.waiting() == 0)
        delivery.put(*later)
        until(lambda: delivery.waiting() == 0)
        delivery.shows(messages)
        assert last.poll() is None
    finally:
        delivery.close()
