"""What a release writes the next ones read: one example of every message, as bytes and as what they mean, is kept per release (golden/<release>/written.json).

The file of this release says what is written today, byte for byte; those of releases that are out are never edited, and are read for as long as this runs.
"""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import migrations
from app.errors import Unreadable
from app.kafka import state
from app.messages import codec
from app.messages.envelope import Envelope, Origin, Subject

GOLDEN = Path(__file__).parent / "golden"
OURS = GOLDEN / ".".join(map(str, migrations.RELEASE)) / "written.json"
FILES = {path.parent.name: json.loads(path.read_text()) for path in sorted(GOLDEN.glob("*/written.json"))}
EXAMPLES = [pytest.param(name, told, id=f"{release}-{name}") for release, file in FILES.items() for name, told in file["messages"].items()]


def meant(name: str, told: dict[str, Any]) -> Envelope:
    """What the writer of this example meant; fields that came later have their defaults."""
    means = told["means"]
    parts = {
        "mid": bytes.fromhex(means["mid"]), "subject": Subject(**means["subject"]), "body": msgspec.convert(means["body"], codec.TYPES[name]),
        "origin": Origin(**means["origin"]) if means["origin"] else None,
    }  # fmt: skip
    return Envelope(**{"topic": "t", "partition": 3, **means, **parts})


def headers(told: dict[str, Any]) -> list[tuple[str, bytes]]:
    return [(key, value.encode("latin-1")) for key, value in told["headers"].items()]


def test_every_release_has_its_examples_and_its_promises() -> None:
    """Those that the CHANGELOG names, and the one that is being made."""
    named = set(re.findall(r"^## \[(\d+\.\d+)\.\d+\]", (GOLDEN.parents[2] / "CHANGELOG.md").read_text(), re.MULTILINE)) | {OURS.parent.name}
    assert {each: sorted(path.name for path in (GOLDEN / each).glob("*")) for each in named} == {each: ["api.txt", "written.json"] for each in named}


@pytest.mark.parametrize(("name", "told"), EXAMPLES)
def test_what_any_release_wrote_is_read_as_it_was_meant(name: str, told: dict[str, Any]) -> None:
    assert codec.headers_of(bytes.fromhex(told["row"])) == headers(told)
    assert codec.decode("t", 3, headers(told), told["payload"].encode()) == meant(name, told)


@pytest.mark.parametrize(("name", "told"), FILES[OURS.parent.name]["messages"].items())
def test_what_is_written_today_is_what_this_release_says_it_writes(name: str, told: dict[str, Any]) -> None:
    """Red: the wire has changed. If the release is not out yet and the one before reads it as well (app/messages/codec.py), change the example with it."""
    record = codec.encode(meant(name, told))
    assert (codec.headers_of(record.headers), record.payload.decode()) == (headers(told), told["payload"])
    assert (record.headers.hex(), record.key) == (told["row"], told["key"])


def test_no_message_and_no_field_is_without_an_example() -> None:
    examples = FILES[OURS.parent.name]["messages"]
    assert {name: set(told["means"]["body"]) for name, told in examples.items()} == {name: set(each.__struct_fields__) for name, each in codec.TYPES.items()}
    for field in ("origin", "only"):
        assert any(told["means"][field] for told in examples.values())


@pytest.mark.parametrize(("name", "told"), EXAMPLES)
def test_fields_and_headers_that_a_later_release_adds_are_ignored(name: str, told: dict[str, Any]) -> None:
    payload = json.dumps({**json.loads(told["payload"]), "of_tomorrow": {"any": [1]}}).encode()
    assert codec.decode("t", 3, [*headers(told), ("of_tomorrow", b"\xff")], payload) == meant(name, told)


@pytest.mark.parametrize("kind", ["RunTask", "OfTomorrow"])
def test_a_version_from_the_future_is_refused_with_its_reason_and_passed_over_by_nobody(kind: str) -> None:
    """Also where its type is one that no group wants, or knows: whether it would be missed nobody here can tell."""
    later = codec.SCHEMA_VERSION + 1
    told = [("mid", bytes(16)), ("type", kind.encode()), ("schema_version", b"%d" % later)]
    assert codec.type_and_only(told) == ("", "")
    assert codec.type_and_only([*told, ("only", b"another group")]) == ("", "another group")
    with pytest.raises(Unreadable, match=f"schema_version {later} is newer than {codec.SCHEMA_VERSION}: upgrade this component"):
        codec.decode("t", 3, told, b"{}")


@pytest.mark.parametrize("version", [b"%d" % codec.SCHEMA_VERSION, b"", None, b"x", b"-2", "²".encode()])
def test_any_other_record_is_passed_over_by_its_type(version: bytes | None) -> None:
    assert codec.type_and_only([("type", b"Nothing"), ("schema_version", version)]) == ("Nothing", "")  # type: ignore[list-item]  # Kafka has headers without a value.


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_the_relays_memory_is_read_whichever_release_wrote_it(file: dict[str, Any]) -> None:
    value, means = bytes.fromhex(file["relay_state"]["value"]), file["relay_state"]["means"]
    record = state.StateRecord(**{**means, "mids": [bytes.fromhex(each) for each in means["mids"]]})
    assert state.decode(value) == record
    assert state.decode(msgspec.msgpack.encode({**msgspec.msgpack.decode(value), "of_tomorrow": 1})) == record
    if file is FILES[OURS.parent.name]:
        assert state.encode(record) == value
