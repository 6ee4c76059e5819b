"""Every state has an explanation, whatever the situation; and each situation the one that helps."""

import re
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from app.messages.topics import EVENTS, LAUNCH, SCHEDULER
from app.workflow import attempt, experiment, explanation, job, process, task
from app.workflow.explanation import CAUSES, Verdict, explain
from app.workflow.facts import Attempt, Facts, Host, Job, Letter, Message, Process, Task
from app.workflow.failures import MEANINGS
from tests.support.builders import NOON, SECOND

LONG = timedelta(minutes=10)
COMPONENTS = ("generator", "scheduler", "executor-data", "executor-job")
ALL_LIVE = dict.fromkeys(COMPONENTS, NOON)
OF_TASK = "prc_1-tsk_1"


def a_run(state: experiment.State = experiment.State.EXECUTING, of: process.State = process.State.STARTED, *tasks: Task, **more: Any) -> Facts:
    return Facts(**{"now": NOON, "id": "exp_1", "state": state, "since": NOON - SECOND, "process": Process("prc_1", of, NOON - SECOND), "tasks": tasks, "living": ALL_LIVE, "host": Host("cmp_1", "laptop"), **more})


def a_task(state: task.State, *, since: datetime = NOON - SECOND, **more: Any) -> Task:
    return Task(**{"id": "tsk_1", "name": "stage", "type": "INGRESS_STAGING", "state": state, "since": since, "executor": "executor-data", **more})


def running(owner: str | None = "executor-data-1", heartbeat_at: datetime | None = NOON, state: attempt.State = attempt.State.RUNNING) -> Attempt:
    return Attempt(1, state, NOON - SECOND, owner, heartbeat_at)


def a_job(state: job.State, **more: Any) -> Job:
    return Job(**{"id": "job_1", "state": state, "since": NOON - SECOND, "scheduler_job_id": "4711", "looked_at": NOON, "watched": True, **more})


def waiting(topic: str, key: str = "prc_1", *, relayed: bool = True) -> tuple[Message, ...]:
    return (Message(topic, key, NOON - SECOND, 1, relayed),)


def told(facts: Facts) -> str:
    """The first cause, once everything about it can be said."""
    found = explain(facts)
    assert found.summary
    assert "{" not in found.summary + "".join(each.sentence + each.clears_when for each in found.causes)
    return found.causes[0].code


# ---- nothing is unexplained -----------------------------------------------------------------------------------------------------------------------------
def test_every_open_state_says_what_it_waits_for() -> None:
    assert set(explanation._OF_EXPERIMENT) == set(experiment.State) - experiment.TERMINAL
    assert set(explanation._OF_PROCESS) == set(process.State)
    assert set(explanation._OF_TASK) == set(task.State) - task.TERMINAL
    assert set(explanation._OF_JOB) == set(job.State)
    well = {experiment.Outcome.NORMAL_COMPLETION, experiment.Outcome.CANCELED_BY_USER, experiment.Outcome.FINISHED_BEFORE_CANCEL}
    assert set(MEANINGS) | well == set(experiment.Outcome)


