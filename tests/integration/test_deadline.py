"""A job whose attempt has ended before it, as by a deadline: its watcher ends it on its host and writes down what became of it; nobody else's job is touched, and no task moves.

Jobs really run on this machine, behind a real sshd; the decisions are the scheduler's own.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs

from app.messages import ids
from app.messages.commands import DeadlineDue
from app.messages.envelope import Envelope, Subject
from app.messages.events import JobChanged, TaskFailed
from app.mysql import attempts, jobs
from app.mysql.answering import Answering
from app.mysql.unit_of_work import now
from app.workflow import attempt
from app.workflow.execution import Failed, Submitted, Succeeded
from app.workflow.graph import Attempt
from app.workflow.job import State
from components.task_executors import host as scripts
from components.task_executors import watch
from components.task_executors.layout import control_dir
from components.task_executors.plugin import Commit
from components.task_executors.submission import watch as verdicts
from components.task_executors.submission.steps import intent
from components.task_executors.submission.watch import KILLS_MAX
from components.task_executors.watch import Watcher
from components.task_executors.ways import Way
from components.task_executors.workers import Pool
from observability import metrics
from tests.support.local_host import LocalHost
from tests.support.remote_orders import a_snapshot, drive, shell
from tests.support.ssh_host import SshServer
from tests.support.world import PLACEMENT, TOPICS, World

pytestmark = pytest.mark.mysql
WHY = "its attempt had ended before: The experiment's deadline passed before it was done."


@dataclass
class Run:
    """A job that was started for the only task of an experiment."""

    token: str
    subject: Subject
    control: Path
    order: Any

    @property
    def pid(self) -> int:
        """Its wrapper, by what the kernel says of it; 0 if it is gone. Never a number that a file tells: group 1 is everybody."""
        if not (self.control / "receipt").exists():
            return 0
        pid = int(dict(word.split("=", 1) for word in (self.control / "receipt").read_text().split())["pid"])
        try:
            return pid if pid > 1 and str(self.control).encode() in Path(f"/proc/{pid}/cmdline").read_bytes() and os.getpgid(pid) == pid else 0
        except OSError:
            return 0


class Site:
    """One host, reached as two compute resources; watchers that take turns."""

    def __init__(self, server: SshServer, world: World) -> None:
        self.server, self.world, self.host = server, world, LocalHost(server.base)
        self.watchers: list[Watcher] = []
        self.runs: list[Run] = []

    def watcher(self) -> Watcher:
        ways: Any = SimpleNamespace(find=lambda _, host, *__: Way(self.server.address(), host, "crd_1", 1, 4), remembered={})
        made = Watcher(
            unit_of_work=Answering(self.world.unit), pool=Pool(2), ways=ways, instance=f"job-{len(self.watchers)}", topics=TOPICS, placement=PLACEMENT, interval_seconds=0.05, lease_seconds=10,
        )  # fmt: skip
        self.watchers.append(made)
        return made

    def launch(self, text: str = "sleep 60", *, wall: int = 300, host: str = "cmp_1", started: bool = True, stored: bool = True) -> Run:
        """Submitted, as an executor does it; or it dies before it `started` the job, or before it `stored` its id."""
        process = self.world.launch("a", "a:sleep_ms=60000")
        executor = self.world.executor(f"one-{process}")
        self.world.give(executor, self.world.to_commands())
        work = self.world.of_a_job(executor)
        snapshot = a_snapshot(self.server.scratch, process=process, host={"id": host}, scheduling={"wall_time_seconds": wall}, **shell(text))
        order = structs.replace(work.order, snapshot=snapshot, task_type="JOB_SUBMISSION")
        assert isinstance(drive(structs.replace(order, task_type="ENV_SETUP"), self.host), Succeeded)
        commits: list[Any] = [Commit("SUBMITTING", intent(order, b""))]
        if started:
            commits.clear()
            assert isinstance(drive(order, self.host, commits=commits), Submitted)
        assert all(executor.commit_change(replace(work, order=order), each) for each in commits if stored or each.state == "SUBMITTING")
        self.world.sent()
        self.runs.append(Run(order.token, order.subject, Path(control_dir(str(self.server.scratch), order.token)), order))
        return self.runs[-1]

    def deadline(self, run: Run) -> None:
        """It passes, and what the scheduler tells of it is heard."""
        due = Envelope(mid=ids.digest("due", run.token), topic=TOPICS.scheduler, partition=0, subject=Subject(run.subject.gateway, run.subject.experiment, run.subject.process), body=DeadlineDue())
        self.world.give(self.world.scheduler, [due])
        assert {type(each.body).__name__ for each in self.world.sent()} - {"JobChanged"} == {"TaskChanged", "ProcessChanged", "ExperimentChanged"}
        assert self.one("SELECT state FROM attempts WHERE id = %s", run.token) == ("CANCELED",)

    def one(self, query: str, *values: Any) -> Any:
        with self.world.unit("look") as tx:
            return tuple(tx.exec_driver_sql(query, values).one())

    def row(self, run: Run) -> tuple[str, str, int | None]:
        found: tuple[str, str, int | None] = self.one("SELECT state, reason, exit_code FROM jobs WHERE attempt_id = %s", run.token)
        return found

    def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        ends_at = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < ends_at, [self.row(each) for each in self.runs]
            for each in self.watchers:
                each.turn()
            time.sleep(0.005)

    def looks(self, many: int) -> None:
        """So many more, which told something."""
        told = metrics.value("airavata_job_looks_total", outcome="ok") + many
        self.until(lambda: metrics.value("airavata_job_looks_total", outcome="ok") >= told)

    def over(self, run: Run) -> bool:
        return self.row(run)[0] in {"COMPLETED", "FAILED", "CANCELED", "LOST"}


@pytest.fixture
def site(tmp_path: Path, database: str) -> Iterator[Site]:
    server, world = SshServer(tmp_path / "host"), World(database)
    made = Site(server, world)
    try:
        server.start()
        yield made
    finally:
        for watcher in made.watchers:
            watcher.leave()
        for run in made.runs:
            if pid := run.pid:
                os.killpg(pid, signal.SIGKILL)
        server.stop()
        world.engine.dispose()


def test_a_job_that_outlives_the_deadline_is_ended_on_its_host_and_its_row_says_why(site: Site) -> None:
    run, watcher = site.launch("trap '' TERM; sleep 60 & sleep 60"), site.watcher()
    site.until(lambda: site.row(run)[0] == "ACTIVE")
    site.world.sent()
    site.deadline(run)
    assert run.pid
    site.until(lambda: site.over(run))
    assert site.row(run)[:2] == ("CANCELED", f"canceled; {WHY}")
    assert not run.pid
    (told,) = site.world.sent()
    assert isinstance(told.body, JobChanged)
    assert (told.body.from_state, told.body.to_state, told.body.reason) == ("ACTIVE", "CANCELED", f"canceled; {WHY}")
    assert (told.subject.task, told.subject.attempt, told.subject.epoch) == (run.subject.task, 1, 2)
    assert site.one("SELECT state, epoch, outcome FROM attempts") == ("CANCELED", 2, None)
    assert site.one("SELECT state FROM tasks") == ("FAILED",)
    site.until(lambda: not watcher.hosts)


@pytest.mark.parametrize(("text", "wall", "ended"), [("exit 0", 300, ("COMPLETED", f"completed; {WHY}", 0)), ("exit 3", 300, ("FAILED", f"exit status 3; {WHY}", 3))])
def test_a_job_that_ended_by_itself_before_it_was_found_is_what_it_was(site: Site, text: str, wall: int, ended: tuple[str, str, int]) -> None:
    run = site.launch(text, wall=wall)
    site.deadline(run)
    site.watcher()
    site.until(lambda: site.over(run))
    assert site.row(run) == ended


def test_a_job_that_is_being_killed_for_its_wall_time_when_the_deadline_passes_has_overrun_it(site: Site) -> None:
    run, watcher = site.launch(wall=1), site.watcher()
    site.until(lambda: any(each.killing for each in watcher.hosts.values()))
    site.deadline(run)
    site.until(lambda: site.over(run))
    assert site.row(run)[:2] == ("FAILED", f"wall time exceeded; {WHY}")
    assert [type(each.body).__name__ for each in site.world.sent() if each.subject.task] == ["JobChanged"]


def test_nobody_elses_job_is_touched(site: Site) -> None:
    """That of a newer epoch which still looks for it, of the next attempt, of another experiment, and of another gateway on the same machine."""
    run, newer, other, foreign = site.launch(), site.launch(), site.launch(), site.launch(host="cmp_2")
    site.watcher()
    site.until(lambda: all(site.row(each)[0] == "ACTIVE" for each in site.runs))
    with site.world.unit("again") as tx:
        attempts.dispatch(tx, [Attempt(newer.token, newer.subject.task, newer.subject.process, 1, attempt.State.DISPATCHED, 2, fresh=False)], now=now(tx))
        tx.exec_driver_sql("UPDATE attempts SET task_id = %s, number = 2 WHERE id = %s", (run.subject.task, other.token))
    site.deadline(run)
    site.until(lambda: site.over(run))
    site.looks(10)
    assert [(site.row(each)[0], bool(each.pid)) for each in (newer, other, foreign)] == [("ACTIVE", True)] * 3


def test_a_job_whose_work_directory_was_cleaned_up_meanwhile_is_ended_all_the_same(site: Site) -> None:
    run = site.launch()
    site.deadline(run)
    assert drive(structs.replace(run.order, task_type="ENV_CLEANUP", model={}), site.host) == Succeeded({"removed": True})
    site.watcher()
    site.until(lambda: site.over(run))
    assert (site.row(run)[0], run.pid) == ("CANCELED", 0)


def test_a_host_that_is_away_keeps_its_job_until_it_is_back(site: Site) -> None:
    run = site.launch()
    site.watcher()
    site.until(lambda: site.row(run)[0] == "ACTIVE")
    site.server.stop()
    site.deadline(run)
    site.until(lambda: metrics.value("airavata_job_looks_total", outcome="failed") >= 2)
    assert (site.row(run)[0], bool(run.pid)) == ("ACTIVE", True)
    site.server.start()
    site.until(lambda: site.over(run))
    assert (site.row(run)[0], run.pid) == ("CANCELED", 0)


def test_jobs_that_a_host_does_not_end_hold_up_no_others_and_are_given_up_after_a_few_kills(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look takes two of them; the third, which came last, ends by itself."""
    monkeypatch.setattr(watch, "JOBS_PER_LOOK_MAX", 2)
    stubborn = [site.launch() for _ in range(4)]
    for n, each in enumerate(stubborn):
        site.deadline(each)
        with site.world.unit("older") as tx:
            tx.exec_driver_sql("UPDATE jobs SET id = %s WHERE attempt_id = %s", (f"job_{n}", each.token))
    Path(scripts.path(str(site.server.scratch), "kill")).write_text("exit 0\n")
    last, watcher = site.launch(":"), site.watcher()
    with site.world.unit("last") as tx:
        tx.exec_driver_sql("UPDATE jobs SET id = 'job_9' WHERE attempt_id = %s", (last.token,))
    site.until(lambda: site.over(last))
    kills = watcher.hosts["cmp_1"].kills
    site.until(lambda: all(site.over(each) for each in stubborn))
    assert {kills[each.token] for each in stubborn} == {KILLS_MAX}
    assert all(each.pid for each in stubborn)
    assert {site.row(each)[:2] for each in stubborn} == {("LOST", "CANCEL_UNCONFIRMED: killed 5 times, it goes on on its host")}
    site.until(lambda: not watcher.hosts)


