"""How an executor tells a fact: one envelope to the partition of the process, with an id that derives from attempt and epoch, so that a repeat is a copy."""

from typing import Any

from msgspec import Struct, structs

from app import journal
from app.messages import ids, trace
from app.messages.envelope import Envelope, Subject
from app.messages.topics import Topics
from app.mysql.processes import Place
from app.workflow import execution
from app.workflow.execution import Failed, InDoubt, Succeeded
from observability import metrics


def fact(topics: Topics, subject: Subject, place: Place, body: Struct, *, cause: bytes = b"", name: str = "") -> Envelope:
    """`name` tells apart several facts of one type about one attempt and epoch."""
    return Envelope(
        mid=ids.digest("fact", type(body).__name__, name, subject.task, str(subject.attempt), str(subject.epoch)),
        topic=topics.events,
        partition=place.part,
        subject=subject,
        body=body,
        cause=cause.hex(),
        traceparent=trace.belongs(place.trace_context, subject.experiment, subject.task, subject.attempt),
    )


def told_end(token: str, epoch: int, outcome: str) -> None:
    """The journal's line: a state of the attempt, `Submitted` (nobody owns it any more) or `fenced` (it was not ours)."""
    journal.write("attempt.end", token=token, epoch=epoch, outcome=outcome)


@metrics.measuring
def measured(task_type: str, outcome: Succeeded | Failed | InDoubt, seconds: float) -> None:
    """An attempt's end has surely committed."""
    state, condition = execution.decide(outcome)[0], (outcome.condition or "") if isinstance(outcome, Failed) else ""
    metrics.count("airavata_attempts_total", task_type=task_type, outcome=state, condition=condition)
    metrics.observe("airavata_attempt_seconds", seconds, task_type=task_type, outcome=state)


def remembered(outcome: Succeeded | Failed | InDoubt) -> dict[str, Any]:
    """What the attempt row keeps of an outcome."""
    return {name: value for name, value in structs.asdict(outcome).items() if name != "outputs"}  # Those have a table.
