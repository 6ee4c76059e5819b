"""For operators: the outbox, the relay's shards, the consumers, the dead letters. Each act needs a reason and is audited."""

from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from app.api import models, reading
from app.api.experiments import word
from app.api.operations import PAGED, Answer, Call, Operation, after, choice, page
from app.api.problems import Problem, or_404
from app.errors import Unreadable
from app.messages import codec, ids
from app.messages.codec import Headers
from app.messages.envelope import Origin, Record
from app.mysql import dead_letters, instances, outbox, positions, shards
from app.mysql.rows import from_json

Document = dict[str, Any]
COUNT_MAX = 10_000
PAYLOAD_SHOWN = 16_384
HEADERS_MAX = 4096  # outbox.headers
LETTER = (
    "id", "consumer_group", "topic", "experiment_id", "error_class", "error_text", "tries", "first_seen", "created_at", "settled", "settled_at", "settled_by", "settled_reason",
)  # fmt: skip
RELAY = "relay"  # The group of rows Kafka would never take.


def _outbox(call: Call) -> Answer:
    topics: dict[str, Document] = {}
    for topic, rows, oldest in outbox.by_topic(call.tx, limit=COUNT_MAX):
        topics[topic] = {"topic": topic, "rows": rows, "oldest_at": oldest, "oldest_age_seconds": (call.at - oldest).total_seconds()}
    first = outbox.oldest(call.tx)
    age = (call.at - first[1]).total_seconds() if first is not None else None
    return Answer({"rows": sum(each["rows"] for each in topics.values()), "capped_at": COUNT_MAX, "oldest_age_seconds": age, "topics": list(topics.values())})


def _shards(call: Call) -> Answer:
    items = [
        {"shard": shard, "owner": owner, "until": until, "live": until is not None and until > at, "settled": settled, "rows": outbox.count(call.tx, shard)}
        for shard, owner, until, settled, at in shards.all_rows(call.tx)
    ]
    return Answer({"items": items})


def _consumers(call: Call) -> Answer:
    """Who is alive, and what each consumer group has consumed."""
    alive = [
        {"id": name, "component": component, "version": version, "started_at": started, "heartbeat_at": beat, "silent_seconds": (at - beat).total_seconds(), "facts": from_json(facts)}
        for name, component, version, started, beat, facts, at in instances.all_rows(call.tx)
    ]
    groups: dict[str, Document] = {}
    for group, topic, part, row in positions.all_rows(call.tx):
        told = groups.setdefault(f"{group} {topic}", {"consumer_group": group, "topic": topic, "partitions": []})
        told["partitions"].append({"partition": part, "next_offset": row.next_offset, "owner": row.owner, "owner_epoch": row.owner_epoch})
    return Answer({"instances": alive, "groups": list(groups.values())})


# ---- dead letters -------------------------------------------------------------------------------------------------------------------------------------
def _shown(row: Any, *, whole: bool = False) -> Document:
    headers = _headers(row)
    told = {name: getattr(row, name) for name in LETTER} | {"partition": row.part, "offset": row.log_offset, "event_id": ids.named("evt", _origin(row, headers)), "key": row.k}
    if not whole:
        return told
    shown = {name: value.hex() if name == "mid" else value.decode(errors="replace") for name, value in headers}
    return {**told, "headers": shown, "payload": bytes(row.payload)[:PAYLOAD_SHOWN].decode(errors="replace"), "payload_bytes": len(row.payload)}


def _headers(row: Any) -> Headers:
    """Empty for what never were headers of ours."""
    try:
        return codec.headers_of(bytes(row.headers))
    except Unreadable:
        return []


def _origin(row: Any, headers: Headers) -> bytes:
    """The first original's message id: what its event is called by."""
    try:
        return bytes.fromhex(msgspec.json.decode(dict(headers)["origin"], type=Origin).mid)
    except (KeyError, ValueError, msgspec.DecodeError):
        return bytes(row.mid)


