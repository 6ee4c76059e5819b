"""What operators see of the delivery, and the two things they do with a dead letter: send it again to the group that set it aside, or drop it; once, with a reason."""

from typing import Any

import msgspec
import pytest

from app.messages import codec, ids
from app.messages.commands import RetryDue
from app.messages.envelope import Envelope, Origin, Record, Subject
from app.mysql import dead_letters, outbox, shards
from app.mysql.dead_letters import DeadLetter
from app.mysql.unit_of_work import now
from tests.support.builders import decoded
from tests.support.rest import Client, Rest, fresh

pytestmark = pytest.mark.mysql
LETTERS = "/v1/operator/dead-letters"


def a_message(topic: str, **more: Any) -> Envelope:
    subject = Subject("gw_1", ids.derived("exp", topic), ids.derived("prc", topic), ids.derived("tsk", topic), "NOOP", 1, 2)
    return Envelope(mid=ids.digest(topic, "message"), topic=topic, partition=7, subject=subject, body=RetryDue(), step="scheduler.commit", cause="00" * 16, at="2026-11-23T14:00:00.000000Z", **more)


def a_letter(rest: Rest, topic: str, *, group: str = "dev.scheduler", record: Record | None = None, tries: int = 5, offset: int | None = 42, serial: int = 0) -> str:
    record = record or codec.encode(a_message(topic))
    letter_id = ids.derived("dlt", group, topic, str(serial))
    with rest.unit("test.letter") as tx:
        at = now(tx)
        letter = DeadLetter(letter_id, group, topic, 7, offset, record.mid, record.key, record.headers, record.payload, ids.derived("exp", topic), "Illegal", "no row for this pair", tries, at)
        dead_letters.set_aside(tx, [letter], now=at)
    return letter_id


def waiting(rest: Rest, topic: str) -> list[Record]:
    return [Record(*row) for row in rest.rows("SELECT mid, topic, part, k, headers, payload FROM outbox WHERE topic = %s ORDER BY id", topic)]


@pytest.fixture
def topic() -> str:
    return fresh("topic")


def test_a_letter_is_found_and_told_whole(rest: Rest, operator: Client, topic: str) -> None:
    letter = a_letter(rest, topic)
    (listed,) = operator.read(LETTERS, topic=topic)["items"]
    whole = operator.read(f"{LETTERS}/{letter}")
    assert listed == {name: value for name, value in whole.items() if name in listed}
    assert (whole["consumer_group"], whole["partition"], whole["offset"], whole["tries"], whole["settled"]) == ("dev.scheduler", 7, 42, 5, None)
    assert (whole["event_id"], whole["experiment_id"]) == (a_message(topic).event_id, ids.derived("exp", topic))
    assert (whole["headers"]["type"], whole["headers"]["mid"], whole["payload"]) == ("RetryDue", a_message(topic).mid.hex(), "{}")
    assert operator.read(LETTERS, topic=topic, **{"class": "Other"})["items"] == []
    assert [each["id"] for each in operator.read(LETTERS, experiment_id=ids.derived("exp", topic), **{"class": "Illegal"})["items"]] == [letter]
    assert operator.send_json("GET", f"{LETTERS}/dlt_{'0' * 26}").status_code == 404


def test_letters_are_listed_newest_first_in_pages(rest: Rest, operator: Client, topic: str) -> None:
    made = [a_letter(rest, topic, serial=number) for number in range(5)]
    seen, cursor = [], None
    while True:
        page = operator.read(LETTERS, topic=topic, limit=2, **({"cursor": cursor} if cursor else {}))
        seen += [each["id"] for each in page["items"]]
        if (cursor := page.get("next_cursor")) is None:
            break
    assert seen == made[::-1]


def test_a_replay_goes_to_the_group_that_set_it_aside_and_keeps_the_events_name(rest: Rest, operator: Client, topic: str) -> None:
    letter = a_letter(rest, topic)
    answer = operator.send_json("POST", f"{LETTERS}/{letter}/replays", {"reason": "the bug is mended"})
    assert (answer.status_code, answer.json()["settled"], answer.json()["settled_by"], answer.json()["settled_reason"]) == (202, "REPLAYED", "olga", "the bug is mended")
    (record,) = waiting(rest, topic)
    sent, before = decoded(record), a_message(topic)
    assert (sent.only, sent.event_id, sent.subject, sent.body, sent.partition, sent.key) == ("dev.scheduler", before.event_id, before.subject, before.body, 7, before.key)
    assert sent.mid == record.mid == ids.digest("replay", letter) != before.mid
    assert sent.origin is not None
    assert (sent.origin.topic, sent.origin.partition, sent.origin.offset, sent.origin.tries) == (topic, 7, 42, 5)
    assert rest.rows("SELECT user, action, subject, reason FROM audit WHERE subject = %s", letter) == [("olga", "replay_dead_letter", letter, "the bug is mended")]
    assert operator.read(LETTERS, topic=topic)["items"] == []
    assert [each["id"] for each in operator.read(LETTERS, topic=topic, settled="REPLAYED")["items"]] == [letter]


def test_the_origin_of_a_copy_is_kept(rest: Rest, operator: Client, topic: str) -> None:
    origin = Origin(ids.digest("first").hex(), "elsewhere", 3, 9, "2026-11-23T13:00:00.000000Z", "Illegal: x", 4)
    letter = a_letter(rest, topic, record=codec.encode(a_message(topic, origin=origin, only="dev.other")))
    assert operator.read(f"{LETTERS}/{letter}")["event_id"] == ids.named("evt", ids.digest("first"))
    operator.made(f"{LETTERS}/{letter}/replays", {"reason": "again"})
    sent = decoded(waiting(rest, topic)[0])
    assert (sent.origin, sent.only) == (origin, "dev.scheduler")


