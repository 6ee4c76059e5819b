"""The scheduler's third loop: what has ended gets its skeleton spans, made from rows, so that no crash loses one. An experiment whose spans arrived is due no more.

In a thread of its own, with a connection of its own: a collector that is away or slow holds up nobody. What was not sent within an hour is given up and counted.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from app.errors import Transient
from app.messages import trace
from app.mysql import skeletons
from app.mysql.unit_of_work import UnitOfWork
from app.workflow import skeleton
from observability import logs, metrics, tracing

EXPERIMENTS, SPANS = 50, 512
IDLE_SECONDS = 0.5
Row = Mapping[str, Any]


class SkeletonLoop:
    def __init__(self, unit_of_work: UnitOfWork) -> None:
        self.unit_of_work, self.log = unit_of_work, logs.logger("skeletons")

    def run(self, stopped: Callable[[float], bool]) -> None:
        """Until stopped."""
        busy = False
        while not stopped(0.0 if busy else IDLE_SECONDS):
            try:
                busy = self.turn() == EXPERIMENTS
            except Exception as fault:  # Watching can never stop the work; it can only stop watching.
                self.log.warning("skeletons wait", fault=fault, exc_info=not isinstance(fault, Transient))
                busy = False

    def turn(self) -> int:
        """What is due; returns how many experiments were sent. Repeating it is harmless: the same spans, the same ids."""
        with self.unit_of_work("skeletons.read") as tx:
            due = skeletons.due(tx, limit=EXPERIMENTS)
            found = skeletons.rows(tx, [row[0] for row in due]) if due else []
        if not due:
            return 0
        spans = [span for each in found for span in self.readable(*each)]
        sent = all(tracing.export(spans[at : at + SPANS]) for at in range(0, len(spans), SPANS))
        given_up = [] if sent else [row[0] for row in due if row[2]]
        with self.unit_of_work("skeletons.sent") as tx:
            skeletons.delete(tx, [row[0] for row in due] if sent else given_up)
            skeletons.put_off(tx, [] if sent else [row[0] for row in due if not row[2]])
        if given_up:
            metrics.count("airavata_spans_total", len(given_up), outcome="given_up")
            self.log.warning("gave up skeletons that no collector took for an hour", count=len(given_up))
        return len(due) if sent else 0

    def readable(self, run: Row, *rows: Sequence[Row]) -> list[Any]:
        """Rows that no skeleton can be made from hold up nobody else's: a bug of ours, told and left."""
        try:
            return readable(run, *rows)
        except Exception as fault:
            self.log.error("no skeleton could be made", experiment_id=run["id"], exc_info=fault)
            return []


def readable(run: Row, tasks: Sequence[Row], attempts: Sequence[Row], jobs: Sequence[Row]) -> list[Any]:
    """The spans of a run for the exporter. Kept although its launch was not sampled, its request has no span: then the root has no parent."""
    process = {"id": run["process_id"], "trace_context": run["trace_context"]}
    context = run["trace_context"]
    made = skeleton.spans(run, process, tasks, attempts, jobs)
    keep = {"airavata.keep": run["trace_keep"]} if run["trace_keep"] else {}
    return [_readable(each, context, keep if each is made[0] else {}, parent=each is not made[0] or trace.sampled(context)) for each in made]


def _readable(span: skeleton.Span, context: str, more: Mapping[str, str], *, parent: bool) -> Any:
    return tracing.made(
        span.name, trace.beside(context, span.span_id), parent=trace.beside(context, span.parent_id) if parent and span.parent_id else "", start=_ns(span.start), end=_ns(span.end or span.start),
        attributes={**span.attributes, **more}, links=[trace.beside(context, span.retry_of)] if span.retry_of else (), events=[(name, _ns(at)) for name, at in span.events],
        error=str(span.attributes.get("error.type", "")) if span.status == "ERROR" else "", of_experiments=True,
    )  # fmt: skip


def _ns(at: datetime) -> int:
    """Of MySQL's time: naive, UTC."""
    return (at.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
