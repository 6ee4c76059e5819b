"""What an OpenAPI document promises to clients, a line each, and which promises a later document breaks: `python -m tests.support.api_promises > tests/unit/golden/<release>/api.txt`.

`GET /v1/x answers 200/items/[]/id` · `… answers 200 as application/json` · `… gives 200/id: string` (where its kind is told) · `POST /v1/x takes body/name: string` · `… takes body/name within maxLength=63` ·
`… wants body/name` (it is refused without).
"""

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
LOWER, UPPER = ("minimum", "exclusiveMinimum", "minLength", "minItems"), ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


def promises(document: Schema) -> set[str]:
    schemas = document["components"]["schemas"]
    return {f"{method.upper()} {path} {line}" for path, operations in document["paths"].items() for method, told in operations.items() for line in _operation(told, schemas)}


def broken(before: set[str], after: set[str]) -> list[str]:
    """What is gone; what must be sent now, of which nothing was said; what is taken within closer bounds, and given in more kinds: in an operation, or a part of it, that was there before."""
    known = {" ".join(each.split(" ")[:2]) for each in before} | {each.partition(": ")[0] for each in before}
    wanted = [each for each in after - before if " wants " in each and _whole(each) in known]
    gone = [each for each in before - after if not any(verb in each for verb in (" wants ", " within ", " gives "))]
    told = [*(f"gone: {each}" for each in gone), *(f"now wanted: {each}" for each in wanted), *(f"closer: {each}" for each in after - before if _closer(each, before, known))]
    return sorted([*told, *(f"now also: {each}" for each in _more_kinds(before, after))])


def _closer(line: str, before: set[str], known: set[str]) -> bool:
    """A bound of what was taken before, and was taken without it or within a wider one."""
    part, _, bound = line.partition(" within ")
    name, _, value = bound.partition("=")
    if not bound or part not in known:
        return False
    old = next((each.partition("=")[2] for each in before if each.startswith(f"{part} within {name}=")), None)
    return old is None or (name not in LOWER + UPPER) or (float(value) > float(old) if name in LOWER else float(value) < float(old))


def _more_kinds(before: set[str], after: set[str]) -> list[str]:
    """What was given in kinds that were told, and is given in others now, or in whatever there is."""
    kinds, now = _kinds(before), _kinds(after)
    still = [each for each in kinds if each.replace(" gives ", " answers ", 1) in after]
    return [f"{each}: {', '.join(sorted(now.get(each, {'any'}) - kinds[each]))}" for each in still if now.get(each, {"any"}) - kinds[each]]


def _kinds(lines: set[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for part, _, kind in (each.partition(": ") for each in lines if " gives " in each):
        found.setdefault(part, set()).add(kind)
    return found


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
        for kind, content in answer.get("content", {}).items():
            yield f"answers {status} as {kind}"
            for line in _fields(content["schema"], status, schemas):
                if line.startswith("takes ") and " within " not in line:
                    yield line.partition(": ")[0].replace("takes ", "answers ", 1)
                    yield from [] if line.endswith(": any") else [line.replace("takes ", "gives ", 1)]


def _fields(schema: Schema, at: str, schemas: Schema, *, required: bool = False, within: tuple[str, ...] = ()) -> Iterator[str]:
    if required:
        yield f"wants {at}"
    if (name := schema.get("$ref", "").rpartition("/")[2]) and name not in within:
        yield from _fields(schemas[name], at, schemas, within=(*within, name))
    for each in schema.get("anyOf", ()):
        yield from _fields(each, at, schemas, within=within)
    kinds = schema.get("enum") or [schema.get("const", schema.get("type", "any"))]
    yield from (f"takes {at}: {kind}" for kind in kinds if not {"$ref", "anyOf"} & set(schema))
    yield from (f"takes {at} within {name}={schema[name]}" for name in (*LOWER, *UPPER, "pattern", "format") if name in schema)
    for name, each in schema.get("properties", {}).items():
        yield from _fields(each, f"{at}/{name}", schemas, required=name in schema.get("required", ()), within=within)
    for part, sign in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(schema.get(part), Mapping):
            yield from _fields(schema[part], f"{at}/{sign}", schemas, within=within)


if __name__ == "__main__":
    from app.api.openapi import generate

    print("\n".join(sorted(promises(generate()))))