def test_what_the_relay_set_aside_goes_to_every_group(rest: Rest, operator: Client, topic: str) -> None:
    letter = a_letter(rest, topic, group="relay", offset=None)
    operator.made(f"{LETTERS}/{letter}/replays", {"reason": "the topic is there now"})
    sent = decoded(waiting(rest, topic)[0])
    assert (sent.only, sent.origin) == ("", None)


@pytest.mark.parametrize(("first", "second"), [("replays", "replays"), ("replays", "drops"), ("drops", "replays"), ("drops", "drops")])
def test_a_letter_is_settled_once(rest: Rest, operator: Client, topic: str, first: str, second: str) -> None:
    letter = a_letter(rest, topic)
    assert operator.send_json("POST", f"{LETTERS}/{letter}/{first}", {"reason": "one"}).status_code == 202
    again = operator.send_json("POST", f"{LETTERS}/{letter}/{second}", {"reason": "two"})
    assert (again.status_code, again.json()["code"]) == (409, "already_settled")
    assert len(waiting(rest, topic)) == (first == "replays")
    assert rest.rows("SELECT settled_reason FROM dead_letters WHERE id = %s", letter) == [("one",)]


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": None}])
def test_an_act_needs_a_reason(rest: Rest, operator: Client, topic: str, body: dict[str, Any]) -> None:
    letter = a_letter(rest, topic)
    refused = operator.send_json("POST", f"{LETTERS}/{letter}/drops", body)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/reason")
    assert refused.json()["errors"][0]["code"] == ("required" if not body else refused.json()["errors"][0]["code"])
    assert operator.read(f"{LETTERS}/{letter}")["settled"] is None


@pytest.mark.parametrize("headers", [b"\xc1 garbage", codec.pack_headers([]), codec.pack_headers([("mid", b"m" * 16), ("type", b"RetryDue"), ("x", b"y" * 5000)])])
def test_what_no_group_could_take_can_only_be_dropped(rest: Rest, operator: Client, topic: str, headers: bytes) -> None:
    letter = a_letter(rest, topic, record=Record(b"m" * 16, topic, 7, "k", headers, b"\xff\x00"))
    assert operator.read(f"{LETTERS}/{letter}")["payload"] == "\ufffd\x00"
    refused = operator.send_json("POST", f"{LETTERS}/{letter}/replays", {"reason": "try"})
    assert (refused.status_code, refused.json()["code"]) == (409, "illegal_state")
    assert waiting(rest, topic) == []
    assert operator.made(f"{LETTERS}/{letter}/drops", {"reason": "useless"})["settled"] == "DROPPED"


def test_the_outbox_by_topic_and_the_shards_that_empty_it(rest: Rest, operator: Client, topic: str) -> None:
    with rest.unit("test.outbox") as tx:
        shards.ensure(tx, 2)
        outbox.append(tx, [a_message(topic)] * 3, placement=rest.services.placement, now=now(tx))
        shards.lease(tx, 1, owner="relay-1", seconds=30)
    found = operator.read("/v1/operator/outbox")
    (mine,) = [each for each in found["topics"] if each["topic"] == topic]
    assert (mine["rows"], mine["oldest_age_seconds"] >= 0, found["rows"] >= 3, found["oldest_age_seconds"] >= 0) == (3, True, True, True)
    told = {each["shard"]: each for each in operator.read("/v1/operator/shards")["items"]}
    assert (told[1]["owner"], told[1]["live"], told[0]["settled"], told[1]["rows"] >= 3) == ("relay-1", True, 0, True)


def test_positions_are_told_by_group_and_topic(rest: Rest, operator: Client, topic: str) -> None:
    for part in (0, 1):
        rest.write("INSERT INTO positions (consumer_group, topic, part, topic_uuid, next_offset, owner, owner_epoch) VALUES ('g', %s, %s, 'u', %s, 'me', 3)", topic, part, part + 10)
    (mine,) = [each for each in operator.read("/v1/operator/consumers")["groups"] if each["topic"] == topic]
    assert mine == {"consumer_group": "g", "topic": topic, "partitions": [{"partition": part, "next_offset": part + 10, "owner": "me", "owner_epoch": 3} for part in (0, 1)]}


def test_only_operators_come_in(rest: Rest, admin: Client, user: Client, topic: str) -> None:
    letter = a_letter(rest, topic)
    for client in (admin, user):
        for path in ("outbox", "shards", "consumers", "dead-letters", f"dead-letters/{letter}"):
            refused = client.send_json("GET", f"/v1/operator/{path}")
            assert (refused.status_code, refused.json()["code"], "operator:read" in refused.json()["detail"]) == (403, "forbidden", True)
        assert client.send_json("POST", f"{LETTERS}/{letter}/drops", {"reason": "x"}).status_code == 403
    with rest.client(role="operator", scopes=("operator:read",)) as reader:
        assert reader.read(f"{LETTERS}/{letter}")["id"] == letter
        assert reader.send_json("POST", f"{LETTERS}/{letter}/drops", {"reason": "x"}).status_code == 403
        assert reader.send_json("GET", "/v1/experiments").json()["code"] == "forbidden"


def test_two_operators_at_once_send_it_once(rest: Rest, operator: Client, topic: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    letter = a_letter(rest, topic)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: operator.send_json("POST", f"{LETTERS}/{letter}/replays", {"reason": "now"}).status_code, range(8)))
    assert sorted(answers) == [202] + [409] * 7
    assert len(waiting(rest, topic)) == 1
    assert msgspec.json.decode(waiting(rest, topic)[0].payload) == {}
