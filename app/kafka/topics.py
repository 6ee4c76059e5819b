"""Topics as they must be: declared here, compared by `airavata admin topics`, made and set by `--apply` together with the position rows of every group that reads them.

Partitions are never added to a live topic: order and shard mapping hang on the number. Replication is a setting. Of a topic's own settings those stand here that what we promise hangs on;
whoever wants another value changes it here, not on the cluster.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, OffsetSpec, ResourceType  # type: ignore[attr-defined]

from app import failpoint
from app.errors import Misconfigured, StoreUnavailable
from app.messages.topics import Topics, executor_group
from app.mysql import positions
from app.mysql.unit_of_work import UnitOfWork

GENERATOR_GROUP, SCHEDULER_GROUP, SINK_GROUP = "workflow-generator", "task-scheduler", "event-sink"
ADMIN_TIMEOUT_SECONDS = 15.0
LEADERS_SECONDS = 60.0  # Until 900 new partitions have leaders: 8 s seen on two busy cores.


def full_group(environment: str, group: str) -> str:
    """Groups are one name space per cluster: prefixed by the environment."""
    return f"{environment}.{group}"


@dataclass(frozen=True)
class Desired:
    name: str
    partitions: int
    configuration: Mapping[str, str]
    groups: tuple[str, ...] = ()


def desired(topics: Topics, *, environment: str, partitions: int, shards: int, task_types: Iterable[str]) -> list[Desired]:
    """Every topic, with the groups that read it. The relay's state topic has none: its last record is read backwards."""
    readers = [
        (topics.launch, (GENERATOR_GROUP,)),
        (topics.scheduler, (SCHEDULER_GROUP,)),
        (topics.events, (SCHEDULER_GROUP, SINK_GROUP)),
        *((topics.task(each), (executor_group(each),)) for each in sorted(task_types)),
    ]
    found = [Desired(name, partitions, {"cleanup.policy": "delete", "retention.ms": str(7 * 86_400_000)}, tuple(full_group(environment, each) for each in groups)) for name, groups in readers]
    return [*found, Desired(topics.relay_state, shards, {"cleanup.policy": "compact"})]


def configuration(wanted: Desired, replication: int) -> dict[str, str]:
    """Its own, and what keeps an answered write."""
    return {**wanted.configuration, "min.insync.replicas": str(max(1, replication - 1)), "unclean.leader.election.enable": "false"}


@dataclass
class Difference:
    """What is not as it must be; `wrong` cannot be mended by `--apply`."""

    missing: list[Desired] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    positions_missing: list[tuple[str, str, int]] = field(default_factory=list)
    recreated: list[str] = field(default_factory=list)
    unset: list[tuple[str, str, str, str]] = field(default_factory=list)  # Topic, setting, what it is, what it must be.

    @property
    def none(self) -> bool:
        return not (self.missing or self.wrong or self.positions_missing or self.recreated or self.unset)

    def lines(self) -> list[str]:
        told = [f"topic {each.name} is missing ({each.partitions} partitions)" for each in self.missing] + self.wrong + self.recreated
        told += [f"topic {name}: {setting} is {is_now}, must be {must}" for name, setting, is_now, must in self.unset]
        return told + ([f"{len(self.positions_missing)} position rows are missing"] if self.positions_missing else [])


QUIET = {"socket.timeout.ms": 10_000, "log_level": 2}  # Its broker being away is told by whoever asks.


class Admin(AdminClient):
    """`trouble`: what brokers were last heard to have against us; an answer that does not come says nothing. Raises Misconfigured for a file that is not there, a mechanism nobody knows."""

    def __init__(self, brokers: Mapping[str, str]) -> None:
        self.heard = deque[KafkaError](maxlen=8)  # Not ourselves, as in producer.py.
        try:
            super().__init__({**brokers, **QUIET}, error_cb=self.heard.append)
        except KafkaException as fault:
            raise Misconfigured(f"AIRAVATA_KAFKA_CLIENT: {fault.args[0].str()}") from fault

    @property
    def trouble(self) -> str:
        return next((each.str() for each in reversed(self.heard) if each.code() != KafkaError._ALL_BROKERS_DOWN), "no answer")  # That one follows what says why.


def described(client: Admin, names: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Topic → (UUID, partitions), of those that exist. Raises StoreUnavailable."""
    told = _answers(client, lambda: client.describe_topics(TopicCollection(list(names)), request_timeout=ADMIN_TIMEOUT_SECONDS))
    return {name: (str(each.topic_id), len(each.partitions)) for name, each in told.items()}


def configured(client: Admin, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Topic → its settings in force, defaults included, of those that exist. Raises StoreUnavailable."""
    told = _answers(client, lambda: client.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in names], request_timeout=ADMIN_TIMEOUT_SECONDS))
    return {each.name: {name: entry.value for name, entry in settings.items()} for each, settings in told.items()}


def _answers(client: Admin, ask: Callable[[], Mapping[Any, Any]]) -> dict[Any, Any]:
    """What was answered for each, but for topics that are not there, or not yet on the broker that was asked."""
    found = {}
    try:
        for each, future in ask().items():
            try:
                found[each] = future.result(ADMIN_TIMEOUT_SECONDS)
            except KafkaException as fault:
                if fault.args[0].name() != "UNKNOWN_TOPIC_OR_PART":
                    raise
    except (KafkaException, TimeoutError) as fault:
        client.poll(0)
        raise StoreUnavailable(f"Kafka: {str(fault) or client.trouble}") from fault
    return found


