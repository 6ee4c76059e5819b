"""Commands that need no API: `dev`, `admin`, `doctor`. They use the settings' own access to MySQL and Kafka, from the environment like every component."""

import os
from collections.abc import Iterable
from pathlib import Path
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
    """As any component reads them; where nothing is set, those of a running `airavata dev`. Call inside `local()`."""
    from app import instance, lifecycle
    from app.settings import read

    given = os.environ  # noqa: TID251  This face is the `__main__` of these commands.
    found = read(given if "AIRAVATA_MYSQL_URL" in given or "AIRAVATA_MYSQL_URL_FILE" in given else {**dev_environment(), **given})
    lifecycle.instruments(found, "command", instance.name("command"))
    return found


def dev_environment() -> dict[str, str]:
    path = Path(__file__).parents[2] / ".dev" / "env"
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(line.split("=", 1) for line in lines if "=" in line)


@dev.command("up")
def up(observe: Annotated[bool, typer.Option("--observe", help="Also a Prometheus that scrapes it all and knows the alert rules.")] = False) -> None:
    """Start servers and every microservice; at the end a token to use them with."""
    from app.dev import stack

    told(stack.up(observe=observe))
    with local():
        token = stack.token(dev_environment(), "dev")
    print(f"export AIRAVATA_URL={dev_environment()['AIRAVATA_URL']} AIRAVATA_TOKEN_FILE={token}")


@dev.command("down")
def down() -> None:
    """Stop everything that `dev up` started; what was stored is kept."""
    from app.dev import stack

    told(stack.down())


@dev.command("status")
def status(output: Form = None) -> None:
    """What runs, and what keeps it from being ready."""
    from app.dev import stack

    show.items([{"name": name, "pid": pid, "state": state} for name, pid, state in stack.status()], ("name", "pid", "state"), output)


@dev.command("reset")
def reset(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Stop everything and forget what was stored."""
    from app.dev import stack

    show.confirmed(f"Remove everything under {stack.BASE}?", yes=yes)
    told(stack.reset())


def told(steps: Iterable[str]) -> None:
    """Says each step; what keeps private servers from starting becomes an exit code."""
    from app.dev.process import NotStarted
    from app.dev.servers import Unavailable
    from app.dev.stack import Refused

    with local():
        try:
            for step in steps:
                show.note(step)
        except Refused as fault:
            raise Failed(Exit.CONFLICT, str(fault)) from fault
        except (NotStarted, Unavailable) as fault:
            raise Failed(Exit.SERVER, str(fault)) from fault


@admin.command("migrate")
def migrate() -> None:
    """Bring the schema to this release; safe to repeat and to run twice at once."""
    from app import admin as acts

    with local():
        acts.migrate(settings(), say=show.note)


@admin.command("topics")
def topics(apply: Annotated[bool, typer.Option("--apply", help="Make what is missing, set what is set otherwise.")] = False) -> None:
    """The difference between Kafka and what is declared, topics' settings included; makes topics and position rows."""
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


@admin.command("service-token")
def service_token(new: Annotated[bool, typer.Option("--new", help="Only print a fresh one, for the sink's secret.")] = False) -> None:
    """Make the event sink's token, as its secret holds it, known to the API; a repeat prolongs it."""
    from app import admin as acts
    from app import secrets

    if new:
        print(secrets.new_token()[0])
        return
    with local():
        acts.service_token(settings(), say=show.note)


@admin.command("relay-state")
def relay_state(
    settle: Annotated[int | None, typer.Option(metavar="SHARD", help="With all relays stopped: from now on what Kafka remembers of this shard counts.", show_default=False)] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    output: Form = None,
) -> None:
    """Compare, per shard, what MySQL has settled with what Kafka remembers."""
    from app import admin as acts

    if settle is not None:
        show.confirmed("Rows that Kafka forgot stay forgotten, rows that wait are sent (perhaps for the second time). Read docs/runbooks/relay-state-refused.md first. Settle?", yes=yes)
    with local():
        found = acts.relay_state(settings(), settle=settle)
    show.items(found, ("shard", "verdict", "settled", "kafka_seq", "rows_named", "waiting", "owner"), output)
    if settle is None and any(each["verdict"] == "KAFKA_LOST_MEMORY" for each in found):
        raise Failed(Exit.MISCONFIGURED, "Kafka remembers less than MySQL knows was sent: see docs/runbooks/relay-state-refused.md, then --settle")


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
