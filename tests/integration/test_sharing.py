"""How a group that reads two topics shares them out, on a real Kafka: members that join, leave and die, and what each is given of each topic."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]

from app.kafka import topics
from app.kafka.consumer import Claim, Consumer, Partition
from tests.chaos.proxy import Proxy
from tests.support.delivery import until

PARTITIONS, UNFAIR = 24, 1.25


@pytest.fixture
def two_topics(kafka_bootstrap: str, topic_prefix: str) -> list[str]:
    names = [topic_prefix + each for each in ("facts", "timers")]
    client = topics.Admin({"bootstrap.servers": kafka_bootstrap})
    topics.make(client, [NewTopic(each, PARTITIONS, 1) for each in names], lambda _: None)
    until(lambda: len(topics.described(client, names)) == len(names), what="the topics")
    return names


@pytest.fixture
def join(two_topics: list[str], topic_prefix: str, proxy: Proxy) -> Iterator[Callable[[str], Consumer]]:
    made: list[Consumer] = []

    def claim(places: list[Partition]) -> dict[Partition, Claim]:
        return {place: Claim(1, 0) for place in places}

    def another(bootstrap: str) -> Consumer:
        made.append(Consumer(component="c", brokers={"bootstrap.servers": bootstrap}, group=f"{topic_prefix}group", topics=two_topics, session_timeout_ms=3000, wants=frozenset(), claim=claim))
        return made[-1]

    yield another
    proxy.heal()  # Who was cut off can leave.
    for each in made:
        with suppress(RuntimeError):  # Closed: it left.
            each.close()


def shares(members: list[Consumer], names: list[str]) -> list[Counter[str]]:
    """Polls until everything has exactly one holder: how many of each topic each member has."""

    def whole() -> bool:
        for each in members:
            each.poll(100, 0.02)
        held = [place for each in members for place in each.held]
        return len(held) == len(set(held)) == PARTITIONS * len(names) and all(each.held for each in members)

    until(whole, what="one holder of everything")
    return [Counter(topic for topic, _ in each.held) for each in members]


def fair(members: list[Consumer], names: list[str]) -> bool:
    most = max(each[name] for each in shares(members, names) for name in names)
    numbers = [[{part for topic, part in each.held if topic == name} for name in names] for each in members]
    return most <= UNFAIR * PARTITIONS / len(members) and all(first == second for first, second in numbers)


def test_each_member_has_its_fair_share_of_each_topic_whoever_joins_leaves_or_dies(join: Callable[[str], Consumer], two_topics: list[str], kafka_bootstrap: str, proxy: Proxy) -> None:
    def shared(members: list[Consumer]) -> None:
        until(lambda: fair(members, two_topics), what=f"a fair share of each topic for each of {len(members)}, of one number everything for one")

    (link,) = proxy.kafka("dying", kafka_bootstrap)
    members = [join(link.address)]
    shared(members)
    for _ in range(3):
        members.append(join(kafka_bootstrap))
        shared(members)
    link.drop()
    members.pop(0)
    shared(members)
    members.pop(0).close()
    shared(members)
    members.append(join(kafka_bootstrap))
    shared(members)


def test_what_comes_after_a_change_of_hands_is_read_in_both_topics(join: Callable[[str], Consumer], two_topics: list[str], kafka_bootstrap: str) -> None:
    members, producer = [join(kafka_bootstrap) for _ in range(3)], Producer({"bootstrap.servers": kafka_bootstrap, "log_level": 0})
    shares(members, two_topics)
    members.pop(0).close()
    shares(members, two_topics)
    wanted = [(name, part) for name in two_topics for part in range(PARTITIONS)]
    for name, part in wanted:
        producer.produce(name, b"{}", partition=part)
    assert not producer.flush(30.0)
    found: set[Partition] = set()  # That each is applied once is the positions' part, not the group's.
    until(lambda: (found.update(each.place for member in members for each in member.poll(100, 0.02)), found >= set(wanted))[1], what="every record")
