"""The catalogue over HTTP: what may be said of applications and places, versions, lists, isolation, and the queues of a host."""

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.mysql import hosts
from tests.support.rest import HOST_KEY, Client, Rest, fresh

pytestmark = pytest.mark.mysql
BODIES: Mapping[str, Mapping[str, Any]] = {  # The least that can be said.
    "projects": {"name": "x"}, "application-modules": {"name": "x"}, "application-interfaces": {"name": "x"}, "compute-resources": {"name": "x", "host": "localhost"},
    "storage-resources": {"name": "x", "kind": "POSIX", "root": "/data"},
}  # fmt: skip
ANYTHING = {"If-Match": "*"}


def faults(answer: Any) -> set[tuple[str, str]]:
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed"), answer.text
    return {(each["pointer"], each["code"]) for each in answer.json()["errors"]}


def deployment(client: Client, **more: Any) -> dict[str, Any]:
    module = client.made("/v1/application-modules", {"name": fresh("m")})["id"]
    host = client.made("/v1/compute-resources", {"name": fresh("h"), "host": "localhost", "queues": [{"name": "debug"}]})["id"]
    return {"module_id": module, "compute_resource_id": host, "executable_path": "/usr/bin/wc", **more}


@pytest.mark.parametrize("kind", BODIES)
def test_each_kind_is_made_read_changed_and_listed(rest: Rest, admin: Client, user: Client, kind: str) -> None:
    path = f"/v1/{kind}"
    answer = admin.send_json("POST", path, BODIES[kind])
    made = answer.json()
    assert (answer.status_code, answer.headers["etag"], answer.headers["location"], made["version"]) == (201, '"1"', f"{path}/{made['id']}", 1)
    assert made["created_at"] == made["updated_at"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", made["created_at"])
    one = answer.headers["location"]
    got = admin.send_json("GET", one)
    assert (got.json(), got.headers["etag"]) == (made, '"1"')
    assert user.read(one) == made
    assert [admin.send_json("GET", one, headers={"If-None-Match": tag}).status_code for tag in ('"1"', 'W/"1"', '"0", "1"', "*", '"2"')] == [304, 304, 304, 304, 200]
    changed = admin.send_json("PATCH", one, {"name": "y"}, headers={"If-Match": '"1"', "Content-Type": "application/merge-patch+json"}).json()
    assert (changed["name"], changed["version"], changed["created_at"]) == ("y", 2, made["created_at"])
    assert {name: value for name, value in changed.items() if name not in {"name", "version", "updated_at"}} == {name: value for name, value in made.items() if name not in {"name", "version", "updated_at"}}
    assert admin.read(one) == changed
    assert [each["id"] for each in admin.read(path, name="y")["items"]] == [made["id"]]
    assert admin.read(path, name="x")["items"] == []
    assert len(admin.read(path, name="nope,y")["items"]) == 1
    assert [row[0] for row in rest.rows("SELECT action FROM audit WHERE subject = %s ORDER BY id", made["id"])] == [f"create_{kind.replace('-', '_')}", f"change_{kind.replace('-', '_')}"]
    twin = admin.send_json("POST", path, BODIES[kind] | {"name": "y"})
    assert (twin.status_code, twin.json()["code"]) == (409, "name_taken")
    assert admin.made(path, BODIES[kind])["name"] == "x"
    assert admin.send_json("PATCH", one, {"name": "x"}, headers=ANYTHING).json()["code"] == "name_taken"


@pytest.mark.parametrize("kind", BODIES)
def test_a_change_needs_the_version_that_was_read(admin: Client, kind: str) -> None:
    one = f"/v1/{kind}/{admin.made(f'/v1/{kind}', BODIES[kind])['id']}"
    assert [admin.send_json("PATCH", one, {"name": "y"}, headers=headers).status_code for headers in ({}, {"If-Match": '"2"'}, {"If-Match": 'W/"1"'}, {"If-Match": '"1"'})] == [428, 412, 412, 200]
    stale = admin.send_json("PATCH", one, {"name": "z"}, headers={"If-Match": '"1"'})
    assert (stale.json()["code"], stale.headers["etag"]) == ("precondition_failed", '"2"')
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: admin.send_json("PATCH", one, {"name": f"n{number}"}, headers={"If-Match": '"2"'}).status_code, range(8)))
    assert sorted(answers) == [200] + [412] * 7
    assert admin.read(one)["version"] == 3


