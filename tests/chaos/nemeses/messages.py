"""Faults in what consumers are given: copies, offsets moved by hand, members that come and go, poison."""

import json
import time
from typing import Any

from confluent_kafka import Message, Producer, TopicPartition

from app.dev.process import wait_until
from tests.chaos.nemeses.apart import apart
from tests.chaos.nemeses.nemesis import KEY, POISONED, Nemesis, Proof, Random, Undecided, arm, daemon_name, disarm, names, patiently, proven, split
from tests.chaos.rig import Rig
from tests.chaos.topics import reader

FORWARD = (1, 2, 1000)  # Past a record or two that wait, and far past the end of the log.
COPIES, POISON_SECONDS, LETTERS_SECONDS = 5, 5.0, 120.0


def publish(rig: Rig, records: list[tuple[str, int, bytes | None, bytes | None, list[tuple[str, bytes]]]]) -> list[tuple[str, int, int]]:
    """(topic, partition, key, value, headers) → where each stands now, by the broker's own word."""
    placed: list[tuple[str, int, int]] = []

    def stands(error: Any, message: Message) -> None:
        if error is None:
            placed.append((str(message.topic()), int(message.partition() or 0), int(message.offset() or 0)))

    producer = Producer({"bootstrap.servers": rig.kafka, "enable.idempotence": True, "log_level": 0})
    for topic, part, key, value, headers in records:
        producer.produce(topic, value, key, part, headers=headers, on_delivery=stands)
    if producer.flush(30.0) or len(placed) < len(records):
        raise Undecided(f"only {len(placed)} of {len(records)} records were taken")
    return placed


