"""The sweeper: pushes on a process that nothing will ever push again. There should be none: every rescue is counted, and the count staying 0 is a health metric.

It acts only if nothing can still be on its way: the process's partition end was seen on both topics for 60 s, and the process has no open attempt, no timer, no outbox row
and no change for 60 s. Both topics' partitions of one number have one reader, which alone acts.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from app import journal
from app.errors import Transient
from app.messages import ids, trace
from app.messages.commands import RetryDue
from app.messages.envelope import Envelope, Subject
from app.messages.events import ProcessPlanned
from app.messages.placement import Placement
from app.messages.topics import Topics
from app.mysql import outbox, sweeping
from app.mysql.unit_of_work import UnitOfWork, now
from observability import logs, metrics


class Sweeper:
    """`quiet(seconds)`: the partition numbers of which this instance has seen the end of both topics for that long."""

    def __init__(self, *, unit_of_work: UnitOfWork, placement: Placement, topics: Topics, after_seconds: int, quiet: Callable[[float], Sequence[int]]) -> None:
        self.unit_of_work, self.placement, self.topics = unit_of_work, placement, topics
        self.after_seconds, self.quiet = after_seconds, quiet
        self.log = logs.logger("sweeper")

    def try_sweep(self) -> None:
        """A store that is away is not the sweeper's problem: it looks again."""
        try:
            self.sweep()
        except Transient as fault:
            self.log.warning("sweep waits", fault=fault)

    def sweep(self) -> int:
        """One look; returns how many were pushed on. The push is a message like any other, so a needless one is late and moves nothing."""
        partitions = self.quiet(float(self.after_seconds))
        if not partitions:
            return 0
        with self.unit_of_work("sweeper.rescue") as tx:
            stuck = sweeping.stuck(tx, partitions=partitions, after_seconds=self.after_seconds, limit=50)
            at = now(tx)
            outbox.append(tx, [self.push(each, at) for each in stuck], placement=self.placement, now=at)
        if stuck:
            for each in stuck:
                metrics.count("airavata_rescued_total", kind="task" if each.task_id else "process")
                journal.write("rescue", process=each.process_id, task=each.task_id, attempt=each.attempt, epoch=each.epoch)
            self.log.error("rescued processes that stood still", processes=[each.process_id for each in stuck])
        return len(stuck)

    def push(self, stuck: sweeping.Stuck, at: datetime) -> Envelope:
        """A VALIDATED process is started; a waiting task becomes due. Each push is a message of its own: the one before may have moved nothing."""
        subject = Subject(stuck.gateway_id, stuck.experiment_id, stuck.process_id, stuck.task_id, stuck.task_type, stuck.attempt, stuck.epoch)
        return Envelope(
            mid=ids.digest("rescue", stuck.process_id, stuck.task_id, str(stuck.attempt), str(stuck.epoch), at.isoformat()),
            topic=self.topics.scheduler,
            partition=stuck.part,
            subject=subject,
            body=RetryDue() if stuck.task_id else ProcessPlanned(),
            traceparent=trace.belongs(stuck.trace_context, stuck.experiment_id, stuck.task_id, stuck.attempt),
        )
