"""The job executor's second loop: it watches the jobs of the hosts whose `host_watches` row it holds. Adoption is nothing but taking the row.

One exec per host and interval looks at all its jobs; pure verdicts (submission/watch.py) say what that means; one transaction ends attempts, moves jobs and tells the facts.
A job is guarded by its attempt's epoch, so a watcher that was overtaken meets 0 rows. Wall time is enforced here, since a FORK job has no scheduler that would; and a job that
outlives its attempt (a deadline passed) is ended here: nobody else knows of it.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from app import journal
from app.errors import Transient
from app.messages import trace
from app.messages.envelope import Subject
from app.messages.events import JobChanged
from app.messages.placement import Placement
from app.messages.topics import Topics
from app.mysql import attempts, hosts, jobs, outbox, processes
from app.mysql.answering import Answering
from app.mysql.jobs import Job
from app.mysql.unit_of_work import Transaction, after_commit, now, tell
from app.workflow import execution
from app.workflow.attempt import State
from app.workflow.execution import Failed, Succeeded
from app.workflow.job import TERMINAL
from components.task_executors import facts, figures, spans
from components.task_executors.plugin import TaskType, WorkOrder
from components.task_executors.slots import Slots
from components.task_executors.submission import ends
from components.task_executors.submission.watch import JOBS_PER_LOOK_MAX, KILLS_MAX, Seen, Verdict, unconfirmed, unwanted, verdict
from components.task_executors.ways import Way, Ways
from components.task_executors.workers import CommitRequested, Finished, Pool
from observability import logs, metrics, tracing

CLAIM_SECONDS = 1.0
YOUNG_SECONDS, YOUNG_INTERVAL_SECONDS = 10.0, 0.2
AGAIN_SECONDS = 0.2  # While the host's connections are all in use.


@dataclass
class Watched:
    """A host of ours. `looking`: the jobs of the look under way."""

    id: str
    due_at: float = 0.0
    looking: dict[str, Job] = field(default_factory=dict)
    began: int = 0
    after: str = ""  # Where the next look begins: round and round, so that no jobs hold up others.
    killing: tuple[str, ...] = ()  # The tokens of a kill under way.
    kills: Counter[str] = field(default_factory=Counter)
    seen: float = field(default_factory=time.monotonic)  # When a look last told something, or this host became ours.


class Watcher:
    """Runs in a thread of its own, with a pool and a connection of its own."""

    def __init__(self, *, unit_of_work: Answering, pool: Pool, ways: Ways, instance: str, topics: Topics, placement: Placement, interval_seconds: float, lease_seconds: int) -> None:
        self.unit_of_work, self.pool, self.ways, self.instance, self.topics, self.placement = unit_of_work, pool, ways, instance, topics, placement
        self.interval_seconds, self.lease_seconds = interval_seconds, lease_seconds
        self.slots = Slots(pool, f"{instance}/watch", unit_of_work)  # The executor beside it gives its own back by name.
        self.hosts: dict[str, Watched] = {}
        self.claimed_at = float("-inf")
        self.log = logs.logger("watch")

    def turn(self) -> None:
        """Claim once a second, look where it is due, hear what came back."""
        try:
            if time.monotonic() - self.claimed_at > CLAIM_SECONDS:
                self.claimed_at = time.monotonic()
                self._claim()
            self.slots.tend()
            for each in sorted(self.hosts.values(), key=lambda each: each.due_at):
                if self.pool.free and not each.looking and not each.killing and each.due_at <= time.monotonic():
                    self._look(each)
        except Transient as fault:
            self.slots.doubt()
            self.log.warning("watch waits", fault=fault)
            self.claimed_at = time.monotonic()
        for event in self.pool.poll():
            if isinstance(event, CommitRequested):
                event.answer(False)  # A look commits nothing.
            else:
                self._heard(event)

    def leave(self) -> None:
        """Hosts are free at once for whoever comes next."""
        try:
            with self.unit_of_work("watch.leave") as tx:
                hosts.release_watches(tx, self.instance)
        except Transient as fault:
            self.log.warning("watches not given up; their leases run out", fault=fault)
        self.slots.close()

    def _claim(self) -> None:
        with self.unit_of_work("watch.claim") as tx:
            wanted = jobs.hosts_with_open_jobs(tx)
            hosts.ensure_watch(tx, wanted)
            mine = hosts.claim_watches(tx, wanted, owner=self.instance, seconds=self.lease_seconds)
            tell(tx, host=mine)
        self.hosts = {each: self.hosts.get(each) or Watched(each) for each in mine} | {each.id: each for each in self.hosts.values() if each.looking or each.killing}

    # ---- look -------------------------------------------------------------------------------------------------------------------------------------------
    def _look(self, host: Watched) -> None:
        with self.unit_of_work("watch.read") as tx:
            found = jobs.watched_on(tx, host.id, after=host.after, limit=JOBS_PER_LOOK_MAX)
            at = now(tx)
            way = self.ways.find(tx, host.id, None, None)
        host.after = found[-1].id if len(found) == JOBS_PER_LOOK_MAX else ""
        young = any(each.submitted_at is not None and (at - each.submitted_at).total_seconds() < YOUNG_SECONDS for each in found)
        host.due_at = time.monotonic() + (min(self.interval_seconds, YOUNG_INTERVAL_SECONDS) if young else self.interval_seconds)
        if found and way.address is not None:
            host.began = tracing.now_ns()
            if self._send(ends.LOOK, host, way, found):
                host.looking = {each.attempt_id: each for each in found}
            else:
                host.due_at = time.monotonic() + AGAIN_SECONDS

    def _send(self, kind: TaskType, host: Watched, way: Way, found: Sequence[Job]) -> bool:
        """False: no connection is free."""
        if not self.slots.room(way):
            with self.unit_of_work("executor.slots") as tx:
                self.slots.claim(tx, way)
        controls = {each.attempt_id: each.document["control"] for each in found}
        token = f"{kind.name}/{host.id}"
        order = WorkOrder(token, int(time.monotonic() * 1000), 1, Subject("", "", ""), kind.name, {"root": found[0].document["root"], "controls": controls}, {})
        return self.slots.start(way, order, kind)

    def _heard(self, event: Finished) -> None:
        kind, _, host_id = event.token.partition("/")
        host = self.hosts.get(host_id)
        if host is None:
            return
        good = isinstance(event.outcome, Succeeded)
        if not good:
            self.log.warning("a look or a kill failed", order=kind, host=host_id, fault=str(getattr(event.outcome, "message", event.outcome))[:300])
        if kind == ends.KILL.name:
            host.kills.update(host.killing if good else ())
            host.killing, host.due_at = (), 0.0
            return
        found, host.looking = host.looking, {}
        metrics.count("airavata_job_looks_total", host=host_id, outcome="ok" if good else "failed")
        if not isinstance(event.outcome, Succeeded):
            return
        host.seen = time.monotonic()
        try:
            self._apply(host, found, event.outcome)
        except Transient as fault:
            self.slots.doubt()
            self.log.warning("what was seen is not stored yet", fault=fault)

    # ---- what it means ------------------------------------------------------------------------------------------------------------------------------------
    def _apply(self, host: Watched, found: dict[str, Job], outcome: Succeeded) -> None:
        seen = ends.seen_of(outcome)
        doomed: list[Job] = []
        with self.unit_of_work("watch.commit") as tx:
            at = now(tx)
            hosts.looked(tx, host.id)
            over, told = attempts.over(tx, seen), list[tuple[Job, Seen, Verdict]]()
            for token, each in seen.items():
                job = found[token]
                means = verdict(each, wall_time_seconds=job.wall_time_seconds, missing_since=job.missing_since, now=at)
                if token in over:
                    means = unwanted(means, each, was=job.state, stored=job.scheduler_job_id is not None, wall_time_seconds=job.wall_time_seconds, why=over[token])
                if means.kill and host.kills[token] >= KILLS_MAX:
                    means = unconfirmed(means, each, over=token in over)
                elif means.kill:
                    doomed.append(job)
                if means.state != job.state or means.missing_since != job.missing_since:
                    told.append((job, each, means))
            changed = self._save(tx, told, over, at)
        spans.looked(host.id, began=host.began, asked=len(found), changed=changed)
        if doomed:
            self._kill(host, doomed)

    def _save(self, tx: Transaction, told: Sequence[tuple[Job, Seen, Verdict]], over: Mapping[str, str], at: datetime) -> list[str]:
        """The spans of the jobs that changed. `over`: whose attempts had ended; then the job's end ends nothing else."""
        rows = attempts.lock(tx, (job.attempt_id for job, _, _ in told))
        places = processes.places(tx, (job.process_id for job, _, _ in told))
        ended, messages, changed = [], [], []
        for job, seen, means in told:
            row = rows.get(job.attempt_id)
            if row is None or (job.attempt_id not in over and (row.state is not State.RUNNING or row.owner is not None or row.epoch != job.epoch)):
                continue  # Overtaken: a newer epoch, a cancel, or somebody else's verdict.
            last = means.state in TERMINAL
            tails = (seen.stdout_tail, seen.stderr_tail) if last else (None, None)
            if not jobs.saw(tx, job, means.state, means.reason, exit_code=means.exit_code, missing_since=means.missing_since, evidence=means.evidence, tails=tails, scheduler_job_id=seen.job_id, now=at):
                continue  # Another watcher of this host was faster.
            place = places[job.process_id]
            subject = Subject(place.gateway_id, place.experiment_id, job.process_id, job.task_id, "JOB_SUBMISSION", row.number, row.epoch)
            after_commit(tx, partial(journal.write, "verdict", job=job.id, token=job.attempt_id, epoch=row.epoch, answers=list(means.evidence or seen.answers), conclusion=means.state))
            changed.append(trace.skeleton(place.trace_context, "job", job.attempt_id))
            waited = (at - job.submitted_at).total_seconds() - max(seen.ran_seconds, seen.took_seconds) if job.submitted_at else 0.0
            after_commit(tx, partial(figures.seen, job.compute_resource_id, job.state, means.state, waited_seconds=waited, duplicate=seen.duplicate and last))
            if means.state != job.state:
                body = JobChanged(job.id, job.state, means.state, means.reason, job.scheduler_job_id or seen.job_id)
                messages.append(facts.fact(self.topics, subject, place, body, name=f"{job.state}{means.state}{at.timestamp()}"))
            if isinstance(means.outcome, Succeeded | Failed):
                state, body_of = execution.decide(means.outcome)
                ended.append((row, state, facts.remembered(means.outcome)))
                after_commit(tx, partial(facts.told_end, job.attempt_id, row.epoch, type(means.outcome).__name__))
                after_commit(tx, partial(facts.measured, "JOB_SUBMISSION", means.outcome, (at - row.created_at).total_seconds()))
                messages.append(facts.fact(self.topics, subject, place, body_of))
        attempts.finish(tx, ended, now=at)
        outbox.append(tx, messages, placement=self.placement, now=at)
        return changed

    def _kill(self, host: Watched, doomed: Sequence[Job]) -> None:
        """What overran its wall time or outlives its attempt, a few times: while a kill is under way nobody looks."""
        with self.unit_of_work("watch.read") as tx:
            way = self.ways.find(tx, host.id, None, None)
        if way.address is not None:
            self.log.warning("jobs overran their wall time, or outlive their attempts", host=host.id, jobs=[each.id for each in doomed])
            if self._send(ends.KILL, host, way, doomed):  # Else after the next look.
                host.killing = tuple(each.attempt_id for each in doomed)
