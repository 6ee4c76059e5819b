"""The sink's requests: never beyond what the API server takes, and nothing left out when a partition must be read again."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from app.api.internal import EVENTS_MAX, OPERATIONS, TaskEventsBody
from app.errors import StoreUnavailable
from app.kafka.consumer import Held, Received
from app.messages import codec
from app.messages.envelope import Envelope, Subject
from app.messages.events import TaskFailed
from components.event_sink.handler import Sink
from observability import metrics

TOPIC, LIMIT = "event-sink", next(each.body_bytes_max for each in OPERATIONS if each.id == "store_task_events")


class Api:
    """Remembers what it was sent; answers as told, else applies."""

    def __init__(self) -> None:
        self.stored: dict[int, list[int]] = {0: [], 1: []}
        self.behind: set[int] = set()
        self.requests = 0

    def store(self, group: str, slices: list[dict[str, Any]], lag: list[dict[str, Any]], *, traceparent: str = "") -> list[dict[str, Any]]:
        body = msgspec.json.encode({"consumer_group": group, "instance": {"id": "x" * 80, "version": "1"}, "lag": lag, "slices": slices})
        try:
            TaskEventsBody.model_validate_json(body)
        except ValidationError as fault:
            raise StoreUnavailable(f"API server: 422 {fault}") from fault
        if len(body) > LIMIT or sum(len(each["events"]) for each in slices) > EVENTS_MAX:
            raise StoreUnavailable("API server: 413")
        self.requests += 1
        return [self._answer(each) for each in slices]

    def _answer(self, told: dict[str, Any]) -> dict[str, Any]:
        if told["partition"] in self.behind:
            return {"result": "behind", "next_offset": 7}
        self.stored[told["partition"]] += [each["offset"] for each in told["events"]]
        return {"result": "applied", "next_offset": told["next_offset"], "set_aside": []}


@pytest.fixture
def sink() -> Sink:
    api: Any = Api()
    made = Sink(api=api, group="g", topic=TOPIC, brokers={"bootstrap.servers": "127.0.0.1:9"}, session_timeout_ms=1000, topic_uuids=dict)
    made.consumer.close()
    made.consumer.held = {(TOPIC, part): Held(1, 0, 0) for part in (0, 1)}
    made.consumer.client = SimpleNamespace(seek=lambda at: sought.append((at.topic, at.partition, at.offset)))
    sought: list[tuple[str, int, int]] = []
    made.sought = sought  # type: ignore[attr-defined]
    return made


def records(part: int, count: int, text: str) -> list[Received]:
    subject = Subject("gw_1", "exp_1", "prc_1", "tsk_1", "NOOP", 1, 1)
    record = codec.encode(Envelope(mid=b"m" * 16, topic=TOPIC, partition=part, subject=subject, body=TaskFailed("INTERNAL", text), at="2026-11-23T14:00:00.000000Z"))
    headers = codec.headers_of(record.headers)
    return [Received(TOPIC, part, offset, record.key, headers, record.payload, 0) for offset in range(count)]


@pytest.mark.parametrize("readable", [True, False])
def test_large_events_go_in_several_requests_none_beyond_the_limit(sink: Sink, readable: bool) -> None:
    sink.consumer.pending = [*records(0, 300, "x" * 20_000), *records(1, 300, "y" * 20_000)]
    for each in sink.consumer.pending:
        each.headers = each.headers if readable else []
    while sink.consumer.pending:
        sink._post()
        assert metrics.value("airavata_sink_post_seconds", outcome="failed") == 0
    api: Any = sink.api
    assert api.stored == {0: list(range(300)), 1: list(range(300))}
    assert 3 < api.requests < 20


@pytest.mark.parametrize("name", ["cause", "traceparent", "more", "mid"])
def test_headers_of_any_length_go_in_requests_that_are_taken(sink: Sink, name: str) -> None:
    sink.consumer.pending = records(0, 12, "x")
    for each in sink.consumer.pending:
        each.headers = [*((kind, value) for kind, value in each.headers or () if kind != name), (name, b"s:" + b"x" * 900_000)]
    while sink.consumer.pending:
        sink._post()
        assert metrics.value("airavata_sink_post_seconds", outcome="failed") == 0
    api: Any = sink.api
    assert api.stored[0] == list(range(12))


def test_what_waited_for_its_request_is_not_sent_behind_the_back_of_a_position(sink: Sink) -> None:
    sink.consumer.pending = [*records(0, 300, "x" * 20_000), *records(1, 3, "y")]
    api: Any = sink.api
    api.behind = {0}
    sink._post()
    assert sink.sought == [(TOPIC, 0, 7)]  # type: ignore[attr-defined]
    assert {each.partition for each in sink.consumer.pending} == {1}
    sink._post()
    assert api.stored == {0: [], 1: [0, 1, 2]}
