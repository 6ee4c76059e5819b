"""The OpenAPI 3.1 document, generated from the operations: `python -m app.api.openapi > docs/openapi.json`. A test compares the two, another fuzzes the server with it.

Bodies come from the pydantic models; answers are described by their shapes: what always stands in them, open for additions within /v1.
"""

import json
import sys
from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema

from app.api.operations import Operation
from app.api.problems import CODES

SCOPES = "A bearer token: airv_<12>_<52>"
ALWAYS = ("route_not_found", "not_acceptable", "internal", "unavailable", "overloaded", "outcome_unknown", "uri_too_long", "headers_too_large", "invalid_parameter", "request_timeout", "method_not_allowed")
WITH_TOKEN = {"unauthenticated", "forbidden", "gateway_inactive", "rate_limited"}
WITH_BODY = {"malformed_json", "body_too_large", "unsupported_media_type", "unsupported_encoding", "validation_failed"}
WITH_KEY = {"invalid_header", "idempotency_key_reused", "idempotency_in_flight"}
SHAPES: dict[str, tuple[str, ...]] = {  # What always stands in an answer.
    "Me": ("gateway_id", "user", "role", "scopes", "expires_at", "limits"),
    "Gateway": ("id", "name", "state", "version", "created_at", "updated_at"),
    "Token": ("id", "name", "user", "role", "scopes", "expires_at", "revoked_at", "created_at", "secret"),
    "Credential": ("id", "name", "kind", "owner", "public_key", "fingerprint", "version", "created_at"),
    "Project": ("id", "name", "description", "version", "created_at", "updated_at"),
    "ApplicationModule": ("id", "name", "version", "created_at", "updated_at"),
    "ApplicationInterface": ("id", "name", "planner", "inputs", "outputs", "version", "created_at", "updated_at"),
    "ApplicationDeployment": ("id", "module_id", "compute_resource_id", "executable_path", "version", "created_at", "updated_at"),
    "ComputeResource": ("id", "name", "host", "port", "state", "host_keys", "queues", "version", "created_at", "updated_at"),
    "StorageResource": ("id", "name", "kind", "version", "created_at", "updated_at"),
    "Queue": ("name", "is_default"),
    "Experiment": ("id", "name", "state", "outcome", "terminal", "inputs", "outputs", "process_id", "version", "created_at", "updated_at"),
    "Launch": ("experiment_id", "process_id", "state", "launched_at", "version"),
    "Status": ("id", "state", "outcome", "conditions", "version", "terminal", "poll_after_seconds"),
    "Process": ("id", "experiment_id", "state", "phase", "outcome", "version"),
    "Graph": ("process_id", "state", "nodes", "edges"),
    "Task": ("id", "process_id", "name", "type", "state", "attempt", "version"),
    "Attempt": ("id", "task_id", "number", "state", "epoch", "owner"),
    "Job": ("id", "attempt_id", "name", "state", "scheduler_job_id", "exit_code"),
    "Explanation": ("subject", "state", "verdict", "summary", "as_of", "version", "failure", "causes"),
    "Trace": ("experiment_id", "state", "trace_id", "as_of", "root"),
    "Outbox": ("rows", "oldest_age_seconds", "topics"),
    "Consumers": ("instances", "groups"),
    "DeadLetter": ("id", "consumer_group", "topic", "error_class", "error_text", "tries", "settled"),
    "Positions": ("partitions",), "Stored": ("slices",), "Health": ("status",), "Version": ("version", "api"), "OpenApi": ("openapi", "paths"),
    "ProblemPage": ("code", "status", "retriable", "title"), "Output": ("name", "type", "state"), "Event": ("seq", "id", "type", "occurred_at", "experiment_id"),
}  # fmt: skip
FAULT = {
    "type": "object", "required": ["pointer", "code", "detail", "limit"],
    "properties": {"pointer": {"type": "string"}, "code": {"type": "string"}, "detail": {"type": "string"}, "limit": {}},
}  # fmt: skip
PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail", "retriable", "instance", "trace_id", "errors"],
    "properties": {
        "type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"}, "code": {"type": "string", "enum": sorted(CODES)}, "detail": {"type": "string"},
        "retriable": {"type": "boolean"}, "instance": {"type": "string"}, "trace_id": {"type": ["string", "null"]}, "errors": {"type": "array", "items": FAULT},
    },
}  # fmt: skip


