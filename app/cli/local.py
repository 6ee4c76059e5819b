"""Commands that need no API: `dev`, `admin`, `doctor`. They use the settings' own access to MySQL and Kafka, from the environment like every component."""

import os
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import session, show
from app.cli.exits import Exit, Failed, local
from app.cli.show import Form

if TYPE_CHECKING:
    from app.settings import Settings

commands = typer.Typer()
dev = typer.Typer(no_args_is_help=True, help="A whole private system on this machine.")
admin = typer.Typer(no_args_is_help=True, help="Database, topics, first token: with the settings' own access.")
commands.add_typer(dev, name="dev")
commands.add_typer(admin, name="admin")


def settings() -> "Settings":
    """As any component reads them; call inside `local()`."""
    from app.settings import read

    return read(os.environ)  # noqa: TID251  This face is the `__main__` of these commands.


@admin.command("migrate")
def migrate() -> None:
    """Bring the schema to this release; safe to repeat and to run twice at once."""
    from app import admin as acts

    with local():
        acts.migrate(settings(), say=show.note)


@admin.command("topics")
def topics(apply: Annotated[bool, typer.Option("--apply", help="Make what is missing.")] = False) -> None:
    """The difference between Kafka and what is declared; makes topics and position rows."""
    from app import admin as acts
    from app import plugins

    with local():
        found = acts.topics(settings(), plugins.task_types(), apply=apply, say=show.note)
    for line in found.lines():
        print(line)
    if not found.none:
        raise Failed(Exit.MISCONFIGURED, "" if apply else "run `airavata admin topics --apply`")
    show.note("topics and positions are as declared")


@admin.command("bootstrap")
def bootstrap(
    gateway: Annotated[str | None, typer.Option(help="Also make this gateway and a token for its administrator.", show_default=False)] = None,
    another: Annotated[bool, typer.Option("--another", help="Make an operator token although there is one.")] = False,
    output: Form = None,
) -> None:
    """Make the first operator token; it is shown this once."""
    from app import admin as acts

    with local():
        made = acts.bootstrap(settings(), gateway=gateway, another=another)
    show.one(made, output)


@admin.command("relay-state")
def relay_state(
    settle: Annotated[
        int | None, typer.Option(metavar="SHARD", help="With all relays stopped: from now on what Kafka remembers of this shard counts.", show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    output: Form = None,
) -> None:
    """Compare, per shard, what MySQL has settled with what Kafka remembers."""
    from app import admin as acts

    warning = (
        "Rows that Kafka forgot stay forgotten, rows that wait are sent (perhaps for the second time). Read the runbook `relay state refused` first. Settle?"
    )
    if settle is not None and not yes and not typer.confirm(warning, err=True):
        raise Failed(Exit.CONFLICT, "nothing was changed")
    with local():
        found = acts.relay_state(settings(), settle=settle)
    show.items(found, ("shard", "verdict", "settled", "kafka_seq", "rows_named", "waiting", "owner"), output)
    if settle is None and any(each["verdict"] == "KAFKA_LOST_MEMORY" for each in found):
        raise Failed(Exit.MISCONFIGURED, "Kafka remembers less than MySQL knows was sent: see the runbook `relay state refused`, then --settle")


@commands.command()
def doctor(output: Form = None) -> None:
    """Look for what is set up wrong, and say how to mend it."""
    from app import plugins
    from app.cli import doctor as examination

    with local():
        found = examination.examine(settings(), plugins.task_types(), url=session.url())
    examination.report(found, show.form(output))
    if not found.well:
        raise Failed(Exit.MISCONFIGURED)
