"""The sink's two calls: positions taken with a rising epoch, and slices stored with their position in one transaction, whatever they carry."""

import base64
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from app.messages import codec
from app.messages.events import ExperimentChanged, JobChanged, TaskChanged, TaskFailed, TaskStarted, TaskSucceeded
from tests.support.history import Story
from tests.support.rest import Client, Rest, a_shape, fresh

pytestmark = pytest.mark.mysql
UUID = "Qm9-uuid"


class Sink:
    """What the sink sends, for a group of its own."""

    def __init__(self, rest: Rest, client: Client) -> None:
        self.rest, self.client, self.group, self.topic = rest, client, fresh("sink"), fresh("topic")
        self.instance = {"id": fresh("event-sink"), "version": "0.1.0"}

    def partition(self, part: int, *, offset: int = 100) -> None:
        self.rest.write("INSERT INTO positions (consumer_group, topic, part, topic_uuid, next_offset, owner_epoch) VALUES (%s, %s, %s, %s, %s, 0)", self.group, self.topic, part, UUID, offset)

    def claim(self, *parts: int, uuid: str = UUID) -> Any:
        body = {"consumer_group": self.group, "instance": self.instance, "partitions": [{"topic": self.topic, "topic_uuid": uuid, "partition": part} for part in parts]}
        return self.client.send_json("POST", "/internal/v1/positions", body, key=None)

    def slice(self, part: int, events: list[dict[str, Any]], *, epoch: int = 1, position: int = 100, **more: Any) -> dict[str, Any]:
        items = [{"offset": position + index, **each} for index, each in enumerate(events)]
        return {"topic": self.topic, "partition": part, "owner_epoch": epoch, "position": position, "next_offset": position + len(items), "events": items, **more}

    def post(self, *slices: dict[str, Any], lag: tuple[dict[str, Any], ...] = ()) -> Any:
        return self.client.send_json("POST", "/internal/v1/task-events", {"consumer_group": self.group, "instance": self.instance, "lag": list(lag), "slices": list(slices)}, key=None)

    def store(self, *slices: dict[str, Any]) -> list[dict[str, Any]]:
        answer = self.post(*slices)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["slices"])

    def position(self, part: int) -> tuple[Any, ...]:
        return self.rest.rows("SELECT next_offset, owner_epoch, owner FROM positions WHERE consumer_group = %s AND topic = %s AND part = %s", self.group, self.topic, part)[0]

    def letters(self) -> list[Any]:
        return self.rest.rows("SELECT log_offset, mid, k, headers, payload, experiment_id, error_class, error_text FROM dead_letters WHERE consumer_group = %s ORDER BY log_offset", self.group)


@pytest.fixture
def sink(rest: Rest, service: Client) -> Iterator[Sink]:
    yield Sink(rest, service)


@pytest.fixture
def story(rest: Rest, admin: Client) -> Story:
    return Story(rest, admin.made("/v1/experiments", {"name": "x", "application_interface_id": a_shape(admin), "inputs": {"edges": "a>b"}, "launch": True}))


@pytest.fixture
def taken(sink: Sink, story: Story) -> int:
    """The story's partition, claimed: epoch 1, position 100."""
    sink.partition(story.part)
    assert sink.claim(story.part).status_code == 200
    return story.part


def test_each_claim_raises_the_epoch_and_begins_where_mysql_says(sink: Sink) -> None:
    sink.partition(3, offset=7)
    sink.partition(4)
    assert sink.claim(3, 4).json() == {"partitions": [{"topic": sink.topic, "partition": 3, "owner_epoch": 1, "next_offset": 7}, {"topic": sink.topic, "partition": 4, "owner_epoch": 1, "next_offset": 100}]}
    assert sink.claim(3).json()["partitions"][0]["owner_epoch"] == 2
    assert sink.position(4) == (100, 1, sink.instance["id"])


