"""The committed OpenAPI document is the one the operations give, and it is valid."""

import json
import re
from pathlib import Path

from openapi_spec_validator import OpenAPIV31SpecValidator

from app.api import problems, resources
from app.api.openapi import SHAPES, generate
from app.mysql.access import ROLES, SCOPES

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"


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
