"""The words: ids, placement, codec."""

import json
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Unreadable
from app.kafka import aside
from app.kafka.consumer import Received
from app.messages import codec, commands, ids, trace
from app.messages.envelope import Envelope, Origin, Subject
from app.messages.events import TaskFailed
from app.messages.placement import Placement
from tests.support.builders import decoded

SUBJECT = Subject("gw_1", "exp_1", "prc_1", "tsk_1", "ENV_SETUP", 2, 3)
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def len_of(value):
    return f"{len(value)} bytes" if value is not None else "null"


def a_record(**changes):
    envelope = Envelope(**{"mid": bytes(16), "topic": "t", "partition": 4, "subject": SUBJECT, "body": commands.RunTask("att_1"), "traceparent": TRACE, **changes})
    return envelope, codec.encode(envelope)


@given(st.binary(min_size=16, max_size=16))
def test_base32_is_26_characters_and_comes_back(sixteen):
    text = ids.base32(sixteen)
    assert len(text) == 26
    assert ids.from_base32(text) == sixteen
    assert ids.is_id(f"exp_{text}", "exp")


def test_ids_derive_from_their_cause_and_no_two_lists_collide():
    assert ids.derived("tsk", "a", "b") == ids.derived("tsk", "a", "b")
    assert ids.digest("ab", "c") != ids.digest("a", "bc")


def test_an_envelope_comes_back_whole():
    envelope, record = a_record(origin=Origin("ab" * 16, "t", 1, 2, "2026-11-23T14:00:00.000000Z", "Illegal"), only="g", body=TaskFailed("X", "why", exit_code=3))
    assert decoded(record) == envelope
    assert record.key == "prc_1-tsk_1"


def test_a_group_passes_over_a_record_by_its_headers_alone():
    _, record = a_record(only="task-scheduler")
    assert codec.type_and_only(codec.headers_of(record.headers)) == ("RunTask", "task-scheduler")
    assert codec.type_and_only(None) == ("", "")


def test_a_copy_keeps_its_event_id():
    original, _ = a_record()
    copy, _ = a_record(mid=b"\x01" * 16, origin=Origin(original.mid.hex(), "t", 1, 2, "2026-11-23T14:00:00.000000Z", "Illegal"))
    assert copy.event_id == original.event_id


ORIGIN = {"mid": "ab" * 16, "topic": "t", "partition": 1, "offset": 2, "first_seen": "2026-11-23T14:00:00.000000Z", "error": "Illegal"}


@pytest.mark.parametrize(
    "broken",
    [
        {"schema_version": b"2"}, {"type": b"NoSuch"}, {"subject": b"a/b"}, {"mid": b"short"}, {"cause": None},
        {"subject": "gw_1/exp_1/prc_ü/tsk_1/ENV_SETUP/2/3".encode()}, {"subject": b"gw_1/exp_1/prc_" + b"1" * 40 + b"/tsk_1/ENV_SETUP/2/3"},
        {"origin": json.dumps(ORIGIN | {"mid": "xy"}).encode()}, {"origin": json.dumps(ORIGIN | {"first_seen": "then"}).encode()},
        {"origin": json.dumps(ORIGIN | {"topic": "t" * 3000}).encode()}, {"origin": json.dumps(ORIGIN | {"first_seen": f"2026-11-23T14:00:00.{'0' * 3000}Z"}).encode()},
    ],
)  # fmt: skip
def test_what_is_no_message_of_ours_is_unreadable(broken):
    _, record = a_record(origin=Origin(**ORIGIN))
    headers = [(name, broken.get(name, value)) for name, value in codec.headers_of(record.headers) if not (name in broken and broken[name] is None)]
    assert headers != codec.headers_of(record.headers)
    with pytest.raises(Unreadable):
        codec.decode("t", 0, headers, record.payload)
    with pytest.raises(Unreadable):
        codec.decode("t", 0, None, b"\xff")


@pytest.mark.parametrize("context", [None, b"", b"00-zz", b"\xff" * 55, TRACE.encode() + b"-x", TRACE.encode().replace(b"a", b"0"), b"x" * 900_000], ids=len_of)
def test_a_message_whose_trace_context_is_broken_is_read_without_it(context: bytes | None) -> None:
    _, record = a_record()
    headers = [(name, context if name == "traceparent" else value) for name, value in codec.headers_of(record.headers)]
    assert codec.decode("t", 0, headers, record.payload).traceparent == ""
    assert codec.decode("t", 0, [each for each in headers if each[0] != "traceparent"], record.payload).traceparent == ""


@pytest.mark.parametrize("name", ["mid", "type", "schema_version", "subject", "cause", "traceparent", "at", "origin", "only", "more"])
def test_a_copy_of_whatever_can_be_read_fits_into_a_row(name: str) -> None:
    """What it says of when it was first set aside, and why, is longest in what cannot be told in ASCII."""
    _, record = a_record(origin=Origin(**ORIGIN | {"topic": "t" * 1800}), only="g", step="s" * 64)
    headers = {**dict(codec.headers_of(record.headers)), "at": b"2026-11-23T14:00:00.000000Z"}
    headers[name] = headers.get(name, b"") + b" " * 5000 if name != "mid" else bytes(16)
    received = Received("t", 0, 1, record.key, list(headers.items()), record.payload, 0)
    try:
        message = received.decode()
    except Unreadable:
        return
    copy = aside._copy(aside.Culprit(received, "Illegal", "\x01" * 300, message), "airavata-production.task-scheduler", datetime(2026, 11, 23, 14))
    assert copy is not None
    assert len(codec.encode(copy.message, step="scheduler.commit#0123456789ab").headers) <= 4096


def test_placement_uses_width_partitions_and_every_shard():
    placement = Placement(partitions=100, width=16, shards=2)
    found = {placement.of_experiment(f"exp_{i}") for i in range(2000)}
    assert len(found) == 16
    assert {placement.shard(each) for each in found} == {0, 1}


def test_a_skeleton_span_keeps_trace_and_flags():
    child = trace.skeleton(TRACE, "attempt", "tsk_1", 1)
    assert trace.parse(child)[0] == "a" * 32
    assert child != TRACE
    assert child[-2:] == "01"
    assert trace.parse("00-" + "0" * 32 + "-" + "b" * 16 + "-01") is None