@pytest.mark.parametrize(("parts", "uuid", "told"), [((3, 4), UUID, "no position rows"), ((3,), "another", "recreated")])
def test_a_missing_row_or_a_recreated_topic_is_refused_and_raises_nothing(sink: Sink, parts: tuple[int, ...], uuid: str, told: str) -> None:
    sink.partition(3)
    refused = sink.claim(*parts, uuid=uuid)
    assert (refused.status_code, refused.json()["code"]) == (409, "illegal_state")
    assert told in refused.json()["detail"]
    assert sink.position(3) == (100, 0, None)


def test_a_slice_is_stored_in_order_with_its_position_and_may_be_repeated_blindly(rest: Rest, admin: Client, sink: Sink, story: Story, taken: int) -> None:
    task = story.task("a", "SCHEDULED", attempt=1, epoch=1)
    bodies = [story.event(ExperimentChanged("CREATED", "LAUNCHED")), story.event(TaskChanged("CREATED", "SCHEDULED"), task), story.event(TaskStarted("me"), task, attempt=1, epoch=1)]
    told = sink.slice(taken, [{"event": each} for each in bodies])
    assert sink.store(told) == [{"topic": sink.topic, "partition": taken, "result": "applied", "next_offset": 103, "set_aside": []}]
    assert sink.store(told) == [{"topic": sink.topic, "partition": taken, "result": "behind", "next_offset": 103}]
    assert sink.store(sink.slice(taken, [{"event": each} for each in bodies], position=103))[0]["result"] == "applied"
    feed = admin.read(f"/v1/experiments/{story.experiment}/events")["items"]
    assert [(each["seq"], each["type"], each["from_state"], each["to_state"], each["late"]) for each in feed] == [
        (1, "ExperimentChanged", "CREATED", "LAUNCHED", False), (2, "TaskChanged", "CREATED", "SCHEDULED", False), (3, "TaskStarted", "DISPATCHED", "RUNNING", False),
    ]  # fmt: skip
    assert [each["id"] for each in feed] == [each["id"] for each in bodies]
    assert "epoch" not in feed[0]
    assert sink.position(taken)[0] == 106


def test_an_old_owner_is_fenced_and_stores_nothing(sink: Sink, story: Story, taken: int) -> None:
    sink.claim(taken)
    assert sink.store(sink.slice(taken, [{"event": story.event(TaskChanged("a", "b"))}])) == [{"topic": sink.topic, "partition": taken, "result": "fenced"}]
    assert sink.store(sink.slice(taken + 1, []))[0]["result"] == "fenced"
    assert sink.store(sink.slice(taken, [], epoch=2, topic_uuid="another"))[0]["result"] == "fenced"
    assert (sink.position(taken)[0], sink.rest.rows("SELECT COUNT(*) FROM events WHERE experiment_id = %s", story.experiment)) == (100, [(0,)])


def test_a_position_above_the_stored_one_is_told_to_seek_back_and_counted(sink: Sink, story: Story, taken: int) -> None:
    from observability import metrics

    before = metrics.value("airavata_invariant_violations_total", invariant="sink_position_above")
    event = {"event": story.event(TaskChanged("a", "b"))}
    assert sink.store(sink.slice(taken, [event], position=101))[0] == {"topic": sink.topic, "partition": taken, "result": "behind", "next_offset": 100}
    assert sink.store(sink.slice(taken, [event], position=99))[0]["result"] == "behind"
    assert metrics.value("airavata_invariant_violations_total", invariant="sink_position_above") == before + 1


def test_slices_are_answered_each_for_itself(sink: Sink, story: Story, taken: int) -> None:
    other = (taken + 1) % 12
    sink.partition(other)
    answers = sink.store(sink.slice(other, []), sink.slice(taken, [{"event": story.event(TaskChanged("a", "b"))}]))
    assert [each["result"] for each in answers] == ["fenced", "applied"]


def test_records_the_sink_passed_over_move_the_position_all_the_same(sink: Sink, taken: int) -> None:
    assert sink.store(sink.slice(taken, [], next_offset=250))[0]["next_offset"] == 250
    assert sink.position(taken)[0] == 250


