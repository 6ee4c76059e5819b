"""What the clients of Kafka are told is what docs/protocol.md says the protocol needs."""

import re
from pathlib import Path

import pytest

from app.kafka import consumer, producer

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
TOLD = {"Producer": producer.configuration({"bootstrap.servers": "b"}, "t"), "Consumer": consumer.configuration({"bootstrap.servers": "b"}, "g", 1000)}


@pytest.mark.parametrize("client", TOLD)
def test_a_client_is_told_what_the_protocol_needs(client: str) -> None:
    (line,) = re.findall(rf"^- {client}: (.*)$", TEXT, re.MULTILINE)
    wanted = dict(re.findall(r"`([a-z.]+)=(\w+)`", line))
    assert len(wanted) >= 2
    assert {name: str(TOLD[client].get(name)) for name in wanted} == wanted


def test_what_the_protocol_says_in_words() -> None:
    assert (TOLD["Producer"]["acks"], TOLD["Producer"]["enable.idempotence"], TOLD["Producer"]["transaction.timeout.ms"]) == ("all", True, 10_000)
    assert (TOLD["Consumer"]["isolation.level"], TOLD["Consumer"]["enable.auto.commit"], TOLD["Consumer"]["partition.assignment.strategy"]) == ("read_committed", False, "cooperative-sticky")
    assert "group.instance.id" not in TOLD["Consumer"]


def test_a_partition_taken_over_waits_for_no_fetch_longer_than_its_take_over_may_last() -> None:
    claim_and_first_commit_ms = 600  # Of the 3 s of P24.
    assert int(str(TOLD["Consumer"]["fetch.wait.max.ms"])) * 2 < claim_and_first_commit_ms
