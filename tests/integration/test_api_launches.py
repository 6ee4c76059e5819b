"""Launching over HTTP: state, process row, messages, idempotency row and audit together or not at all; once, however often it is asked for."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app.messages.envelope import Record
from app.workflow.generation import check
from app.workflow.planners.batch_application import plan
from tests.support.builders import decoded
from tests.support.rest import Client, Rest, a_place, a_shape, fresh, serving

pytestmark = pytest.mark.mysql
DATA = "data:,hello"
NOTHING = {"experiments": 0, "processes": 0, "outputs": 0, "audit": 0}


@pytest.fixture
def place(admin: Client, tmp_path: Path) -> dict[str, str]:
    return a_place(admin, str(tmp_path))


@pytest.fixture
def whole(place: dict[str, str]) -> dict[str, Any]:
    return {"name": "count 1", "application_interface_id": place["interface"], "inputs": {"text": DATA}, "output_storage_id": place["storage"], "launch": True}


def stored(rest: Rest, gateway_id: str) -> dict[str, int]:
    """Rows that speak of experiments of this gateway."""
    of = f"experiment_id IN (SELECT id FROM experiments WHERE gateway_id = '{gateway_id}')"
    wheres = {"experiments": f"gateway_id = '{gateway_id}'", "processes": f"gateway_id = '{gateway_id}'", "outputs": of, "audit": f"gateway_id = '{gateway_id}' AND subject LIKE 'exp%%'"}
    return {table: int(rest.rows(f"SELECT COUNT(*) FROM {table} WHERE {where}")[0][0]) for table, where in wheres.items()}


def messages(rest: Rest, experiment_id: str) -> list[Any]:
    rows = rest.rows("SELECT mid, topic, part, k, headers, payload FROM outbox WHERE k = %s OR k IN (SELECT id FROM processes WHERE experiment_id = %s) ORDER BY id", experiment_id, experiment_id)
    return [decoded(Record(*row)) for row in rows]


def faults(answer: Any) -> set[tuple[str, str]]:
    return {(each["pointer"], each["code"]) for each in answer.json()["errors"]}


def test_created_and_launched_in_one_transaction(rest: Rest, admin: Client, whole: dict[str, Any], place: dict[str, str], gateway_id: str) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = admin.send_json("POST", "/v1/experiments", whole, headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    assert answer.status_code == 201
    made = answer.json()
    assert (made["state"], made["trace_id"], made["version"], made["poll_after_seconds"]) == ("LAUNCHED", trace, 1, 2)
    assert made["outputs"] == [{"name": "count", "type": "STDOUT", "state": "EXPECTED", "size_bytes": None, "sha256": None}, {"name": "table", "type": "URI", "state": "EXPECTED", "size_bytes": None, "sha256": None}]
    assert admin.read(f"/v1/experiments/{made['id']}") == made
    assert stored(rest, gateway_id) == {"experiments": 1, "processes": 1, "outputs": 2, "audit": 1}
    process = admin.read(f"/v1/processes/{made['process_id']}")
    assert (process["state"], process["phase"], process["experiment_id"]) == ("CREATED", None, made["id"])
    snapshot = process["snapshot"]
    assert snapshot["inputs"] == {"text": DATA, "n": 3, "fixed": "f"}
    assert snapshot["scheduling"] == {"queue": "debug", "node_count": None, "cpu_count": 2, "threads_per_process": None, "memory_mib": None, "wall_time_seconds": 600}
    assert (snapshot["credential"], snapshot["login"], snapshot["work_dir"]) == (place["credential"], "demo", f"/scratch/airavata/{made['process_id']}")
    assert (snapshot["output_storage"]["id"], list(snapshot["storages"])) == (place["storage"], [place["storage"]])
    assert (snapshot["experiment_id"], snapshot["gateway_id"]) == (made["id"], gateway_id)
    check(plan(snapshot))
    sent = messages(rest, made["id"])
    assert {type(each.body).__name__: each.topic for each in sent} == {"ExperimentLaunched": "airavata-launch", "ExperimentChanged": "event-sink"}
    assert {each.traceparent[3:35] for each in sent} == {trace}
    assert {each.partition for each in sent} == {process["placement"]["partition"]}


def test_a_draft_is_launched_once_whoever_asks_again(rest: Rest, admin: Client, whole: dict[str, Any], gateway_id: str) -> None:
    draft = admin.made("/v1/experiments", whole | {"launch": False}, key=None)
    assert (draft["outputs"], admin.read(f"/v1/experiments/{draft['id']}/launches")["items"]) == ([], [])
    path = f"/v1/experiments/{draft['id']}/launches"
    first = admin.send_json("POST", path, {})
    again = admin.send_json("POST", path, {})
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.headers["location"] == again.headers["location"] == f"/v1/processes/{first.json()['process_id']}"
    assert first.json() == again.json() == admin.read(path)["items"][0]
    assert admin.read(f"/v1/experiments/{draft['id']}")["version"] == first.json()["version"] == 2
    assert len(messages(rest, draft["id"])) == 2
    assert stored(rest, gateway_id)["processes"] == 1


def test_a_default_file_is_staged_from_its_storage(rest: Rest, admin: Client, whole: dict[str, Any], place: dict[str, str]) -> None:
    kept = admin.made("/v1/storage-resources", {"name": "kept", "kind": "POSIX", "root": "/data"})["id"]
    interface = f"/v1/application-interfaces/{place['interface']}"

    def defaulting(to: str) -> None:
        body = {"inputs": [{"name": "text", "type": "URI"}, {"name": "model", "type": "URI", "default": f"storage://{to}/model.bin"}]}
        assert admin.send_json("PATCH", interface, body, headers={"If-Match": "*"}).status_code == 200

    defaulting(kept)
    made = admin.made("/v1/experiments", whole)
    snapshot = admin.read(f"/v1/processes/{made['process_id']}")["snapshot"]
    assert snapshot["inputs"]["model"] == f"storage://{kept}/model.bin"
    assert set(snapshot["storages"]) == {kept, place["storage"]}
    with rest.client(rest.gateway()) as other:
        defaulting(other.made("/v1/storage-resources", {"name": "theirs", "kind": "POSIX", "root": "/data"})["id"])
    assert faults(admin.send_json("POST", "/v1/experiments", whole)) == {("/inputs/model", "unknown_reference")}


def test_an_interface_changed_since_is_the_one_that_is_launched(admin: Client, whole: dict[str, Any], place: dict[str, str]) -> None:
    draft = admin.made("/v1/experiments", whole | {"launch": False})
    changed = admin.send_json("PATCH", f"/v1/application-interfaces/{place['interface']}", {"description": "newer"}, headers={"If-Match": "*"})
    assert changed.json()["version"] == 2
    assert admin.read(f"/v1/experiments/{draft['id']}")["application_interface"]["version"] == 1
    process = admin.made(f"/v1/experiments/{draft['id']}/launches", {})["process_id"]
    assert admin.read(f"/v1/experiments/{draft['id']}")["application_interface"]["version"] == 2
    admin.send_json("PATCH", f"/v1/application-interfaces/{place['interface']}", {"description": "newest"}, headers={"If-Match": "*"})
    assert admin.read(f"/v1/processes/{process}")["snapshot"]["interface"]["description"] == "newer"
    assert admin.read(f"/v1/experiments/{draft['id']}")["application_interface"]["version"] == 2


def test_what_cannot_run_stays_a_draft_or_is_not_stored_at_all(rest: Rest, admin: Client, whole: dict[str, Any], gateway_id: str) -> None:
    lacking = whole | {"inputs": {}}
    refused = admin.send_json("POST", "/v1/experiments", lacking)
    assert (refused.status_code, refused.json()["code"], faults(refused)) == (422, "not_launchable", {("/inputs/text", "required")})
    assert stored(rest, gateway_id) == NOTHING
    draft = admin.made("/v1/experiments", lacking | {"launch": False})
    refused = admin.send_json("POST", f"/v1/experiments/{draft['id']}/launches", {})
    assert (refused.json()["code"], faults(refused)) == ("not_launchable", {("/inputs/text", "required")})
    assert admin.read(f"/v1/experiments/{draft['id']}") == draft
    assert stored(rest, gateway_id)["processes"] == 0


@pytest.mark.parametrize("state", ["DISABLED", "DRAINING"])
def test_a_host_that_takes_nothing_is_named(admin: Client, whole: dict[str, Any], place: dict[str, str], state: str) -> None:
    admin.send_json("PATCH", f"/v1/compute-resources/{place['compute']}", {"state": state}, headers={"If-Match": "*"})
    refused = admin.send_json("POST", "/v1/experiments", whole | {"compute_resource_id": place["compute"]})
    assert (refused.status_code, refused.json()["code"], faults(refused)) == (422, "not_launchable", {("/compute_resource_id", "disabled")})
    assert admin.read("/v1/experiments")["items"] == []


def test_a_host_without_keys_and_one_whose_key_changed_take_nothing(rest: Rest, admin: Client, tmp_path: Path) -> None:
    unverified = a_place(admin, str(tmp_path), host_keys=[])
    body = {"name": "x", "application_interface_id": unverified["interface"], "inputs": {"text": DATA}, "output_storage_id": unverified["storage"], "compute_resource_id": unverified["compute"], "launch": True}
    assert ("/compute_resource_id", "disabled") in faults(admin.send_json("POST", "/v1/experiments", body))
    rest.write("UPDATE catalogue SET document = REPLACE(document, 'UNVERIFIED', 'SUSPENDED') WHERE id = %s", unverified["compute"])
    assert ("/compute_resource_id", "disabled") in faults(admin.send_json("POST", "/v1/experiments", body))


def test_an_expired_credential_and_a_missing_storage_are_told_together(rest: Rest, admin: Client, whole: dict[str, Any], place: dict[str, str], gateway_id: str) -> None:
    rest.write("UPDATE credentials SET expires_at = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND WHERE id = %s", place["credential"])
    refused = admin.send_json("POST", "/v1/experiments", {**whole, "output_storage_id": None})
    assert (refused.json()["code"], faults(refused)) == ("not_launchable", {("/compute_resource_id", "expired"), ("/output_storage_id", "required")})
    assert stored(rest, gateway_id) == NOTHING


def test_a_deployment_that_asks_for_more_than_its_queue_allows_is_found_before_it_runs(admin: Client, whole: dict[str, Any], place: dict[str, str]) -> None:
    body = {"defaults": {"queue": "debug", "wall_time_seconds": 6000}}
    assert admin.send_json("PATCH", f"/v1/application-deployments/{place['deployment']}", body, headers={"If-Match": "*"}).status_code == 200
    assert faults(admin.send_json("POST", "/v1/experiments", whole)) == {("/scheduling/wall_time_seconds", "exceeds_limit")}


def test_a_launch_needs_a_key(rest: Rest, admin: Client, whole: dict[str, Any], gateway_id: str) -> None:
    refused = admin.send_json("POST", "/v1/experiments", whole, key=None)
    assert (refused.status_code, refused.json()["code"]) == (400, "idempotency_key_missing")
    assert admin.send_json("POST", "/v1/experiments", whole, key="k" * 256).json()["code"] == "invalid_header"
    draft = admin.made("/v1/experiments", whole | {"launch": False}, key=None)["id"]
    assert admin.send_json("POST", f"/v1/experiments/{draft}/launches", {}, key=None).json()["code"] == "idempotency_key_missing"
    assert stored(rest, gateway_id)["processes"] == 0


def test_the_same_key_replays_and_never_launches_twice(rest: Rest, admin: Client, user: Client, whole: dict[str, Any], gateway_id: str) -> None:
    key = fresh("key")
    first = admin.send_json("POST", "/v1/experiments", whole, key=key)
    again = admin.send_json("POST", "/v1/experiments", whole, key=f'"{key}"')
    assert (again.status_code, again.json(), again.headers["location"], again.headers["etag"]) == (201, first.json(), first.headers["location"], first.headers["etag"])
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")
    assert first.headers["x-request-id"] != again.headers["x-request-id"]
    other = admin.send_json("POST", "/v1/experiments", whole | {"name": "other"}, key=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert user.send_json("POST", "/v1/experiments", whole, key=key).status_code == 201
    assert stored(rest, gateway_id)["processes"] == 2
    refused = fresh("key")
    assert admin.send_json("POST", "/v1/experiments", whole | {"inputs": {}}, key=refused).status_code == 422
    assert admin.send_json("POST", "/v1/experiments", whole, key=refused).status_code == 201


def test_one_launch_sent_100_times_at_once_is_one_process(rest: Rest, admin: Client, gateway_id: str) -> None:
    body, key = {"name": "x", "application_interface_id": a_shape(admin), "inputs": {"edges": "a>b"}, "launch": True}, fresh("key")
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: admin.send_json("POST", "/v1/experiments", body, key=key), range(100)))
    assert {each.status_code for each in answers} <= {201, 409}
    assert {each.json()["code"] for each in answers if each.status_code == 409} <= {"idempotency_in_flight"}
    assert len({each.json()["id"] for each in answers if each.status_code == 201}) == 1
    assert stored(rest, gateway_id) == {"experiments": 1, "processes": 1, "outputs": 0, "audit": 1}


def test_one_draft_launched_at_once_under_many_keys_is_one_process(rest: Rest, admin: Client, gateway_id: str) -> None:
    draft = admin.made("/v1/experiments", {"name": "x", "application_interface_id": a_shape(admin), "inputs": {"edges": "a>b"}})["id"]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: admin.send_json("POST", f"/v1/experiments/{draft}/launches", {}), range(16)))
    assert sorted(each.status_code for each in answers) == [200] * 15 + [202]
    assert len({each.json()["process_id"] for each in answers}) == 1
    assert (len(messages(rest, draft)), stored(rest, gateway_id)["processes"]) == (2, 1)


def test_a_gateway_has_so_many_live_experiments_and_no_more(shared_database: str) -> None:
    with serving(shared_database, live_experiments_max=2, threads=4) as rest, rest.client(rest.gateway()) as client:
        body = {"name": "x", "application_interface_id": a_shape(client), "inputs": {"edges": "a"}, "launch": True}
        answers = []
        for _ in range(3):
            rest.services.live = {}  # As if the second for which the count is remembered were over.
            answers.append(client.send_json("POST", "/v1/experiments", body))
        assert [each.status_code for each in answers] == [201, 201, 429]
        assert (answers[2].json()["code"], answers[2].headers["retry-after"]) == ("too_many_live_experiments", "1")
        assert client.send_json("POST", "/v1/experiments", body | {"launch": False}).status_code == 201


def test_a_gateways_own_limit_goes_before_the_servers(rest: Rest, operator: Client) -> None:
    gateway_id = rest.gateway()
    with rest.client(gateway_id) as client:
        body = {"name": "x", "application_interface_id": a_shape(client), "inputs": {"edges": "a"}, "launch": True}
        assert client.read("/v1/me")["limits"] == {"live_experiments": 0}
        assert operator.send_json("PATCH", f"/v1/gateways/{gateway_id}", {"limits": {"live_experiments": 1}}, headers={"If-Match": "*"}).status_code == 200
        assert client.read("/v1/me")["limits"] == {"live_experiments": 1}
        client.made("/v1/experiments", body)
        rest.services.live = {}
        assert client.send_json("POST", "/v1/experiments", body).json()["code"] == "too_many_live_experiments"


def test_a_paused_gateway_launches_nothing_until_it_is_resumed(rest: Rest, admin: Client, gateway_id: str) -> None:
    body = {"name": "x", "application_interface_id": a_shape(admin), "inputs": {"edges": "a"}}
    draft = admin.made("/v1/experiments", body)["id"]
    for paused, status in ((True, 422), (False, 202)):
        assert admin.send_json("PATCH", f"/v1/gateways/{gateway_id}", {"paused": paused}, headers={"If-Match": "*"}).json()["paused"] is paused
        rest.services.live = {}  # As if the second for which this is remembered were over.
        answer = admin.send_json("POST", f"/v1/experiments/{draft}/launches", {})
        assert answer.status_code == status
        assert (status == 202) or (answer.json()["code"], faults(answer)) == ("not_launchable", {("", "disabled")})


def test_a_launch_costs_a_dozen_statements(rest: Rest, admin: Client) -> None:
    """What a launch costs is what the API pays per experiment: look-ups, six writes, and the clock."""
    from sqlalchemy import event

    body = {"name": "x", "application_interface_id": a_shape(admin), "inputs": {"edges": "a>b"}, "launch": True}
    admin.made("/v1/experiments", body)
    seen: list[str] = []

    def remember(_connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        seen.append(sql)

    event.listen(rest.engine, "before_cursor_execute", remember)
    try:
        admin.made("/v1/experiments", body)
    finally:
        event.remove(rest.engine, "before_cursor_execute", remember)
    assert len(seen) <= 12, "\n".join(seen)