def test_a_job_that_overran_its_wall_time_and_that_its_host_does_not_end_ends_its_attempt(site: Site) -> None:
    run, watcher = site.launch(wall=1), site.watcher()
    Path(scripts.path(str(site.server.scratch), "kill")).write_text("exit 0\n")
    site.until(lambda: site.over(run))
    assert (site.row(run)[0], bool(run.pid)) == ("LOST", True)
    assert [(each.body.code, each.body.message) for each in site.world.sent() if isinstance(each.body, TaskFailed)] == [
        ("LOST_JOB", "The job could not be ended. CANCEL_UNCONFIRMED: killed 5 times, it goes on on its host.")
    ]
    site.until(lambda: not watcher.hosts)


def test_a_job_whose_executor_died_before_it_stored_its_id_is_found_and_ended(site: Site) -> None:
    run = site.launch(stored=False)
    pid = run.pid
    site.deadline(run)
    site.watcher()
    site.until(lambda: site.over(run))
    assert (site.row(run)[:2], run.pid) == (("CANCELED", f"canceled; {WHY}"), 0)
    assert site.one("SELECT scheduler_job_id FROM jobs")[0].startswith(f"{pid}@")
    assert [each.body.to_state for each in site.world.sent()] == ["IN_DOUBT", "CANCELED"]


