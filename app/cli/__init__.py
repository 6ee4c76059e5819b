"""FACE: the command line, `airavata`. This module only puts the commands together; whatever is heavy is imported by the command that needs it.

Exit codes, settings and output forms: docs/api.md §6. Commands speak HTTP, except `dev`, `admin` and `doctor`, which use the settings' own access.
"""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from app.cli import access, applications, experiments, explaining, local, operations, places, results, session
from app.cli.exits import Exit, Failed
from app.cli.session import Format


class Commands(TyperGroup):
    """Every way out is an exit code of docs/api.md §6."""

    def invoke(self, ctx: Any) -> None:
        try:
            super().invoke(ctx)
            sys.stdout.flush()
        except Failed as fault:
            told, code = fault.text, fault.code
        except typer.Abort:  # At a question.
            told, code = "nothing was answered", Exit.INTERRUPTED
        except BrokenPipeError:  # `| head` has seen enough.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            told, code = "", Exit.OK
        except OSError as fault:
            told, code = (f"{fault.filename}: {fault.strerror}", Exit.USAGE) if fault.filename else (str(fault), Exit.SERVER)
        else:
            return
        if told:
            print(told, file=sys.stderr)
        raise typer.Exit(code)


root = typer.Typer(
    name="airavata",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich help costs 150 ms of the 300 that `--help` may take.
    help="Airavata Workflow: run experiments on remote hosts and see what became of them.",
)
for commands in (experiments, explaining, results, applications, places, access, operations, local):
    root.add_typer(commands.commands)


@root.callback()
def choose(
    url: Annotated[str | None, typer.Option(envvar="AIRAVATA_URL", help="The API server.", show_default=False)] = None,
    token: Annotated[str | None, typer.Option(envvar="AIRAVATA_TOKEN", hidden=True)] = None,
    token_file: Annotated[str | None, typer.Option(envvar="AIRAVATA_TOKEN_FILE", help="A file of mode 0600 with the token.", show_default=False)] = None,
    profile: Annotated[str | None, typer.Option(envvar="AIRAVATA_PROFILE", help="A profile of ~/.config/airavata/config.toml.", show_default=False)] = None,
    output: Annotated[Format | None, typer.Option("--output", "-o", envvar="AIRAVATA_OUTPUT", help="How data is printed.", show_default="table")] = None,
) -> None:
    session.chosen = session.Choice(url=url, token=token, token_file=token_file, profile=profile, output=output)


def main() -> None:
    root()