@pytest.mark.parametrize("kind", [*BODIES, "application-deployments"])
def test_what_is_another_gateways_is_unknown(rest: Rest, admin: Client, kind: str) -> None:
    body = BODIES[kind] if kind in BODIES else deployment(admin)
    made = admin.made(f"/v1/{kind}", body)["id"]
    with rest.client(rest.gateway()) as other:
        unknown = other.send_json("GET", f"/v1/{kind}/{made[:4]}{'0' * 26}").json()
        tries = [other.send_json(method, f"/v1/{kind}/{made}", body, headers=ANYTHING) for method, body in (("GET", None), ("PATCH", {"name": "z"}))]
        tries += [admin.send_json("GET", f"/v1/{kind}/{bad}") for bad in ("x", made[:-1], made.upper(), f"usr_{made[4:]}", "%00", "é", "a" * 300)]
        assert {each.status_code for each in tries} == {404}
        assert all({**each.json(), "instance": 0, "trace_id": 0} == {**unknown, "instance": 0, "trace_id": 0} for each in tries)
        assert made not in other.get(f"/v1/{kind}?limit=200").text
        if kind in BODIES:
            other.made(f"/v1/{kind}", body)
    assert admin.read(f"/v1/{kind}/{made}")["version"] == 1


def test_references_to_what_is_another_gateways_are_unknown(rest: Rest, admin: Client) -> None:
    theirs = deployment(admin)
    credential = admin.made("/v1/credentials", {"name": "k", "source": "GENERATE"})["id"]
    with rest.client(rest.gateway()) as other:
        assert faults(other.send_json("POST", "/v1/application-deployments", theirs)) == {("/module_id", "unknown_reference"), ("/compute_resource_id", "unknown_reference")}
        assert faults(other.send_json("POST", "/v1/application-interfaces", {"name": "x", "module_ids": ["mod_1", theirs["module_id"]]})) == {("/module_ids/0", "unknown_reference"), ("/module_ids/1", "unknown_reference")}
        assert faults(other.send_json("POST", "/v1/compute-resources", {"name": "x", "host": "h", "access": {"credential_id": credential}})) == {("/access/credential_id", "unknown_reference")}
        assert faults(other.send_json("POST", "/v1/storage-resources", {"name": "x", "kind": "POSIX", "root": "/d", "credential_id": credential})) == {("/credential_id", "unknown_reference")}
        assert [other.read(f"/v1/{kind}")["items"] for kind in ("application-deployments", "application-interfaces", "compute-resources", "storage-resources")] == [[]] * 4


# ---- what may be said -------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["", "Capital", "../x", "-x", "a" * 64, "a\n", "a b", "a_b", "ä"])
@pytest.mark.parametrize("kind", BODIES)
def test_a_name_is_a_slug(admin: Client, kind: str, name: str) -> None:
    found = faults(admin.send_json("POST", f"/v1/{kind}", BODIES[kind] | {"name": name}))
    assert found <= {("/name", "bad_format"), ("/name", "too_long")}


