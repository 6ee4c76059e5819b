"""When a run is quiet (P2), asked from outside: every accepted experiment has ended, nothing waits to be sent or to become due, no group has a record left to read."""

import time
from collections.abc import Iterator

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from app.workflow import scheduling
from tests.chaos.topics import records
from tests.support.system import System

READ_SECONDS = 30.0
OPEN = {
    "experiments": "SELECT id, state FROM experiments WHERE launched_at IS NOT NULL AND finished_at IS NULL LIMIT 5",
    "processes": "SELECT id, state FROM processes WHERE finished_at IS NULL LIMIT 5",
    "tasks": "SELECT id, type, state, reason FROM tasks WHERE finished_at IS NULL LIMIT 5",
    "attempts": "SELECT id, state, owner FROM attempts WHERE finished_at IS NULL LIMIT 5",
    "outbox": "SELECT id, topic, part FROM outbox LIMIT 5",
    "timers due": "SELECT id, topic, due_at FROM timers WHERE due_at <= UTC_TIMESTAMP(6) LIMIT 5",
}


def still_open(system: System) -> list[str]:
    """What is open, in a line each; empty when it is quiet. The topics are asked only when the tables are."""
    found = [f"{what}: {rows}" for what, statement in OPEN.items() if (rows := system.rows(statement))]
    return found or list(unread(system))


def unread(system: System) -> Iterator[str]:
    """Records that stand at or above a group's position and are meant for it."""
    ahead: dict[str, list[TopicPartition]] = {}
    rows = system.rows("SELECT consumer_group, topic, part, next_offset FROM positions")
    ends = _ends(system.kafka, {(topic, part) for _, topic, part, _ in rows})
    for group, topic, part, offset in rows:
        if offset < ends[topic, part]:
            ahead.setdefault(group, []).append(TopicPartition(topic, part, offset))
    for group, places in ahead.items():
        wants = scheduling.WANTED if group.endswith("task-scheduler") else None
        for each in records(system.kafka, "chaos-quiet", places, READ_SECONDS):
            headers = dict(each.headers() or [])
            kind, only = headers.get("type", b"").decode(errors="replace"), headers.get("only", b"").decode(errors="replace")
            if (not kind or wants is None or kind in wants) and only in {"", group}:
                yield f"unread: {group} {each.topic()} {each.partition()} {each.offset()} {kind}"
                break


def _ends(kafka: str, places: set[tuple[str, int]]) -> dict[tuple[str, int], int]:
    """(topic, partition) → the offset behind the last committed record or marker."""
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    asked = admin.list_offsets({TopicPartition(*each): OffsetSpec.latest() for each in sorted(places)}, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=15.0)
    return {(place.topic, place.partition): future.result().offset for place, future in asked.items()}


def await_quiet(system: System, seconds: float) -> tuple[float, list[str]]:
    """(seconds it took, what is still open: nothing if it became quiet in time)."""
    began, found = time.monotonic(), ["never asked"]
    while found and time.monotonic() - began < seconds:
        try:
            found = still_open(system)
        except Exception as fault:  # A server that is not back yet is an answer, too.
            found = [f"cannot be asked: {type(fault).__name__}: {str(fault)[:200]}"]
        if found:
            time.sleep(0.25)
    return time.monotonic() - began, found
