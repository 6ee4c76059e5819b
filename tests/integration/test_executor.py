"""E1–E3 on real databases: an attempt begins once per epoch, ends where it is still ours, and a zombie touches nothing."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs

from app import failpoint
from app.errors import OutcomeUnknown, StoreUnavailable
from app.messages.commands import AttemptAbandoned, RunTask
from app.messages.events import TaskFailed
from app.mysql import instances
from app.mysql.answering import Answering
from app.workflow.attempt import State
from app.workflow.execution import Failed, InDoubt, StagedOutput, Succeeded
from components.task_executors.executor import Executor, Work
from components.task_executors.noop import TASK_TYPES
from components.task_executors.plugin import Commit
from components.task_executors.remote import Workers
from components.task_executors.ways import Way
from components.task_executors.workers import CommitRequested, Finished, WorkerEvent
from components.task_scheduler.timers import TimerLoop
from tests.support.world import PLACEMENT, SUBMITTED, SUBMITTING, TOPICS, World

REFUSED = Failed("LAUNCH_FAILURE", "the key was refused", condition="AUTH_REQUIRED")


@pytest.fixture
def world(database: str) -> Iterator[World]:
    made = World(database)
    yield made
    made.engine.dispose()


def test_E1_an_attempt_begins_once_whoever_gets_the_command_again(world: World) -> None:
    world.launch("a", "a:sleep_ms=60000")
    commands = world.to_commands()
    one, two = world.executor("one"), world.executor("two")
    world.give(one, commands)
    assert world.attempt() == ("RUNNING", 1, "one")
    assert [type(each.body).__name__ for each in world.sent()] == ["TaskStarted"]
    world.give(two, commands)
    assert (list(one.held), list(two.held)) == ([commands[0].body.attempt_id], [])
    assert world.sent() == []


def test_E2_E3_the_outcome_and_its_fact_commit_together(world: World) -> None:
    world.launch("a")
    executor = world.executor("one")
    world.give(executor, world.to_commands())
    world.sent()
    executor.step()
    assert world.attempt() == ("SUCCEEDED", 1, None)
    assert [type(each.body).__name__ for each in world.sent()] == ["TaskSucceeded"]
    assert not executor.held


def test_E3_a_zombie_whose_attempt_was_taken_touches_nothing(world: World) -> None:
    world.launch("a", "a:sleep_ms=1")
    executor = world.executor("one")
    world.give(executor, world.to_commands())
    world.sent()
    with world.unit("silence") as tx:
        instances.remove(tx, "one")
    TimerLoop(unit_of_work=world.unit, placement=PLACEMENT, topics=TOPICS, lease_seconds=10).take_from_silent()
    abandoned = world.sent()
    assert [type(each.body) for each in abandoned] == [AttemptAbandoned]
    while not executor.ended:
        executor.step()
        if not executor.held:
            break
    assert world.attempt() == ("RUNNING", 1, None)
    assert world.sent() == []
    world.give(world.scheduler, abandoned)
    again = [each for each in world.sent() if isinstance(each.body, RunTask)]
    assert [(each.subject.attempt, each.subject.epoch) for each in again] == [(1, 2)]
    successor = world.executor("two")
    world.give(successor, again)
    while successor.held:
        successor.step()
    assert world.attempt() == ("SUCCEEDED", 2, None)


class Elsewhere:
    """A remote whose workers end when told to."""

    def __init__(self) -> None:
        self.works: list[Work] = []

    def start(self, work: Work) -> None:
        self.works.append(work)

    def abandon(self, token: str) -> None:
        self.works = [each for each in self.works if each.order.token != token]

    def poll(self) -> list[WorkerEvent]:
        ended, self.works = self.works, []
        return [Finished(each.order.token, Succeeded()) for each in ended]


class Asking(Elsewhere):
    """A worker that waits until the executor has committed its change."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[bool] = []
        self.asks: list[WorkerEvent] = []

    def poll(self) -> list[WorkerEvent]:
        asked, self.asks = self.asks, []
        return asked


def remotely(executor: Executor) -> Asking:
    executor.task_types = {name: replace(each, local=False) for name, each in executor.task_types.items()}
    executor.remote = found = Asking()
    return found


