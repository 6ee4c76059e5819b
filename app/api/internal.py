"""The internal face, for the event sink: it has no database of its own. C0 over HTTP, and slices of events stored together with the sink's positions.

A slice may be sent again blindly: `position` must equal the stored one, and ids already stored are left out.
"""

import base64
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from app import failpoint
from app.api.models import Model
from app.api.operations import Answer, Call, Operation
from app.api.problems import Problem, invalid
from app.messages import codec, ids
from app.mysql import dead_letters, events, instances, positions
from app.mysql.dead_letters import DeadLetter
from app.workflow import history
from app.workflow.inputs import Fault
from observability import metrics

Document = dict[str, Any]
EVENTS_MAX = 1000
Topic = Annotated[str, Field(min_length=1, max_length=128)]
Group = Annotated[str, Field(min_length=1, max_length=64)]
Partition = Annotated[int, Field(ge=0, le=9999)]
Offset = Annotated[int, Field(ge=0, le=2**53 - 1)]


class Instance(Model):
    id: Annotated[str, Field(min_length=1, max_length=80)]
    version: Annotated[str, Field(max_length=32)] = ""


class Claimed(Model):
    topic: Topic
    topic_uuid: Annotated[str, Field(max_length=64)]
    partition: Partition


class PositionsBody(Model):
    consumer_group: Group
    instance: Instance
    partitions: Annotated[list[Claimed], Field(max_length=1000)]


class Lag(Model):
    topic: Topic
    rows: Annotated[int, Field(ge=-1)] = -1
    oldest_age_seconds: float = 0.0


class EventItem(Model):
    offset: Offset
    event: dict[str, Any] | None = None
    raw: Annotated[str, Field(max_length=4 << 20)] | None = None
    headers: Annotated[str, Field(max_length=65_536)] | None = None
    error: Annotated[str, Field(max_length=2048)] | None = None
    key: Annotated[str, Field(max_length=256)] = ""


class Slice(Model):
    topic: Topic
    topic_uuid: Annotated[str, Field(max_length=64)] = ""
    partition: Partition
    owner_epoch: Annotated[int, Field(ge=0)]
    position: Offset
    next_offset: Offset
    events: Annotated[list[EventItem], Field(max_length=EVENTS_MAX)]


class TaskEventsBody(Model):
    consumer_group: Group
    instance: Instance
    lag: Annotated[list[Lag], Field(max_length=100)] = Field(default_factory=list)
    slices: Annotated[list[Slice], Field(max_length=1000)] = Field(default_factory=list)


def _positions(call: Call) -> Answer:
    """C0: every call raises the epoch."""
    body = call.body
    wanted = {(each.topic, each.partition): each.topic_uuid for each in body.partitions}
    failpoint.hit("api.positions_commit.before")
    rows = positions.claim(call.tx, body.consumer_group, wanted, owner=body.instance.id)
    missing = [f"{topic}[{part}]" for topic, part in wanted if (topic, part) not in rows]
    if missing:
        raise Problem("illegal_state", f"no position rows for {', '.join(missing[:5])}: run `airavata admin topics --apply`")
    changed = [topic for (topic, part), uuid in wanted.items() if rows[topic, part].topic_uuid not in {"", uuid}]
    if changed:
        raise Problem("illegal_state", f"topic {changed[0]} was recreated: its UUID is not the position's")
    told = [{"topic": topic, "partition": part, "owner_epoch": row.owner_epoch, "next_offset": row.next_offset} for (topic, part), row in sorted(rows.items())]
    return Answer({"partitions": told})


def _task_events(call: Call) -> Answer:
    body = call.body
    if sum(len(each.events) for each in body.slices) > EVENTS_MAX:
        raise invalid([Fault("/slices", "too_many", f"at most {EVENTS_MAX} events in one request", EVENTS_MAX)])
    instances.beat(call.tx, body.instance.id, component="event-sink", version=body.instance.version, facts={"lag": [each.model_dump() for each in body.lag]})
    if not body.slices:
        return Answer({"slices": []})
    rows = positions.lock(call.tx, body.consumer_group, [(each.topic, each.partition) for each in body.slices]).rows
    answers: list[Document] = []
    taken: list[tuple[Slice, Document]] = []
    letters: list[DeadLetter] = []
    ends: dict[tuple[str, int], int] = {}
    for each in body.slices:
        row = rows.get((each.topic, each.partition))
        if row is None or row.owner_epoch != each.owner_epoch:
            answers.append({"result": "fenced"})
        elif row.next_offset != each.position:
            if each.position > row.next_offset:
                metrics.INVARIANTS.labels("sink_position_above").inc()
            answers.append({"result": "behind", "next_offset": row.next_offset})
        else:
            answers.append({"result": "applied", "next_offset": each.next_offset, "set_aside": []})
            taken.append((each, answers[-1]))
            ends[each.topic, each.partition] = each.next_offset
    new = _sort(call, taken, letters, body.consumer_group)
    events.append(call.tx, new, now=call.at)
    dead_letters.set_aside(call.tx, letters, now=call.at)
    positions.advance(call.tx, body.consumer_group, ends)
    failpoint.hit("api.events_commit.before")
    return Answer({"slices": answers})