class CopiesAndOffsets(Nemesis):
    """N17. Variants: copies (a consumed record again, with its mid); unknown (a batch that begins below the position and ends beyond it); offsets (set back, and forward)."""

    name, title, weight = "N17", "copies, moved offsets", 4
    variants = ("copies", "unknown", "offsets")

    def strike(self, rig: Rig, rng: Random) -> Proof:
        proof: Proof = getattr(self, f"_{self.variant}")(rig, rng)
        return proof

    def _copies(self, rig: Rig, rng: Random) -> Proof:
        rows = rig.rows("SELECT topic, part, next_offset FROM positions WHERE next_offset > 0 AND topic NOT LIKE '%%relay-state' GROUP BY topic, part, next_offset")
        if not rows:
            raise Undecided("nothing was consumed yet")
        copies = []
        for topic, part, end in rng.sample(rows, min(COPIES, len(rows))):
            found = read(rig, topic, part, rng.randrange(end), end)
            if found is not None:
                copies.append((topic, part, found.key(), found.value(), [*(found.headers() or []), ("nemesis", self.name.encode())]))
        if not copies:
            raise Undecided("no record stands below a position")
        struck = time.monotonic()
        placed = publish(rig, copies)
        return Proof(struck, {"republished": len(placed), "at": placed})

    def _unknown(self, rig: Rig, rng: Random) -> Proof:
        target = rng.choice([each for each in names(rig) if each.startswith("scheduler/")])
        arm(rig, target, "scheduler.commit.after=raise:unknown")
        struck = time.monotonic()
        try:
            proven(lambda: any((rig.run / "struck" / "scheduler").glob("scheduler.commit.after.*")), 40.0, f"{target} committed nothing")
        finally:
            disarm(rig, target)
        return Proof(struck, {"commits_told_unknown": 1, "target": target})

    def _offsets(self, rig: Rig, rng: Random) -> Proof:
        """With every member gone: a group that lives takes no offsets from a stranger."""
        component = rng.choice(["scheduler", "generator"])
        group = str(rig.one("SELECT DISTINCT consumer_group FROM positions WHERE consumer_group LIKE %s", f"%{'task-scheduler' if component == 'scheduler' else 'workflow-generator'}"))
        mine = [daemon_name(each) for each in names(rig) if split(each)[0] == component]
        places = rig.rows("SELECT topic, part, next_offset FROM positions WHERE consumer_group = %s AND next_offset > 0", group)
        if not places:
            raise Undecided(f"{group} has consumed nothing yet")
        for each in mine:
            rig.strike(each)
        back, forward = places[::2], places[1::2]
        wanted = [(topic, part, offset // 2) for topic, part, offset in back] + [(topic, part, offset + rng.choice(FORWARD)) for topic, part, offset in forward]
        rig.nemesis_lines.write("offsets.set", offsets_set=[[group, *each] for each in wanted])  # Before it is done: they may stay, though this try is not proven.
        struck = time.monotonic()
        try:
            proven(lambda: apart("move_offsets", rig.kafka, group, wanted), 40.0, f"the offsets of {group} could not be moved")
            read_back = {(topic, part): offset for topic, part, offset in apart("offsets", rig.kafka, group)}
        finally:
            for each in mine:
                rig.restart(each)
        right = sum(read_back.get((topic, part)) == offset for topic, part, offset in wanted)
        if not right:
            raise Undecided(f"the offsets read back are others: {read_back}")
        return Proof(struck, {"group": group, "set_back": len(back), "set_forward": len(forward), "read_back": right})

    def heal(self, rig: Rig) -> None:
        """Nothing is left on; where reading starts is the position's word."""


def read(rig: Rig, topic: str, part: int, start: int, end: int) -> Message | None:
    """The first record from `start` on, below `end`."""
    asking = reader(rig.kafka, "nemesis")
    try:
        asking.assign([TopicPartition(topic, part, start)])
        message = asking.poll(10.0)
        return message if message is not None and message.error() is None and (message.offset() or 0) < end else None
    finally:
        asking.close()


class RebalanceStorm(Nemesis):
    """N18. A strange member joins a group and leaves it, again and again, until its generation rose by 20."""

    name, title, weight = "N18", "rebalance storm", 1
    rises, seconds = 20, 120.0

    def strike(self, rig: Rig, rng: Random) -> Proof:
        group = str(rig.one("SELECT DISTINCT consumer_group FROM positions WHERE consumer_group LIKE '%%task-scheduler'"))
        topics = [row[0] for row in rig.rows("SELECT DISTINCT topic FROM positions WHERE consumer_group = %s AND topic LIKE '%%event-sink'", group)]  # What its members share out.
        links = rig.links.proxy.kafka("rogue", rig.kafka)
        through, member_of = ",".join(each.address for each in links), {"partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": int(rig.settings.get("SESSION_TIMEOUT_MS", "1000"))}
        struck = last = time.monotonic()
        first, longest, sums = 0, 0.0, self._sum(rig, group)
        while self._generation(links) - first < self.rises or not first:
            if time.monotonic() - struck > self.seconds:
                raise Undecided(f"the generation rose only by {self._generation(links) - first} within {self.seconds:.0f} s")
            member = reader(through, group, **member_of)
            member.subscribe(topics)
            seen = self._generation(links)
            wait_until(lambda seen=seen, member=member: member.poll(0.05) is None and self._generation(links) > seen, 5.0)
            member.close()
            first = first or self._generation(links)
            now = self._sum(rig, group)
            if now != sums:
                longest, last, sums = max(longest, time.monotonic() - last), time.monotonic(), now
        return Proof(struck, {"group": group, "generation_rose": self._generation(links) - first, "longest_without_commit_seconds": round(max(longest, time.monotonic() - last), 1)})

    @staticmethod
    def _generation(links: list[Any]) -> int:
        return max(each.count["generation"] for each in links)

    @staticmethod
    def _sum(rig: Rig, group: str) -> int:
        return int(rig.one("SELECT COALESCE(SUM(next_offset), 0) FROM positions WHERE consumer_group = %s", group))

    def heal(self, rig: Rig) -> None:
        """Every strange member has left."""


class Poison(Nemesis):
    """N19. What can never be applied becomes a dead letter (a message for an unknown process after five tries), and the partition goes on within 5 s."""

    name, title, weight = "N19", "poison", 2

    def strike(self, rig: Rig, rng: Random) -> Proof:
        prefix, parts = rig.settings["TOPIC_PREFIX"], int(rig.settings["PARTITIONS"])
        readers: dict[str, list[str]] = {}
        for topic, group in rig.rows("SELECT DISTINCT topic, consumer_group FROM positions"):
            readers.setdefault(topic, []).append(group)
        topics = {"airavata-scheduler": b"RetryDue", "airavata-launch": b"ExperimentLaunched"}  # A group passes over what it does not want by its header.
        records = [(prefix + topic, rng.randrange(parts), KEY, *_poison(kind, wanted, rng)) for topic, wanted in topics.items() for kind in KINDS]
        before = self._letters(rig)
        struck = time.monotonic()
        placed = publish(rig, [(topic, part, key, value, [*headers, ("nemesis", b"N19")]) for topic, part, key, value, headers in records])
        taken = time.monotonic()
        waiting = [(group, *place) for place in placed for group in readers[place[0]]]

        def passed() -> bool:
            waiting[:] = [each for each in waiting if rig.one("SELECT next_offset FROM positions WHERE consumer_group = %s AND topic = %s AND part = %s", *each[:3]) <= each[3]]
            return not waiting

        in_time = wait_until(passed, POISON_SECONDS, 0.1)
        proven(lambda: patiently(passed), 60.0, f"not consumed: {waiting}")
        seconds = time.monotonic() - taken
        dead = wait_until(lambda: patiently(lambda: self._letters(rig)) - before >= len(placed), LETTERS_SECONDS, 0.2)
        letters = self._letters(rig) - before
        self.must(dead and letters == len(placed), f"{len(placed)} poisoned records gave {letters} dead letters", alone=True)
        self.must(in_time, f"partitions stood still for {seconds:.1f} s behind poison", alone=True)
        return Proof(struck, {"sent": len(placed), "dead_letters": letters, "passed_seconds": round(seconds, 2)})

    @staticmethod
    def _letters(rig: Rig) -> int:
        return int(rig.one(f"SELECT COUNT(*) FROM dead_letters WHERE {POISONED}", KEY.decode()))

    def heal(self, rig: Rig) -> None:
        """Dead letters stay, as they must."""


KINDS = ("garbage", "version", "headers", "stranger")


def _poison(kind: str, wanted: bytes, rng: Random) -> tuple[bytes, list[tuple[str, bytes]]]:
    """(payload, headers)."""
    good = [
        ("mid", rng.randbytes(16)), ("type", wanted), ("schema_version", b"1"), ("subject", b"gw_1/exp_none/prc_none/tsk_none/NOOP/1/1"), ("cause", b"nemesis:00"), ("traceparent", b""), ("at", b""),
    ]  # fmt: skip
    return {
        "garbage": (rng.randbytes(200), []),
        "version": (b"{}", [(name, b"99" if name == "schema_version" else value) for name, value in good]),
        "headers": (rng.randbytes(20), [(f"h{n}", rng.randbytes(8)) for n in range(1000)]),
        "stranger": (json.dumps({}).encode(), good),
    }[kind]
