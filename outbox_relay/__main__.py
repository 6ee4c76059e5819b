"""The outbox relay: one worker thread per shard it can lease; replicas beyond the shard count wait as spares."""

import faulthandler
import os
import socket
import threading
import time

from app import plugins
from app.errors import EXIT_BUG, Misconfigured
from app.lifecycle import Lifecycle, run
from app.messages import topics
from app.mysql import engine, shards
from app.mysql.unit_of_work import UnitOfWork, unit_of_work
from observability import metrics
from outbox_relay.relay import ShardRelay

HANG_SECONDS, DRAIN_SECONDS = 45.0, 10.0  # Longer than whatever ends by itself.


def work(lifecycle: Lifecycle) -> None:
    """Build everything by hand, lease, pump until SIGTERM, give the leases up."""
    settings = lifecycle.settings
    database = engine.connect(settings.mysql_url, size=2 * settings.relay_shards + 1)
    unit = unit_of_work(database)
    lifecycle.wait_for_database(database)
    lifecycle.wait_for_topics([settings.topics.relay_state], partitions=settings.relay_shards)
    lifecycle.wait("MySQL", lambda: _make_shards(unit, settings.relay_shards))
    nudges = [threading.Event() for _ in range(settings.relay_shards)]
    names = topics.business(list(plugins.task_types()))
    relays = [
        ShardRelay(
            shard=shard, environment=settings.environment, brokers=settings.brokers, state_topic=settings.topics.relay_state, topics=[settings.topics.prefix + each for each in names],
            placement=settings.placement, unit_of_work=unit, owner=lifecycle.instance, nudged=nudges[shard],
        )
        for shard in range(settings.relay_shards)
    ]  # fmt: skip
    faults: list[BaseException] = []

    def hold(relay: ShardRelay) -> None:
        try:
            relay.run(lifecycle.stop)
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=hold, args=(relay,), name=f"shard-{relay.shard}", daemon=True) for relay in relays]
    threading.Thread(target=_listen, args=(bound(settings.nudge_listen), nudges), name="nudge", daemon=True).start()
    lifecycle.facts = lambda: {f"shard_{relay.shard}": relay.role for relay in relays}
    metrics.known("topic", names)
    metrics.watch(lambda: [("airavata_relay_shards_held", float(relay.role == "leasing"), {"shard": str(relay.shard)}) for relay in relays])
    for thread in threads:
        thread.start()
    lifecycle.ready = lambda: None
    while not lifecycle.stop.is_set() and not faults:
        lifecycle.each_turn(unit)
        _watch(relays, lifecycle)
        lifecycle.stop.wait(0.25)
    lifecycle.stop.set()
    drained = time.monotonic() + DRAIN_SECONDS
    for thread in threads:
        thread.join(max(0.0, drained - time.monotonic()))
    if busy := [thread.name for thread in threads if thread.is_alive()]:
        lifecycle.log.warning("not drained in time: a successor settles what is under way", threads=busy)
        faulthandler.dump_traceback()
    lifecycle.leave(unit)
    if faults:
        raise faults[0]


def _make_shards(unit: UnitOfWork, count: int) -> None:
    with unit("relay.shards") as tx:
        shards.ensure(tx, count)


def _watch(relays: list[ShardRelay], lifecycle: Lifecycle) -> None:
    """A commit can hang in the library for ever: end the process, whose successor will find out what became of it."""
    for relay in relays:
        relay.renew_while_busy()
        busy_since = relay.busy_since
        if busy_since is not None and time.monotonic() - busy_since > HANG_SECONDS:
            lifecycle.log.error("a Kafka transaction hangs: ending this process", shard=relay.shard)
            faulthandler.dump_traceback()
            os._exit(EXIT_BUG)


def bound(address: tuple[str, int]) -> socket.socket:
    """Where nudges come in. Raises Misconfigured."""
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        receiver.bind(address)
    except OSError as fault:
        receiver.close()
        raise Misconfigured(f"AIRAVATA_NUDGE_LISTEN: {fault.strerror}: {address}") from fault
    return receiver


def _listen(receiver: socket.socket, nudges: list[threading.Event]) -> None:
    """One datagram names shards; anything else is ignored."""
    while True:
        for word in receiver.recv(512).split(b","):
            if word.isdigit() and int(word) < len(nudges):
                nudges[int(word)].set()


if __name__ == "__main__":
    run("relay", work)