@pytest.mark.parametrize("kind", BODIES)
def test_nobody_says_what_is_ours(admin: Client, kind: str) -> None:
    ours = {"state": "ENABLED", "owner": "eve", "gateway_id": "gw_1", "version": 7, "epoch": 1, "id": "x", "created_at": "2001-01-01T00:00:00Z"}
    for name, value in ours.items():
        assert faults(admin.send_json("POST", f"/v1/{kind}", BODIES[kind] | {name: value})) == {(f"/{name}", "unknown_field")}
    one = f"/v1/{kind}/{admin.made(f'/v1/{kind}', BODIES[kind])['id']}"
    mine = set(ours) - ({"state"} if kind == "compute-resources" else set())
    assert faults(admin.send_json("PATCH", one, {name: ours[name] for name in mine}, headers=ANYTHING)) == {(f"/{name}", "unknown_field") for name in mine}


@pytest.mark.parametrize(
    ("path", "said", "fault"),
    [
        ("application-modules", {"display_name": "x" * 201}, ("/display_name", "too_long")),
        ("application-modules", {"display_name": "x\n#SBATCH -A y"}, ("/display_name", "bad_format")),
        ("application-modules", {"display_name": "x\0"}, ("/display_name", "bad_format")),
        ("application-modules", {"display_name": "\x1b[2J"}, ("/display_name", "bad_format")),
        ("application-modules", {"display_name": "a\u202eb"}, ("/display_name", "bad_format")),
        ("application-modules", {"description": "x" * 4097}, ("/description", "too_long")),
        ("application-interfaces", {"inputs": [{"name": "a", "type": "STRING"}, {"name": "a", "type": "URI"}]}, ("", "duplicate")),
        ("application-interfaces", {"inputs": [{"name": f"a{n}", "type": "STRING"} for n in range(101)]}, ("/inputs", "too_many")),
        ("application-interfaces", {"inputs": [{"name": n, "type": "URI", "standard_input": True} for n in "ab"]}, ("", "conflicts_with")),
        ("application-interfaces", {"inputs": [{"name": "a", "type": "DATE"}]}, ("/inputs/0/type", "not_allowed")),
        ("application-interfaces", {"inputs": [{"name": "a b", "type": "URI"}]}, ("/inputs/0/name", "bad_format")),
        ("application-interfaces", {"inputs": [{"name": "a", "type": "URI", "override_filename": "../x"}]}, ("/inputs/0/override_filename", "unsafe_value")),
        ("application-interfaces", {"inputs": [{"name": "a", "type": "URI", "default": "file:///etc/passwd"}]}, ("/inputs/0/default", "unsafe_value")),
        ("application-interfaces", {"inputs": [{"name": "a", "type": "INTEGER", "default": "3"}]}, ("/inputs/0/default", "wrong_type")),
        ("application-interfaces", {"inputs": [{"name": "a", "type": "STRING", "default": "x", "choices": ["y"]}]}, ("/inputs/0/default", "not_allowed")),
        ("application-interfaces", {"planner": "quantum"}, ("/planner", "not_allowed")),
        ("application-interfaces", {"outputs": [{"name": "o", "type": "URI", "search_glob": "/etc/*"}]}, ("/outputs/0/search_glob", "unsafe_value")),
        ("application-interfaces", {"outputs": [{"name": "o", "type": "URI", "search_glob": "../*"}]}, ("/outputs/0/search_glob", "unsafe_value")),
        ("compute-resources", {"host_keys": ["garbage"]}, ("/host_keys/0", "bad_format")),
        ("compute-resources", {"host_keys": ["ssh-ed25519 AAAA"]}, ("/host_keys/0", "bad_format")),
        ("compute-resources", {"host_keys": ["ssh-dss AAAAB3NzaC1kc3M="]}, ("/host_keys/0", "not_allowed")),
        ("compute-resources", {"host_keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}, ("/host_keys/0", "not_allowed")),
        ("compute-resources", {"host_keys": [HOST_KEY] * 9}, ("/host_keys", "too_many")),
        ("compute-resources", {"port": 0}, ("/port", "out_of_range")),
        ("compute-resources", {"port": 65_536}, ("/port", "out_of_range")),
        ("compute-resources", {"host": "a;rm"}, ("/host", "bad_format")),
        ("compute-resources", {"host": "a b"}, ("/host", "bad_format")),
        ("compute-resources", {"host": "-oProxyCommand=x"}, ("/host", "bad_format")),
        ("compute-resources", {"job_manager": {"type": "SLURM"}}, ("/job_manager/type", "not_allowed")),
        ("compute-resources", {"file_systems": {"SCRATCH": "scratch"}}, ("/file_systems/SCRATCH", "unsafe_value")),
        ("compute-resources", {"access": {"login": "a; b"}}, ("/access/login", "bad_format")),
        ("compute-resources", {"queues": [{"name": "q", "max_cpus": -1}]}, ("/queues/0/max_cpus", "out_of_range")),
        ("compute-resources", {"queues": [{"name": "q", "max_cpus": 10**9}]}, ("/queues/0/max_cpus", "out_of_range")),
        ("compute-resources", {"queues": [{"name": "q"}, {"name": "q"}]}, ("", "duplicate")),
        ("compute-resources", {"queues": [{"name": f"q{n}"} for n in range(65)]}, ("/queues", "too_many")),
        ("compute-resources", {"limits": {"jobs": 9007199254740993}}, ("/limits/jobs", "out_of_range")),
        ("storage-resources", {"root": "data"}, ("/root", "unsafe_value")),
        ("storage-resources", {"root": "/data/../etc"}, ("/root", "unsafe_value")),
        ("storage-resources", {"kind": "S3"}, ("", "required")),
        ("storage-resources", {"kind": "FTP"}, ("/kind", "not_allowed")),
    ],
)  # fmt: skip
def test_what_is_said_wrongly_is_refused_at_its_place(admin: Client, path: str, said: dict[str, Any], fault: tuple[str, str]) -> None:
    assert fault in faults(admin.send_json("POST", f"/v1/{path}", dict(BODIES[path]) | said))
    assert [each for each in admin.read(f"/v1/{path}")["items"] if each["name"] != "default"] == []


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"executable_path": "bin/x"}, ("/executable_path", "unsafe_value")),
        ({"executable_path": "/a/../b"}, ("/executable_path", "unsafe_value")),
        ({"executable_path": "/a\nb"}, ("/executable_path", "unsafe_value")),
        ({"executable_path": "/a\0b"}, ("/executable_path", "unsafe_value")),
        ({"environment": {"LD_PRELOAD": "x"}}, ("/environment/LD_PRELOAD", "not_allowed")),
        ({"environment": {"BASH_ENV": "x"}}, ("/environment/BASH_ENV", "not_allowed")),
        ({"environment": {"A=B": "x"}}, ("/environment/A=B", "bad_format")),
        ({"environment": {"A": "x\0"}}, ("/environment/A", "bad_format")),
        ({"environment": {f"A{n}": "" for n in range(65)}}, ("/environment", "too_many")),
        ({"environment": {"A": "x" * 4097}}, ("/environment/A", "too_long")),
        ({"pre_job_commands": ["true"] * 33}, ("/pre_job_commands", "too_many")),
        ({"pre_job_commands": ["x" * 1025]}, ("/pre_job_commands/0", "too_long")),
        ({"library_paths": {"prepend": ["lib"]}}, ("/library_paths/prepend/0", "unsafe_value")),
        ({"defaults": {"queue": "night"}}, ("/defaults/queue", "unknown_reference")),
        ({"defaults": {"cpu_count": 0}}, ("/defaults/cpu_count", "out_of_range")),
    ],
)
def test_a_deployment_says_no_more_than_it_may(admin: Client, said: dict[str, Any], fault: tuple[str, str]) -> None:
    assert fault in faults(admin.send_json("POST", "/v1/application-deployments", deployment(admin) | said))
    assert admin.read("/v1/application-deployments")["items"] == []


