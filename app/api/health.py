"""What needs neither token nor store: liveness, readiness, version, the OpenAPI document, the pages of the problem codes."""

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


def _openapi(_call: Call) -> Answer:
    from app.api.openapi import generate  # Of all operations, these here too.

    return Answer(generate())


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
