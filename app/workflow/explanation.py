"""Why a run is not further, and why it failed: facts read from the rows → causes, the first of which is the one to act on.

`CAUSES` is the table of what may hold work, most urgent first, each with a sentence a scientist understands and what clears it. `_OF_EXPERIMENT`, `_OF_PROCESS` and `_OF_TASK` say for each
open state what it waits for. Every open state has an entry, so nothing is unexplained: what should long have moved and meets no obstacle that can be seen is STUCK, and says so.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from app.messages.topics import EVENTS, LAUNCH, SCHEDULER, of_task_type
from app.workflow import attempt, experiment, job, process, task
from app.workflow.facts import LEASE, Facts, Task

GRACE = timedelta(seconds=5)  # A timer this late is still on its way.
STUCK_AFTER = timedelta(seconds=60)  # When the sweeper acts as well.


class Verdict(StrEnum):
    NOT_LAUNCHED = "NOT_LAUNCHED"
    PROGRESSING = "PROGRESSING"
    WAITING = "WAITING"
    STUCK = "STUCK"
    ENDED = "ENDED"


@dataclass(frozen=True, slots=True)
class Kind:
    """A row of the table: what this cause makes of the run, in words; `{…}` are a Cause's words."""

    verdict: Verdict
    says: str
    clears_when: str


_W, _P = Verdict.WAITING, Verdict.PROGRESSING
CAUSES: Mapping[str, Kind] = {
    "DEAD_LETTER": Kind(Verdict.STUCK, "A message of this run could not be processed and was set aside; it waits for an operator.", "an operator replays or drops the dead letter"),
    "HOST_KEY_CHANGED": Kind(_W, "{host} shows another host key than the one on record; nothing is sent there until somebody has checked it.", "the host's new host_keys are given"),
    "AUTH_REQUIRED": Kind(_W, "{host} refused our key; nothing runs there until its credential is renewed.", "the host accepts its credential, or is given another"),
    "HOST_DISABLED": Kind(_W, "{host} is switched off for runs.", "the host is enabled again"),
    "QUOTA": Kind(_W, "{host} has no room left for the files of this run.", "space is freed on the host"),
    "HOST_CIRCUIT_OPEN": Kind(_W, "{host} cannot be reached at the moment.", "the host answers again"),
    "BLOCKED": Kind(_W, "{task} waits for a condition outside: {detail}", "the condition is gone"),
    "STUCK": Kind(Verdict.STUCK, "{what} should have gone on long ago, and nothing that holds it can be seen; operators must look.", "operators find out why"),
    "NO_INSTANCE": Kind(_W, "{what} cannot go on because no {component} is running.", "a {component} starts"),
    "NO_EXECUTOR": Kind(_W, "{what} cannot go on because no {component} is running.", "a {component} starts"),
    "CANCEL_UNCONFIRMED": Kind(_W, "It is being canceled; what still runs has not confirmed its end.", "every task has ended"),
    "IN_DOUBT": Kind(_W, "It is not known whether the job of {task} was started; the host is asked until it is certain, so that it never starts twice.", "the host answers, or 15 minutes have passed"),
    "OWNER_SILENT": Kind(_W, "The process that ran {task} fell silent; the work is handed to another one.", "another instance takes the attempt over"),
    "MESSAGE_IN_OUTBOX": Kind(_W, "{what} is decided; its message waits to be sent.", "the relay has sent the message"),
    "RETRY_WAIT": Kind(_W, "{task} failed and is tried again: {detail}", "the next attempt begins"),
    "JOB_HELD": Kind(_W, "The job of {task} is held by the batch system of {host}.", "the job is released"),
    "JOB_UNSEEN": Kind(_W, "The job of {task} was not seen on {host} at the last look; it is searched for.", "the job is seen again, or its search time has passed"),
    "NOT_CONSUMED": Kind(_P, "{what} is on its way to the {component}.", "the {component} has taken the message"),
    "BATCH_QUEUE": Kind(_P, "The job of {task} waits in the queue of {host}.", "the batch system starts the job"),
    "HOST_BUDGET": Kind(_P, "All connections that {host} allows us are in use; {task} takes its turn.", "a connection is free"),
    "JOB_RUNNING": Kind(_P, "The job of {task} runs on {host}.", "the job ends"),
    "LEASE_HELD": Kind(_P, "{task} is being worked on.", "the attempt ends"),
    "PAUSED": Kind(Verdict.NOT_LAUNCHED, "The gateway is paused: nothing can be launched.", "its administrator ends the pause"),
    "GATEWAY_LIMIT": Kind(Verdict.NOT_LAUNCHED, "The gateway has as many live experiments as it may have: nothing can be launched.", "some of its experiments end"),
    "NOT_LAUNCHED": Kind(Verdict.NOT_LAUNCHED, "It has not been launched yet.", "somebody launches it"),
    "DEPENDENCY": Kind(_P, "{task} waits for {detail}.", "the tasks before it have ended"),
}
URGENCY = {code: place for place, code in enumerate(CAUSES)}