SITUATIONS: dict[str, dict[str, Any]] = {
    "all is well": {},
    "nothing else lives": {"living": {}},
    "all fell silent": {"living": dict.fromkeys(COMPONENTS, NOON - LONG)},
    "unsent": {"messages": tuple(one for topic in (LAUNCH, SCHEDULER, EVENTS, "ingress-staging-task") for key in ("prc_1", OF_TASK) for one in waiting(topic, key))},
    "no relay": {"messages": tuple(one for topic in (LAUNCH, SCHEDULER, EVENTS, "ingress-staging-task") for key in ("prc_1", OF_TASK) for one in waiting(topic, key, relayed=False))},
    "set aside": {"letters": (Letter("dlt_1", "task-scheduler", EVENTS, "bad", 5, NOON),)},
    "no host known": {"host": None},
    "budget used up": {"host": Host("cmp_1", "laptop", 4, 4)},
}
ATTEMPTS = [None, *(running(owner, beat, state) for state in attempt.State for owner, beat in (("x", NOON), ("x", NOON - LONG), ("x", None), (None, None)))]
JOBS = [None, *(a_job(state, watched=watched, scheduler_job_id=name, reason=reason) for state in job.State for watched, name, reason in ((True, "1", ""), (False, "1", "gone"), (False, None, "")))]


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("state", sorted(set(experiment.State) - experiment.TERMINAL))
def test_every_pair_of_experiment_and_process_has_an_explanation(state: experiment.State, situation: str) -> None:
    for of in process.State:
        assert told(a_run(state, of, **SITUATIONS[situation])) in CAUSES


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("state", sorted(set(task.State) - task.TERMINAL))
def test_every_task_in_every_situation_has_an_explanation(state: task.State, situation: str) -> None:
    tried = [a_task(state, attempt=one, job=seen) for one, seen in product(ATTEMPTS, JOBS)]
    timed = [a_task(state, next_attempt_at=due, after=after, reason="SSH_TIMEOUT: no answer") for due, after in product((None, NOON + LONG, NOON - LONG), ((), ("set up",)))]
    for found, timers in [*((each, frozenset()) for each in tried), *product(timed, (frozenset(), frozenset({"tsk_1"})))]:
        assert told(a_run(experiment.State.EXECUTING, process.State.STARTED, found, timers=timers, **SITUATIONS[situation])) in CAUSES


def test_an_end_is_told_with_its_reason() -> None:
    for state in experiment.TERMINAL:
        found = explain(a_run(state, outcome="LOST_JOB", failure={"code": "LOST_JOB", "message": "The job is lost."}))
        assert (found.verdict, found.causes) == (Verdict.ENDED, ())
        assert found.summary == f"It ended {state} (LOST_JOB) at 11:59:59 UTC: The job is lost."


