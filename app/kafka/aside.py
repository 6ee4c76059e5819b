"""Setting a message aside: again through a timer, for this group alone; a human's after five tries or an hour. In the transaction of the position advance.

The copy keeps the event id and gets a mid derived from origin + try; its header `origin` names where it first lay, `only` the group that comes back for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from msgspec import structs

from app.kafka.consumer import Received
from app.messages import codec, ids
from app.messages.envelope import Envelope, Origin
from app.mysql import dead_letters, timers
from app.mysql.dead_letters import DeadLetter
from app.mysql.unit_of_work import Transaction
from app.workflow import retry
from app.workflow.decision import Timer

TRIES_MAX = 5
AGE_MAX = timedelta(hours=1)


@dataclass(frozen=True)
class Culprit:
    """`message`: what the record says, if it can be read."""

    received: Received
    error: str
    text: str
    message: Envelope | None = None

    @property
    def told(self) -> dict[str, Any]:
        """For the journal."""
        at = self.received
        return {"topic": at.topic, "partition": at.partition, "offset": at.offset, "error": self.error, "text": self.text[:500]}


def mark(received: Received) -> bytes:
    """The name by which verdicts are told: its header `mid`, or one of this object's where there is none."""
    return received.mid or b"%d" % id(received)


def set_aside(tx: Transaction, culprits: Sequence[Culprit], *, group: str, now: datetime) -> dict[bytes, str]:
    """Timers for those that may come again, dead letters for the rest; returns the verdict of each by its header `mid`."""
    copies, dead, verdicts = [], [], {}
    for each in culprits:
        timer = _copy(each, group, now)
        verdicts[mark(each.received)] = "dead_letter" if timer is None else "requeued"
        if timer is None:
            dead.append(_dead(each, group, now))
        else:
            copies.append(timer)
    timers.append(tx, copies)
    dead_letters.set_aside(tx, dead, now=now)
    return verdicts


def _copy(culprit: Culprit, group: str, now: datetime) -> Timer | None:
    """None: it has had its tries, or no time will mend it."""
    received, envelope = culprit.received, culprit.message
    if envelope is None:
        return None
    before = envelope.origin
    origin = Origin(
        mid=before.mid if before else envelope.mid.hex(),
        topic=before.topic if before else received.topic,
        partition=before.partition if before else received.partition,
        offset=before.offset if before else received.offset,
        first_seen=before.first_seen if before else codec.wire_time(now),
        error=f"{culprit.error}: {culprit.text}"[:200],
        tries=before.tries + 1 if before else 1,
    )
    if origin.tries >= TRIES_MAX or now - codec.time_of(origin.first_seen) > AGE_MAX:
        return None
    copy = structs.replace(envelope, mid=ids.digest(bytes.fromhex(origin.mid), group, str(origin.tries)), cause=envelope.mid.hex(), origin=origin, only=group)
    return Timer(now + retry.backoff(copy.mid, origin.tries), copy)


def _dead(culprit: Culprit, group: str, now: datetime) -> DeadLetter:
    received, before = culprit.received, culprit.message.origin if culprit.message else None
    subject = (dict(received.headers or ()).get("subject") or b"").decode(errors="replace").split("/")
    mid = received.mid if len(received.mid) == 16 else ids.digest(received.topic, str(received.partition), str(received.offset))
    return DeadLetter(
        id=ids.derived("dlt", group, mid, received.topic, str(received.partition), str(received.offset)), group=group, topic=received.topic, partition=received.partition,
        offset=received.offset, mid=mid, key=received.key, headers=codec.pack_headers(received.headers or []), payload=received.value or b"",
        experiment_id=subject[1] if len(subject) > 1 and ids.is_id(subject[1], "exp") else None, error_class=culprit.error, error_text=culprit.text,
        tries=before.tries + 1 if before else 1, first_seen=codec.time_of(before.first_seen) if before else now,
    )  # fmt: skip
