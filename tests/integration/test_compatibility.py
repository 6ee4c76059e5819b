"""AIRAVATA_COMPATIBILITY reaches every message that a unit of work sends, at once or by a timer."""

from sqlalchemy import text

from app.messages import codec, commands
from app.messages.envelope import Envelope, Subject
from app.messages.placement import Placement
from app.mysql import engine, outbox, timers
from app.mysql.unit_of_work import now, unit_of_work
from app.workflow.decision import Timer


def test_what_a_unit_sends_has_the_version_it_was_told(database: str) -> None:
    connected = engine.connect(database, size=1)
    message = Envelope(mid=bytes(16), topic="t", partition=0, subject=Subject("g", "e", "prc_1"), body=commands.RetryDue())
    with unit_of_work(connected, compatibility=7)("scheduler.commit") as tx:
        at = now(tx)
        outbox.append(tx, [message], placement=Placement(4, 4, 1), now=at)
        timers.append(tx, [Timer(at, message)])
    with connected.connect() as connection:
        rows = [connection.execute(text(f"SELECT headers FROM {table}")).scalar_one() for table in ("outbox", "timers")]
    connected.dispose()
    assert [dict(codec.headers_of(row))["schema_version"] for row in rows] == [b"7", b"7"]