@pytest.mark.parametrize("elsewhere", [True, False])
def test_E3_an_attempt_that_was_taken_and_given_back_to_the_same_executor_ends_once(world: World, elsewhere: bool) -> None:
    world.launch("a", "a:sleep_ms=400")  # So that what it began first ends before what it began again.
    executor = world.executor("one")
    if elsewhere:
        executor.remote, executor.task_types = Elsewhere(), {name: replace(each, local=False) for name, each in executor.task_types.items()}
    world.give(executor, world.to_commands())
    with world.unit("silence") as tx:
        instances.remove(tx, "one")
    world.sent()
    TimerLoop(unit_of_work=world.unit, placement=PLACEMENT, topics=TOPICS, lease_seconds=10).take_from_silent()
    world.give(world.scheduler, world.sent())
    world.give(executor, [each for each in world.sent() if isinstance(each.body, RunTask)])
    world.sent()
    while executor.held:
        executor.step()
    assert world.attempt() == ("SUCCEEDED", 2, None)
    assert [(type(each.body).__name__, each.subject.epoch) for each in world.sent()] == [("TaskSucceeded", 2)]


def test_E2_a_change_that_mysql_does_not_take_now_waits_and_the_loop_goes_on(world: World) -> None:
    executor, work = world.submitting("one")
    remote, faults = remotely(executor), [StoreUnavailable("MySQL is away")] * 3
    remote.asks = [CommitRequested(work.order.token, SUBMITTED, remote.answers.append)]
    real = executor.unit_of_work

    def away(name: str) -> Any:
        if faults:
            raise faults.pop()
        return real(name)

    executor.unit_of_work = away
    executor.step()  # One try: whoever calls polls Kafka in between, or is thrown out of the group with all its work.
    executor.step()
    assert (len(faults), remote.answers, world.job()) == (2, [], ("SUBMITTING", None))
    while not remote.answers:
        executor.step()
    assert (faults, remote.answers, world.job()) == ([], [True], ("SUBMITTED", "7@b"))