# ---- and it is the one that helps -----------------------------------------------------------------------------------------------------------------------
S, P, T, A, J = experiment.State, process.State, task.State, attempt.State, job.State
LATE = {"since": NOON - LONG}
RUNNING_JOB = {"attempt": running(None, None), "type": "JOB_SUBMISSION", "executor": "executor-job"}
CASES: list[tuple[str, str, Verdict, Facts]] = [
    ("a draft", "NOT_LAUNCHED", Verdict.NOT_LAUNCHED, a_run(S.CREATED)),
    ("of a paused gateway", "PAUSED", Verdict.NOT_LAUNCHED, a_run(S.VALIDATED, paused=True)),
    ("of a gateway at its limit", "GATEWAY_LIMIT", Verdict.NOT_LAUNCHED, a_run(S.CREATED, live=10, live_max=10)),
    ("being canceled", "CANCEL_UNCONFIRMED", Verdict.WAITING, a_run(S.CANCELING, P.STARTED, a_task(T.EXECUTING))),
    ("launched, not sent", "MESSAGE_IN_OUTBOX", Verdict.WAITING, a_run(S.LAUNCHED, P.CREATED, messages=waiting(LAUNCH))),
    ("launched, no relay", "NO_INSTANCE", Verdict.WAITING, a_run(S.LAUNCHED, P.CREATED, messages=waiting(LAUNCH, relayed=False))),
    ("launched, no generator", "NO_INSTANCE", Verdict.WAITING, a_run(S.LAUNCHED, P.CREATED, living={})),
    ("launched, sent", "NOT_CONSUMED", Verdict.PROGRESSING, a_run(S.LAUNCHED, P.CREATED)),
    ("launched long ago", "STUCK", Verdict.STUCK, a_run(S.LAUNCHED, process=Process("prc_1", P.CREATED, NOON - LONG))),
    ("planned, no scheduler", "NO_INSTANCE", Verdict.WAITING, a_run(S.LAUNCHED, P.VALIDATED, living={"generator": NOON})),
    ("started, no task open", "STUCK", Verdict.STUCK, a_run()),
    ("after others", "DEPENDENCY", Verdict.PROGRESSING, a_run(S.EXECUTING, P.STARTED, a_task(T.CREATED, after=("set up",)))),
    ("after nobody", "STUCK", Verdict.STUCK, a_run(S.EXECUTING, P.STARTED, a_task(T.CREATED))),
    ("commanded, not sent", "MESSAGE_IN_OUTBOX", Verdict.WAITING, a_run(S.EXECUTING, P.STARTED, a_task(T.SCHEDULED, attempt=running(None, None, A.DISPATCHED)), messages=waiting("ingress-staging-task", OF_TASK))),
    ("commanded, no executor", "NO_EXECUTOR", Verdict.WAITING, a_run(S.EXECUTING, P.STARTED, a_task(T.SCHEDULED), living={"scheduler": NOON})),
    ("in hand", "LEASE_HELD", Verdict.PROGRESSING, a_run(S.EXECUTING, P.STARTED, a_task(T.EXECUTING, attempt=running()))),
    ("its owner silent", "OWNER_SILENT", Verdict.WAITING, a_run(S.EXECUTING, P.STARTED, a_task(T.EXECUTING, attempt=running(heartbeat_at=NOON - LONG)))),
    ("its owner silent, no scheduler", "NO_INSTANCE", Verdict.WAITING, a_run(S.EXECUTING, P.STARTED, a_task(T.EXECUTING, attempt=running(heartbeat_at=None)), living={})),
    ("no connection free", "HOST_BUDGET", Verdict.PROGRESSING, a_run(S.EXECUTING, P.STARTED, a_task(T.EXECUTING, attempt=running()), host=Host("cmp_1", "laptop", 2, 2))),
    ("taken from a silent one", "MESSAGE_IN_OUTBOX", Verdict.WAITING, a_run(S.EXECUTING, P.STARTED, a_task(T.EXECUTING, attempt=running(None, None)), messages=waiting(SCHEDULER, OF_TASK))),
    ("done, not heard", "MESSAGE_IN_OUTBOX", Verdict.WAITING, a_run(S.EXECUTING, P.STARTED, a_task(T.EXECUTING, attempt=running(None, None, A.SUCCEEDED)), messages=waiting(EVENTS, OF_TASK))),
    ("a job in its queue", "BATCH_QUEUE", Verdict.PROGRESSING, a_run(S.EXECUTING, P.STARTED, a_task(T.EXECUTING, **RUNNING_JOB, job=a_job(J.QUEUED)))),
    ("a job held", "JOB_HELD", Verdict.WAITING, a_run(S.EXECUTING, P.STARTED, a_task(T.EXECUTING, **RUNNING_JOB, job=a_job(J.HELD)))),
    ("a job that runs", "JOB_RUNNING", Verdict.PROGRESSING, a_run(S.EXECUTING, P.STARTED, a_task(T.EXECUTING, **RUNNING_JOB, job=a_job(J.ACTIVE)))),
    ("a job out of sight", "JOB_UNSEEN", Verdict.WAITING, a_run(S.EXECUTING, P.STARTED, a_task(T.EXECUTING, **RUNNING_JOB, job=a_job(J.UNKNOWN)))),
    ("a job nobody watches", "NO_EXECUTOR", Verdict.WAITING, a_run(S.EXECUTING, P.STARTED, a_task(T.EXECUTING, **RUNNING_JOB, job=a_job(J.ACTIVE, watched=False)), living={})),
    ("to be tried again", "RETRY_WAIT", Verdict.WAITING, a_run(S.EXECUTING, P.STARTED, a_task(T.RETRY_WAIT, next_attempt_at=NOON + SECOND, reason="SSH_TIMEOUT: no answer"))),
    ("due, no scheduler", "NO_INSTANCE", Verdict.WAITING, a_run(S.EXECUTING, P.STARTED, a_task(T.RETRY_WAIT, next_attempt_at=NOON - LONG), living={}, timers=frozenset({"tsk_1"}))),
    ("due, overslept", "STUCK", Verdict.STUCK, a_run(S.EXECUTING, P.STARTED, a_task(T.RETRY_WAIT, next_attempt_at=NOON - LONG), timers=frozenset({"tsk_1"}))),
    ("due, not sent", "MESSAGE_IN_OUTBOX", Verdict.WAITING, a_run(S.EXECUTING, P.STARTED, a_task(T.BLOCKED, next_attempt_at=NOON - LONG), messages=waiting(SCHEDULER, OF_TASK))),
    ("in doubt", "IN_DOUBT", Verdict.WAITING, a_run(S.EXECUTING, P.STARTED, a_task(T.IN_DOUBT, doubt_since=NOON - LONG, next_attempt_at=NOON + SECOND))),
    *[(f"blocked by {code}", code, Verdict.WAITING, a_run(S.EXECUTING, P.STARTED, a_task(T.BLOCKED, reason=f"{code}: no", next_attempt_at=NOON + SECOND)))
      for code in ("AUTH_REQUIRED", "HOST_KEY_CHANGED", "HOST_DISABLED", "QUOTA", "HOST_CIRCUIT_OPEN")],
    ("blocked by something new", "BLOCKED", Verdict.WAITING, a_run(S.EXECUTING, P.STARTED, a_task(T.BLOCKED, reason="MOON: full", next_attempt_at=NOON + SECOND))),
    ("with a dead letter", "DEAD_LETTER", Verdict.STUCK, a_run(S.EXECUTING, P.STARTED, a_task(T.EXECUTING, attempt=running()), **SITUATIONS["set aside"])),
]  # fmt: skip


