"""What the API reads of a body: JSON that means one thing, every refusal at its place."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api import models, reading
from app.api.operations import Cursors, merged, moment
from app.api.problems import CODES, Problem
from app.workflow.inputs import SAFE_INTEGER

INTERFACE = {"name": "n", "application_interface_id": "ifc_x"}


def refused(body: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        reading.parse(body)
    return caught.value


def faults(model: Any, value: Any) -> dict[str, str]:
    with pytest.raises(Problem) as caught:
        reading.validate(model, value)
    assert caught.value.code == "validation_failed"
    return {each.pointer: each.code for each in caught.value.errors}


@pytest.mark.parametrize(
    ("body", "offset"),
    [
        (b"", 0),
        (b'{"a":', 5),
        (b'{"a":1}x', 7),
        (b"{'a':1}", 1),
        (b'\xef\xbb\xbf{"a":1}', 0),
        ('{"a":1}'.encode("utf-16"), 0),
        ('{"a":1}'.encode("utf-16-be"), 0),
        (b'{"a":"\xff"}', 6),
        (b'{"\xc3\xa4":"\xc3"}', 7),
        (b'{"a":"\x01"}', 6),
        (b'{"a":"\\ud800"}', 5),
        (b'{"\\u00e9":"\\u00e9","\\udc00":1}', 19),
        (b'{"name":"a", "name":"b"}', 13),
        (b'{"name":"a", "n\\u0061me":"b"}', 13),
        (b'{"x":{"a":1},"y":{"a":1,"a":2}}', 24),
        (b'{"a":[1, NaN]}', 9),
        (b'{"a":-Infinity}', 5),
        (b'{"a": 1e400}', 6),
        (b'{"a":' + b"[" * 40 + b"]" * 40 + b"}", 36),
        (b"[" * 100_000, 32),
        (b'{"a":' * 100_000, 160),
    ],
)
def test_what_is_not_our_json_is_refused_with_its_byte(body: bytes, offset: int) -> None:
    problem = refused(body)
    assert (problem.code, problem.status) == ("malformed_json", 400)
    assert problem.detail.endswith(f"at byte {offset}")


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({f"k{n}": 1 for n in range(80_000)} | {"z": 1}).encode()[:-1] + b',"z":2}',
        b'{"a":' + b"1" * 1_000_000 + b".5}",
        b'"' * 1_000_000,
        b'"' + b"\\" * 1_000_001,
    ],
    ids=["late duplicate", "long number", "quotes", "backslashes"],
)
def test_a_hostile_megabyte_costs_no_more_than_a_large_one(body: bytes) -> None:
    began = time.process_time()
    refused(body)
    assert time.process_time() - began < 5.0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-SAFE_INTEGER, SAFE_INTEGER) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values, st.booleans())
def test_whatever_is_json_comes_in_whole(value: Any, ascii_only: bool) -> None:
    assert reading.parse(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=60))
def test_whatever_bytes_come_there_is_a_value_or_a_problem(body: bytes) -> None:
    try:
        reading.parse(body)
    except Problem as problem:
        assert problem.code == "malformed_json"


def test_all_faults_of_a_body_are_told_with_pointers() -> None:
    told = faults(models.Deployment, {
        "compute_resource_id": 7, "executable_path": "bin/x", "environment": {"LD_PRELOAD": "x", "A=B": "y", "OK": "two\nlines", "a/b~c": ""},
        "pre_job_commands": ["ok", "a\nb"], "defaults": {"cpu_count": 0}, "owner": "eve", "parallelism": "ODD",
    })  # fmt: skip
    assert told == {
        "/module_id": "required", "/compute_resource_id": "wrong_type", "/executable_path": "unsafe_value", "/environment/LD_PRELOAD": "not_allowed", "/environment/A=B": "bad_format",
        "/environment/OK": "bad_format", "/environment/a~1b~0c": "bad_format", "/pre_job_commands/1": "bad_format", "/defaults/cpu_count": "out_of_range", "/owner": "unknown_field",
        "/parallelism": "not_allowed",
    }  # fmt: skip


def test_at_most_a_hundred_faults_are_told() -> None:
    with pytest.raises(Problem) as caught:
        reading.validate(models.Project, {f"k{n}": 1 for n in range(500)})
    assert len(caught.value.document(instance="", trace_id=None)["errors"]) == 100


def test_no_field_takes_nul_or_what_a_double_cannot_hold() -> None:
    inputs = {"n": 9007199254740993, "text": "a\0b", "deep": [{"x": -(2**53)}], "nul\0": 1, "edge": SAFE_INTEGER}
    told = faults(models.Experiment, {**INTERFACE, "inputs": inputs})
    assert told == {"/inputs/n": "out_of_range", "/inputs/text": "bad_format", "/inputs/deep/0/x": "out_of_range", "/inputs": "bad_format"}
    assert faults(models.Deployment, {"executable_path": "/a\0b", "module_id": "m", "compute_resource_id": "c"}) == {"/executable_path": "unsafe_value"}


def test_numbers_and_truths_are_not_taken_for_one_another() -> None:
    told = faults(models.ComputeResource, {"name": "n", "host": "h", "port": True, "limits": {"jobs": "7", "connections": 1.0}})
    assert told == {"/port": "wrong_type", "/limits/jobs": "wrong_type", "/limits/connections": "wrong_type"}


@pytest.mark.parametrize("said", ["yesterday", "2026-11-26T12:00:00", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+23:59"])
def test_what_is_no_time_once_it_is_utc_is_refused_in_a_body_and_in_a_query(said: str) -> None:
    assert faults(models.Experiment, {**INTERFACE, "deadline_at": said}) == {"/deadline_at": "bad_format"}
    with pytest.raises(ValueError, match="RFC 3339"):
        moment("created_after").read(said)


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"a": "c"}, {"a": "c", "b": {"x": 1}}),
        ({"a": None}, {"b": {"x": 1}}),
        ({"b": {"y": 2, "x": None}}, {"a": "b", "b": {"y": 2}}),
        ({"b": ["l"]}, {"a": "b", "b": ["l"]}),
        ({"n": {"m": None}}, {"a": "b", "b": {"x": 1}, "n": {}}),
    ],
)
def test_a_patch_is_merged_as_rfc_7396_says(patch: dict[str, Any], expected: dict[str, Any]) -> None:
    assert merged({"a": "b", "b": {"x": 1}}, patch) == expected


@given(st.lists(st.text() | st.integers(), max_size=3), st.text(), st.text())
def test_a_cursor_is_read_where_it_was_made_and_nowhere_else(last: list[Any], binding: str, other: str) -> None:
    cursors = Cursors(b"k" * 32)
    made = cursors.make(binding, last)
    assert cursors.read(binding, made) == last
    for wrong, cursor in ((other, made), (binding, made[:-1]), (binding, "A" + made[1:]), (binding, made + "é"), (binding, "")):
        if (wrong, cursor) == (binding, made):
            continue
        with pytest.raises(Problem, match="invalid_cursor"):
            cursors.read(wrong, cursor)


def test_every_problem_says_whether_to_try_again() -> None:
    for code, (status, retriable, _) in CODES.items():
        problem = Problem(code)
        assert retriable == (status in {408, 429, 503} or code == "idempotency_in_flight")
        assert ("Retry-After" in problem.headers) == (status in {429, 503} or code == "idempotency_in_flight")