def test_a_job_that_was_never_started_is_barred_first_and_then_over(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "LOST_AFTER", timedelta(seconds=0.5))
    run = site.launch(started=False)
    site.deadline(run)
    site.watcher()
    site.until(lambda: site.over(run))
    assert site.row(run)[:2] == ("CANCELED", f"canceled; {WHY}")
    late = drive(run.order, site.host)
    assert isinstance(late, Failed)
    assert (late.message, run.pid) == ("The job was cancelled before it started.", 0)


@pytest.mark.parametrize("started", [True, False])
def test_a_submission_under_way_is_its_executors(site: Site, started: bool) -> None:
    run = site.launch(started=started, stored=False)
    with site.world.unit("look") as tx:
        assert jobs.hosts_with_open_jobs(tx) == jobs.watched_on(tx, "cmp_1", after="", limit=10) == []
        tx.exec_driver_sql("UPDATE attempts SET state = 'CANCELED', finished_at = UTC_TIMESTAMP(6)")
        assert (jobs.hosts_with_open_jobs(tx), [each.attempt_id for each in jobs.watched_on(tx, "cmp_1", after="", limit=10)]) == (["cmp_1"], [run.token])


def test_a_watcher_that_comes_late_with_what_it_saw_changes_nothing(site: Site) -> None:
    run = site.launch()
    with site.world.unit("look") as tx:
        (seen,) = jobs.watched_on(tx, "cmp_1", after="", limit=10)
        assert jobs.saw(tx, seen, State.CANCELED, "by the other", now=now(tx))
        assert not jobs.saw(tx, seen, State.LOST, "too late", now=now(tx))
    assert site.row(run)[:2] == ("CANCELED", "by the other")