def _letters(call: Call) -> Answer:
    query, before = call.query, after(call, tuple[datetime, str])
    rows = dead_letters.page(
        call.tx, topic=query["topic"], error_class=query["class"], experiment_id=query["experiment_id"], settled=query["settled"], before=before, limit=query["limit"] + 1
    )
    return page(call, rows, _shown, lambda row: [row.created_at, row.id])


def _a_letter(call: Call, *, lock: bool = False) -> Any:
    return or_404(dead_letters.get(call.tx, call.id("dlt"), lock=lock))


def _letter(call: Call) -> Answer:
    return Answer(_shown(_a_letter(call), whole=True))


def _settle(how: str, call: Call) -> Answer:
    found = _a_letter(call, lock=True)
    if found.settled is not None:
        raise Problem("already_settled", f"{found.settled} by {found.settled_by} at {reading.wire(found.settled_at)}")
    if how == "REPLAYED":
        outbox.append_records(call.tx, [_replay(found, call.tx.info["step"])], placement=call.services.placement, now=call.at)
    dead_letters.settle(call.tx, found.id, how=how, by=call.principal.user, reason=call.body.reason, now=call.at)
    call.audit(found.id, call.body.reason)
    return Answer(_shown(dead_letters.get(call.tx, found.id)))


def _replay(row: Any, step: str) -> Record:
    """A copy for the group that set it aside, and no other (`only`); another mid, the same event (`origin`). What the relay set aside no group has seen yet: it goes to all."""
    mid, headers = ids.digest("replay", row.id), _headers(row)
    kept = [(name, codec.restamped(value, step) if name == "cause" else value) for name, value in headers if name != "mid" and (name != "only" or row.consumer_group == RELAY)]
    if "type" not in dict(kept):
        raise Problem("illegal_state", "its headers cannot be read, so no group would take it: it can only be dropped")
    if row.consumer_group != RELAY:
        kept.append(("only", row.consumer_group.encode()))
        if "origin" not in dict(kept):
            told = Origin(bytes(row.mid).hex(), row.topic, row.part, row.log_offset or 0, codec.wire_time(row.first_seen), f"{row.error_class}: {row.error_text}"[:200], row.tries)
            kept.append(("origin", msgspec.json.encode(told)))
    packed = codec.pack_headers([("mid", mid), *kept])
    if len(packed) > HEADERS_MAX:
        raise Problem("illegal_state", f"its headers have {len(packed)} bytes, {HEADERS_MAX} can be sent: it can only be dropped")
    return Record(mid, row.topic, row.part, row.k, packed, bytes(row.payload))


_LETTERS = "/v1/operator/dead-letters"
_FILTERS = (*PAGED, word("topic", 128), word("class"), word("experiment_id"), choice("settled", "no", "REPLAYED", "DROPPED", default="no"))
OPERATIONS = (
    Operation("GET", "/v1/operator/outbox", "get_outbox", "Messages that wait to be sent", _outbox, "operator:read", shape="Outbox"),
    Operation("GET", "/v1/operator/shards", "list_shards", "The relay's shards", _shards, "operator:read", shape="ShardList"),
    Operation("GET", "/v1/operator/consumers", "list_consumers", "Instances and positions", _consumers, "operator:read", shape="Consumers"),
    Operation("GET", _LETTERS, "list_dead_letters", "Messages set aside for a human", _letters, "operator:read", shape="DeadLetterList", parameters=_FILTERS),
    Operation("GET", f"{_LETTERS}/{{id}}", "get_dead_letter", "Read a dead letter", _letter, "operator:read", shape="DeadLetter"),
    Operation(
        "POST", f"{_LETTERS}/{{id}}/replays", "replay_dead_letter", "Send it again to the group that set it aside", partial(_settle, "REPLAYED"), "operator:write", models.Settlement, "DeadLetter", 202,
        errors=("already_settled", "illegal_state"), key="may", unit="dead_letter.replay",
    ),
    Operation(
        "POST", f"{_LETTERS}/{{id}}/drops", "drop_dead_letter", "Give it up", partial(_settle, "DROPPED"), "operator:write", models.Settlement, "DeadLetter", 202,
        errors=("already_settled",), key="may",
    ),
)  # fmt: skip