def test_E2_changes_that_are_slow_are_committed_over_several_turns(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    executor, work = world.submitting("one")
    remote = remotely(executor)
    monkeypatch.setattr("components.task_executors.executor.TURN_SECONDS", 0.0)
    remote.asks = [CommitRequested(work.order.token, SUBMITTED, remote.answers.append)]
    executor.step()
    assert (remote.answers, list(executor.held)) == ([], [work.order.token])
    monkeypatch.undo()
    executor.step()
    assert remote.answers == [True]


def test_what_others_have_taken_is_let_go_of_and_frees_its_worker(world: World) -> None:
    executor, work = world.submitting("one")
    remote = remotely(executor)
    remote.works = [work]
    executor.reconcile()
    assert (list(executor.held), remote.works) == ([work.order.token], [work])
    world.given_again("two")
    executor.reconcile()
    assert (executor.held, remote.works) == ({}, [])
    remote.asks = [CommitRequested(work.order.token, SUBMITTED, remote.answers.append)]
    executor.step()
    assert (remote.answers, world.attempt()) == ([], ("RUNNING", 2, "two"))


def test_what_has_no_owner_since_its_job_runs_is_not_let_go_of_before_its_worker_is_done(world: World) -> None:
    executor, work = world.submitting("one")
    assert executor.commit_change(work, SUBMITTED)
    executor.reconcile()
    assert list(executor.held) == [work.order.token]


@pytest.mark.parametrize("uri", ["storage://s/" + "x" * 3000, "storage://s/\udcff"], ids=["too long", "no text"])
def test_E3_an_outcome_that_mysql_does_not_take_ends_its_attempt_alone(world: World, uri: str) -> None:
    world.launch("a b c", "a:sleep_ms=60000 b:sleep_ms=60000 c:sleep_ms=60000")
    executor = world.executor("one")
    world.give(executor, world.to_commands())
    world.sent()
    with world.unit("declared") as tx:
        tx.exec_driver_sql(
            "INSERT INTO outputs (experiment_id, name, type, position, state, updated_at) SELECT id, 'out', 'URI', 0, 'EXPECTED', UTC_TIMESTAMP(6) FROM experiments"
        )
    outcomes = [Succeeded(), Succeeded({}, (StagedOutput("out", "STAGED", uri, 1, "0" * 64),)), Succeeded()]
    executor.ended = list(zip(executor.held.values(), outcomes, strict=True))
    executor.step()
    assert executor.held == {}
    told = [each.body for each in world.sent()]
    assert sorted(type(each).__name__ for each in told) == ["TaskFailed", "TaskSucceeded", "TaskSucceeded"]
    assert [(each.code, each.message) for each in told if isinstance(each, TaskFailed)] == [("INTERNAL", "What the work told cannot be stored.")]


def test_E2_a_change_that_mysql_does_not_take_leaves_its_attempt_in_doubt(world: World) -> None:
    executor, work = world.submitting("one")
    remote = remotely(executor)
    remote.works = [work]
    remote.asks = [CommitRequested(work.order.token, Commit("SUBMITTED", {"scheduler_job_id": "7" * 200}), remote.answers.append)]
    executor.step()
    assert (remote.answers, remote.works, world.attempt()[0], world.job()) == ([], [], "IN_DOUBT", ("IN_DOUBT", None))
    assert [type(each.body).__name__ for each in world.sent()] == ["JobChanged", "TaskInDoubt"]


def test_E1_whose_commit_reply_was_lost_is_taken_up_by_looking(world: World) -> None:
    world.launch("a")
    executor = world.executor("one")
    commands = world.to_commands()
    executor.take = lambda _works: None  # The reply was lost: nobody told us that it began.
    world.give(executor, commands)
    del executor.take
    assert not executor.held
    executor.reconcile()
    assert list(executor.held) == [commands[0].body.attempt_id]


def test_E3_repeated_after_an_unknown_outcome_ends_once(world: World) -> None:
    world.launch("a")
    executor = world.executor("one")
    world.give(executor, world.to_commands())
    world.sent()
    real, told = executor.unit_of_work, []

    class Unknown:
        def __init__(self, name: str) -> None:
            self.unit = real(name)

        def __enter__(self):
            return self.unit.__enter__()

        def __exit__(self, *fault):
            self.unit.__exit__(*fault)
            if not told:
                told.append(1)
                raise OutcomeUnknown("the answer was lost, the commit was not")

    executor.unit_of_work = Unknown
    while executor.held:
        executor.step()
    assert told == [1]
    assert world.attempt()[0] == State.SUCCEEDED
    assert len(world.sent()) == 1


def test_a_frozen_owner_is_silent_only_after_its_lease(world: World) -> None:
    world.launch("a", "a:sleep_ms=60000")
    world.give(world.executor("one"), world.to_commands())
    world.sent()
    loop = TimerLoop(unit_of_work=world.unit, placement=PLACEMENT, topics=TOPICS, lease_seconds=10)
    loop.take_from_silent()
    assert world.attempt() == ("RUNNING", 1, "one")
    with world.unit("old") as tx:
        tx.exec_driver_sql("UPDATE instances SET heartbeat_at = UTC_TIMESTAMP(6) - INTERVAL 11 SECOND")
    loop.take_from_silent()
    assert world.attempt() == ("RUNNING", 1, None)


def test_after_an_outage_of_mysql_everybody_has_a_lease_to_beat_again(world: World) -> None:
    world.launch("a", "a:sleep_ms=60000")
    world.give(world.executor("one"), world.to_commands())
    with world.unit("old") as tx:
        tx.exec_driver_sql("UPDATE instances SET heartbeat_at = UTC_TIMESTAMP(6) - INTERVAL 11 SECOND")
    faults: list[Exception] = []

    def away(name: str) -> Any:
        if faults:
            raise faults.pop()
        return world.unit(name)

    loop = TimerLoop(unit_of_work=away, placement=PLACEMENT, topics=TOPICS, lease_seconds=10)

    def turn() -> str | None:
        loop.looked_for_silent = loop.unit_of_work.away_until = 0.0
        loop.run(lambda _: True)
        return world.attempt()[2]

    assert turn() == "one"  # Just begun: MySQL may have been away until now.
    loop.unit_of_work.since = 0.0
    faults.append(StoreUnavailable("MySQL is away"))
    assert [turn(), turn()] == ["one", "one"]
    loop.unit_of_work.since = 0.0  # A lease later.
    assert turn() is None


@pytest.mark.parametrize("unknown", ["submit.intent_commit", "doubt.verdict", "submit.id_commit"])
def test_a_change_of_a_job_repeated_after_an_unknown_commit_is_told_once(world: World, monkeypatch: pytest.MonkeyPatch, unknown: str) -> None:
    world.launch("a", "a:sleep_ms=60000")
    executor = world.executor("one")
    world.give(executor, world.to_commands())
    world.sent()
    (work,) = executor.held.values()
    work = replace(work, order=structs.replace(work.order, snapshot={"host": {"id": "cmp_1"}}))
    monkeypatch.setattr(failpoint, "hit", failpoint.hit)  # Put back afterwards.
    failpoint.arm(f"{unknown}.after=raise:unknown", environment="test")
    changes = (
        SUBMITTING,
        Commit("IN_DOUBT", {"reason": "nobody knows", "evidence": ["receipt: none"]}),
        SUBMITTED,
    )
    for each in changes:
        with suppress(OutcomeUnknown):
            assert executor.commit_change(work, each)
        assert executor.commit_change(work, each)
    assert [each.body.to_state for each in world.sent()] == ["SUBMITTING", "IN_DOUBT", "SUBMITTED"]


def test_E3_a_refused_job_ends_with_its_attempt_in_one_transaction(world: World) -> None:
    executor, work = world.submitting("one")
    executor.ended.append((work, REFUSED))
    executor.step()
    assert (world.attempt()[0], world.job()) == ("FAILED", ("FAILED", None))
    assert [type(each.body).__name__ for each in world.sent()] == ["JobChanged", "TaskFailed"]


def test_E3_a_refusal_that_nobody_heard_of_leaves_the_job_to_the_next_epoch(world: World) -> None:
    executor, work = world.submitting("one")
    successor = world.given_again("two")
    executor.ended.append((work, REFUSED))
    executor.step()
    again = world.of_a_job(successor)
    assert (again.order.epoch, world.job()) == (2, ("SUBMITTING", None))
    assert successor.commit_change(again, SUBMITTING)
    assert successor.commit_change(again, SUBMITTED)
    assert world.job() == ("SUBMITTED", "7@b")


def test_a_job_that_an_older_release_ended_before_its_attempt_is_not_started_by_it(world: World) -> None:
    world.submitting("one")
    with world.unit("older") as tx:
        tx.exec_driver_sql("UPDATE jobs SET state = 'FAILED', finished_at = UTC_TIMESTAMP(6)")
    successor = world.given_again("two")
    world.sent()
    assert not successor.commit_change(world.of_a_job(successor), SUBMITTING)
    assert (world.job(), world.sent()) == (("FAILED", None), [])


def test_a_job_that_was_started_while_its_attempt_was_ended_keeps_its_id_so_that_its_watcher_can_end_it(world: World) -> None:
    executor, work = world.submitting("one")
    with world.unit("deadline") as tx:
        tx.exec_driver_sql("UPDATE attempts SET state = 'CANCELED', epoch = 2, owner = NULL, finished_at = UTC_TIMESTAMP(6)")
    assert not executor.commit_change(work, SUBMITTING)
    assert executor.commit_change(work, SUBMITTED)
    assert (world.job(), world.attempt()) == (("SUBMITTED", "7@b"), ("CANCELED", 2, None))
    assert [each.body.to_state for each in world.sent()] == ["SUBMITTED"]
    assert not executor.commit_change(work, SUBMITTED)
    assert world.sent() == []


@pytest.mark.parametrize(("sent", "expected"), [(True, InDoubt), (False, Failed)], ids=["an earlier epoch may have sent it", "nothing was ever sent"])
def test_an_order_whose_host_may_not_be_asked_is_in_doubt_if_its_job_may_run(world: World, sent: bool, expected: type) -> None:
    _, work = world.submitting("one")
    if not sent:
        with world.unit("nothing") as tx:
            tx.exec_driver_sql("DELETE FROM jobs")
    ways = SimpleNamespace(find=lambda *_: Way(None, "cmp_1", "crd_1", 1, 0, ("AUTH_REQUIRED", "the key was refused")))
    pool = SimpleNamespace(poll=lambda: (), freed=False, free=0)
    task_types = {each.name: replace(each, once=True) for each in TASK_TYPES}
    workers = Workers(pool=pool, unit_of_work=Answering(world.unit), task_types=task_types, ways=ways, owner="two")
    workers.start(replace(work, order=structs.replace(work.order, epoch=2)))
    (happened,) = workers.poll()
    assert isinstance(happened, Finished)
    assert isinstance(happened.outcome, expected)
    assert "the key was refused" in happened.outcome.message


def test_E3_a_job_that_stays_in_doubt_keeps_the_newer_reason_and_tells_no_move(world: World) -> None:
    executor, work = world.submitting("one")
    assert executor.commit_change(work, Commit("IN_DOUBT", {"reason": "nobody knows", "evidence": ["receipt: none"]}))
    world.sent()
    executor.ended.append((work, InDoubt("its host cannot be asked", ("AUTH_REQUIRED",))))
    executor.step()
    with world.unit("look") as tx:
        assert tuple(tx.exec_driver_sql("SELECT state, reason FROM jobs").one()) == ("IN_DOUBT", "its host cannot be asked")
    assert [type(each.body).__name__ for each in world.sent()] == ["TaskInDoubt"]
