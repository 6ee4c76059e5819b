"""Reads the product's code: which fail points it names, which units of work, and whether every durable call stands between two points.

Durable are COMMIT (every unit of work), Kafka's produce, commit_transaction, init_transactions and offset commit, a POST to the API, an exec, a rename, a put. A driver's call
may stand in its door alone (`DRIVERS`); a door's verb (`VERBS`) must have, in the function that calls it, a point before and a point behind it with nothing durable in
between. A unit of work is a point, its COMMIT, a point; the order is that of the source. What cannot be read off the source is told here: `NAMES`.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from app.api.resources import INTERNAL, PUBLIC

ROOT = Path(__file__).parents[2]
PRODUCT = ("app", "components", "outbox_relay", "migrations")
LEFT_OUT = ("app/cli/", "app/dev/", "app/failpoint.py", "app/journal.py", "app/mysql/answering.py")  # Clients, and tools of the embedded system; the instruments themselves; what passes units on.
ANY_UNIT = "<unit>"
CONSUMERS = ("generator", "scheduler", "executor")
NAMES: Mapping[tuple[str, str], Sequence[str]] = {  # (file, expression) → what it may be. `tests/chaos/test_instruments.py` meets whatever is missing here.
    ("app/kafka/loop.py", "self.component"): CONSUMERS,
    ("app/kafka/loop.py", "self.commit"): ("generator.commit", "scheduler.commit", "executor.start_commit"),
    ("app/kafka/consumer.py", "self.component"): (*CONSUMERS, "sink"),
    ("components/task_executors/executor.py", "name"): ("submit.intent_commit", "submit.id_commit", "doubt.verdict"),
    ("app/api/application.py", "operation.unit_of_work"): sorted({each.unit_of_work for each in (*PUBLIC, *INTERNAL)}),
    ("app/mysql/unit_of_work.py", "name"): (ANY_UNIT,),
}
DRIVERS: Mapping[str, str] = {  # Last word of a driver's call → the one function it may stand in.
    "connection.commit": "app/mysql/unit_of_work.py:_commit migrations/env.py:take_lock",  # The latter ends the session's first read.
    "client.produce": "app/kafka/producer.py:produce",
    "client.commit_transaction": "app/kafka/producer.py:commit",
    "client.init_transactions": "app/kafka/producer.py:__init__",
    "client.commit": "app/kafka/consumer.py:commit_offsets",
    "http.post": "components/event_sink/api_client.py:_post",
    "channel.exec_command": "components/task_executors/ssh.py:open",
    "os.rename": "app/storage/posix.py:write",
    "client.put_object": "app/storage/s3.py:write",
    "client.complete_multipart_upload": "app/storage/s3.py:write",
}
DRIVER_WORDS = {each.split(".")[1] for each in DRIVERS} - {"commit", "post"} | {"replace_file", "renames", "link", "symlink"}
VERBS = ("TransactionalProducer", "producer.produce", "producer.commit", "client.commit", "api.claim", "api.store", "channel.exec_command", "host.publish", "storage.write")
BEYOND: Mapping[str, str] = {  # A verb whose point behind it stands in another function.
    "components/task_executors/ssh.py:open": "ssh.exec.after stands in _Command.end_input: all of the input is sent",
}
UNIT_MAKERS = ("unit_of_work", "unit", "begin")


@dataclass(frozen=True)
class Event:
    """Something of interest in a function, at its place in the source. `kind`: point, unit or verb."""

    at: tuple[int, int]
    kind: str
    names: tuple[str, ...]


def sources() -> Iterator[tuple[str, str]]:
    """(path, text) of the product's modules."""
    for folder in PRODUCT:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if not name.startswith(LEFT_OUT):
                yield name, path.read_text()


def script_points() -> set[str]:
    """Points of the host's scripts: `fp NAME` on a line of its own."""
    scripts = sorted((ROOT / "components/task_executors/host").glob("*.sh"))
    return {found for each in scripts for found in re.findall(r"(?m)^\s*fp ([a-z.]+)", each.read_text())}


def points(file: str, text: str) -> set[str]:
    """Names given to `failpoint.hit`."""
    return {name for each in ast.walk(ast.parse(text)) if _is_hit(each) for name in _names(file, each.args[0])}


def units(file: str, text: str) -> set[str]:
    """Names of units of work."""
    return {name for each in ast.walk(ast.parse(text)) if isinstance(each, ast.With) for argument in _units(each) for name in _names(file, argument)}


def complaints(file: str, text: str) -> list[str]:
    """What is wrong with a module's durable calls."""
    found = []
    for function, owner in _functions(ast.parse(text)):
        where = f"{file}:{owner}"
        found += [f"{where}: {called}, a driver's call outside its door" for called in _drivers(function) if not _allowed(called, where)]
        events = sorted(_events(file, function), key=lambda each: each.at)
        for index, event in enumerate(events):
            if event.kind == "verb":
                before = index > 0 and events[index - 1].kind != "verb"
                behind = (index + 1 < len(events) and events[index + 1].kind != "verb") or where in BEYOND
                found += [f"{where}: no fail point {side} {event.names[0]}" for side, there in (("before", before), ("behind", behind)) if not there]
    return found


def _functions(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Each outermost function or method, what it encloses included: a generator handed to a verb runs inside it."""
    for each in ast.iter_child_nodes(tree):
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
            yield each, each.name
        elif isinstance(each, ast.ClassDef | ast.If):
            yield from _functions(each)


def _events(file: str, function: ast.AST) -> Iterator[Event]:
    for each in ast.walk(function):
        if _is_hit(each):
            yield Event((each.lineno, each.col_offset), "point", tuple(_names(file, each.args[0])))
        elif isinstance(each, ast.With):
            for argument in _units(each):
                yield Event((each.end_lineno or 0, each.end_col_offset or 0), "unit", tuple(_names(file, argument)))
        elif isinstance(each, ast.Call) and (verb := _dotted(each.func)) in VERBS:
            yield Event((each.lineno, each.col_offset), "verb", (verb,))


def _drivers(function: ast.AST) -> Iterator[str]:
    for each in ast.walk(function):
        if isinstance(each, ast.Call):
            called = _dotted(each.func)
            if called in DRIVERS or (called.rpartition(".")[2] in DRIVER_WORDS and called not in VERBS):
                yield called


def _allowed(called: str, where: str) -> bool:
    return where in DRIVERS.get(called, "").split()


def _is_hit(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "failpoint.hit"


def _units(node: ast.With) -> Iterator[ast.expr]:
    for item in node.items:
        call = item.context_expr
        if isinstance(call, ast.Call) and len(call.args) == 1 and not call.keywords:
            maker = call.func.func if isinstance(call.func, ast.Call) else call.func
            if _dotted(maker).rpartition(".")[2] in UNIT_MAKERS:
                yield call.args[0]


def _names(file: str, expression: ast.expr) -> list[str]:
    match expression:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            found = [""]
            for part in parts:
                more = NAMES[file, ast.unparse(part.value)] if isinstance(part, ast.FormattedValue) else [str(part.value)]  # type: ignore[attr-defined]
                found = [one + another for one in found for another in more]
            return found
    return list(NAMES[file, ast.unparse(expression)])


def _dotted(function: ast.expr) -> str:
    """The last two words of what is called: `self.client.commit` → client.commit."""
    return ".".join(ast.unparse(function).split(".")[-2:])