def test_one_deployment_for_each_module_and_host(admin: Client, user: Client) -> None:
    body = deployment(admin)
    made = admin.made("/v1/application-deployments", body)
    assert "name" not in made
    assert admin.send_json("POST", "/v1/application-deployments", body).json()["code"] == "name_taken"
    changed = admin.send_json("PATCH", f"/v1/application-deployments/{made['id']}", {"environment": {"LC_ALL": "C"}, "defaults": {"queue": "debug"}}, headers=ANYTHING).json()
    assert (changed["environment"], changed["defaults"]["queue"], changed["version"]) == ({"LC_ALL": "C"}, "debug", 2)
    removed = admin.send_json("PATCH", f"/v1/application-deployments/{made['id']}", {"environment": {"LC_ALL": None, "TZ": "UTC"}, "defaults": None}, headers=ANYTHING).json()
    assert (removed["environment"], removed["defaults"]["queue"]) == ({"TZ": "UTC"}, None)
    refused = user.send_json("POST", "/v1/application-deployments", body)
    assert (refused.status_code, "catalogue:write" in refused.json()["detail"]) == (403, True)


# ---- places -----------------------------------------------------------------------------------------------------------------------------------------
def test_a_host_is_unverified_without_keys_and_a_suspended_one_needs_new_ones(rest: Rest, admin: Client) -> None:
    made = admin.made("/v1/compute-resources", {"name": "h", "host": "login1.example.org"})
    assert (made["state"], made["circuit"], made["last_contact_at"], made["limits"]["connections"]) == ("UNVERIFIED", {"state": "CLOSED", "since": None, "reason": None}, None, 4)
    one = f"/v1/compute-resources/{made['id']}"

    def patched(**body: Any) -> str:
        return str(admin.send_json("PATCH", one, body, headers=ANYTHING).json()["state"])

    assert patched(state="ENABLED") == "UNVERIFIED"
    assert patched(host_keys=[f"{HOST_KEY} comment"]) == "ENABLED"
    assert admin.read(one)["host_keys"] == [HOST_KEY]
    assert [patched(state=each) for each in ("DRAINING", "DISABLED", "ENABLED")] == ["DRAINING", "DISABLED", "ENABLED"]
    assert patched(aliases=["alias"]) == "ENABLED"
    assert faults(admin.send_json("PATCH", one, {"state": "SUSPENDED"}, headers=ANYTHING)) == {("/state", "not_allowed")}
    rest.write("UPDATE catalogue SET document = REPLACE(document, '\"ENABLED\"', '\"SUSPENDED\"') WHERE id = %s", made["id"])
    assert patched(state="ENABLED") == "SUSPENDED"
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIP7IQLJjMvGuPBLcUaDNJOxwuUqlSlMlXlqgsNjPwYyW"
    assert patched(host_keys=[other]) == "ENABLED"


