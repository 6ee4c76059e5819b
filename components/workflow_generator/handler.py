"""Joins the door to the decision: launched experiments get their tasks and edges, in the caller's transaction (C3)."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from app import failpoint
from app.messages.envelope import Envelope
from app.messages.placement import Placement
from app.messages.topics import Topics
from app.mysql import outbox, processes, tasks
from app.mysql.rows import from_json
from app.mysql.unit_of_work import Transaction
from app.workflow import generation, process
from app.workflow.decision import Refused
from app.workflow.planners import Planner


class Handler:
    def __init__(self, *, planners: Mapping[str, Planner], topics: Topics, placement: Placement) -> None:
        self.planners, self.topics, self.placement = planners, topics, placement

    def __call__(self, tx: Transaction, messages: Sequence[Envelope], *, now: datetime) -> Sequence[Refused]:
        rows = processes.lock_to_plan(tx, (each.subject.process for each in messages))
        refused, planned = [], {}
        for message in messages:
            row = rows.get(message.subject.process)
            if row is None:
                refused.append(Refused(message, "Illegal", f"process {message.subject.process} is not there"))
            elif message.subject.process not in planned:  # A copy in the same batch plans nothing more.
                planned[message.subject.process] = generation.decide(
                    message, state=process.State(row[1]), part=row[2], trace_context=row[3], snapshot=from_json(row[4]), planners=self.planners, topics=self.topics
                )
        self.save(tx, list(planned.values()), now)
        return refused

    def save(self, tx: Transaction, plans: Sequence[generation.Generated], now: datetime) -> None:
        tasks.insert(tx, [task for plan in plans for task in plan.tasks], [(plan.process_id, edge) for plan in plans for edge in plan.edges], now=now)
        failpoint.hit("generator.graph.after")
        by_size = defaultdict(list)
        for plan in plans:
            if plan.validated:
                by_size[len(plan.tasks)].append(plan.process_id)
        for size, process_ids in by_size.items():
            processes.validated(tx, process_ids, size, now=now)
        outbox.append(tx, [message for plan in plans for message in plan.messages], placement=self.placement, now=now)
