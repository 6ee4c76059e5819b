"""What a chaos run plants and measures: two tenants' canaries, its own secrets, caps that follow from what is shipped; and that its plans require what rests on them."""

import json
import os
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import yaml

from app import secrets
from tests.chaos import bounds, every_point, headline, random_run, tenants, workload
from tests.chaos.client import ANSWER_CHARACTERS, ROADS, Client
from tests.chaos.lines import Lines, read
from tests.chaos.rig import Rig

ROOT = Path(__file__).parents[2]
PLANS = {"points": every_point.draw(7), "headline": headline.draw(7), "random": random_run.draw(7, seconds=40.0)}


def a_client(tmp_path: Path, answer: httpx2.Response) -> Client:
    client = Client(["http://127.0.0.1:1", "http://127.0.0.1:2"], "airv_012345678901_" + "a" * 52, tenant="gw_a", lines=Lines(tmp_path / "client.jsonl", "client"))
    client._local.http = httpx2.Client(transport=httpx2.MockTransport(lambda _: answer))
    return client


# ---- answers ------------------------------------------------------------------------------------------------------------------------------------------
def test_an_answer_is_kept_up_to_its_bound(tmp_path: Path) -> None:
    a_client(tmp_path, httpx2.Response(200, json={"id": "exp_1", "name": "x" * 2 * ANSWER_CHARACTERS})).look("exp_1")
    _, answered = read(tmp_path / "client.jsonl")
    assert answered["answer_text"].startswith('{"id":"exp_1","name":"xxx')
    assert len(answered["answer_text"]) == ANSWER_CHARACTERS


def test_the_answer_that_shows_a_new_token_is_not_kept(tmp_path: Path) -> None:
    assert a_client(tmp_path, httpx2.Response(201, json={"id": "tok_1", "secret": "airv_x_hidden"})).post("/tokens", {})["secret"]
    assert "hidden" not in (tmp_path / "client.jsonl").read_text()


def test_who_trespasses_tells_beforehand_that_nothing_may_be_found_on_any_road(tmp_path: Path) -> None:
    refused = httpx2.Response(404, json={"code": "not_found"}, headers={"content-type": "application/problem+json"})
    a_client(tmp_path, refused).trespass("exp_1")
    lines = read(tmp_path / "client.jsonl")
    assert [each["expect"] for each in lines if each["kind"] == "op.invoke"] == [{"status": [404], "code": "not_found"}] * len(ROADS)
    assert {(each["outcome"], each["code"], "answer_text" in each) for each in lines if each["kind"] == "op.return"} == {("refused", "not_found", True)}


# ---- canaries -----------------------------------------------------------------------------------------------------------------------------------------
def test_a_launch_bears_its_tenants_canary_where_it_travels_on(tmp_path: Path) -> None:
    tenant = tenants.Tenant(a_client(tmp_path, httpx2.Response(200)), "ifc_shape", "canary-1")
    made = tenant.marked({"name": "e1", "application_interface_id": "ifc_shape", "inputs": {"edges": "a>b"}})
    assert (made["name"], made["labels"], made["inputs"]) == ("e1 canary-1", {"canary": "canary-1"}, {"edges": "a>b", "note": "canary-1"})
    assert tenant.marked({"name": "e1", "application_interface_id": "ifc_effect", "inputs": {"seed": "s"}})["inputs"] == {"seed": "s"}


def test_at_the_end_each_tenant_looks_at_its_own_and_asks_for_the_others() -> None:
    asked = []

    def a_tenant(name: str) -> Any:
        client = SimpleNamespace(look=lambda experiment="": asked.append((name, "looks at", experiment)), trespass=lambda experiment: asked.append((name, "asks for", experiment)))
        return SimpleNamespace(client=client)

    rig: Any = Rig.__new__(Rig)
    rig.tenants = {each: a_tenant(each) for each in (workload.LAB, workload.NEIGHBOUR)}
    rig.visit({"exp_1": {}, "exp_2": {"tenant": workload.NEIGHBOUR}})
    assert asked == [
        ("lab", "looks at", ""), ("lab", "looks at", "exp_1"), ("neighbour", "asks for", "exp_1"), ("neighbour", "looks at", ""), ("neighbour", "looks at", "exp_2"), ("lab", "asks for", "exp_2"),
    ]  # fmt: skip


@pytest.mark.parametrize("launches", [workload.eight(Random(3), 3, 0), workload.headline(3, 0), workload.draw(3, count=40, seconds=10)["launches"]])
def test_the_neighbour_launches_what_needs_no_host_and_both_launch_something(launches: list[dict[str, Any]]) -> None:
    assert {each["tenant"] for each in launches} == {workload.LAB, workload.NEIGHBOUR}
    assert all(each["application"] == "shape" for each in launches if each["tenant"] == workload.NEIGHBOUR)


# ---- secrets ------------------------------------------------------------------------------------------------------------------------------------------
def test_the_secrets_of_a_run_are_those_it_really_has_without_what_anybody_may_see(tmp_path: Path) -> None:
    master = os.urandom(32)
    for name, text in {"internal-token": "airv_lookupinside_" + "i" * 52, "master-key": master.hex(), "token-key": "k" * 64}.items():
        (tmp_path / name).write_text(text)
    key = secrets.generate_ssh_key("a key")
    held = {"crd_1": ("SSH_KEY", key.private), "crd_2": ("S3_KEY", b"public-id:planted")}
    rows = [(each, "gw_a", kind, secrets.seal(secret, master=master, gateway_id="gw_a", credential_id=each)) for each, (kind, secret) in held.items()]
    found = tenants.secrets_of(tmp_path, ["airv_lookupofours_" + "t" * 52], "password", lambda _: rows)
    lines = key.private.decode().splitlines()
    assert found == ["t" * 52, "i" * 52, master.hex(), "k" * 64, "password", lines[3], lines[4], "planted"]
    assert lines[4] not in secrets.generate_ssh_key("a key").private.decode()


# ---- bounds -------------------------------------------------------------------------------------------------------------------------------------------
def test_no_process_may_come_to_the_smallest_memory_limit_that_is_shipped() -> None:
    limits = [
        container["resources"]["limits"]["memory"]
        for path in (ROOT / "k8s/base").glob("*/deployment.yaml") for each in yaml.safe_load_all(path.read_text()) if each["kind"] == "Deployment"
        for container in each["spec"]["template"]["spec"]["containers"]
    ]  # fmt: skip
    units = {"Mi": bounds.MIB, "Gi": 1024 * bounds.MIB}
    assert bounds.CAPS["rss_bytes"] == min(int(each[:-2]) * units[each[-2:]] for each in limits)


@pytest.mark.parametrize("lane", PLANS)
def test_a_plan_requires_what_is_seen_from_outside_and_survives_being_kept(lane: str) -> None:
    plan = json.loads(json.dumps(PLANS[lane]))
    assert {name: plan["required"][name] for name in bounds.REQUIRED} == bounds.REQUIRED
    assert plan["caps"] == (bounds.CAPS_OF_RANDOM_RUNS if lane == "random" else bounds.CAPS)