@cache
def generate() -> dict[str, Any]:
    """The public face."""
    from app import VERSION
    from app.api.resources import PUBLIC

    models = list({each.body for each in PUBLIC if each.body is not None})
    _, definitions = models_json_schema([(each, "validation") for each in sorted(models, key=lambda each: each.__name__)], ref_template="#/components/schemas/{model}Body")
    schemas = {f"{name}Body": schema for name, schema in definitions.get("$defs", {}).items()}
    paths: dict[str, Any] = {}
    for operation in PUBLIC:
        paths.setdefault(operation.path, {})[operation.method.lower()] = describe(operation)
    for name in sorted({each.shape for each in PUBLIC if each.shape}):
        schemas[name] = shape(name)
    for name in ("Output", "Event"):
        schemas[name] = shape(name)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Airavata Workflow", "version": VERSION, "description": "Launch experiments of science gateways on remote hosts, and watch them."},
        "paths": paths,
        "components": {"schemas": {**dict(sorted(schemas.items())), "Problem": PROBLEM}, "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": SCOPES}}},
    }


def shape(name: str) -> dict[str, Any]:
    if name.endswith("List"):
        of = name.removesuffix("List")
        item = {"$ref": f"#/components/schemas/{of}"} if of in SHAPES and of not in {"Experiment"} else {"type": "object"}
        return {"type": "object", "required": ["items"], "properties": {"items": {"type": "array", "items": item}, "next_cursor": {"type": "string"}}}
    return {"type": "object", "required": list(SHAPES[name]), "properties": {field: {} for field in SHAPES[name]}}


def describe(operation: Operation) -> dict[str, Any]:
    """One operation with every answer it may give."""
    told: dict[str, Any] = {"operationId": operation.id, "summary": operation.summary, "responses": answers(operation)}
    parameters = [{"name": each, "in": "path", "required": True, "schema": {"type": "string"}} for each in _path_names(operation.path)]
    parameters += [{"name": each.name, "in": "query", "required": False, "schema": dict(each.schema)} for each in operation.parameters]
    if operation.key:
        schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
        parameters.append({"name": "Idempotency-Key", "in": "header", "required": operation.key == "must", "schema": schema})
    if operation.match:
        parameters.append({"name": "If-Match", "in": "header", "required": False, "schema": {"type": "string"}})
    if parameters:
        told["parameters"] = parameters
    if operation.body is not None:
        reference = {"$ref": f"#/components/schemas/{operation.body.__name__}Body"} if operation.method != "PATCH" else {"type": "object"}
        content = {"application/json": {"schema": reference}} | ({"application/merge-patch+json": {"schema": reference}} if operation.method == "PATCH" else {})
        told["requestBody"] = {"required": True, "content": content}
    if not operation.public:
        told["security"] = [{"bearer": []}]
        told["description"] = f"Scope: {operation.scope or 'any'}."
    return told


def answers(operation: Operation) -> dict[str, Any]:
    codes = {*ALWAYS, *operation.errors}
    for applies, more in (
        (not operation.public, WITH_TOKEN),
        (operation.body is not None, WITH_BODY),
        (operation.key != "", WITH_KEY),
        (operation.key in {"must", "launch"}, {"idempotency_key_missing"}),
        (operation.match, {"precondition_failed", "precondition_required"}),
        ("{" in operation.path, {"not_found"}),
        ({each.name for each in operation.parameters} >= {"cursor"}, {"invalid_cursor"}),
        (operation.waits, {"too_many_streams"}),
    ):
        codes |= more if applies else set()
    told: dict[str, Any] = {}
    for status in (operation.status, *operation.also):
        schema = {"$ref": f"#/components/schemas/{operation.shape}"} if operation.shape else {"type": "string"}
        has_body = status not in {204, 304}
        told[str(status)] = {"description": "OK"} | ({"content": {operation.content: {"schema": schema}}} if has_body else {})
    for status in sorted({CODES[code][0] for code in codes}):
        names = ", ".join(sorted(code for code in codes if CODES[code][0] == status))
        told[str(status)] = {"description": names, "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    return told


def _path_names(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


if __name__ == "__main__":
    json.dump(generate(), sys.stdout, indent=1, sort_keys=False)
    sys.stdout.write("\n")
