"""What commands print: the API's shapes unchanged as JSON or YAML, one object a line as NDJSON, or a table for eyes. Data to stdout, the rest to stderr.

Text that came from elsewhere is stripped of control characters before it reaches a terminal.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from app.cli import session
from app.cli.exits import Exit, Failed
from app.cli.session import Format

if TYPE_CHECKING:
    from rich.console import Console

Form: TypeAlias = Annotated[Format | None, typer.Option("--output", "-o", help="table, json, yaml or ndjson.", show_default=False)]
Column: TypeAlias = str | tuple[str, Callable[[Any], Any]]  # A field's name, or a title and how to find the value.


def form(asked: Format | None) -> Format:
    """Flag of the command, flag or environment of the root, profile, table."""
    return asked or session.chosen.output or session.output()


def items(found: Sequence[Any], columns: Sequence[Column], asked: Format | None = None) -> None:
    """A list, in the API's order."""
    match form(asked):
        case Format.TABLE:
            table(found, columns)
        case Format.NDJSON:
            for each in found:
                line(each)
        case other:
            document({"items": list(found), "next_cursor": None}, other)


def one(found: Mapping[str, Any], asked: Format | None = None) -> None:
    """A single resource: a line per field in the table form."""
    match form(asked):
        case Format.TABLE:
            table([{"field": name, "value": value} for name, value in found.items()], ["field", "value"])
        case Format.NDJSON:
            line(found)
        case other:
            document(found, other)


def document(found: Any, asked: Format) -> None:
    if asked is Format.YAML:
        import yaml

        print(yaml.safe_dump(found, sort_keys=False, allow_unicode=True), end="")
    else:
        print(json.dumps(found, indent=2, ensure_ascii=False))


def line(found: Any) -> None:
    print(json.dumps(found, ensure_ascii=False, separators=(",", ":")), flush=True)


def table(found: Iterable[Mapping[str, Any]], columns: Sequence[Column]) -> None:
    from rich.table import Table
    from rich.text import Text

    titles = [each if isinstance(each, str) else each[0] for each in columns]
    made = Table(*(title.upper().replace("_", " ") for title in titles), box=None, pad_edge=False, header_style="bold")
    for each in found:
        made.add_row(*(Text(cell(each.get(column) if isinstance(column, str) else column[1](each))) for column in columns))
    target = console()
    with target.capture() as drawn:
        target.print(made)
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()) if not target.is_terminal else drawn.get(), end="" if target.is_terminal else "\n")


def cell(value: Any) -> str:
    """One line for eyes: times to the second, documents as JSON, nothing as a dash."""
    if value is None:
        return "-"
    if isinstance(value, dict | list):
        return clean(json.dumps(value, ensure_ascii=False))
    text = clean(str(value))
    is_time = len(text) == 27 and text[10] == "T" and text.endswith("Z")
    return text[:19].replace("T", " ") if is_time else text


def clean(text: str) -> str:
    return "".join(each if each.isprintable() else "\ufffd" for each in text)


def console(*, stderr: bool = False) -> "Console":
    """Wide where nobody looks, so that a pipe gets whole lines; NO_COLOR and pipes turn colour off."""
    from rich.console import Console

    watched = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, width=None if watched else 1000, highlight=False, markup=False, soft_wrap=not watched)


def confirmed(question: str, *, yes: bool) -> None:
    """Raises Failed, exit 4, unless a person agrees or has done so beforehand."""
    if not yes and not typer.confirm(question, err=True):
        raise Failed(Exit.CONFLICT, "nothing was changed")


def note(text: str) -> None:
    """Not data: to stderr."""
    print(text, file=sys.stderr, flush=True)