@dataclass(frozen=True, slots=True)
class Cause:
    """What holds `subject`, since when, with the facts."""

    code: str
    subject: str
    since: datetime
    words: Mapping[str, str]
    detail: str = ""
    next_check_at: datetime | None = None
    attempts_burned: int = 0
    evidence: tuple[tuple[str, datetime | None, str], ...] = ()  # (source, at, text)
    actions: tuple[tuple[str, str, str], ...] = ()  # (label, method, path)

    @property
    def sentence(self) -> str:
        said = CAUSES[self.code].says.format(detail=self.detail.rstrip("."), **self.words)
        return said if said.endswith(".") else said + "."

    @property
    def clears_when(self) -> str:
        return CAUSES[self.code].clears_when.format(**self.words)


@dataclass(frozen=True, slots=True)
class Explanation:
    verdict: Verdict
    summary: str
    causes: Sequence[Cause] = ()


def explain(facts: Facts) -> Explanation:
    """Most urgent cause first; of equal ones the oldest."""
    if facts.state in experiment.TERMINAL:
        return Explanation(Verdict.ENDED, _ending(facts))
    found = [*_letters(facts), *_OF_EXPERIMENT[facts.state](facts)]
    found.sort(key=lambda each: (URGENCY[each.code], each.since))
    first = found[0]
    return Explanation(CAUSES[first.code].verdict, f"{first.sentence} Since {first.since:%H:%M:%S} UTC.", found)


def explain_task(facts: Facts, task_id: str) -> Explanation | None:
    """Of one open task: what holds it, or its whole process. None where it has ended."""
    mine = [each for each in facts.tasks if each.id == task_id]
    return explain(replace(facts, tasks=mine)) if mine and facts.state not in experiment.TERMINAL else None


def _ending(facts: Facts) -> str:
    told = str((facts.failure or {}).get("message") or facts.reason or "")
    return f"It ended {facts.state} ({facts.outcome}) at {facts.since:%H:%M:%S} UTC" + (f": {told.rstrip('.')}." if told else ".")


def _letters(facts: Facts) -> Iterator[Cause]:
    for letter in facts.letters:
        told = f"{letter.group} could not take it from {letter.topic} in {letter.tries} tries: {letter.text}"
        path = f"/v1/operator/dead-letters/{letter.id}"
        yield Cause("DEAD_LETTER", letter.id, letter.since, {}, told, actions=(("send it again", "POST", f"{path}/replays"), ("give it up", "POST", f"{path}/drops")))


# ---- experiment -----------------------------------------------------------------------------------------------------------------------------------------
def _draft(facts: Facts) -> Iterator[Cause]:
    yield Cause("NOT_LAUNCHED", facts.id, facts.since, {}, facts.state, actions=(("launch it", "POST", f"/v1/experiments/{facts.id}/launches"),))
    if facts.paused:
        yield Cause("PAUSED", facts.id, facts.since, {})
    if facts.live_max and facts.live >= facts.live_max:
        yield Cause("GATEWAY_LIMIT", facts.id, facts.since, {}, f"{facts.live} of {facts.live_max}")


def _launched(facts: Facts) -> Iterator[Cause]:
    assert facts.process is not None
    return _OF_PROCESS[facts.process.state](facts)


def _canceling(facts: Facts) -> Iterator[Cause]:
    yield Cause("CANCEL_UNCONFIRMED", facts.id, facts.since, {}, ", ".join(each.name for each in facts.tasks))


_OF_EXPERIMENT: Mapping[experiment.State, Callable[[Facts], Iterator[Cause]]] = {
    experiment.State.CREATED: _draft,
    experiment.State.VALIDATED: _draft,
    experiment.State.LAUNCHED: _launched,
    experiment.State.EXECUTING: _launched,
    experiment.State.CANCELING: _canceling,
}


