"""The internal face, for the event sink: it has no database of its own. C0 over HTTP, and slices of events stored together with the sink's positions.

A slice may be sent again blindly: `position` must equal the stored one, and ids already stored are left out. Nothing a slice carries may make it fail for ever: what can
never be stored becomes a dead letter in the very transaction that stores its neighbours.
"""

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import msgspec
from pydantic import Field

from app import journal
from app.api import spans
from app.api.models import Model
from app.api.operations import Answer, Call, Operation
from app.api.problems import Problem, invalid
from app.errors import Unreadable
from app.messages import codec, ids
from app.messages.envelope import Envelope, Record, Subject
from app.mysql import dead_letters, events, instances, positions
from app.mysql.dead_letters import DeadLetter
from app.mysql.unit_of_work import after_commit, tell
from app.workflow import history
from app.workflow.history import Known
from app.workflow.inputs import Fault
from observability import metrics, tracing

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
    """An event as app/workflow/history.py tells it, or the bytes of what the sink could not read."""

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


class _Event(msgspec.Struct):
    """What every event must have; more is kept as it came, so that a newer sink may say more."""

    id: str
    type: str
    occurred_at: Annotated[datetime, msgspec.Meta(tz=True)]
    gateway_id: str
    experiment_id: str
    process_id: str
    data: dict[str, Any]
    task_id: str | None = None
    task_type: str | None = None
    attempt: Annotated[int, msgspec.Meta(ge=0)] | None = None
    epoch: Annotated[int, msgspec.Meta(ge=0)] | None = None
    from_state: str | None = None
    to_state: str | None = None
    reason: str | None = None
    cause: str | None = None
    traceparent: str | None = None
    schema_version: Annotated[int, msgspec.Meta(ge=1, le=codec.SCHEMA_VERSION)] = codec.SCHEMA_VERSION


# ---- C0 -----------------------------------------------------------------------------------------------------------------------------------------------
def _positions(call: Call) -> Answer:
    """Every call raises the epochs; a partition that may not be consumed leaves all of them as they are."""
    body = call.body
    wanted = {(each.topic, each.partition): each.topic_uuid for each in body.partitions}
    rows = positions.claim(call.tx, body.consumer_group, wanted, owner=body.instance.id)
    call.services.takeovers.claimed(call.tx, {place: row.owner for place, row in rows.items() if row.owner and row.owner != body.instance.id})
    missing = [f"{topic}[{part}]" for topic, part in sorted(wanted) if (topic, part) not in rows]
    if missing:
        raise Problem("illegal_state", f"no position rows for {', '.join(missing[:5])}: run `airavata admin topics --apply`")
    changed = sorted({topic for (topic, part), uuid in wanted.items() if rows[topic, part].topic_uuid not in {"", uuid}})
    if changed:
        raise Problem("illegal_state", f"topic {changed[0]} was recreated: its UUID is not the position's")
    told = [{"topic": topic, "partition": part, "owner_epoch": row.owner_epoch, "next_offset": row.next_offset} for (topic, part), row in sorted(rows.items())]
    return Answer({"partitions": told})


# ---- slices -------------------------------------------------------------------------------------------------------------------------------------------
def _task_events(call: Call) -> Answer:
    """One transaction: positions locked, events, dead letters, positions advanced. Without slices: the heartbeat."""
    body, began = call.body, tracing.now_ns()
    _check(body)
    answers: list[Document] = []
    if body.slices:
        locked = positions.lock(call.tx, body.consumer_group, [(each.topic, each.partition) for each in body.slices])
        answers = [_verdict(each, locked.rows.get((each.topic, each.partition))) for each in body.slices]
        taken = [(each, answer) for each, answer in zip(body.slices, answers, strict=True) if answer["result"] == "applied"]
        new, letters = _sort(call, taken, body.consumer_group, locked.now)
        events.append(call.tx, new, now=locked.now)
        if tracing.on():
            after_commit(call.tx, partial(spans.recorded, new, began=began, request=call.request.traceparent))
        dead_letters.set_aside(call.tx, letters, now=locked.now)
        positions.advance(call.tx, body.consumer_group, {(each.topic, each.partition): each.next_offset for each, _ in taken}, locked)
        tell(call.tx, fenced=((each.topic, each.partition, each.position, each.owner_epoch) for each, answer in zip(body.slices, answers, strict=True) if answer["result"] == "fenced"))
        after_commit(call.tx, partial(_measured, new, locked.now))
        after_commit(call.tx, partial(call.services.takeovers.committed, [(each.topic, each.partition) for each, _ in taken if each.events], locked.now))
    call.services.takeovers.settle(call.tx)
    facts = {"group": body.consumer_group, "lag": [each.model_dump() for each in body.lag]}
    instances.beat(call.tx, body.instance.id, component="event-sink", version=body.instance.version, facts=facts)
    return Answer({"slices": answers})


