"""The executor: commands become RUNNING attempts (E1), remote work happens elsewhere (E2), outcomes are committed (E3), always guarded by epoch.

One loop thread owns the database connection. Local task types (the no-op) run here; everything else in killable worker processes (workers.py).
Whoever meets 0 rows at E3 is a zombie: it stops and touches nothing.
"""

import heapq
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Protocol

from app import journal
from app.errors import AiravataError, OutcomeUnknown, Transient
from app.messages import ids, trace
from app.messages.envelope import Envelope, Subject
from app.messages.events import JobChanged, TaskStarted
from app.messages.placement import Placement
from app.messages.topics import Topics
from app.mysql import attempts, jobs, outbox, outputs, processes
from app.mysql.attempts import Held
from app.mysql.processes import Place
from app.mysql.unit_of_work import Transaction, UnitOfWork, after_commit, judged, now, tell
from app.workflow import execution, job
from app.workflow.attempt import TERMINAL, State
from app.workflow.decision import Refused
from app.workflow.execution import Failed, InDoubt, Outcome, Submitted, Succeeded
from components.task_executors import facts, figures
from components.task_executors.plugin import Commit, Sleep, Steps, TaskType, WorkOrder
from components.task_executors.workers import CommitRequested, WorkerEvent
from observability import logs, metrics

TURN_SECONDS = 1.0  # Of changes that are slow, one by one: then Kafka is polled.


@dataclass
class Work:
    """An attempt this instance holds."""

    order: WorkOrder
    place: Place
    began: float = field(default_factory=time.monotonic)
    doubted: bool = False  # Its job was in doubt when this epoch began.
    submitted: bool = False  # Its job's id is stored, or may be: nobody owns it any more.


class Remote(Protocol):
    """Runs orders of remote task types in worker processes. Never blocks; `poll` returns what happened since."""

    def start(self, work: Work) -> None: ...

    def poll(self) -> Sequence[WorkerEvent]: ...

    def abandon(self, token: str) -> None: ...


