"""What needs neither token nor store: liveness, readiness, version, the OpenAPI document, the pages of the problem codes."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from app import VERSION
from app.api.operations import Answer, Call, Operation
from app.api.problems import CODES, Problem, or_404


def _livez(call: Call) -> Answer:
    """The loop that answers this turned, and so did the main one with its thread; MySQL is never asked."""
    if stuck := call.services.stuck():
        raise Problem("unavailable", stuck)
    return Answer({"status": "alive"})


def _readyz(call: Call) -> Answer:
    missing = "draining" if call.services.draining() else call.services.ready()
    if missing:
        raise Problem("unavailable", missing)
    return Answer({"status": "ready"})


def _version(_call: Call) -> Answer:
    return Answer({"version": VERSION, "api": "v1"})


@cache
def document() -> dict[str, Any]:
    """docs/openapi.json as committed; made anew where it is not shipped."""
    path = Path(__file__).parents[2] / "docs" / "openapi.json"
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    from app.api.openapi import generate

    return generate()


def _openapi(_call: Call) -> Answer:
    return Answer(document())


def _problem(call: Call) -> Answer:
    code = call.path["code"]
    status, retriable, title = or_404(CODES.get(code))
    return Answer({"code": code, "status": status, "retriable": retriable, "title": title})


OPERATIONS = (
    Operation("GET", "/livez", "livez", "Alive", _livez, shape="Health", public=True),
    Operation("GET", "/readyz", "readyz", "Ready to serve", _readyz, shape="Health", public=True),
    Operation("GET", "/version", "version", "Version", _version, shape="Version", public=True),
    Operation("GET", "/openapi.json", "openapi", "This document", _openapi, shape="OpenApi", public=True),
    Operation("GET", "/problems/{code}", "get_problem", "What a problem code means", _problem, shape="ProblemPage", public=True),
)