def difference(client: Admin, wanted: Sequence[Desired], unit_of_work: UnitOfWork, *, replication: int) -> Difference:
    """Kafka and the position rows against what is declared."""
    there = described(client, [each.name for each in wanted])
    settings = configured(client, there) if there else {}
    with unit_of_work("topics.difference.read") as tx:
        rows = {(group, topic, part): row for group, topic, part, row in positions.all_rows(tx)}
    told = Difference()
    for each in wanted:
        if each.name not in there:
            told.missing.append(each)
            continue
        uuid, count = there[each.name]
        if count != each.partitions:
            told.wrong.append(f"topic {each.name} has {count} partitions, must have {each.partitions}: partitions are never changed on a live topic")
            continue
        now, must = settings.get(each.name, {}), configuration(each, replication)
        told.unset += [(each.name, name, now[name], value) for name, value in must.items() if now.get(name, value) != value]
        for group in each.groups:
            for part in range(each.partitions):
                row = rows.get((group, each.name, part))
                if row is None:
                    told.positions_missing.append((group, each.name, part))
                elif row.topic_uuid != uuid and part == 0:
                    told.recreated.append(f"topic {each.name} was recreated: group {group} has positions for UUID {row.topic_uuid}, Kafka has {uuid}")
    return told


def apply(client: Admin, wanted: Sequence[Desired], unit_of_work: UnitOfWork, *, replication: int, say: Callable[[str], None] = lambda _: None) -> Difference:
    """Makes missing topics, sets what is set otherwise, then makes missing position rows at the topic's log start. What is wrong is left and told. Repeatable."""
    before = difference(client, wanted, unit_of_work, replication=replication)
    new = [NewTopic(each.name, each.partitions, replication, config=configuration(each, replication)) for each in before.missing]
    if new:
        make(client, new, say)
        names = [each.name for each in before.missing]
        _await(lambda: len(described(client, names)) == len(names))
        failpoint.hit("topics.apply.after")
    if before.unset:
        alter(client, before.unset, say)
        _await(lambda: not difference(client, wanted, unit_of_work, replication=replication).unset)
    after = difference(client, wanted, unit_of_work, replication=replication)
    if after.positions_missing:
        _make_positions(client, after.positions_missing, unit_of_work)
        say(f"made {len(after.positions_missing)} position rows")
    return difference(client, wanted, unit_of_work, replication=replication)


def make(client: Admin, new: Sequence[NewTopic], say: Callable[[str], None]) -> None:
    """One that somebody else has made meanwhile is as good. Raises StoreUnavailable."""
    for name, future in client.create_topics(list(new), request_timeout=ADMIN_TIMEOUT_SECONDS).items():
        try:
            future.result(ADMIN_TIMEOUT_SECONDS)
            say(f"made topic {name}")
        except (KafkaException, TimeoutError) as fault:
            if not (isinstance(fault, KafkaException) and fault.args[0].name() == "TOPIC_ALREADY_EXISTS"):
                raise StoreUnavailable(f"Kafka: topic {name}: {fault}") from fault


def alter(client: Admin, unset: Sequence[tuple[str, str, str, str]], say: Callable[[str], None]) -> None:
    """Raises StoreUnavailable."""
    entries: dict[str, list[ConfigEntry]] = {}
    for name, setting, _, must in unset:
        entries.setdefault(name, []).append(ConfigEntry(setting, must, incremental_operation=AlterConfigOpType.SET))
    asked = [ConfigResource(ResourceType.TOPIC, name, incremental_configs=some) for name, some in entries.items()]
    for each in _answers(client, lambda: client.incremental_alter_configs(asked, request_timeout=ADMIN_TIMEOUT_SECONDS)):
        say(f"set topic {each.name}")


def _await(shown: Callable[[], bool]) -> None:
    deadline = time.monotonic() + ADMIN_TIMEOUT_SECONDS
    while not shown():
        if time.monotonic() > deadline:
            raise StoreUnavailable("Kafka accepted the change but does not show it yet: run the command again")
        time.sleep(0.05)


def _make_positions(client: Admin, missing: Sequence[tuple[str, str, int]], unit_of_work: UnitOfWork) -> None:
    uuids = described(client, sorted({topic for _, topic, _ in missing}))
    starts = _log_starts(client, sorted({(topic, part) for _, topic, part in missing}))
    with unit_of_work("topics.positions") as tx:
        positions.create(tx, [(group, topic, part, uuids[topic][0], starts[topic, part]) for group, topic, part in missing])


def _log_starts(client: Admin, places: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """The first offset of each partition; asked again while leaders of new partitions settle."""
    deadline = time.monotonic() + LEADERS_SECONDS
    earliest = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
    while True:
        try:
            asked = client.list_offsets({TopicPartition(*place): earliest for place in places}, request_timeout=ADMIN_TIMEOUT_SECONDS)
            return {(each.topic, each.partition): future.result(ADMIN_TIMEOUT_SECONDS).offset for each, future in asked.items()}
        except (KafkaException, TimeoutError) as fault:
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"Kafka: {fault}") from fault
            time.sleep(0.1)


def refuse_unless(wanted: Sequence[Desired], there: Mapping[str, tuple[str, int]]) -> str | None:
    """At a component's start: what to wait for; raises Misconfigured for a partition count that no waiting mends."""
    for each in wanted:
        if each.name not in there:
            return f"topic {each.name} is missing: run `airavata admin topics --apply`"
        if there[each.name][1] != each.partitions:
            raise Misconfigured(f"topic {each.name} has {there[each.name][1]} partitions, AIRAVATA_PARTITIONS says {each.partitions}: set it to the topic's number")
    return None