def test_a_host_tells_whether_its_circuit_is_open(rest: Rest, admin: Client) -> None:
    made = [admin.made("/v1/compute-resources", {"name": name, "host": "localhost"})["id"] for name in ("well", "refusing")]
    with rest.unit("test.circuit") as tx:
        hosts.open_circuit(tx, compute_resource_id=made[1], credential_id="crd_1", condition="AUTH_REQUIRED", detail="publickey refused for demo", host_version=1)
    told = admin.read(f"/v1/compute-resources/{made[1]}")["circuit"]
    assert (told["state"], told["reason"], told["since"] is not None) == ("OPEN", "publickey refused for demo", True)
    assert {each["name"]: each["circuit"]["state"] for each in admin.read("/v1/compute-resources")["items"]} == {"well": "CLOSED", "refusing": "OPEN"}


def test_queues_are_resources_of_their_host(rest: Rest, admin: Client) -> None:
    body = deployment(admin, defaults={"queue": "debug"})
    host = f"/v1/compute-resources/{body['compute_resource_id']}"
    admin.made("/v1/application-deployments", body)
    put = admin.send_json("PUT", f"{host}/queues/long", {"max_wall_time_seconds": 3600, "max_cpus": 8})
    assert (put.status_code, put.headers["location"], put.headers["etag"], put.json()["max_cpus"]) == (201, f"{host}/queues/long", '"2"', 8)
    again = admin.send_json("PUT", f"{host}/queues/long", {"max_cpus": 4}, headers={"If-Match": '"2"'})
    assert (again.status_code, again.json()["max_wall_time_seconds"], again.headers["etag"]) == (200, None, '"3"')
    assert admin.read(f"{host}/queues/long") == again.json()
    assert [each["name"] for each in admin.read(host)["queues"]] == ["debug", "long"]
    assert admin.send_json("PUT", f"{host}/queues/long", {"max_cpus": 1}, headers={"If-Match": '"2"'}).status_code == 412
    assert faults(admin.send_json("PUT", f"{host}/queues/a b", {})) == {("/name", "bad_format")}
    assert faults(admin.send_json("PUT", f"{host}/queues/x", {"max_jobs": 0, "name": "y"})) == {("/max_jobs", "out_of_range"), ("/name", "unknown_field")}
    assert [admin.send_json("DELETE", f"{host}/queues/{name}", headers=headers).status_code for name, headers in (("long", {}), ("long", {"If-Match": '"1"'}), ("long", ANYTHING), ("long", ANYTHING))] == [428, 412, 204, 404]
    used = admin.send_json("DELETE", f"{host}/queues/debug", headers=ANYTHING)
    assert (used.status_code, used.json()["code"]) == (409, "in_use")
    with rest.client(rest.gateway()) as other:
        assert {other.send_json(method, f"{host}/queues/debug", body, headers=ANYTHING).status_code for method, body in (("GET", None), ("PUT", {}), ("DELETE", None))} == {404}
    for number in range(63):
        admin.send_json("PUT", f"{host}/queues/q{number}", {})
    assert faults(admin.send_json("PUT", f"{host}/queues/more", {})) == {("", "too_many")}


