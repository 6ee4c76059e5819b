"""The envelope: who a message is about, what caused it, where it goes. One shape for outbox row, Kafka record, timer and dead letter.

`mid` names the message and derives from its cause, so that a repeated decision yields the same id. A copy that was set aside and comes again (requeue,
replay) has another mid; its `event_id` stays that of the original, told by `origin`.
"""

from msgspec import Struct

from app.messages import ids


class Subject(Struct, frozen=True):
    """Whom a message is about. Empty strings and 0 mean: not about one."""

    gateway: str
    experiment: str
    process: str
    task: str = ""
    task_type: str = ""
    attempt: int = 0
    epoch: int = 0


class Origin(Struct, frozen=True):
    """Where a copy comes from: written into its `origin` header when a message is set aside."""

    mid: str  # hex, of the first original
    topic: str
    partition: int
    offset: int
    first_seen: str
    error: str
    tries: int = 1


class Envelope(Struct, frozen=True, kw_only=True):
    """A message with its way. `step` and `cause` name the unit of work and the message id (hex) it came from; `at` is MySQL's time of the writing transaction."""

    mid: bytes
    topic: str
    partition: int
    subject: Subject
    body: "Struct"
    step: str = ""
    cause: str = ""
    traceparent: str = ""
    origin: Origin | None = None
    only: str = ""
    at: str = ""  # RFC 3339, UTC, six decimals; given by the codec when the message is written

    @property
    def key(self) -> str:
        """`<process-id>-<task-id>`, the process, or (launch) the experiment."""
        subject = self.subject
        return f"{subject.process}-{subject.task}" if subject.task else subject.process or subject.experiment

    @property
    def event_id(self) -> str:
        """`evt_…`, equal for an original and all its copies."""
        return ids.named("evt", bytes.fromhex(self.origin.mid) if self.origin else self.mid)


class Record(Struct, frozen=True):
    """The same as bytes: what the outbox stores and Kafka carries. The relay copies it and parses nothing but the header list."""

    mid: bytes
    topic: str
    partition: int
    key: str
    headers: bytes  # msgpack of [[name, value], …] in the order they are sent
    payload: bytes
