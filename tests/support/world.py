"""Generator, scheduler and executors over one schema without Kafka: for tests that decide themselves who sees which message when."""

import os
from dataclasses import replace
from typing import Any

from msgspec import structs

from app.messages import codec, ids
from app.messages.commands import AttemptAbandoned, RunTask
from app.messages.envelope import Envelope
from app.messages.events import ProcessPlanned
from app.messages.placement import Placement
from app.messages.topics import Topics
from app.mysql import engine, instances, outbox, processes
from app.mysql.unit_of_work import UnitOfWork, now, unit_of_work
from app.workflow import submission
from components.task_executors.executor import Executor, Work
from components.task_executors.noop import TASK_TYPES
from components.task_executors.noop.planner import PLANNER
from components.task_executors.plugin import Commit
from components.task_scheduler.handler import Handler as Scheduler
from components.task_scheduler.timers import TimerLoop
from components.workflow_generator.handler import Handler as Generator

TOPICS, PLACEMENT = Topics(), Placement(4, 4, 2)
SUBMITTING = Commit("SUBMITTING", {"work_dir": "/w", "script_sha256": "0" * 64, "wall_time_seconds": 60, "document": {}})
SUBMITTED = Commit("SUBMITTED", {"scheduler_job_id": "7@b", "document": {}})


class World:
    """Generator, scheduler and executor handlers over one schema; the outbox is handed over by hand, so a test decides who sees what when."""

    def __init__(self, url: str) -> None:
        self.engine = engine.connect(url, size=3, idle_seconds=60)
        self.unit: UnitOfWork = unit_of_work(self.engine)
        self.scheduler = Scheduler(topics=TOPICS, placement=PLACEMENT)
        self.generator = Generator(planners={"shape": PLANNER}, topics=TOPICS, placement=PLACEMENT)

    def executor(self, name: str) -> Executor:
        with self.unit("beat") as tx:
            instances.beat(tx, name, component="executor-noop", version="1", facts={})
        return Executor(unit_of_work=self.unit, instance=name, task_types={each.name: each for each in TASK_TYPES}, topics=TOPICS, placement=PLACEMENT, capacity=100, remote=None)

    def launch(self, edges: str, behaviour: str = "") -> str:
        experiment_id = ids.derived("exp", edges, behaviour, str(os.urandom(4)))
        snapshot = {"interface": {"planner": "shape"}, "inputs": {"edges": edges, "behaviour": behaviour}}
        made = submission.launch(
            gateway_id="gw_1", experiment_id=experiment_id, from_state="CREATED", snapshot=snapshot, traceparent="", placement=PLACEMENT, topics=TOPICS
        )
        with self.unit("launch") as tx:
            at = now(tx)
            tx.exec_driver_sql(
                "INSERT INTO experiments (id, gateway_id, project_id, owner, name, application_interface_id, document, state, state_since, version, created_at, updated_at, process_id) "
                "VALUES (%s, 'gw_1', 'prj_1', 'me', 'x', 'ifc_1', '{}', 'LAUNCHED', %s, 1, %s, %s, %s)",
                (experiment_id, at, at, at, made.process_id),
            )
            processes.insert(tx, made, gateway_id="gw_1", experiment_id=experiment_id, deadline_at=None, now=at)
            outbox.append(tx, made.messages, placement=PLACEMENT, now=at)
        return made.process_id

    def sent(self) -> list[Any]:
        """Takes everything out of the outbox: envelopes, with bodies of any kind."""
        with self.unit("sent") as tx:
            rows = [row for shard in range(2) for row in outbox.waiting(tx, shard=shard, turn=0, size=1000)]
            outbox.delete(tx, [row.id for row in rows], [row.mid for row in rows])
        return [codec.decode(row.topic, row.part, codec.headers_of(row.headers), row.payload) for row in rows]

    def give(self, handler, messages: list[Envelope]) -> None:
        with self.unit("give") as tx:
            assert not handler(tx, messages, now=now(tx))

    def to_commands(self) -> list[Any]:
        """From a launch to its first commands."""
        self.give(self.generator, [each for each in self.sent() if each.topic == TOPICS.launch])
        self.give(self.scheduler, [each for each in self.sent() if isinstance(each.body, ProcessPlanned)])
        return [each for each in self.sent() if isinstance(each.body, RunTask)]

    def submitting(self, name: str) -> tuple[Executor, Work]:
        """An executor that got a command whose effect must not happen twice; before anything leaves, its job is SUBMITTING."""
        self.launch("a", "a:sleep_ms=60000")
        executor = self.executor(name)
        self.give(executor, self.to_commands())
        work = self.of_a_job(executor)
        assert executor.commit_change(work, SUBMITTING)
        self.sent()
        return executor, work

    @staticmethod
    def of_a_job(executor: Executor) -> Work:
        """The one order it holds, as one for a host."""
        executor.task_types = {name: replace(each, once=True) for name, each in executor.task_types.items()}
        ((token, work),) = executor.held.items()
        executor.held[token] = replace(work, order=structs.replace(work.order, snapshot={"host": {"id": "cmp_1"}}))
        return executor.held[token]

    def given_again(self, name: str) -> Executor:
        """Whoever had it is silent; its successor got the next epoch."""
        with self.unit("silence") as tx:
            tx.exec_driver_sql("DELETE FROM instances")
        TimerLoop(unit_of_work=self.unit, placement=PLACEMENT, topics=TOPICS, lease_seconds=10).take_from_silent()
        self.give(self.scheduler, [each for each in self.sent() if isinstance(each.body, AttemptAbandoned)])
        successor = self.executor(name)
        self.give(successor, [each for each in self.sent() if isinstance(each.body, RunTask)])
        return successor

    def job(self) -> tuple[str, str | None]:
        with self.unit("look") as tx:
            return tuple(tx.exec_driver_sql("SELECT state, scheduler_job_id FROM jobs").one())

    def attempt(self) -> tuple[str, int, str | None]:
        with self.unit("look") as tx:
            return tuple(tx.exec_driver_sql("SELECT state, epoch, owner FROM attempts ORDER BY created_at DESC LIMIT 1").one())
