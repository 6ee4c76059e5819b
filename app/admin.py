"""What an operator does with the settings' own access to MySQL and Kafka: `airavata admin …`, and what a development stack does to become usable.

Each act may be repeated: a second run finds everything made and changes nothing. Tokens are returned once, to be shown once; they are stored as a digest only.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import migrations
from app.messages.topics import Topics
from app.mysql import engine, unit_of_work
from app.mysql.unit_of_work import UnitOfWork
from app.settings import Settings

if TYPE_CHECKING:
    from app.kafka.topics import Difference

Say = Callable[[str], None]


def migrate(settings: Settings, *, say: Say) -> None:
    """The schema to this release's revision."""
    before = migrations.current(settings.mysql_url)
    migrations.upgrade(settings.mysql_url)
    after = migrations.current(settings.mysql_url)
    say(f"schema at {after}" + ("" if before == after else f", was {before or 'empty'}"))


@contextmanager
def opened(settings: Settings) -> Iterator[UnitOfWork]:
    """Units of work on a connection of this command's own."""
    connected = engine.connect(settings.mysql_url, size=1)
    try:
        yield unit_of_work.unit_of_work(connected)
    finally:
        connected.dispose()


def topics(settings: Settings, task_types: Iterable[str], *, apply: bool, say: Say) -> "Difference":
    """What Kafka and the position rows lack; with `apply`, what still is wrong after everything missing was made."""
    from app.kafka import topics as declared

    wanted = declared.desired(
        Topics(settings.topic_prefix), environment=settings.environment, partitions=settings.partitions, shards=settings.relay_shards, task_types=task_types
    )
    client = declared.admin(settings.kafka)
    with opened(settings) as begin:
        if apply:
            return declared.apply(client, wanted, begin, bootstrap=settings.kafka, replication=settings.replication, say=say)
        return declared.difference(client, wanted, begin)