def test_queues_put_at_once_are_all_kept(admin: Client) -> None:
    host = f"/v1/compute-resources/{admin.made('/v1/compute-resources', {'name': 'h', 'host': 'localhost'})['id']}"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: admin.send_json("PUT", f"{host}/queues/q{number}", {}).status_code, range(8)))
    assert answers == [201] * 8
    read = admin.read(host)
    assert (sorted(each["name"] for each in read["queues"]), read["version"]) == ([f"q{number}" for number in range(8)], 9)


def test_storages_of_both_kinds(admin: Client) -> None:
    s3 = admin.made("/v1/storage-resources", {"name": "s3", "kind": "S3", "endpoint": "http://127.0.0.1:9000", "bucket": "data", "prefix": "a/b"})
    assert (s3["bucket"], s3["prefix"], s3["root"]) == ("data", "a/b", None)
    assert admin.made("/v1/storage-resources", {"name": "posix", "kind": "POSIX", "root": "/data"})["root"] == "/data"


def test_a_posix_storage_lies_where_its_gateway_may_have_one(rest: Rest, admin: Client, gateway_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest.services, "posix_roots", ("/mnt/all", "/data/{gateway}"))
    for root in ("/", "/etc", "/mnt/allied", f"/data/{rest.gateway()}", "/data"):
        assert faults(admin.send_json("POST", "/v1/storage-resources", {"name": "s", "kind": "POSIX", "root": root})) == {("/root", "not_allowed")}
    made = [admin.made("/v1/storage-resources", {"name": f"s{n}", "kind": "POSIX", "root": root}) for n, root in enumerate(("/mnt/all", f"/data/{gateway_id}/in"))]
    assert faults(admin.send_json("PATCH", f"/v1/storage-resources/{made[0]['id']}", {"root": "/etc"}, headers=ANYTHING)) == {("/root", "not_allowed")}


