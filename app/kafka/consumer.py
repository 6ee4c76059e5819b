"""Kafka's side of consuming: join, be assigned, poll, seek, pause. Where reading starts is never Kafka's word: `claim` tells it (C0), from the position rows.

One thread owns a consumer. Callbacks of the library run inside its poll, so `on_assign` may take its time (up to 20 s) but never raises and never returns
without explicit offsets: the library would assign by itself, at Kafka's committed offsets.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, cast

import msgspec
from confluent_kafka import Consumer as Client
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from app import failpoint, instance, journal
from app.errors import InvariantViolated, Misconfigured, Transient
from app.messages import codec
from app.messages.envelope import Envelope
from observability import logs, metrics

Partition: TypeAlias = tuple[str, int]
CLAIM_BOUND_SECONDS = 20.0
OFFSETS_EVERY_SECONDS = 2.0


@dataclass
class Claim:
    """What C0 answers for a partition. `fault`: it must not be read; `recreated`: because its topic was made anew, which at a start ends the process (exit 78)."""

    epoch: int
    next_offset: int
    topic_uuid: str = ""
    fault: str | None = None
    recreated: bool = False


@dataclass
class Held:
    """A partition of ours: `applied` is where reading began or the last applied end; `read` the offset after the last record polled, `given` after the last one handed out."""

    epoch: int
    applied: int
    read: int
    end_seen: int | None = None
    committed: int = -1
    given: int = 0
    quiet_since: float | None = None
    halted: str | None = None
    reason: str = ""  # Why it is halted, as the metric says it.
    moved: float = field(default_factory=time.monotonic)  # When something was last applied here, or nothing waited to be read.

    def unread(self, end: int) -> int:
        """What lies before the last stable offset and was not polled. Behind the last record lie marks of transactions, until the end was seen."""
        return max(0, end - max(self.read, self.end_seen or 0))


class _PartitionFigures(msgspec.Struct):
    hi_offset: int = -1
    ls_offset: int = -1


class _TopicFigures(msgspec.Struct):
    partitions: dict[str, _PartitionFigures] = {}


class _Statistics(msgspec.Struct):
    topics: dict[str, _TopicFigures] = {}


@dataclass(slots=True)
class Received:
    """A record for this group."""

    topic: str
    partition: int
    offset: int
    key: str
    headers: list[tuple[str, bytes]] | None
    value: bytes | None
    timestamp_ms: int

    @property
    def place(self) -> Partition:
        return self.topic, self.partition

    @property
    def mid(self) -> bytes:
        """Empty where a record has none."""
        return dict(self.headers or ()).get("mid") or b""  # A header may be null.

    def decode(self) -> Envelope:
        """What it says. Raises Unreadable. A broken trace context is dropped and counted: what follows takes the trace from the process row."""
        found = codec.decode(self.topic, self.partition, self.headers, self.value)
        if not found.traceparent and dict(self.headers or ()).get("traceparent"):
            metrics.count("airavata_context_invalid_total", from_="message")
        return found


def configuration(brokers: Mapping[str, str], group: str, session_timeout_ms: int) -> dict[str, object]:
    """Checked by the tests against docs/protocol.md."""
    return {
        **brokers,
        "group.id": group,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": session_timeout_ms,
        "heartbeat.interval.ms": max(100, session_timeout_ms // 3),
        "max.poll.interval.ms": 30_000,
        "fetch.queue.backoff.ms": 5,
        "fetch.wait.max.ms": 200,  # Data ends the wait, but a partition just taken over is not in the fetch that waits: it waits behind it.
        "queued.min.messages": 10_000,
        "allow.auto.create.topics": False,
        "statistics.interval.ms": 5000,
    }


class Consumer:
    """`claim` is C0; `wants` and `group` say which records are ours: others are passed over by their headers.

    The group shares out the first of `topics` alone; who is given a partition of it reads the same number of the others too (docs/decisions/0013-one-topic-leads.md). So all members of a group
    read the same topics, and of one partition number everything has one reader.

    `pending`: what was polled and is not applied. A record leaves it when whoever applies it has committed, or when its partition is lost or read again. `fenced`: partitions that
    somebody else claimed, or of which it is not known where they stand.
    """

    def __init__(
        self,
        *,
        component: str,
        brokers: Mapping[str, str],
        group: str,
        topics: Iterable[str],
        session_timeout_ms: int,
        wants: frozenset[str],
        claim: Callable[[list[Partition]], Mapping[Partition, Claim]],
    ) -> None:
        self.component, self.group, self.topics, self.wants, self.claim = component, group, list(topics), wants, claim
        self.held: dict[Partition, Held] = {}
        self.pending: list[Received] = []
        self.fenced: set[Partition] = set()
        self.joined = False
        self.paused = False
        self.rejoin = False
        self.refused: str | None = None
        self.passed_over: Counter[str] = Counter()  # By topic, of one poll.
        self.ends: Mapping[Partition, tuple[int, int]] = {}  # Log end and last stable offset, some seconds old.
        self.log = logs.logger("consumer")
        self.committed_at = time.monotonic()
        told = {"error_cb": self._on_error, "stats_cb": self._on_statistics, "logger": logs.library("rdkafka")}
        self.client = Client(configuration(brokers, group, session_timeout_ms), **told)
        metrics.known("topic", self.topics)
        self.subscribe()

    def subscribe(self) -> None:
        self.client.subscribe(self.topics[:1], on_assign=self._assigned, on_revoke=self._revoked, on_lost=partial(self._revoked, why="lost"))

    def _led(self, partitions: Iterable[TopicPartition]) -> list[Partition]:
        return [(topic, each.partition) for topic in self.topics for each in partitions]

    # ---- C0 -------------------------------------------------------------------------------------------------------------------------------------
    def _assigned(self, client: Client, partitions: list[TopicPartition]) -> None:
        places = self._led(partitions)
        started, delay = time.monotonic(), 0.1
        while True:
            try:
                claims = self.claim(places)
                break
            except Transient as fault:
                if time.monotonic() - started > CLAIM_BOUND_SECONDS:
                    self.log.warning("positions cannot be claimed: leaving the group until they can", fault=fault)
                    client.incremental_assign([TopicPartition(topic, part, 0) for topic, part in places])
                    client.pause([TopicPartition(topic, part) for topic, part in places])
                    self.rejoin = True
                    return
                time.sleep(delay)
                delay = min(delay * 2, 2.0)
            except Exception as fault:  # Nothing may leave this callback but explicit offsets.
                self.log.error("claiming raised", exc_info=fault)
                claims = {place: Claim(0, 0, fault=f"claim raised {type(fault).__name__}") for place in places}
                break
        self.take(claims, client)
        self.joined = True
        metrics.count("airavata_rebalances_total", kind="assigned")

    def take(self, claims: Mapping[Partition, Claim], client: Client) -> None:
        """Reading begins at the claimed offsets, and nowhere else."""
        client.incremental_assign([TopicPartition(topic, part, max(claim.next_offset, 0)) for (topic, part), claim in claims.items()])
        if not self.joined:
            self.refused = next((claim.fault for claim in claims.values() if claim.recreated), None)
        for place, claim in claims.items():
            self._hold(place, claim, client, again=False)

    def reclaim(self) -> None:
        """What is fenced and, after the next poll, still assigned to us: C0 again, after a short wait that parts two rivals. What was read of it comes again."""
        places = sorted(self.fenced & self.held.keys())
        self.fenced.clear()
        if not places:
            return
        self._forget(places)
        time.sleep(instance.jitter(0.05, 0.2))
        try:
            claims = self.claim(places)
        except Transient as fault:
            self.fenced |= set(places)
            self.log.warning("positions cannot be claimed again yet", fault=fault)
            return
        for place, claim in claims.items():
            self._hold(place, claim, self.client, again=True)
            self.seek(place, claim.next_offset)

    def _hold(self, place: Partition, claim: Claim, client: Client, *, again: bool) -> None:
        self.held[place] = Held(claim.epoch, claim.next_offset, claim.next_offset, halted=claim.fault, reason="recreated" if claim.recreated else "unclaimed")
        held_back = bool(claim.fault) or self.paused
        (client.pause if held_back else client.resume)([TopicPartition(*place)])  # Said either way: the library keeps a pause beyond the assignment it was made in.
        journal.write(
            "partition.claim", group=self.group, topic=place[0], topic_uuid=claim.topic_uuid, partition=place[1], epoch=claim.epoch, next_offset=claim.next_offset, again=again, fault=claim.fault
        )
        if claim.fault:
            self.log.error("partition halted", topic=place[0], partition=place[1], fault=claim.fault)

    def _forget(self, places: Collection[Partition]) -> None:
        self.pending = [each for each in self.pending if each.place not in places]

    def _revoked(self, client: Client, partitions: list[TopicPartition], why: str = "revoked") -> None:
        places = set(self._led(partitions))
        metrics.count("airavata_rebalances_total", kind=why)
        self.commit_offsets(only=places)
        self._forget(places)
        self.fenced -= places
        for place in places:
            held = self.held.pop(place, None)
            journal.write("partition.release", group=self.group, topic=place[0], partition=place[1], epoch=held.epoch if held else None, why=why)
        failpoint.hit(f"{self.component}.revoke.after")
        client.incremental_unassign([TopicPartition(*place) for place in places])

    # ---- C1 -------------------------------------------------------------------------------------------------------------------------------------
    def poll(self, most: int, timeout_seconds: float) -> list[Received]:
        """What was waiting, at most `most`, pending from now on; waits only for the first record. Raises Misconfigured for a topic that was recreated before the start."""
        if self.refused is not None:
            raise Misconfigured(f"{self.refused}. If its messages may be given up, remove the position rows of the topic and run `airavata admin topics --apply`")
        if self.rejoin:
            self._rejoin()
        first = self.client.poll(timeout_seconds)
        found = [] if first is None else [first]
        if first is not None and most > 1:
            found += self.client.consume(most - 1, 0)
        fresh = [received for message in found if (received := self._sort(message)) is not None]
        self.pending += fresh
        for topic, many in self.passed_over.items():
            metrics.count("airavata_messages_total", many, topic=topic, verdict="not_mine")
        self.passed_over.clear()
        return fresh

    def _sort(self, message: Message) -> Received | None:
        place = (str(message.topic()), int(message.partition() or 0))
        held = self.held.get(place)
        error = message.error()
        if error is not None:
            self._on_event(place, held, error, message)
            return None
        if held is None or held.halted:
            return None
        offset = int(message.offset() or 0)
        held.read, held.quiet_since = offset + 1, None
        headers = cast("list[tuple[str, bytes]] | None", message.headers())
        kind, only = codec.type_and_only(headers)
        if (kind and kind not in self.wants) or (only and only != self.group):
            self.passed_over[place[0]] += 1
            return None
        held.given = offset + 1
        key = message.key()
        return Received(place[0], place[1], offset, key.decode(errors="replace") if isinstance(key, bytes) else str(key or ""), headers, message.value(), message.timestamp()[1])

    def _on_event(self, place: Partition, held: Held | None, error: KafkaError, message: Message) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            if held is not None and held.quiet_since is None:
                held.end_seen, held.quiet_since = message.offset(), time.monotonic()
        elif error.code() in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:
            if held is not None:
                held.reason = self._why_lost(place, held.read)
                held.halted = f"offset {held.read} is not in the log: Kafka has lost what the position says was there"
                self.client.pause([TopicPartition(*place)])
                self.log.error("partition halted", topic=place[0], partition=place[1], fault=held.halted)
        elif error.code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}:
            self.log.warning("topic is not there: run `airavata admin topics --apply`", topic=place[0], fault=error.str())
        elif error.fatal():
            raise InvariantViolated(f"consumer: {error.str()}")
        else:
            self.log.warning("kafka", fault=error.str())

    def _rejoin(self) -> None:
        self.client.unsubscribe()
        self.held.clear()
        self.pending.clear()
        self.joined, self.rejoin = False, False
        time.sleep(1.0)
        self.subscribe()

    def _why_lost(self, place: Partition, offset: int) -> str:
        """`retention` where the log begins behind it, `truncated` where it ends before it."""
        try:
            low, _ = self.client.get_watermark_offsets(TopicPartition(*place), timeout=1.0)
        except KafkaException:
            return "truncated"
        return "retention" if offset < low else "truncated"

    @metrics.measuring
    def _on_statistics(self, text: str) -> None:
        """The library's own figures: between log end and last stable offset lies somebody's open transaction. Of a partition not yet fetched it may know one of them, or none."""
        topics = msgspec.json.decode(text, type=_Statistics).topics
        self.ends = {(topic, int(part)): (each.hi_offset, each.ls_offset) for topic, told in topics.items() for part, each in told.partitions.items() if min(each.hi_offset, each.ls_offset) >= 0}
        for place, held in self.held.items():
            if not held.unread(self.ends.get(place, (0, 0))[1]):
                held.moved = time.monotonic()

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.log.warning("Kafka is away", fault=error.str())

    # ---- after the commit ---------------------------------------------------------------------------------------------------------------------------
    def seek(self, place: Partition, offset: int) -> None:
        """Read again from here: the only other way a delivered message leaves memory."""
        self._forget({place})
        held = self.held.get(place)
        if held is not None:
            held.applied = held.read = held.given = offset
            held.quiet_since = held.end_seen = None
            try:
                self.client.seek(TopicPartition(*place, offset))
            except KafkaException:  # Not fetching yet: begin there.
                self.client.incremental_unassign([TopicPartition(*place)])
                self.client.incremental_assign([TopicPartition(*place, offset)])

    def commit_offsets(self, *, only: set[Partition] | None = None) -> int:
        """C5: for lag tools, never for truth. Behind the commit markers where the end was seen and all before it is applied, so that lag reaches 0. Returns how many partitions had news."""
        news = {}
        for place, held in self.held.items():
            if (only is None or place in only) and held.applied > 0 and not held.halted:
                end = held.end_seen if held.quiet_since is not None and held.end_seen is not None and held.given <= held.applied else held.applied
                if max(end, held.applied) != held.committed:
                    news[place] = max(end, held.applied)
        if news:
            failpoint.hit(f"{self.component}.offsets.before")
            try:
                self.client.commit(offsets=[TopicPartition(*place, end) for place, end in news.items()], asynchronous=True)
            except KafkaException as fault:
                self.log.debug("offsets not committed", fault=fault)
            else:
                for place, end in news.items():
                    self.held[place].committed = end
                journal.write("offset", group=self.group, offsets=[[*place, end] for place, end in news.items()])
            failpoint.hit(f"{self.component}.offsets.after")
        return len(news)

    def tick(self) -> None:
        if time.monotonic() - self.committed_at > OFFSETS_EVERY_SECONDS:
            self.committed_at = time.monotonic()
            self.commit_offsets()

    def pause(self, paused: bool) -> None:
        """Keep polling, fetch nothing: capacity full, or a batch waits for its store."""
        if paused != self.paused:
            self.paused = paused
            live = [TopicPartition(*place) for place, held in self.held.items() if not held.halted]
            if live:
                (self.client.pause if paused else self.client.resume)(live)

    def quiet(self, seconds: float) -> list[int]:
        """Partition numbers held here of which the end was seen in every topic, with nothing read behind it, for that long."""
        line = time.monotonic() - seconds
        loud = {part for (_, part), held in self.held.items() if held.quiet_since is None or held.quiet_since >= line}
        return [] if self.pending else sorted({part for _, part in self.held} - loud)

    @property
    def missing(self) -> str | None:
        """What keeps it from being ready."""
        if not self.joined:
            return f"joining group {self.group}"
        halted = [held.halted for held in self.held.values() if held.halted]
        return f"{len(halted)} partitions halted: {halted[0]}" if halted else None

    def close(self) -> None:
        """What is pending was not applied and stays in Kafka for whoever comes next."""
        self.pending.clear()
        self.commit_offsets()
        self.client.close()
