"""Faults of Kafka: brokers killed, stopped, all at once; what it remembers lost."""

import signal
import time
from contextlib import suppress

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from app import admin, plugins
from app.dev.process import Daemon, wait_until
from app.settings import read
from tests.chaos.nemeses.apart import apart
from tests.chaos.nemeses.nemesis import Nemesis, Proof, Random, Tail, Undecided, patiently, proven
from tests.chaos.rig import Rig
from tests.chaos.topics import reader

EXIT_SECONDS = 60.0


def brokers(rig: Rig) -> dict[str, Daemon]:
    found = {name: each for name, each in rig.native.daemons.items() if name == "kafka" or name.startswith("kafka-")}
    if not found:
        raise Undecided("the brokers are none of our own processes")
    return found


def client(rig: Rig) -> AdminClient:
    return AdminClient({"bootstrap.servers": rig.kafka, "log_level": 0, "socket.timeout.ms": 10_000})


def watermarks(rig: Rig, topic: str) -> dict[int, tuple[int, int]]:
    """Partition → (log start, end)."""
    asking = reader(rig.kafka, "nemesis")
    try:
        parts = asking.list_topics(topic, timeout=20.0).topics[topic].partitions
        return {part: asking.get_watermark_offsets(TopicPartition(topic, part), timeout=20.0) for part in parts}
    finally:
        asking.close()


def answering(rig: Rig) -> int:
    """Brokers in the metadata; 0 if nobody answers."""
    with suppress(KafkaException):
        return len(client(rig).list_topics(timeout=5.0).brokers)
    return 0


class BrokerDown(Nemesis):
    """N10. Variants: killed; stopped (SIGTERM); all; the controller's leader killed, where there are three."""

    name, title, weight = "N10", "broker killed, stopped, all restarted; controller killed", 3
    variants = ("killed", "stopped", "all")

    def strike(self, rig: Rig, rng: Random) -> Proof:
        found = brokers(rig)
        expected = len(found)
        self.struck_names = sorted(found) if self.variant == "all" else [self.target or rng.choice(sorted(found))]
        if self.variant == "controller":
            self.struck_names = [self._controller(rig, found)]
        struck, codes = time.monotonic(), {}
        for name in self.struck_names:
            child = found[name].child
            if self.variant == "stopped":
                found[name].stop()
            else:
                found[name].kill()
            codes[name] = child.returncode if child is not None else None
        if self.variant != "stopped" and set(codes.values()) != {-signal.SIGKILL}:
            raise Undecided(f"not ended by our signal: {codes}")
        proven(lambda: answering(rig) <= expected - len(codes), 30.0, "it still stands in the metadata")
        return Proof(struck, {"wait_status": codes, "brokers_left": expected - len(codes)})

    def _controller(self, rig: Rig, found: dict[str, Daemon]) -> str:
        if len(found) < 3:
            raise Undecided("one broker is its own controller: the variant needs three")
        number = client(rig).describe_cluster(request_timeout=10.0).result().controller.id
        return f"kafka-{number}"

    def heal(self, rig: Rig) -> None:
        began, found = time.monotonic(), brokers(rig)
        for name in self.struck_names:
            found[name].start()
        for name in self.struck_names:
            found[name].wait()
        self.after["serving_again_seconds"] = round(time.monotonic() - began, 1)


class MemoryLost(Nemesis):
    """N30. Variants: the relays' state topic emptied; a consumer group deleted. What an operator does afterwards is part of the healing."""

    name, title, weight = "N30", "Kafka's memory lost", 1
    variants = ("state", "group")

    def strike(self, rig: Rig, rng: Random) -> Proof:
        proof: Proof = getattr(self, f"_{self.variant}")(rig)
        return proof

    def _down(self, rig: Rig, component: str, number: int) -> list[str]:
        mine = sorted(each for each in rig.daemons if each.rpartition("-")[0] == component)
        for each in mine:
            rig.down.add(each)
            if rig.alive(rig.daemons[each]):
                rig.signal(each, number)
                rig.await_end(each, 60.0)
        return mine

    def _state(self, rig: Rig) -> Proof:
        """Every relay must refuse with exit 78 and publish nothing. They were drained before, so that no published row waits for its delete: that much an operator must see to."""
        proven(lambda: rig.one("SELECT MIN(settled) FROM relay_shards") > 0, 40.0, "a shard has settled nothing yet")
        mine = self._down(rig, "relay", signal.SIGTERM)
        settings, struck = read(rig.environment), time.monotonic()
        topic = settings.topics.relay_state
        before = watermarks(rig, topic)
        kafka = client(rig)
        kafka.delete_topics([topic])[topic].result(30.0)
        proven(lambda: topic not in client(rig).list_topics(timeout=10.0).topics, 30.0, "the state topic is still there")
        admin.topics(settings, list(plugins.task_types()), apply=True, say=lambda _: None)
        after = watermarks(rig, topic)
        if any(high for _, high in after.values()) or not any(high for _, high in before.values()):
            raise Undecided(f"the state topic was not emptied: {before}, then {after}")
        rows, log = rig.outbox_rows(), Tail(*(rig.daemons[each].log for each in mine))
        for each in mine:
            component, _, copy = each.rpartition("-")
            rig.revive(component, int(copy), wait=False)
        wait_until(lambda: not any(rig.alive(rig.daemons[each]) for each in mine), EXIT_SECONDS)
        codes = {each: (rig.await_end(each, 1.0) if not rig.alive(rig.daemons[each]) else "alive") for each in mine}
        self.must(set(codes.values()) == {78}, f"relays without Kafka's memory ended with {codes}, not 78")
        self.must(log.count("admin relay-state") > 0, "no relay named `airavata admin relay-state`")
        self.must(rig.outbox_rows() >= rows, "rows left the outbox although Kafka had lost its memory")
        return Proof(struck, {"described_before": before, "described_after": after, "exit": codes})

    def _group(self, rig: Rig) -> Proof:
        """A deleted group has no effect: positions are rows."""
        mine = self._down(rig, "scheduler", signal.SIGKILL)
        group = str(rig.one("SELECT DISTINCT consumer_group FROM positions WHERE consumer_group LIKE '%%task-scheduler'"))
        struck = time.monotonic()
        try:
            proven(lambda: apart("delete_group", rig.kafka, group), 30.0, "the group could not be deleted")
        finally:
            for each in mine:
                rig.restart(each)
        return Proof(struck, {"group_deleted": group})

    def heal(self, rig: Rig) -> None:
        """The operator's command: Kafka's memory counts from here on."""
        if self.variant == "state":
            settings = read(rig.environment)
            for row in admin.relay_state(settings):
                if row["verdict"] == "KAFKA_LOST_MEMORY":
                    patiently(lambda row=row: admin.relay_state(settings, settle=row["shard"]))
            for each in sorted(rig.down & {each for each in rig.daemons if each.startswith("relay-")}):
                rig.restart(each, wait=True)