@metrics.measuring
def _measured(new: Sequence[events.New], now: datetime) -> None:
    for at, many in Counter(each.occurred_at for each in new).items():
        metrics.observe("airavata_event_delay_seconds", (now - at).total_seconds(), times=many)


def _check(body: TaskEventsBody) -> None:
    """A slice is a run of one partition's log; whatever else it claims is refused whole."""
    faults, seen = [], set()
    if sum(len(each.events) for each in body.slices) > EVENTS_MAX:
        faults.append(Fault("/slices", "too_many", f"at most {EVENTS_MAX} events in one request", EVENTS_MAX))
    for index, each in enumerate(body.slices):
        offsets = [item.offset for item in each.events]
        if (each.topic, each.partition) in seen:
            faults.append(Fault(f"/slices/{index}/partition", "duplicate", "one slice per partition"))
        seen.add((each.topic, each.partition))
        if offsets != sorted(set(offsets)) or (offsets and offsets[0] < each.position) or each.next_offset < (offsets[-1] + 1 if offsets else each.position):
            faults.append(Fault(f"/slices/{index}/next_offset", "out_of_range", "offsets rise from position and stay below next_offset"))
    if faults:
        raise invalid(faults)


def _verdict(each: Slice, row: positions.Position | None) -> Document:
    place = {"topic": each.topic, "partition": each.partition}
    if row is None or row.owner_epoch != each.owner_epoch or (each.topic_uuid and row.topic_uuid not in {"", each.topic_uuid}):
        return {**place, "result": "fenced"}
    if row.next_offset != each.position:
        if each.position > row.next_offset:  # We never told it to begin there.
            metrics.count("airavata_invariant_violations_total", invariant="sink_position_above")
            journal.write("violation", what="sink_position_above", topic=each.topic, partition=each.partition, position=row.next_offset, claimed=each.position)
        return {**place, "result": "behind", "next_offset": row.next_offset}
    return {**place, "result": "applied", "next_offset": each.next_offset, "set_aside": []}


def _sort(call: Call, taken: Sequence[tuple[Slice, Document]], group: str, now: datetime) -> tuple[list[events.New], list[DeadLetter]]:
    """What can be stored, in order, and what never can."""
    documents = [item.event for each, _ in taken for item in each.events if item.event is not None]
    known = events.known(call.tx, _named(documents, "process_id", "prc"), _named(documents, "task_id", "tsk"))
    new, letters = [], []
    for each, answer in taken:
        for index, item in enumerate(each.events):
            try:
                new.append(_stored(item, known))
            except (Unreadable, msgspec.ValidationError) as fault:
                answer["set_aside"].append(index)
                letters.append(_letter(each, item, fault, group, now))
    return new, letters


def _named(documents: Sequence[Document], name: str, prefix: str) -> set[str]:
    """Well-formed ids only: MySQL raises for what an ASCII column cannot hold, and one bad event must not stop its neighbours."""
    return {each[name] for each in documents if isinstance(each.get(name), str) and ids.is_id(each[name], prefix)}