# ---- process --------------------------------------------------------------------------------------------------------------------------------------------
def _sent(what: str, topic: str, reader: str) -> Callable[[Facts], Iterator[Cause]]:
    def causes(facts: Facts) -> Iterator[Cause]:
        assert facts.process is not None
        yield _under_way(facts, what, topic, reader, since=facts.process.since)

    return causes


def _started(facts: Facts) -> Iterator[Cause]:
    """Each open task says what it waits for. A process whose tasks have all ended has ended in the same transaction."""
    assert facts.process is not None
    for each in facts.tasks:
        yield _OF_TASK[each.state](facts, each)
    if not facts.tasks:
        yield Cause("STUCK", facts.process.id, facts.process.since, {"what": "The run"}, "no task is open")


_OF_PROCESS: Mapping[process.State, Callable[[Facts], Iterator[Cause]]] = {
    process.State.CREATED: _sent("The launch", LAUNCH, "generator"),
    process.State.VALIDATED: _sent("The plan", SCHEDULER, "scheduler"),
    process.State.STARTED: _started,
    process.State.CANCELING: _canceling,
    **dict.fromkeys(process.TERMINAL, _started),  # Ends together with its experiment: seen only by a reader between two commits.
}


# ---- task -----------------------------------------------------------------------------------------------------------------------------------------------
def _waiting_for_others(facts: Facts, found: Task) -> Cause:
    if found.after:
        return Cause("DEPENDENCY", found.id, found.since, _words(facts, found), ", ".join(found.after))
    return Cause("STUCK", found.id, found.since, _words(facts, found), "its predecessors have ended")


def _attempted(facts: Facts, found: Task) -> Cause:
    """SCHEDULED and EXECUTING differ only in which facts the scheduler has heard; the attempt's row knows more."""
    tried = found.attempt
    if tried is None or tried.state is attempt.State.DISPATCHED:
        return _under_way(facts, found.name, of_task_type(found.type), found.executor, since=tried.since if tried else found.since, found=found)
    if tried.state is not attempt.State.RUNNING:
        return _under_way(facts, f"The outcome of {found.name}", EVENTS, "scheduler", since=tried.since, found=found)
    if tried.owner is None:
        return _OF_JOB[found.job.state](facts, found) if found.job and found.job.scheduler_job_id else _abandoned(facts, found)
    return _held(facts, found)


def _held(facts: Facts, found: Task) -> Cause:
    tried, words = found.attempt, _words(facts, found)
    assert tried is not None
    beat = tried.heartbeat_at
    told = f"attempt {tried.number} is held by {tried.owner}" + (f", which was last heard {_seconds(facts.now, beat)} ago" if beat else ", which is gone")
    if beat is None or facts.now - beat > LEASE:
        if not facts.alive("scheduler"):
            return Cause("NO_INSTANCE", found.id, tried.since, {**words, "what": f"Handing {found.name} over", "component": "scheduler"}, told)
        return Cause("OWNER_SILENT", found.id, beat or tried.since, words, told)
    full = facts.host is not None and found.remote and facts.host.slots_taken >= facts.host.slots > 0
    return Cause("HOST_BUDGET" if full else "LEASE_HELD", found.id, tried.since, words, told)


def _abandoned(facts: Facts, found: Task) -> Cause:
    assert found.attempt is not None
    return _under_way(facts, f"Handing {found.name} over", SCHEDULER, "scheduler", since=found.attempt.since, found=found)


def _of_job(code: str) -> Callable[[Facts, Task], Cause]:
    def cause(facts: Facts, found: Task) -> Cause:
        seen, words = found.job, _words(facts, found)
        assert seen is not None
        looked = f"last look {_seconds(facts.now, seen.looked_at)} ago" if seen.looked_at else "not looked at yet"
        told = f"job {seen.scheduler_job_id} is {seen.state}, {looked}" + (f": {seen.reason}" if seen.reason else "")
        if not seen.watched and not facts.alive("executor-job"):
            return Cause("NO_EXECUTOR", found.id, seen.since, {**words, "what": f"Watching the job of {found.name}", "component": "executor-job"}, told)
        return Cause(code, seen.id, seen.since, words, told, evidence=_evidence(found))

    return cause


def _job_ended(facts: Facts, found: Task) -> Cause:
    assert found.job is not None
    return _under_way(facts, f"The outcome of {found.name}", EVENTS, "scheduler", since=found.job.since, found=found)


