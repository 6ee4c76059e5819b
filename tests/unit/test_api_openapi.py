"""The committed OpenAPI document is the one the operations give, and it is valid."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from app import VERSION
from app.api import problems, resources
from app.api.openapi import SHAPES, generate
from app.mysql.access import ROLES, SCOPES
from tests.support.api_promises import broken, promises

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"
TODAY = json.loads(COMMITTED.read_text())
CHANGELOG = Path(__file__).parents[2] / "CHANGELOG.md"
GOLDEN = Path(__file__).parent / "golden"


def test_the_committed_document_is_the_generated_one() -> None:
    assert json.loads(COMMITTED.read_text()) == json.loads(json.dumps(generate())), "run: python -m app.api.openapi > docs/openapi.json"


def test_it_is_valid_openapi_3_1() -> None:
    OpenAPIV31SpecValidator(generate()).validate()


def test_each_operation_has_one_path_one_id_and_known_codes() -> None:
    for operations in (resources.PUBLIC, resources.INTERNAL):
        assert len({(each.method, each.path) for each in operations}) == len({each.id for each in operations}) == len(operations)
        for each in operations:
            assert set(each.errors) <= set(problems.CODES)
            assert not each.scope or each.scope in SCOPES
            assert each.public or each.scope or each.id == "get_me"
            assert not each.path.endswith("/")


def test_a_change_of_what_others_may_have_read_needs_if_match() -> None:
    exempt = {"delete_tokens"}  # Revoking must never wait for a version.
    assert {each.id for each in resources.PUBLIC if each.method in {"PATCH", "DELETE"} and not each.match} == exempt


def test_the_faces_share_probes_only() -> None:
    shared = {each.path for each in resources.PUBLIC} & {each.path for each in resources.INTERNAL}
    assert shared == {"/livez", "/readyz"}
    assert all(each.scope == "internal:events" for each in resources.INTERNAL if not each.public)


def test_every_answer_has_a_shape_of_its_own() -> None:
    document = generate()
    for each in resources.PUBLIC:
        assert not each.shape or each.shape.endswith("List") or each.shape in SHAPES
        described = document["paths"][each.path][each.method.lower()]
        assert str(each.status) in described["responses"]
        assert set(re.findall(r"{(\w+)}", each.path)) == {one["name"] for one in described.get("parameters", ()) if one["in"] == "path"}


def test_every_scope_belongs_to_a_role() -> None:
    assert set(SCOPES) == {scope for scopes in ROLES.values() for scope in scopes}


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*/api.txt")), ids=lambda each: each.parent.name)
def test_what_a_release_promised_to_clients_is_kept(file: Path) -> None:
    """Within /v1 fields, parameters and operations are added only; a release writes down its own when it goes out (CONTRIBUTING.md)."""
    assert broken(set(file.read_text().splitlines()), promises(TODAY)) == []


def test_a_release_that_goes_out_writes_down_all_it_promises() -> None:
    """The commit that names its version in the CHANGELOG; what comes after it belongs to a version of its own."""
    if f"## [{VERSION}]" in CHANGELOG.read_text():
        assert set((GOLDEN / VERSION.rpartition(".")[0] / "api.txt").read_text().splitlines()) == promises(TODAY), "run what tests/support/api_promises.py says"


CREATE = "POST /v1/experiments"


def _body(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"]["ExperimentBody"]
    return found


def _limit(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(each["schema"] for each in document["paths"]["/v1/experiments"]["get"]["parameters"] if each["name"] == "limit")
    return found


def _answer(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["paths"]["/v1/experiments"]["post"]["responses"]["201"]["content"]
    return found


def _listed(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"]["ProjectList"]["properties"]["items"]
    return found


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda d: d["paths"].pop("/v1/projects"), "gone: GET /v1/projects is there"),
        (lambda d: d["paths"]["/v1/experiments"].pop("post"), f"gone: {CREATE} is there"),
        (lambda d: d["paths"]["/v1/experiments"]["get"]["parameters"].pop(), "gone: GET /v1/experiments takes query."),
        (lambda d: d["paths"]["/v1/experiments"]["post"]["parameters"][0].update(required=True), f"now wanted: {CREATE} wants header.Idempotency-Key"),
        (lambda d: _body(d)["properties"].pop("labels"), f"gone: {CREATE} takes body/labels"),
        (lambda d: _body(d)["required"].append("description"), f"now wanted: {CREATE} wants body/description"),
        (lambda d: _body(d)["properties"]["description"].update(type="integer"), f"gone: {CREATE} takes body/description: string"),
        (lambda d: _body(d)["properties"]["cleanup_strategy"]["enum"].remove("ALWAYS"), f"gone: {CREATE} takes body/cleanup_strategy: ALWAYS"),
        (lambda d: d["components"]["schemas"]["Experiment"]["properties"].pop("outcome"), f"gone: {CREATE} answers 201/outcome"),
        (lambda d: _body(d)["properties"]["name"].update(maxLength=199), f"closer: {CREATE} takes body/name within maxLength=199"),
        (lambda d: _body(d)["properties"]["name"].update(minLength=2), f"closer: {CREATE} takes body/name within minLength=2"),
        (lambda d: _body(d)["properties"]["name"].update(pattern="^x"), f"closer: {CREATE} takes body/name within pattern=^x"),
        (lambda d: _body(d)["properties"]["inputs"].update(maxProperties=7), f"closer: {CREATE} takes body/inputs within maxProperties=7"),
        (lambda d: _limit(d).update(maximum=100), "closer: GET /v1/experiments takes query.limit within maximum=100"),
        (lambda d: _answer(d).update({"text/plain": _answer(d).pop("application/json")}), f"gone: {CREATE} answers 201 as application/json"),
        (lambda d: _listed(d).update(type="string"), "now also: GET /v1/projects gives 200/items: string"),
        (lambda d: _listed(d).pop("type"), "now also: GET /v1/projects gives 200/items: any"),
        (lambda d: d["paths"]["/v1/projects"]["get"].update(requestBody={"required": True, "content": {"application/json": {"schema": {}}}}), "now wanted: GET /v1/projects wants body"),
    ],
)
def test_a_change_that_breaks_a_client_is_told(edit: Callable[[dict[str, Any]], object], told: str) -> None:
    document = copy.deepcopy(TODAY)
    edit(document)
    assert [each for each in broken(promises(TODAY), promises(document)) if each.startswith(told)]


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d["paths"].update({"/v1/new": {"post": d["paths"]["/v1/experiments"]["post"]}}),
        lambda d: _body(d)["properties"].update(colour={"type": "object", "required": ["hue"], "properties": {"hue": {"type": "string"}}}),
        lambda d: _body(d)["properties"]["cleanup_strategy"]["enum"].append("LATER"),
        lambda d: _body(d)["required"].remove("name"),
        lambda d: _body(d)["properties"]["name"].update(maxLength=201),
        lambda d: _body(d)["properties"]["name"].pop("minLength"),
        lambda d: _body(d)["properties"].update(colour={"type": "string", "maxLength": 3}),
        lambda d: _limit(d).update(maximum=1000, minimum=0),
        lambda d: d["components"]["schemas"]["Experiment"]["properties"].update(colour={"type": "string"}),
        lambda d: d["components"]["schemas"]["Experiment"]["properties"]["state"].update(type="string"),
    ],
)
def test_a_change_that_only_adds_is_no_breach(edit: Callable[[dict[str, Any]], object]) -> None:
    document = copy.deepcopy(TODAY)
    edit(document)
    assert broken(promises(TODAY), promises(document)) == []
