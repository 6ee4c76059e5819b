"""For operators: dead letters, what waits in the outbox, who consumes."""

from typing import Annotated

import typer

from app.cli import session, show
from app.cli.entries import Most
from app.cli.show import Column, Form

commands = typer.Typer()
dead_letters = typer.Typer(no_args_is_help=True, help="Messages that were set aside.")
commands.add_typer(dead_letters, name="dead-letter")
LetterId = Annotated[str, typer.Argument(metavar="ID")]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the audit.")]


@dead_letters.command("ls")
def list_letters(
    topic: Annotated[str | None, typer.Option(show_default=False)] = None,
    experiment: Annotated[str | None, typer.Option(show_default=False)] = None,
    most: Most = 200,
    output: Form = None,
) -> None:
    """Those nobody has settled yet, newest first."""
    found = session.client().items("/operator/dead-letters", most=most, topic=topic, experiment_id=experiment)
    show.items(found, ("id", "consumer_group", "topic", "error_class", "error_text", "tries", "created_at", "settled"), output)


@dead_letters.command("show")
def show_letter(letter_id: LetterId, output: Form = None) -> None:
    """One with its headers and payload, and why it was set aside."""
    show.one(session.client().get(f"/operator/dead-letters/{letter_id}"), output)


@dead_letters.command("replay")
def replay(letter_id: LetterId, reason: Reason, output: Form = None) -> None:
    """Send it once more, to the group that set it aside and to no other; what the relay could not send goes to all."""
    show.one(session.client().post(f"/operator/dead-letters/{letter_id}/replays", {"reason": reason}), output)


@dead_letters.command("drop")
def drop(letter_id: LetterId, reason: Reason, output: Form = None) -> None:
    """Give it up for good."""
    show.one(session.client().post(f"/operator/dead-letters/{letter_id}/drops", {"reason": reason}), output)


@commands.command()
def outbox(output: Form = None) -> None:
    """Rows that wait for the relay, by topic, with the age of the oldest; and who relays."""
    client = session.client()
    waiting, shards = client.get("/operator/outbox"), client.get("/operator/shards")["items"]
    if show.form(output) is not session.Format.TABLE:
        show.one({**waiting, "shards": shards}, output)
        return
    show.table(waiting["topics"], ("topic", "rows", "oldest_at", "oldest_age_seconds"))
    print()
    show.table(shards, ("shard", "owner", "live", "settled", "rows"))


@commands.command()
def consumers(output: Form = None) -> None:
    """Which instances are alive, and how far each consumer group is."""
    found = session.client().get("/operator/consumers")
    if show.form(output) is not session.Format.TABLE:
        show.one(found, output)
        return
    show.table(found["instances"], ("id", "component", "version", "started_at", "silent_seconds"))
    print()
    partitions: list[Column] = [
        ("partitions", lambda each: len(each["partitions"])),
        ("consumed", lambda each: sum(one["next_offset"] for one in each["partitions"])),
    ]
    owners: Column = ("owners", lambda each: ", ".join(sorted({one["owner"] or "-" for one in each["partitions"]})))
    show.table(found["groups"], ("consumer_group", "topic", *partitions, owners))
