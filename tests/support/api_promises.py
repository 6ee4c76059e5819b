"""What an OpenAPI document promises to clients, a line each, and which promises a later document breaks: `python -m tests.support.api_promises > tests/unit/golden/<release>/api.txt`.

`GET /v1/x answers 200/items/[]/id` · `POST /v1/x takes body/name: string` · `POST /v1/x wants body/name` (it is refused without). Kinds of answers and bounds of what is taken are not told.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]


def promises(document: Schema) -> set[str]:
    schemas = document["components"]["schemas"]
    return {f"{method.upper()} {path} {line}" for path, operations in document["paths"].items() for method, told in operations.items() for line in _operation(told, schemas)}


def broken(before: set[str], after: set[str]) -> list[str]:
    """What is gone; and what must be sent now, of which nothing was said: in an operation, or a part of its body, that was there before."""
    known = {" ".join(each.split(" ")[:2]) for each in before} | {each.partition(": ")[0] for each in before}
    wanted = [each for each in after - before if " wants " in each and _whole(each) in known]
    return sorted([*(f"gone: {each}" for each in before - after if " wants " not in each), *(f"now wanted: {each}" for each in wanted)])


def _whole(line: str) -> str:
    """Of what a wanted field is a part."""
    operation, _, field = line.partition(" wants ")
    return f"{operation} takes {field.rpartition('/')[0]}" if "/" in field else operation


def _operation(told: Schema, schemas: Schema) -> Iterator[str]:
    yield "is there"
    for each in told.get("parameters", ()):
        yield from _fields(each["schema"], f"{each['in']}.{each['name']}", schemas, required=each["required"])
    for kind, content in told.get("requestBody", {}).get("content", {}).items():
        yield f"takes {kind}"
        yield from _fields(content["schema"], "body", schemas, required=told["requestBody"]["required"])
    for status, answer in ((status, answer) for status, answer in told["responses"].items() if status < "400"):
        yield f"answers {status}"
        for content in answer.get("content", {}).values():
            yield from (line.partition(": ")[0].replace("takes ", "answers ", 1) for line in _fields(content["schema"], status, schemas) if line.startswith("takes "))


def _fields(schema: Schema, at: str, schemas: Schema, *, required: bool = False, within: tuple[str, ...] = ()) -> Iterator[str]:
    if required:
        yield f"wants {at}"
    if (name := schema.get("$ref", "").rpartition("/")[2]) and name not in within:
        yield from _fields(schemas[name], at, schemas, within=(*within, name))
    for each in schema.get("anyOf", ()):
        yield from _fields(each, at, schemas, within=within)
    kinds = schema.get("enum") or [schema.get("const", schema.get("type", "any"))]
    yield from (f"takes {at}: {kind}" for kind in kinds if not {"$ref", "anyOf"} & set(schema))
    for name, each in schema.get("properties", {}).items():
        yield from _fields(each, f"{at}/{name}", schemas, required=name in schema.get("required", ()), within=within)
    for part, sign in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(part), Mapping):
            yield from _fields(schema[part], f"{at}/{sign}", schemas, within=within)


if __name__ == "__main__":
    from app.api.openapi import generate

    print("\n".join(sorted(promises(generate()))))