def test_facts_after_the_end_and_of_attempts_left_behind_are_kept_as_late(rest: Rest, admin: Client, sink: Sink, story: Story, taken: int) -> None:
    task = story.task("a", "SCHEDULED", attempt=2, epoch=1)
    after = story.at + timedelta(seconds=5)
    events = [story.event(TaskSucceeded(), task, attempt=1, epoch=1, at=after), story.event(TaskSucceeded(), task, attempt=2, epoch=1, at=after)]
    sink.store(sink.slice(taken, [{"event": each} for each in events]))
    rest.write("UPDATE processes SET state = 'COMPLETED', finished_at = %s WHERE id = %s", story.at, story.process)
    sink.store(sink.slice(taken, [{"event": story.event(TaskSucceeded(), task, attempt=2, epoch=2, at=after)}, {"event": story.event(TaskChanged("a", "b"), task, at=after)}], position=102))
    assert [each["late"] for each in admin.read(f"/v1/experiments/{story.experiment}/events")["items"]] == [True, False, True, False]
    assert rest.rows("SELECT state FROM tasks WHERE id = %s", task) == [("SCHEDULED",)]


SPOILT: list[dict[str, Any]] = [
    {"process_id": "prc_" + "0" * 26},
    {"process_id": ["a", "list"]},
    {"process_id": "prc_é"},
    {"experiment_id": "exp_" + "0" * 26},
    {"gateway_id": "gw_" + "x" * 60},
    {"schema_version": 2},
    {"attempt": -1},
    {"epoch": "7"},
    {"type": "RunTask"},
    {"type": {"a": 1}},
    {"id": "evt_1"},
    {"id": "evt_" + "z" * 60},
    {"task_id": "tsk_" + "x" * 60},
    {"task_id": "tsk_é"},
    {"occurred_at": "yesterday"},
    {"occurred_at": "2026-11-23T14:00:00"},
    {"occurred_at": "0001-01-01T00:00:00Z"},
    {"occurred_at": "0001-01-01T00:00:00+23:59"},
    {"occurred_at": "9999-12-31T23:59:59-12:00"},
    {"data": None},
]


@pytest.mark.parametrize("spoilt", SPOILT, ids=lambda each: f"{next(iter(each))}={next(iter(each.values()))}"[:30])
def test_what_can_never_be_stored_is_set_aside_among_its_neighbours(admin: Client, sink: Sink, story: Story, taken: int, spoilt: dict[str, Any]) -> None:
    good = [story.event(TaskChanged("CREATED", "SCHEDULED")), story.event(TaskChanged("SCHEDULED", "EXECUTING"))]
    bad = story.event(JobChanged("job_1", "SUBMITTED", "ACTIVE", "why", "17")) | spoilt
    answer = sink.store(sink.slice(taken, [{"event": good[0]}, {"event": bad}, {"event": good[1]}]))
    assert answer[0] == {"topic": sink.topic, "partition": taken, "result": "applied", "next_offset": 103, "set_aside": [1]}
    assert [each["id"] for each in admin.read(f"/v1/experiments/{story.experiment}/events")["items"]] == [each["id"] for each in good]
    ((offset, _mid, _key, _headers, _payload, _experiment, kind, text),) = sink.letters()
    assert (offset, kind in {"Unreadable", "ValidationError"}, bool(text)) == (101, True, True)


def test_a_letter_made_of_an_event_holds_the_message_again(sink: Sink, story: Story, taken: int) -> None:
    unknown = Story(sink.rest, {"gateway_id": story.gateway, "id": story.experiment, "process_id": story.process})
    unknown.process = "prc_" + "0" * 26
    body = TaskFailed("APP_NONZERO_EXIT", "It failed.", "exit 3", exit_code=3)
    event = unknown.event(body, story.task_id("a"), attempt=2, epoch=3)
    sink.store(sink.slice(taken, [{"event": event}]))
    ((_, mid, key, headers, payload, experiment, _, text),) = sink.letters()
    message = codec.decode(sink.topic, taken, codec.headers_of(headers), payload)
    assert (message.body, message.event_id, message.mid, message.key) == (body, event["id"], mid, key)
    assert (message.subject.process, message.subject.attempt, message.subject.epoch, message.at) == (unknown.process, 2, 3, event["occurred_at"])
    assert (experiment, "not known" in text) == (story.experiment, True)