@pytest.mark.parametrize(("code", "verdict", "facts"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_run_says_what_it_waits_for(code: str, verdict: Verdict, facts: Facts) -> None:
    assert told(facts) == code
    found = explain(facts)
    assert found.verdict is verdict
    assert re.search(r"Since \d\d:\d\d:\d\d UTC\.$", found.summary)


def test_every_cause_of_the_table_is_some_runs() -> None:
    assert {case[1] for case in CASES} == set(CAUSES)


def test_what_needs_somebody_comes_before_what_only_takes_time() -> None:
    tasks = (a_task(T.EXECUTING, attempt=running()), replace(a_task(T.BLOCKED, reason="AUTH_REQUIRED: no", next_attempt_at=NOON + SECOND), id="tsk_2", name="fetch"), replace(a_task(T.CREATED, after=("fetch",)), id="tsk_3"))
    found = explain(a_run(S.EXECUTING, P.STARTED, *tasks))
    assert [(each.code, each.subject) for each in found.causes] == [("AUTH_REQUIRED", "tsk_2"), ("LEASE_HELD", "tsk_1"), ("DEPENDENCY", "tsk_3")]
    assert found.summary == "laptop refused our key; nothing runs there until its credential is renewed. Since 11:59:59 UTC."
    assert found.causes[0].actions == (("give the host another credential", "PATCH", "/v1/compute-resources/cmp_1"),)


def test_the_page_lists_the_causes_in_the_order_of_their_urgency() -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    listed = re.search(r"codes shared with `conditions`: ([A-Z_ ]+)\.", page)
    assert listed is not None
    assert listed[1].split() == list(CAUSES)
    verdicts = re.search(r"Explain\. `verdict`: ([A-Z_ ]+)\.", page)
    assert verdicts is not None
    assert set(verdicts[1].split()) == set(Verdict)


def test_a_runbook_that_a_failure_names_is_there() -> None:
    for meaning in MEANINGS.values():
        assert meaning.runbook is None or (Path(__file__).parents[2] / meaning.runbook).is_file()
