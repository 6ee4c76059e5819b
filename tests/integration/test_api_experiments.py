"""Experiments over HTTP: what may be said of a draft, who sees it, how it is found and changed."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.support.rest import Client, Rest, a_place, a_shape

pytestmark = pytest.mark.mysql
DATA = "data:text/plain;base64,dG8gYmUgb3Igbm90IHRvIGJlCg=="


def faults(answer: Any) -> set[tuple[str, str]]:
    return {(each["pointer"], each["code"]) for each in answer.json()["errors"]}


@pytest.fixture
def place(admin: Client, tmp_path: Path) -> dict[str, str]:
    return a_place(admin, str(tmp_path))


@pytest.fixture
def draft(admin: Client, place: dict[str, str]) -> dict[str, Any]:
    return {"name": "count 1", "application_interface_id": place["interface"], "inputs": {"text": DATA}}


def test_a_draft_carries_every_field_with_what_was_left_out_filled_in(admin: Client, place: dict[str, str], draft: dict[str, Any], gateway_id: str) -> None:
    answer = admin.send_json("POST", "/v1/experiments", draft | {"labels": {"run": "demo"}, "output_storage_id": place["storage"]})
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["location"] == f"/v1/experiments/{made['id']}"
    assert answer.headers["etag"] == '"1"'
    assert (made["state"], made["terminal"], made["outcome"], made["version"]) == ("CREATED", False, None, 1)
    assert (made["compute_resource_id"], made["deployment_id"], made["gateway_id"], made["owner"]) == (place["compute"], place["deployment"], gateway_id, "ann")
    assert made["inputs"] == {"text": {"uri": DATA, "sha256": hashlib.sha256(b"to be or not to be\n").hexdigest(), "size_bytes": 19}}
    assert made["application_interface"] == {"id": place["interface"], "version": 1}
    assert admin.read(f"/v1/experiments/{made['id']}") == made
    assert admin.send_json("GET", f"/v1/experiments/{made['id']}", headers={"If-None-Match": '"1"'}).status_code == 304


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"state": "COMPLETED"}, ("/state", "unknown_field")),
        ({"owner": "eve"}, ("/owner", "unknown_field")),
        ({"gateway_id": "gw_1"}, ("/gateway_id", "unknown_field")),
        ({"version": 7}, ("/version", "unknown_field")),
        ({"epoch": 7}, ("/epoch", "unknown_field")),
        ({"name": ""}, ("/name", "bad_format")),
        ({"name": "x" * 201}, ("/name", "too_long")),
        ({"name": "a\n#SBATCH -A x"}, ("/name", "bad_format")),
        ({"name": "a\u202eb"}, ("/name", "bad_format")),
        ({"inputs": {"text": DATA, "n": "12"}}, ("/inputs/n", "wrong_type")),
        ({"inputs": {"text": DATA, "n": 1.5}}, ("/inputs/n", "wrong_type")),
        ({"inputs": {"text": DATA, "n": 11}}, ("/inputs/n", "out_of_range")),
        ({"inputs": {"text": DATA, "x": True}}, ("/inputs/x", "wrong_type")),
        ({"inputs": {"text": DATA, "other": 1}}, ("/inputs/other", "unknown_input")),
        ({"inputs": {"text": DATA, "mode": "odd"}}, ("/inputs/mode", "not_allowed")),
        ({"inputs": {"text": DATA, "fixed": "g"}}, ("/inputs/fixed", "not_allowed")),
        ({"inputs": {"text": "file:///etc/passwd"}}, ("/inputs/text", "unsafe_value")),
        ({"inputs": {"text": "http://a/b"}}, ("/inputs/text", "unsafe_value")),
        ({"inputs": {"text": "https://a/b"}}, ("/inputs/text", "not_allowed")),
        ({"inputs": {"text": "data:;base64,!!"}}, ("/inputs/text", "bad_format")),
        ({"inputs": {"text": "data:," + "x" * 65_537}}, ("/inputs/text", "too_long")),
        ({"inputs": {"text": f"storage://sto_{'0' * 26}/a"}}, ("/inputs/text", "unknown_reference")),
        ({"inputs": {"text": f"storage://sto_{'0' * 26}/../x"}}, ("/inputs/text", "unsafe_value")),
        ({"scheduling": {"cpu_count": 0}}, ("/scheduling/cpu_count", "out_of_range")),
        ({"scheduling": {"cpu_count": 10**9}}, ("/scheduling/cpu_count", "out_of_range")),
        ({"scheduling": {"wall_time_seconds": 601}}, ("/scheduling/wall_time_seconds", "exceeds_limit")),
        ({"scheduling": {"queue": "night"}}, ("/scheduling/queue", "unknown_reference")),
        ({"project_id": f"prj_{'0' * 26}"}, ("/project_id", "unknown_reference")),
        ({"compute_resource_id": "cmp_no"}, ("/compute_resource_id", "unknown_reference")),
        ({"output_storage_id": "sto_no"}, ("/output_storage_id", "unknown_reference")),
        ({"application_interface_id": "ifc_no"}, ("/application_interface_id", "unknown_reference")),
        ({"deadline_at": "2001-01-01T00:00:00Z"}, ("/deadline_at", "out_of_range")),
        ({"labels": {"a b": "c"}}, ("/labels", "bad_format")),
    ],
)  # fmt: skip
def test_what_is_said_wrongly_is_refused_at_its_place_and_stores_nothing(admin: Client, draft: dict[str, Any], said: dict[str, Any], fault: tuple[str, str]) -> None:
    answer = admin.send_json("POST", "/v1/experiments", draft | said)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert fault in faults(answer)
    assert admin.read("/v1/experiments")["items"] == []


def test_all_faults_are_told_at_once(admin: Client, draft: dict[str, Any]) -> None:
    answer = admin.send_json("POST", "/v1/experiments", draft | {"inputs": {"n": 99, "mode": "odd", "text": "ftp://x"}, "scheduling": {"cpu_count": 9}})
    assert faults(answer) == {("/inputs/n", "out_of_range"), ("/inputs/mode", "not_allowed"), ("/inputs/text", "unsafe_value"), ("/scheduling/cpu_count", "exceeds_limit")}


@pytest.mark.parametrize(("edges", "code"), [("a>b b>a", "bad_format"), (" ".join(f"t{n}" for n in range(1001)), "too_many"), ("a>b a>b", "duplicate"), ("A B", "bad_format")])
def test_a_bad_graph_is_refused_before_anything_is_stored(admin: Client, edges: str, code: str) -> None:
    answer = admin.send_json("POST", "/v1/experiments", {"name": "g", "application_interface_id": a_shape(admin), "inputs": {"edges": edges}})
    assert (answer.status_code, faults(answer)) == (422, {("/inputs/edges", code)})


def test_an_emoji_in_a_name_comes_back_whole(admin: Client, draft: dict[str, Any]) -> None:
    made = admin.made("/v1/experiments", draft | {"name": "zählen 🧬"})
    assert admin.read(f"/v1/experiments/{made['id']}")["name"] == "zählen 🧬"


def test_what_is_another_gateways_or_another_users_is_unknown(rest: Rest, admin: Client, user: Client, draft: dict[str, Any], place: dict[str, str]) -> None:
    made = admin.made("/v1/experiments", draft)["id"]
    stranger = rest.gateway()
    with rest.client(stranger) as other:
        unknown = other.send_json("GET", f"/v1/experiments/exp_{'0' * 26}").json()
        for client in (other, user):
            for method, path in (("GET", ""), ("GET", "/status"), ("GET", "/launches"), ("GET", "/events"), ("GET", "/processes"), ("GET", "/outputs"), ("GET", "/jobs"), ("GET", "/history"), ("GET", "/errors")):
                answer = client.send_json(method, f"/v1/experiments/{made}{path}")
                assert answer.status_code == 404
                assert {**answer.json(), "instance": "", "trace_id": ""} == {**unknown, "instance": "", "trace_id": ""}
            assert client.send_json("POST", f"/v1/experiments/{made}/launches", {}).status_code == 404
            assert client.send_json("DELETE", f"/v1/experiments/{made}", headers={"If-Match": "*"}).status_code == 404
        for field, id_ in (("project_id", "prj"), ("compute_resource_id", place["compute"]), ("output_storage_id", place["storage"]), ("application_interface_id", place["interface"])):
            theirs = admin.read("/v1/projects")["items"][0]["id"] if id_ == "prj" else id_
            body = {"name": "x", "application_interface_id": a_shape(other), "inputs": {"edges": "a"}} | {field: theirs}
            if field == "compute_resource_id":
                continue  # The shape planner needs no host.
            assert (f"/{field}", "unknown_reference") in faults(other.send_json("POST", "/v1/experiments", body))
    for malformed in ("exp_1", "exp_" + "0" * 25, f"prj_{'0' * 26}", "..%2f", "exp_" + "0" * 26):
        assert admin.send_json("GET", f"/v1/experiments/{malformed}").status_code in {404}


def test_a_draft_is_changed_by_merging_and_under_its_version(admin: Client, draft: dict[str, Any]) -> None:
    made = admin.made("/v1/experiments", draft | {"labels": {"a": "1", "b": "2"}})
    path = f"/v1/experiments/{made['id']}"
    assert admin.send_json("PATCH", path, {"name": "x"}).json()["code"] == "precondition_required"
    stale = admin.send_json("PATCH", path, {"name": "x"}, headers={"If-Match": '"9"'})
    assert (stale.status_code, stale.headers["etag"]) == (412, '"1"')
    body = {"name": "renamed", "labels": {"a": None, "c": "3"}, "inputs": {"n": 4}, "scheduling": {"cpu_count": 4}}
    changed = admin.send_json("PATCH", path, body, headers={"If-Match": '"1"'}).json()
    assert (changed["name"], changed["labels"], changed["version"]) == ("renamed", {"b": "2", "c": "3"}, 2)
    assert (changed["inputs"]["n"], changed["inputs"]["text"]["uri"], changed["scheduling"]["cpu_count"]) == (4, DATA, 4)
    assert admin.read(path) == changed
    unknown = admin.send_json("PATCH", path, {"state": "COMPLETED", "launch": True}, headers={"If-Match": "*"})
    assert faults(unknown) == {("/state", "unknown_field"), ("/launch", "unknown_field")}


def test_a_draft_is_hidden_by_delete_and_a_running_one_is_not(admin: Client) -> None:
    shape = {"name": "x", "application_interface_id": a_shape(admin), "inputs": {"edges": "a"}}
    made, running = admin.made("/v1/experiments", shape)["id"], admin.made("/v1/experiments", shape | {"launch": True})["id"]
    assert admin.send_json("DELETE", f"/v1/experiments/{made}").status_code == 428
    assert admin.send_json("DELETE", f"/v1/experiments/{made}", headers={"If-Match": '"1"'}).status_code == 204
    assert admin.send_json("GET", f"/v1/experiments/{made}").status_code == 404
    live = admin.send_json("DELETE", f"/v1/experiments/{running}", headers={"If-Match": "*"})
    assert (live.status_code, live.json()["code"]) == (409, "experiment_live")
    late = admin.send_json("PATCH", f"/v1/experiments/{running}", {"name": "y"}, headers={"If-Match": "*"})
    assert (late.status_code, late.json()["code"]) == (409, "illegal_state")
    assert "CREATED" in late.json()["detail"]


def test_experiments_are_listed_newest_first_in_pages_and_by_filters(admin: Client, user: Client) -> None:
    shape = a_shape(admin)
    names = [f"n{number}" for number in range(5)]
    made = [admin.made("/v1/experiments", {"name": name, "application_interface_id": shape, "inputs": {"edges": "a"}, "labels": {"n": name, "even": str(int(name[1]) % 2 == 0)}})["id"] for name in names]
    theirs = user.made("/v1/experiments", {"name": "theirs", "application_interface_id": shape, "inputs": {"edges": "a"}, "launch": True})["id"]
    seen, cursor = [], None
    while True:
        page = admin.read("/v1/experiments", limit=2, **({"cursor": cursor} if cursor else {}))
        seen += [each["id"] for each in page["items"]]
        cursor = page.get("next_cursor")
        if cursor is None:
            break
    assert seen == [theirs, *reversed(made)]
    assert [each["id"] for each in user.read("/v1/experiments")["items"]] == [theirs]

    def found(**query: Any) -> list[str]:
        return [each["name"] for each in admin.read("/v1/experiments", sort="name", **query)["items"]]

    assert found(label="even:True") == ["n0", "n2", "n4"]
    assert found(state="LAUNCHED,FAILED") == ["theirs"]
    assert found(owner="ann", name="n3") == ["n3"]
    assert found(application_interface_id="ifc_none") == []
    assert found(created_after="2020-01-01T00:00:00Z", created_before="2021-01-01T00:00:00Z") == []
    listed = admin.read("/v1/experiments", name="n3")["items"][0]
    assert (listed["labels"], listed["terminal"]) == ({"n": "n3", "even": "False"}, False)


def test_the_next_page_of_a_filtered_list_is_where_its_link_says(admin: Client) -> None:
    shape = a_shape(admin)
    for name in ("a", "b", "c"):
        admin.made("/v1/experiments", {"name": name, "application_interface_id": shape, "inputs": {"edges": "a"}, "labels": {"run": "one & two" if name != "b" else "three"}})
    filters = {"label": "run:one & two", "created_after": "2020-01-01T00:00:00+01:00", "state": "CREATED,LAUNCHED", "sort": "name"}
    first = admin.send_json("GET", "/v1/experiments", limit=1, **filters)
    second = admin.get(first.headers["link"][1:].partition(">")[0])
    assert [each["name"] for answer in (first, second) for each in answer.json()["items"]] == ["a", "c"]


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=abc", "nope=1", "limit=1&limit=2", "sort=secret", "state=GONE", "label=x", "created_after=yesterday"])
def test_an_unreadable_parameter_is_named(admin: Client, query: str) -> None:
    answer = admin.send_json("GET", f"/v1/experiments?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")
    assert query.split("=")[0] in answer.json()["detail"]


def test_a_cursor_serves_its_own_list_only(rest: Rest, admin: Client) -> None:
    shape = a_shape(admin)
    for name in ("a", "b"):
        admin.made("/v1/experiments", {"name": name, "application_interface_id": shape, "inputs": {"edges": "a"}})
    cursor = admin.read("/v1/experiments", limit=1)["next_cursor"]
    altered = cursor[:-2] + ("A" if cursor[-2] != "A" else "B") + cursor[-1]
    with rest.client(rest.gateway()) as other:
        tries = [admin.send_json("GET", "/v1/experiments", cursor=altered), admin.send_json("GET", "/v1/experiments", cursor=cursor, sort="name"), other.send_json("GET", "/v1/experiments", cursor=cursor)]
    assert [(each.status_code, each.json()["code"]) for each in tries] == [(400, "invalid_cursor")] * 3