_OF_JOB: Mapping[job.State, Callable[[Facts, Task], Cause]] = {
    job.State.PREPARED: _held,
    job.State.SUBMITTING: _held,
    job.State.IN_DOUBT: _of_job("IN_DOUBT"),
    job.State.HELD: _of_job("JOB_HELD"),
    job.State.SUBMITTED: _of_job("BATCH_QUEUE"),
    job.State.QUEUED: _of_job("BATCH_QUEUE"),
    job.State.ACTIVE: _of_job("JOB_RUNNING"),
    job.State.SUSPENDED: _of_job("JOB_HELD"),
    job.State.UNKNOWN: _of_job("JOB_UNSEEN"),
    job.State.NON_CRITICAL_FAIL: _of_job("JOB_RUNNING"),
    **dict.fromkeys(job.TERMINAL, _job_ended),
}


def _until_due(code: Callable[[Task], str]) -> Callable[[Facts, Task], Cause]:
    """A task that a timer wakes. Once it is due the timer, then the message it became, say what it waits for."""

    def cause(facts: Facts, found: Task) -> Cause:
        due = found.next_attempt_at
        if due is None or facts.now < due + GRACE:
            since = found.doubt_since or found.since
            return Cause(code(found), found.id, since, _words(facts, found), found.reason, due, found.burned, _evidence(found), _actions(facts, code(found)))
        words = {**_words(facts, found), "what": f"The next attempt of {found.name}", "component": "scheduler"}
        if found.id in facts.timers and facts.alive("scheduler") and facts.now - due > STUCK_AFTER:
            return Cause("STUCK", found.id, due, words, "its timer is overdue", due, found.burned)
        return _under_way(facts, words["what"], SCHEDULER, "scheduler", since=due, found=found)

    return cause


def _condition(found: Task) -> str:
    """BLOCKED tasks name their condition at the head of their reason."""
    code = found.reason.partition(":")[0]
    return code if code in CAUSES else "BLOCKED"


_OF_TASK: Mapping[task.State, Callable[[Facts, Task], Cause]] = {
    task.State.CREATED: _waiting_for_others,
    task.State.SCHEDULED: _attempted,
    task.State.EXECUTING: _attempted,
    task.State.RETRY_WAIT: _until_due(lambda _: "RETRY_WAIT"),
    task.State.BLOCKED: _until_due(_condition),
    task.State.IN_DOUBT: _until_due(lambda _: "IN_DOUBT"),
}


# ---- a message between two components ---------------------------------------------------------------------------------------------------------------------
def _under_way(facts: Facts, what: str, topic: str, reader: str, *, since: datetime, found: Task | None = None) -> Cause:
    """Outbox → relay → Kafka → reader: the first of them that does not do its part. What is in Kafka cannot be seen from here; that its reader lives can."""
    assert facts.process is not None
    subject, words = found.id if found else facts.process.id, {**(_words(facts, found) if found else {}), "what": what, "component": reader}
    row = facts.message(topic, f"{facts.process.id}-{found.id}" if found else facts.process.id)
    if row is not None:
        told = f"a message for {topic} has been in the outbox (shard {row.shard}) for {_seconds(facts.now, row.since)}"
        return Cause("MESSAGE_IN_OUTBOX", subject, row.since, words, told) if row.relayed else Cause("NO_INSTANCE", subject, row.since, {**words, "component": "relay"}, told)
    told = f"{reader} was last heard {_seconds(facts.now, facts.living[reader])} ago" if reader in facts.living else f"no {reader} is known"
    if not facts.alive(reader):
        return Cause("NO_EXECUTOR" if reader.startswith("executor-") else "NO_INSTANCE", subject, since, words, told)
    return Cause("NOT_CONSUMED" if facts.now - since < STUCK_AFTER else "STUCK", subject, since, words, f"sent through {topic}; {told}")


def _words(facts: Facts, found: Task) -> dict[str, str]:
    return {"task": found.name, "what": found.name, "host": facts.host.name if facts.host else "The host", "component": found.executor}


def _evidence(found: Task) -> tuple[tuple[str, datetime | None, str], ...]:
    return tuple(("host", found.job.looked_at, each) for each in found.job.evidence) if found.job else ()


def _actions(facts: Facts, code: str) -> tuple[tuple[str, str, str], ...]:
    label = {"AUTH_REQUIRED": "give the host another credential", "HOST_KEY_CHANGED": "give the host its new key", "HOST_DISABLED": "enable the host"}.get(code)
    return ((label, "PATCH", f"/v1/compute-resources/{facts.host.id}"),) if label and facts.host else ()


def _seconds(now: datetime, then: datetime) -> str:
    return f"{max(0.0, (now - then).total_seconds()):.0f} s"