def _sort(call: Call, taken: Sequence[tuple[Slice, Document]], letters: list[DeadLetter], group: str) -> list[events.New]:
    """What can be stored, in order; the rest becomes dead letters in the same transaction."""
    documents = [item.event for each, _ in taken for item in each.events if item.event is not None]
    processes, tasks = events.known(call.tx, _texts(documents, "process_id"), _texts(documents, "task_id"))
    new = []
    for each, answer in taken:
        for index, item in enumerate(each.events):
            why = item.error or "it cannot be read" if item.event is None else _refusal(item.event, processes)
            if why is not None:
                answer["set_aside"].append(index)
                letters.append(_letter(each, item, why, group, call.at))
                continue
            assert item.event is not None
            occurred = datetime.fromisoformat(item.event["occurred_at"].rstrip("Z"))
            known = tasks.get(item.event.get("task_id") or "") or processes[item.event["process_id"]]
            late = history.is_late(item.event["type"], occurred_at=occurred, attempt=item.event["attempt"] or 0, epoch=item.event["epoch"] or 0, known=known)
            new.append(events.New(item.event, occurred, late))
    return new


def _texts(documents: Sequence[Document], name: str) -> set[str]:
    return {each[name] for each in documents if isinstance(each.get(name), str)}


_FIELDS = frozenset(
    {"id", "type", "occurred_at", "gateway_id", "experiment_id", "process_id", "task_id", "task_type", "attempt", "epoch", "from_state", "to_state", "reason", "data", "cause", "traceparent"}
)


def _refusal(event: Document, processes: dict[str, Any]) -> str | None:
    """Why this event can never be stored."""
    if event.get("schema_version", 1) != 1:
        return f"schema_version {event.get('schema_version')} is not known"
    if set(event) - {"schema_version"} != _FIELDS or event["type"] not in history.RECORDED or not ids.is_id(str(event["id"]), "evt"):
        return "not an event of ours"
    if any(value is not None and (not isinstance(value, int) or value < 0) for value in (event["attempt"], event["epoch"])):
        return "a negative attempt or epoch"
    try:
        datetime.fromisoformat(str(event["occurred_at"]).rstrip("Z"))
    except ValueError:
        return "occurred_at is no time"
    known = processes.get(event["process_id"])
    return None if known is not None and known.experiment_id == event["experiment_id"] else f"process {event['process_id']} is not known"


def _letter(each: Slice, item: EventItem, why: str, group: str, at: datetime) -> DeadLetter:
    event = item.event or {}
    try:
        raw = base64.b64decode(item.raw) if item.raw else json.dumps(event).encode()
        headers = base64.b64decode(item.headers) if item.headers else codec.pack_headers([])
    except ValueError:
        raw, headers = (item.raw or "").encode(), codec.pack_headers([])
    experiment_id = event.get("experiment_id")
    return DeadLetter(
        id=ids.derived("dlt", group, each.topic, str(each.partition), str(item.offset)), group=group, topic=each.topic, partition=each.partition, offset=item.offset,
        mid=ids.digest(each.topic, str(each.partition), str(item.offset)), key=item.key, headers=headers, payload=raw,
        experiment_id=experiment_id if isinstance(experiment_id, str) and ids.is_id(experiment_id, "exp") else None, error_class="NeverStored", error_text=why, tries=1, first_seen=at,
    )  # fmt: skip


OPERATIONS = (
    Operation("POST", "/internal/v1/positions", "claim_positions", "Take partitions (C0)", _positions, "internal:events", PositionsBody, "Positions", errors=("illegal_state",), internal=True),
    Operation("POST", "/internal/v1/task-events", "store_task_events", "Store slices of events with their positions", _task_events, "internal:events", TaskEventsBody, "Stored", internal=True, body_bytes_max=4 << 20),
)  # fmt: skip