def _stored(item: EventItem, known: tuple[Mapping[str, Known], Mapping[str, Known]]) -> events.New:
    """Raises Unreadable or ValidationError, whose text says why this can never be stored."""
    if item.event is None:
        raise Unreadable(item.error or "it cannot be read")
    event = msgspec.convert(item.event, _Event)
    process = known[0].get(event.process_id)
    if process is None or (process.experiment_id, process.gateway_id) != (event.experiment_id, event.gateway_id):
        raise Unreadable(f"process {event.process_id[:40]} is not known")
    if event.type not in history.RECORDED or not ids.is_id(event.id, "evt") or (event.task_id is not None and not ids.is_id(event.task_id, "tsk")):
        raise Unreadable("not an event of ours")
    if not 1970 <= event.occurred_at.year < 9999:  # In either of its years a zone could carry it beyond what a time may be.
        raise Unreadable("it did not occur in our times")
    occurred = event.occurred_at.astimezone(UTC).replace(tzinfo=None)
    subject = known[1].get(event.task_id or "", process)
    return events.New(item.event, occurred, history.is_late(event.type, occurred_at=occurred, attempt=event.attempt or 0, epoch=event.epoch or 0, known=subject))


# ---- dead letters -------------------------------------------------------------------------------------------------------------------------------------
def _letter(each: Slice, item: EventItem, fault: Exception, group: str, now: datetime) -> DeadLetter:
    """With all that a replay needs: the bytes the sink got, or the message the event was made of."""
    record = _record(each, item)
    experiment_id = (item.event or {}).get("experiment_id")
    return DeadLetter(
        id=ids.derived("dlt", group, record.mid, each.topic, str(each.partition), str(item.offset)), group=group, topic=each.topic, partition=each.partition, offset=item.offset,
        mid=record.mid, key=record.key, headers=record.headers, payload=record.payload,
        experiment_id=experiment_id if isinstance(experiment_id, str) and ids.is_id(experiment_id, "exp") else None, error_class=type(fault).__name__, error_text=str(fault), tries=1, first_seen=now,
    )  # fmt: skip


def _record(each: Slice, item: EventItem) -> Record:
    mid = ids.digest(each.topic, str(each.partition), str(item.offset))
    if item.event is not None:
        try:
            return codec.encode(_message(each, msgspec.convert(item.event, _Event)))
        except (ValueError, KeyError, OverflowError, msgspec.ValidationError):
            return Record(mid, each.topic, each.partition, "", codec.pack_headers([]), json.dumps(item.event).encode())
    try:
        headers = codec.headers_of(base64.b64decode(item.headers or "", validate=True))
        mid = next((value for name, value in headers if name == "mid" and len(value) == 16), mid)
    except (ValueError, Unreadable):
        headers = []
    try:
        payload = base64.b64decode(item.raw or "", validate=True)
    except ValueError:
        payload = (item.raw or "").encode()
    return Record(mid, each.topic, each.partition, item.key, codec.pack_headers(headers), payload)


def _message(each: Slice, event: _Event) -> Envelope:
    """history.document, backwards."""
    moved = {name: value for name in ("from_state", "to_state", "reason") if (value := getattr(event, name)) is not None}
    subject = Subject(event.gateway_id, event.experiment_id, event.process_id, event.task_id or "", event.task_type or "", event.attempt or 0, event.epoch or 0)
    at = codec.wire_time(event.occurred_at.astimezone(UTC).replace(tzinfo=None))
    return Envelope(
        mid=ids.from_base32(event.id.removeprefix("evt_")), topic=each.topic, partition=each.partition, subject=subject, body=msgspec.convert({**event.data, **moved}, codec.TYPES[event.type]),
        cause=event.cause or "", traceparent=event.traceparent or "", at=at,
    )  # fmt: skip


OPERATIONS = (
    Operation("POST", "/internal/v1/positions", "claim_positions", "Take partitions (C0)", _positions, "internal:events", PositionsBody, "Positions", errors=("illegal_state",), internal=True, unit="api.positions_commit"),
    Operation("POST", "/internal/v1/task-events", "store_task_events", "Store slices of events with their positions", _task_events, "internal:events", TaskEventsBody, "Stored", internal=True, body_bytes_max=4 << 20, unit="api.events_commit"),
)  # fmt: skip
