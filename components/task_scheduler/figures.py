"""What the scheduler decided, in numbers: told once a decision has committed, from the stamps of MySQL's clock that its messages carry."""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from datetime import datetime

from app.messages import codec
from app.messages.commands import RunTask
from app.messages.envelope import Envelope, Record
from app.messages.events import TaskFailed, TaskStarted, TaskSucceeded
from app.workflow import process
from app.workflow.decision import Decision
from app.workflow.graph import Loaded, Process
from observability import metrics

STARTS_MAX = 20_000
RESULTS = {process.State.COMPLETED: "ok", process.State.FAILED: "failed", process.State.CANCELED: "canceled"}
KINDS = {"RetryDue": "retry", "DeadlineDue": "deadline"}


class Figures:
    """`expected`: tasks that were dispatched because others ended, and when those did. Another scheduler's are not known here; what never starts is forgotten."""

    def __init__(self) -> None:
        self.expected: OrderedDict[str, datetime] = OrderedDict()

    @metrics.measuring
    def decided(self, messages: Sequence[Envelope], decision: Decision, loaded: Loaded, now: datetime) -> None:
        self.hops(messages, decision.messages)
        for found in decision.processes:
            if found.finished_at == now:
                ended(found, now)
        for late in decision.late:
            metrics.count("airavata_transitions_refused_total", entity="task" if late.subject.task else "process", reason=_why_late(late, loaded))
        for refused in decision.refused:
            metrics.count("airavata_transitions_refused_total", entity="task" if refused.message.subject.task else "process", reason="illegal")
        lost = sum((each.failure or {}).get("code") == "RECOVERY_TIMEOUT" for each in decision.tasks if each.finished_at == now)
        metrics.count("airavata_in_doubt_resolved_total", lost, result="lost")

    def hops(self, messages: Sequence[Envelope], sent: Iterable[Envelope]) -> None:
        ends = {each.mid.hex(): each.at for each in messages if isinstance(each.body, TaskSucceeded | TaskFailed)}
        for each in sent:
            if isinstance(each.body, RunTask) and each.cause in ends:
                self.expected[each.subject.task] = codec.time_of(ends[each.cause])
        while len(self.expected) > STARTS_MAX:
            self.expected.popitem(last=False)
        for each in messages:
            if isinstance(each.body, TaskStarted) and (end := self.expected.pop(each.subject.task, None)) is not None:
                hop = (codec.time_of(each.at) - end).total_seconds()
                metrics.observe("airavata_task_hop_seconds", hop, task_type=each.subject.task_type, traceparent=each.traceparent)


def ended(found: Process, now: datetime) -> None:
    result = RESULTS[found.state]
    metrics.count("airavata_experiments_finished_total", outcome=found.outcome or "INTERNAL")
    metrics.count("airavata_gateway_experiments_total", gateway=found.gateway_id, result=result)
    metrics.observe("airavata_experiment_seconds", (now - found.created_at).total_seconds(), result=result)


@metrics.measuring
def moved(due: Sequence[Record], now: datetime) -> None:
    """Timers that have become messages; `at` of each is when it was due."""
    for each in due:
        headers = codec.headers_of(each.headers)
        kind, only = codec.type_and_only(headers)
        late = now - codec.time_of(dict(headers)["at"].decode())
        metrics.observe("airavata_timer_lateness_seconds", late.total_seconds(), kind="requeue" if only else KINDS.get(kind, "requeue"))


def abandoned(task_types: Iterable[str]) -> None:
    for task_type, many in Counter(task_types).items():
        metrics.count("airavata_attempts_abandoned_total", many, task_type=task_type)


def _why_late(late: Envelope, loaded: Loaded) -> str:
    task = loaded.tasks.get(late.subject.task)
    return "stale_epoch" if task is not None and (late.subject.attempt, late.subject.epoch) < (task.attempt, task.epoch) else "late"