def test_bytes_that_do_not_decode_are_kept_as_they_came(sink: Sink, story: Story, taken: int) -> None:
    headers = codec.pack_headers([("mid", b"m" * 16), ("type", b"FromTheFuture")])
    items = [
        {"raw": base64.b64encode(b"\xff\x00").decode(), "headers": base64.b64encode(headers).decode(), "error": "unknown message type", "key": "k"},
        {"raw": "not base64!", "headers": "nor this", "error": None, "key": "ü"},
        {},
    ]
    assert sink.store(sink.slice(taken, items))[0]["set_aside"] == [0, 1, 2]
    first, second, third = sink.letters()
    assert (first[1], first[2], first[3], first[4], first[7]) == (b"m" * 16, "k", headers, b"\xff\x00", "unknown message type")
    assert (second[2], second[4], third[4]) == ("?", b"not base64!", b"")
    assert sink.store(sink.slice(taken, items, position=103))[0]["set_aside"] == [0, 1, 2]
    assert len(sink.letters()) == 6


@pytest.mark.parametrize(
    ("change", "code"),
    [({"next_offset": 99}, "out_of_range"), ({"next_offset": 101}, "out_of_range"), ({"position": 101}, "out_of_range"), ({"partition": -1}, "out_of_range"), ({"surprise": 1}, "unknown_field")],
)
def test_a_slice_that_contradicts_itself_is_refused_whole(sink: Sink, story: Story, taken: int, change: dict[str, Any], code: str) -> None:
    events = [{"event": story.event(TaskChanged("a", "b"))}, {"event": story.event(TaskChanged("b", "c"))}]
    refused = sink.post(sink.slice(taken, events) | change)
    assert (refused.status_code, refused.json()["code"], {each["code"] for each in refused.json()["errors"]}) == (422, "validation_failed", {code})
    assert sink.position(taken)[0] == 100


def test_one_slice_per_partition_and_a_thousand_events_per_request(sink: Sink, story: Story, taken: int) -> None:
    event = {"event": story.event(TaskChanged("a", "b"))}
    twice = sink.post(sink.slice(taken, [event]), sink.slice(taken, [event], position=101))
    assert {each["code"] for each in twice.json()["errors"]} == {"duplicate"}
    other = (taken + 1) % 12
    sink.partition(other)
    many = sink.post(sink.slice(taken, [event] * 600), sink.slice(other, [event] * 401))
    assert (many.status_code, {each["code"] for each in many.json()["errors"]}) == (422, {"too_many"})
    assert sink.store(sink.slice(taken, [event] * 1000))[0]["next_offset"] == 1100


def test_an_empty_post_is_the_heartbeat(rest: Rest, sink: Sink, operator: Client) -> None:
    assert sink.post(lag=({"topic": sink.topic, "rows": 5, "oldest_age_seconds": 1.5},)).json() == {"slices": []}
    (alive,) = [each for each in operator.read("/v1/operator/consumers")["instances"] if each["id"] == sink.instance["id"]]
    assert (alive["component"], alive["facts"]["group"], alive["facts"]["lag"]) == ("event-sink", sink.group, [{"topic": sink.topic, "rows": 5, "oldest_age_seconds": 1.5}])
    assert 0 <= alive["silent_seconds"] < 30


def test_only_services_come_in_and_only_here(rest: Rest, sink: Sink, gateway_id: str, service: Client) -> None:
    with rest.client(gateway_id, internal=True) as admin, Client(base_url=rest.internal) as nobody:
        assert admin.send_json("POST", "/internal/v1/positions", {}, key=None).json()["code"] == "forbidden"
        assert nobody.send_json("POST", "/internal/v1/task-events", {}, key=None).json()["code"] == "unauthenticated"
        assert admin.send_json("GET", "/v1/experiments").json()["code"] == "route_not_found"
    with rest.client(role="service") as outside:
        assert outside.send_json("POST", "/internal/v1/positions", {}, key=None).json()["code"] == "route_not_found"
        assert outside.send_json("GET", "/v1/experiments").json()["code"] == "forbidden"
