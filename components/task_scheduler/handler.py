"""Joins the door to the decision: what one poll brought becomes states, commands, timers and history, in the caller's transaction (C3)."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial

from app import failpoint, journal
from app.messages import trace
from app.messages.envelope import Envelope
from app.messages.events import ProcessPlanned
from app.messages.placement import Placement
from app.messages.topics import Topics
from app.mysql import attempts, outbox, processes, skeletons, tasks, timers
from app.mysql.unit_of_work import Transaction, after_commit, judged
from app.workflow import scheduling
from app.workflow.decision import Refused
from components.task_scheduler.figures import Figures
from observability import tracing


class Handler:
    """Few statements per batch, whatever its size: three to five reads under lock, one write per table."""

    def __init__(self, *, topics: Topics, placement: Placement) -> None:
        self.topics, self.placement, self.figures = topics, placement, Figures()

    def __call__(self, tx: Transaction, messages: Sequence[Envelope], *, now: datetime) -> Sequence[Refused]:
        loaded = processes.lock(tx, (each.subject.experiment for each in messages), (each.subject.process for each in messages))
        whole = {each.subject.process for each in messages if isinstance(each.body, scheduling.CASCADING)}
        tasks.load(
            tx,
            loaded,
            named=(each.subject.task for each in messages if each.subject.task and each.subject.process not in whole),
            roots_of=(each.subject.process for each in messages if isinstance(each.body, ProcessPlanned)),
            all_of=whole,
        )
        failpoint.hit("scheduler.load.after", process=loaded.processes)
        decision = scheduling.decide(loaded, messages, now=now, topics=self.topics, placement=self.placement)
        processes.save_experiments(tx, decision.experiments, now=now)
        processes.save(tx, decision.processes, now=now)
        tasks.save(tx, decision.tasks)
        attempts.dispatch(tx, decision.attempts, now=now)
        failpoint.hit("scheduler.state.after", process=loaded.processes)
        timers.append(tx, decision.timers)
        if tracing.on():
            ended = [each for each in decision.processes if each.finished_at == now and (trace.sampled(each.trace_context) or (each.trace_context and each.trace_keep))]
            skeletons.append(tx, [each.experiment_id for each in ended], now=now)
        outbox.append(tx, decision.messages, placement=self.placement, now=now)
        judged(tx, {late.mid: "late" for late in decision.late})
        after_commit(tx, partial(self.figures.decided, messages, decision, loaded, now))
        for late in decision.late:
            after_commit(tx, partial(journal.write, "late", why="moves nothing any more", mid=late.mid.hex(), type=type(late.body).__name__, process=late.subject.process, task=late.subject.task))
        return decision.refused