# ---- projects and lists -----------------------------------------------------------------------------------------------------------------------------
def test_a_project_goes_when_nothing_in_it_lives(admin: Client, user: Client) -> None:
    shape = admin.made("/v1/application-interfaces", {"name": "shape", "planner": "shape", "inputs": [{"name": "edges", "type": "STRING"}]})["id"]
    busy, idle = (admin.made("/v1/projects", {"name": name})["id"] for name in ("busy", "idle"))
    for project, launch in ((busy, True), (idle, False)):
        admin.made("/v1/experiments", {"name": "e", "project_id": project, "application_interface_id": shape, "inputs": {"edges": "a"}, "launch": launch})
    assert admin.send_json("DELETE", f"/v1/projects/{idle}").status_code == 428
    assert admin.send_json("DELETE", f"/v1/projects/{busy}", headers=ANYTHING).json()["code"] == "in_use"
    assert admin.send_json("DELETE", f"/v1/projects/{idle}", headers={"If-Match": '"1"'}).status_code == 204
    assert admin.send_json("DELETE", f"/v1/projects/{idle}", headers=ANYTHING).status_code == 404
    assert {each["name"] for each in admin.read("/v1/projects")["items"]} == {"default", "busy"}
    assert user.made("/v1/projects", {"name": "idle"})["id"] != idle


@pytest.mark.parametrize("order", ["-created_at", "created_at", "updated_at", "name"])
def test_a_list_is_read_in_pages_without_gap_or_repeat(rest: Rest, admin: Client, gateway_id: str, order: str) -> None:
    for name in ("e", "b", "d", "a", "c"):
        admin.made("/v1/application-modules", {"name": name})
    if order != "name":  # Equal times: the id breaks the tie.
        rest.write("UPDATE catalogue SET created_at = '2026-01-01', updated_at = '2026-01-01' WHERE gateway_id = %s AND name IN ('a', 'b', 'c')", gateway_id)
    whole = [each["id"] for each in admin.read("/v1/application-modules", sort=order)["items"]]
    answer, seen = admin.send_json("GET", "/v1/application-modules", limit=2, sort=order), list[str]()
    for page in range(3):
        seen += [each["id"] for each in answer.json()["items"]]
        assert ("next_cursor" in answer.json()) == ("link" in answer.headers) == (page < 2)
        if page < 2:
            answer = admin.get(answer.headers["link"][1:].partition(">")[0])
    assert seen == whole
    assert len(set(seen)) == 5
    if order == "name":
        assert [each["name"] for each in admin.read("/v1/application-modules", sort=order)["items"]] == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=abc", "limit=1&limit=2", "sort=secret", "kind=x", "count=true", "name=", "cursor="])
def test_an_unreadable_parameter_is_named(admin: Client, query: str) -> None:
    answer = admin.get(f"/v1/application-modules?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_parameter")
    assert query.split("=")[0] in answer.json()["detail"]


def test_a_cursor_serves_its_own_list_only(rest: Rest, admin: Client) -> None:
    for kind in ("application-modules", "projects"):
        for name in ("p", "q"):
            admin.made(f"/v1/{kind}", {"name": name})
    cursor = admin.read("/v1/application-modules", limit=1)["next_cursor"]
    with rest.client(rest.gateway()) as other:
        tries = [
            admin.send_json("GET", "/v1/application-modules", cursor=cursor, sort="name"), admin.send_json("GET", "/v1/application-modules", cursor=cursor, name="p"),
            admin.send_json("GET", "/v1/projects", cursor=cursor), admin.send_json("GET", "/v1/application-modules", cursor=cursor[:-4] + "AAAA"),
            other.send_json("GET", "/v1/application-modules", cursor=cursor),
        ]  # fmt: skip
    assert [(each.status_code, each.json()["code"]) for each in tries] == [(400, "invalid_cursor")] * 5
    assert len(admin.read("/v1/application-modules", cursor=cursor, limit=7)["items"]) == 1