class Executor:
    def __init__(
        self, *, unit_of_work: UnitOfWork, instance: str, task_types: Mapping[str, TaskType], topics: Topics, placement: Placement, capacity: int, remote: Remote | None
    ) -> None:
        self.unit_of_work, self.instance, self.task_types = unit_of_work, instance, task_types
        self.topics, self.placement, self.capacity, self.remote = topics, placement, capacity, remote
        self.held: dict[str, Work] = {}
        self.asked: list[tuple[Work, CommitRequested]] = []
        self.ended: list[tuple[Work, Outcome]] = []
        self.sleeping: list[tuple[float, int, Work, Steps]] = []
        self.serial = itertools.count()
        self.reconciled, self.retry_at, self.at_once = time.monotonic(), 0.0, 1000
        self.log = logs.logger("executor")

    # ---- E1 -------------------------------------------------------------------------------------------------------------------------------------
    def __call__(self, tx: Transaction, messages: Sequence[Envelope], *, now: datetime) -> Sequence[Refused]:
        """DISPATCHED → RUNNING where the epoch is the command's; the work begins once this has committed."""
        commands = {each.body.attempt_id: each for each in messages}  # type: ignore[attr-defined]
        rows = attempts.lock(tx, commands)
        mine = {key: row for key, row in rows.items() if row.state is State.DISPATCHED and row.epoch == commands[key].subject.epoch}
        attempts.start(tx, list(mine), owner=self.instance, now=now)
        found = processes.places(tx, (row.process_id for row in mine.values()))
        started = []
        for key, row in mine.items():
            command, place = commands[key], found[row.process_id]
            started.append(facts.fact(self.topics, command.subject, place, TaskStarted(self.instance), cause=command.mid))
        outbox.append(tx, started, placement=self.placement, now=now)
        works = self.orders(tx, {key: commands[key].subject for key in mine}, found)
        judged(tx, {commands[key].mid: "late" for key in rows.keys() - mine.keys()})
        for key in rows.keys() - mine.keys():
            late = commands[key]
            after_commit(tx, partial(journal.write, "late", why=f"the attempt is {rows[key].state}, epoch {rows[key].epoch}", mid=late.mid.hex(), type="RunTask", process=late.subject.process, token=key))
        after_commit(tx, lambda: self.take(works))
        return [Refused(each, "Illegal", f"attempt {key} is not there") for key, each in commands.items() if key not in rows]

    def orders(self, tx: Transaction, subjects: Mapping[str, Subject], places: Mapping[str, Place]) -> list[Work]:
        models = attempts.models(tx, subjects)
        remote = [subject.process for key, subject in subjects.items() if not self.task_types[models[key][0]].local]
        snapshots = processes.snapshots(tx, remote) if remote else {}
        works = []
        for key, subject in subjects.items():
            task_type, model = models[key]
            place = places[subject.process]
            parent = trace.belongs(place.trace_context, subject.experiment, subject.task, subject.attempt)
            order = WorkOrder(key, subject.epoch, subject.attempt, subject, task_type, model or {}, snapshots.get(subject.process, {}), parent)
            works.append(Work(order, place))
        return works

    def take(self, works: Sequence[Work]) -> None:
        for work in works:
            if work.order.token in self.held and self.remote is not None:
                self.remote.abandon(work.order.token)  # Taken from us and given back: what its older worker still says is not this epoch's outcome.
            order, self.held[work.order.token] = work.order, work
            journal.write("attempt.start", token=order.token, number=order.number, epoch=order.epoch, instance=self.instance, task=order.subject.task, type=order.task_type)
            task_type = self.task_types[order.task_type]
            if task_type.local or self.remote is None:
                self.advance(work, task_type.steps(order))
            else:
                self.remote.start(work)

    def advance(self, work: Work, steps: Steps) -> None:
        """A local task until it sleeps or ends."""
        try:
            operation = next(steps)
        except StopIteration as end:
            self.ended.append((work, end.value))
        except Exception as fault:
            self.log.error("a local task raised", exc_info=fault, **logs.of(work.order.subject))
            self.ended.append((work, Failed("INTERNAL", "The task's own code failed.", raw_message=repr(fault)[:500])))
        else:
            seconds = operation.seconds if isinstance(operation, Sleep) else 0.0
            heapq.heappush(self.sleeping, (time.monotonic() + seconds, next(self.serial), work, steps))

    def gauges(self) -> Iterator[metrics.Reading]:
        running = Counter(work.order.task_type for work in dict(self.held).values())
        return (("airavata_attempts_running", running[task_type], {"task_type": task_type}) for task_type in self.task_types)

    # ---- E2 -------------------------------------------------------------------------------------------------------------------------------------
    def step(self) -> None:
        """Once a turn: wake what slept, hear what workers did, commit what ended. What MySQL does not take now stays in hand: whoever calls must poll Kafka."""
        while self.sleeping and self.sleeping[0][0] <= time.monotonic():
            _, _, work, steps = heapq.heappop(self.sleeping)
            if self.held.get(work.order.token) is work:
                self.advance(work, steps)
        for event in self.remote.poll() if self.remote else ():
            held = self.held.get(event.token)
            if held is None:
                continue
            if isinstance(event, CommitRequested):
                self.asked.append((held, event))
            elif isinstance(event.outcome, Submitted):
                del self.held[event.token]
                facts.told_end(event.token, held.order.epoch, "Submitted")
            else:
                self.ended.append((held, event.outcome))
        if time.monotonic() < self.retry_at:
            return
        try:
            self.commit_changes()
            while self.ended:
                self.commit_ended()
            if time.monotonic() - self.reconciled > 5.0:
                self.reconcile()
        except Transient as fault:
            self.retry_at = time.monotonic() + 0.1
            self.log.warning("MySQL is waited for", fault=fault, changes=len(self.asked), outcomes=len(self.ended), unknown=isinstance(fault, OutcomeUnknown))

    @property
    def seconds_to_next(self) -> float:
        """How long the loop may wait in its next poll."""
        if self.remote is not None and self.held:
            return 0.02
        return max(0.0, min(0.2, self.sleeping[0][0] - time.monotonic())) if self.sleeping else 0.1 if self.ended else 0.2

    def commit_changes(self) -> None:
        """What workers wait for, while the turn is young. Repeated after a fault, also one of unknown outcome: every change may be."""
        ends_at = time.monotonic() + TURN_SECONDS
        while self.asked and time.monotonic() < ends_at:
            work, asked = self.asked[0]
            if self.held.get(asked.token) is work and self.remote is not None:
                try:
                    asked.answer(self.commit_change(work, asked.change))
                except AiravataError:
                    raise
                except Exception as fault:
                    self.remote.abandon(asked.token)
                    self.ended.append((work, self.unstorable(work, fault)))
            del self.asked[0]

    def commit_change(self, work: Work, change: Commit) -> bool:
        """A change of the attempt's job row: step 1 or 3 of a submission. False: a newer epoch exists."""
        name = {"SUBMITTING": "submit.intent_commit", "SUBMITTED": "submit.id_commit"}.get(change.state, "doubt.verdict")
        with self.unit_of_work(name) as tx:
            return self.change_job(tx, work, change)

    def change_job(self, tx: Transaction, work: Work, change: Commit) -> bool:
        order, at = work.order, now(tx)
        tell(tx, token=(order.token,), process=(order.subject.process,))
        row = attempts.lock(tx, [order.token])[order.token]
        known = jobs.of_attempts(tx, [order.token]).get(order.token)
        stray = row.state in TERMINAL and change.state == "SUBMITTED" and known is not None and known.state in {job.State.SUBMITTING, job.State.IN_DOUBT}
        if not stray and (row.epoch != order.epoch or row.state is not State.RUNNING):
            return False  # But the id of what was started for an attempt that was ended meanwhile is kept: its watcher ends it.
        if not stray and row.owner != self.instance:  # Our own step 3, repeated after an unknown outcome, has already given the attempt away.
            return known is not None and change.state == "SUBMITTED" and known.scheduler_job_id == change.values["scheduler_job_id"]
        if known is not None and known.state in job.TERMINAL:
            return False  # Written by a release that ended the job before its attempt: this attempt ends, too, and starts nothing.
        if known is not None and (known.state, known.epoch) == (change.state, order.epoch):
            return True  # Repeated after an unknown outcome: it is there, and was told.
        job_id = ids.derived("job", order.token)
        before = known.state if known else job.State.PREPARED
        match change.state:
            case "SUBMITTING":
                work.doubted = before is job.State.IN_DOUBT
                jobs.prepare(tx, self.a_job(work, job_id, change), script_sha256=change.values["script_sha256"], now=at)
            case "SUBMITTED":
                work.submitted = True
                document = {**(known.document if known else {}), **change.values.get("document", {})}
                jobs.submitted(tx, order.token, scheduler_job_id=change.values["scheduler_job_id"], document=document, now=at)
                attempts.release(tx, order.token)
                after_commit(tx, partial(figures.submitted, document.get("receipt", {}), doubted=work.doubted))
            case _:
                self.unsure(tx, work, job.State.IN_DOUBT, reason=str(change.values.get("reason", "")), evidence=list(change.values.get("evidence", ())), at=at)
        body = JobChanged(job_id, before, change.state, str(change.values.get("reason", "")), change.values.get("scheduler_job_id"))
        outbox.append(tx, [facts.fact(self.topics, order.subject, work.place, body, name=change.state)], placement=self.placement, now=at)
        return True

    def unsure(self, tx: Transaction, work: Work, state: job.State, *, reason: str, evidence: list[str], at: datetime) -> None:
        """The host did not start it: nobody knows (IN_DOUBT), or surely not (FAILED)."""
        order = work.order
        jobs.unsure(tx, order.token, state=state, reason=reason, evidence=evidence, now=at)
        after_commit(tx, partial(journal.write, "verdict", job=ids.derived("job", order.token), token=order.token, epoch=order.epoch, answers=evidence, conclusion=state))
        after_commit(tx, partial(figures.unsure, evidence, doubted=work.doubted, failed=state is job.State.FAILED))

    def a_job(self, work: Work, job_id: str, change: Commit) -> jobs.Job:
        order, values = work.order, change.values
        return jobs.Job(
            id=job_id, attempt_id=order.token, task_id=order.subject.task, process_id=order.subject.process, experiment_id=order.subject.experiment,
            compute_resource_id=order.snapshot["host"]["id"], epoch=order.epoch, state=job.State.SUBMITTING, scheduler_job_id=None, work_dir=values["work_dir"],
            document=values.get("document", {}), submitted_at=None, wall_time_seconds=int(values.get("wall_time_seconds") or 0), missing_since=None,
        )  # fmt: skip

    # ---- E3 -------------------------------------------------------------------------------------------------------------------------------------
    def commit_ended(self) -> None:
        """Outcomes in one transaction. A repeat after an unknown outcome meets ended rows and drops them."""
        batch = self.ended[: self.at_once]
        try:
            with self.unit_of_work("executor.outcome_commit") as tx:
                zombies = self.save_ended(tx, batch)
        except AiravataError:
            raise
        except Exception as fault:
            (work, outcome), self.at_once = batch[0], 1  # One by one, until it is met.
            if len(batch) == 1:
                self.ended[0] = work, self.unstorable(work, fault, instead_of=outcome)
            return
        self.at_once = 1000
        del self.ended[: len(batch)]
        for work, outcome in batch:
            if self.held.get(work.order.token) is work:  # Else it was given back to us, at a newer epoch.
                del self.held[work.order.token]
            fenced = work.order.token in zombies
            facts.told_end(work.order.token, work.order.epoch, "fenced" if fenced else type(outcome).__name__)
            if fenced:
                metrics.count("airavata_fenced_total", what="attempt")
            elif not isinstance(outcome, Submitted):
                facts.measured(work.order.task_type, outcome, time.monotonic() - work.began)
        if zombies:
            self.log.warning("attempts were not ours any more", attempts=zombies)

    def unstorable(self, work: Work, fault: Exception, *, instead_of: Outcome | None = None) -> Outcome:
        """What a host or a program told is too long, out of range or no text: its attempt ends with that, and nobody else's. Raises what is a bug of ours."""
        message, raw = "What the work told cannot be stored.", repr(getattr(fault, "orig", fault))[:300]
        if isinstance(instead_of, Failed | InDoubt) and instead_of.message == message:
            raise fault
        self.log.error("what an attempt told cannot be stored", exc_info=fault, **logs.of(work.order.subject))
        return InDoubt(message, (raw,)) if self.task_types[work.order.task_type].once else Failed("INTERNAL", message, raw_message=raw)

    def save_ended(self, tx: Transaction, batch: Sequence[tuple[Work, Outcome]]) -> list[str]:
        at = now(tx)
        tell(tx, token=(work.order.token for work, _ in batch))
        rows = attempts.lock(tx, (work.order.token for work, _ in batch))
        ended, told, zombies = [], [], []
        open_jobs = jobs.of_attempts(tx, [work.order.token for work, _ in batch if self.task_types[work.order.task_type].once])
        for work, outcome in batch:
            order = work.order
            row = rows.get(order.token)
            if row is None or row.state is not State.RUNNING or row.epoch != order.epoch or row.owner != self.instance:
                zombies.append(order.token)
                continue
            assert isinstance(outcome, Succeeded | Failed | InDoubt)
            state, fact = execution.decide(outcome)
            ended.append((row, state, facts.remembered(outcome)))
            if isinstance(outcome, InDoubt | Failed) and order.token in open_jobs:
                told += self.end_job(tx, work, open_jobs[order.token], outcome, at)
            told.append(facts.fact(self.topics, order.subject, work.place, fact))
            if isinstance(outcome, Succeeded | Failed) and outcome.outputs:
                outputs.staged(tx, order.subject.experiment, outcome.outputs, now=at)
        attempts.finish(tx, ended, now=at)
        outbox.append(tx, told, placement=self.placement, now=at)
        return zombies

    def end_job(self, tx: Transaction, work: Work, known: jobs.Job, outcome: InDoubt | Failed, at: datetime) -> list[Envelope]:
        """The job of an attempt that ends without one: in doubt, or refused for good. One that was in doubt already keeps the newer reason, and nothing is told."""
        state, evidence = (job.State.IN_DOUBT, list(outcome.evidence)) if isinstance(outcome, InDoubt) else (job.State.FAILED, [])
        if known.state not in {job.State.SUBMITTING, job.State.IN_DOUBT}:
            return []
        if known.state is state:
            jobs.unsure(tx, work.order.token, state=state, reason=outcome.message, evidence=evidence, now=at)
            return []
        self.unsure(tx, work, state, reason=outcome.message, evidence=evidence, at=at)
        return [facts.fact(self.topics, work.order.subject, work.place, JobChanged(known.id, known.state, state, outcome.message), name=state)]

    # ---- what happened without our learning it ------------------------------------------------------------------------------------------------------
    def reconcile(self) -> None:
        """E1's reply may be lost: what is RUNNING under our name but not in our hands is taken up now. What is in our hands but not ours any more is let go."""
        self.reconciled = time.monotonic()
        with self.unit_of_work("executor.reconcile") as tx:
            owned = attempts.owned(tx, self.instance)
            rows = attempts.lock(tx, owned.keys() - self.held.keys())
            self.take_missing(tx, {key: row for key, row in rows.items() if row.owner == self.instance})
        for work in [each for key, each in self.held.items() if owned.get(key) != each.order.epoch and not each.submitted]:
            self.let_go(work)

    def let_go(self, work: Work) -> None:
        """Its attempt was taken or ended by others: what its worker still does, holding a connection that its successor may wait for, is nobody's any more."""
        del self.held[work.order.token]
        if self.remote is not None:
            self.remote.abandon(work.order.token)
        facts.told_end(work.order.token, work.order.epoch, "fenced")
        metrics.count("airavata_fenced_total", what="attempt")
        self.log.warning("an attempt was not ours any more", **logs.of(work.order.subject))

    def take_missing(self, tx: Transaction, rows: Mapping[str, Held]) -> None:
        if not rows:
            return
        places = processes.places(tx, (row.process_id for row in rows.values()))
        types = attempts.models(tx, rows)
        subjects = {
            key: Subject(places[row.process_id].gateway_id, places[row.process_id].experiment_id, row.process_id, row.task_id, types[key][0], row.number, row.epoch)
            for key, row in rows.items()
        }
        works = self.orders(tx, subjects, places)
        self.log.warning("took up attempts whose start was not confirmed", count=len(works))
        after_commit(tx, lambda: self.take(works))
