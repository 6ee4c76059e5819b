"""What every kind of entry can do from the command line: `ls`, `show` and `rm`, by id or by name."""

from collections.abc import Sequence
from typing import Annotated

import typer

from app.cli import session, show
from app.cli.show import Column, Form

Most = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many.")]
Reference = Annotated[str, typer.Argument(metavar="NAME", help="Id or name.")]


def listed(group: typer.Typer, path: str, columns: Sequence[Column], told: str) -> None:
    """`ls`: the API's list, newest first."""

    @group.command("ls", help=told)
    def ls(most: Most = 200, output: Form = None) -> None:
        show.items(session.client().items(path, most=most), columns, output)


def shown(group: typer.Typer, path: str, told: str) -> None:
    """`show`: one of them, field by field."""

    @group.command("show", help=told)
    def one(reference: Reference, output: Form = None) -> None:
        show.one(session.client().find(path, reference), output)


def removed(group: typer.Typer, path: str, told: str) -> None:
    """`rm`: one of them, unless it was changed in between."""

    @group.command("rm", help=told)
    def rm(reference: Reference) -> None:
        client = session.client()
        client.delete(f"{path}/{client.find(path, reference)['id']}")
