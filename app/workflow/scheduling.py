"""Leg 3: a process and facts → the next states, commands, timers and events.

"Complete task k, dispatch k+1, maybe finish process and experiment" is one decision and one transaction, so a killed scheduler leaves nothing in memory that
matters. `now` is MySQL's; ids and jitter derive from the message that causes them, so a repeat yields a copy.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from app.errors import Illegal
from app.messages import ids, trace
from app.messages.commands import AttemptAbandoned, DeadlineDue, RetryDue, RunTask
from app.messages.envelope import Envelope, Subject
from app.messages.events import ExperimentChanged, ProcessChanged, ProcessPlanned, TaskChanged, TaskFailed, TaskInDoubt, TaskStarted, TaskSucceeded
from app.messages.placement import Placement
from app.messages.topics import Topics
from app.workflow import attempt, experiment, process, retry
from app.workflow.decision import Decision, Refused, Timer
from app.workflow.graph import Attempt, Failure, Loaded, Process, Task
from app.workflow.task import MOVES, TERMINAL, State

WANTED = frozenset(each.__name__ for each in (ProcessPlanned, RetryDue, DeadlineDue, AttemptAbandoned, TaskStarted, TaskSucceeded, TaskFailed, TaskInDoubt))
CASCADING = (TaskFailed, TaskInDoubt, DeadlineDue)  # May skip or end tasks far down the graph: all tasks of their process are loaded.


def decide(loaded: Loaded, messages: Sequence[Envelope], *, now: datetime, topics: Topics, placement: Placement) -> Decision:
    """Message by message, in order. A message that raises Illegal moves nothing and is refused."""
    walk = _Walk(loaded, now, topics, placement)
    for message in messages:
        try:
            walk.apply(message)
        except Illegal as fault:
            walk.decision.refused.append(Refused(message, "Illegal", str(fault)))
    return walk.finish()


class _Walk:
    """One batch. Every legality check of a message stands before its first change, so a refused message leaves no trace."""

    def __init__(self, loaded: Loaded, now: datetime, topics: Topics, placement: Placement) -> None:
        self.loaded, self.now, self.topics, self.placement = loaded, now, topics, placement
        self.decision = Decision()
        self.changed: dict[str, dict[str, Any]] = {"experiments": {}, "processes": {}, "tasks": {}, "attempts": {}}
        self.cause: Envelope

    def apply(self, message: Envelope) -> None:
        found = self.loaded.processes.get(message.subject.process)
        if found is None:
            raise Illegal(f"process {message.subject.process or '(none)'} is not there")
        self.cause = message
        match message.body:
            case ProcessPlanned(fault=fault):
                self.start(found, fault)
            case DeadlineDue():
                self.deadline(found)
            case _:
                self.fact(found, message)

    def finish(self) -> Decision:
        self.decision.experiments.extend(self.changed["experiments"].values())
        self.decision.processes.extend(self.changed["processes"].values())
        self.decision.tasks.extend(self.changed["tasks"].values())
        self.decision.attempts.extend(self.changed["attempts"].values())
        return self.decision

    # ---- processes ------------------------------------------------------------------------------------------------------------------------------
    def start(self, found: Process, fault: str | None) -> None:
        if found.state not in {process.State.CREATED, process.State.VALIDATED}:
            self.decision.late.append(self.cause)
            return
        if fault is not None:
            self.end_process(found, "LAUNCH_FAILURE", fault)
            return
        if found.state is process.State.CREATED:
            raise Illegal("ProcessPlanned without a plan: the process is still CREATED")
        self.move_process(found, process.State.STARTED)
        self.move_experiment(found, experiment.State.EXECUTING)
        if found.deadline_at is not None:
            self.set_timer(found.deadline_at, DeadlineDue(), self.subject(found))
        for task in self.loaded.by_process[found.id]:
            if task.waiting_for == 0 and task.state is State.CREATED:
                self.dispatch(found, task)
        if found.tasks_open == 0:
            self.end_process(found)

    def deadline(self, found: Process) -> None:
        if found.state in process.TERMINAL:
            self.decision.late.append(self.cause)
            return
        failure: Failure = {"code": "SCHEDULER_DEADLINE", "message": "The experiment's deadline passed before it was done."}
        for task in self.loaded.by_process[found.id]:
            if task.state not in TERMINAL:
                self.cancel_attempt(task)
                self.end_task(found, task, State.FAILED, failure, cascade=False)
        if found.state not in process.TERMINAL:
            self.end_process(found, "SCHEDULER_DEADLINE", str(failure["message"]))

    def end_process(self, found: Process, outcome: str | None = None, message: str = "") -> None:
        """All tasks are terminal, or there never were any: process and experiment end together."""
        if outcome is not None and found.failure is None:
            found.failure = {"code": outcome, "message": message}
        failed = found.failure is not None
        found.trace_keep = "failed" if failed else found.trace_keep
        found.outcome = str(found.failure["code"]) if found.failure else experiment.Outcome.NORMAL_COMPLETION
        reason = str(found.failure["message"])[:512] if found.failure else ""
        self.move_process(found, process.State.FAILED if failed else process.State.COMPLETED, reason, found.outcome)
        found.finished_at = self.now
        self.move_experiment(found, experiment.State.FAILED if failed else experiment.State.COMPLETED, reason, found.outcome)

    def move_process(self, found: Process, state: process.State, reason: str = "", outcome: str | None = None) -> None:
        if state not in process.NEXT[found.state]:
            raise Illegal(f"process {found.state} → {state}")
        self.send(ProcessChanged(found.state, state, reason, outcome), self.subject(found), found.id + state)
        found.state, found.state_since, found.reason = state, self.now, reason
        self.touch(found)

    def move_experiment(self, found: Process, state: experiment.State, reason: str = "", outcome: str | None = None) -> None:
        """The fold of one process: EXECUTING when it starts, its end when it ends. LAUNCHED → COMPLETED goes through EXECUTING."""
        whole = self.loaded.experiments[found.experiment_id]
        if state in experiment.NEXT[whole.state]:
            self.send(ExperimentChanged(whole.state, state, reason, outcome), self.subject(found), whole.id + state)
            whole.state, whole.state_since, whole.reason, whole.outcome, whole.failure = state, self.now, reason, outcome, found.failure
            whole.version += whole.id not in self.changed["experiments"]
            whole.finished_at = self.now if state in experiment.TERMINAL else None
            self.changed["experiments"][whole.id] = whole

    # ---- tasks ----------------------------------------------------------------------------------------------------------------------------------
    def fact(self, found: Process, message: Envelope) -> None:
        task = self.loaded.tasks.get(message.subject.task)
        if task is None or task.process_id != found.id:
            raise Illegal(f"task {message.subject.task or '(none)'} is not of process {found.id}")
        told, known = (message.subject.attempt, message.subject.epoch), (task.attempt, task.epoch)
        if told > known:
            raise Illegal(f"attempt {told[0]} epoch {told[1]} was never dispatched: the last is {known[0]} epoch {known[1]}")
        moves = MOVES[task.state].get(type(message.body))
        if moves is None:
            raise Illegal(f"{type(message.body).__name__} cannot meet a task {task.state}")
        if told < known or not moves:
            self.decision.late.append(self.cause)
            return
        _ACTS[type(message.body)](self, found, task, message)

    def started(self, found: Process, task: Task, _message: Envelope) -> None:
        if task.state is not State.EXECUTING:
            self.move_task(found, task, State.EXECUTING)

    def succeeded(self, found: Process, task: Task, _message: Envelope) -> None:
        self.end_task(found, task, State.COMPLETED)

    def failed(self, found: Process, task: Task, message: Envelope) -> None:
        failure = message.body
        assert isinstance(failure, TaskFailed)
        burned = task.burned + (failure.condition is None)
        state = retry.after(failure, task_type=task.type, burned=burned)
        told: Failure = {
            "code": failure.code, "message": failure.message, "raw_message": failure.raw_message, "exit_code": failure.exit_code, "signal": failure.signal,
            "transient": failure.transient, "condition": failure.condition, "task": task.id,
        }  # fmt: skip
        task.burned, task.failure = burned, told
        if state is State.FAILED:
            self.end_task(found, task, state, told)
            return
        due = retry.probe_at(self.now, message.mid) if state is State.BLOCKED else self.now + retry.backoff(message.mid, burned)
        self.wait(found, task, state, due, f"{failure.condition or failure.code}: {failure.message}")

    def in_doubt(self, found: Process, task: Task, message: Envelope) -> None:
        assert isinstance(message.body, TaskInDoubt)
        task.doubt_since = task.doubt_since or self.now
        due = retry.look_again_at(self.now, message.mid, task.doubt_since)
        if due is None:
            self.cancel_attempt(task)
            told: Failure = {"code": "RECOVERY_TIMEOUT", "message": f"It could not be found out whether the job was started: {message.body.message}", "task": task.id}
            self.end_task(found, task, State.FAILED, told)
            return
        self.wait(found, task, State.IN_DOUBT, due, message.body.message)

    def due(self, found: Process, task: Task, _message: Envelope) -> None:
        self.dispatch(found, task, again=task.state is State.IN_DOUBT)

    def abandoned(self, found: Process, task: Task, _message: Envelope) -> None:
        self.keep(found, "taken_over")
        self.dispatch(found, task, again=True)

    def wait(self, found: Process, task: Task, state: State, due: datetime, reason: str) -> None:
        if task.state is not state:
            self.move_task(found, task, state, reason)
        self.keep(found, "in_doubt" if state is State.IN_DOUBT else "retried")
        task.next_attempt_at, task.reason = due, reason[:512]
        self.touch_task(task)
        self.set_timer(due, RetryDue(), self.subject(found, task))

    def keep(self, found: Process, reason: str) -> None:
        """Its trace tells of something that did not go smoothly. The first reason stands; only `failed` is more."""
        if not found.trace_keep:
            found.trace_keep = reason
            self.touch(found)

    def dispatch(self, found: Process, task: Task, *, again: bool = False) -> None:
        """A command, with its attempt: the next number, or (`again`) the same number and token in the next epoch."""
        if again:
            task.epoch += 1
        else:
            task.attempt, task.epoch = task.attempt + 1, 1
            task.doubt_since = None
        row = self.save_attempt(task, attempt.State.DISPATCHED, fresh=not again)
        if task.state in {State.SCHEDULED, State.EXECUTING}:
            self.touch_task(task)  # Taken from a silent owner: the task stays what it is, its attempt is dispatched again.
        else:
            self.move_task(found, task, State.SCHEDULED)
        task.next_attempt_at = None
        subject = self.subject(found, task)
        self.send(RunTask(row.id), subject, f"{row.id}{row.epoch}", topic=self.topics.task(task.type), partition=self.placement.of_task(task.id))

    def end_task(self, found: Process, task: Task, state: State, failure: Failure | None = None, *, cascade: bool = True) -> None:
        """Terminal. Counts down the successors: dispatches who waits for nobody any more, skips who waited for a success."""
        self.move_task(found, task, state, str((failure or {}).get("message", ""))[:512])
        task.finished_at, task.next_attempt_at, task.failure = self.now, None, failure or task.failure
        found.tasks_open -= 1
        if state is State.FAILED:
            found.tasks_failed += 1
            found.failure = found.failure or failure
        self.touch(found)
        for edge in self.loaded.successors.get(task.id, ()) if cascade else ():
            self.predecessor_ended(found, self.loaded.tasks[edge.to_task], satisfied=state is State.COMPLETED or edge.on_end == "ENDED")
        if found.tasks_open == 0 and found.state is process.State.STARTED:
            self.end_process(found)

    def predecessor_ended(self, found: Process, task: Task, *, satisfied: bool) -> None:
        if task.state is not State.CREATED:
            return
        if not satisfied:
            self.end_task(found, task, State.SKIPPED)
            return
        task.waiting_for -= 1
        self.touch_task(task)
        if task.waiting_for == 0:
            self.dispatch(found, task)

    def cancel_attempt(self, task: Task) -> None:
        """Epoch + 1, so that a running owner meets 0 rows."""
        if task.attempt and task.state in {State.SCHEDULED, State.EXECUTING, State.IN_DOUBT}:
            task.epoch += 1
            self.save_attempt(task, attempt.State.CANCELED, fresh=False)

    def move_task(self, found: Process, task: Task, state: State, reason: str = "") -> None:
        self.send(TaskChanged(task.state, state, reason[:512]), self.subject(found, task), f"{task.id}{state}{task.attempt}.{task.epoch}")
        task.state, task.state_since, task.reason = state, self.now, reason[:512]
        self.touch_task(task)

    # ---- what is sent and saved -------------------------------------------------------------------------------------------------------------------
    def subject(self, found: Process, task: Task | None = None) -> Subject:
        if task is None:
            return Subject(found.gateway_id, found.experiment_id, found.id)
        return Subject(found.gateway_id, found.experiment_id, found.id, task.id, task.type, task.attempt, task.epoch)

    def send(self, body: Struct, subject: Subject, name: str, *, topic: str = "", partition: int | None = None) -> None:
        self.decision.messages.append(self.envelope(body, subject, name, topic=topic or self.topics.events, partition=partition))

    def set_timer(self, due_at: datetime, body: Struct, subject: Subject) -> None:
        name = f"{type(body).__name__}{subject.task}{subject.attempt}.{subject.epoch}"
        self.decision.timers.append(Timer(due_at, self.envelope(body, subject, name, topic=self.topics.scheduler)))

    def envelope(self, body: Struct, subject: Subject, name: str, *, topic: str, partition: int | None = None) -> Envelope:
        found = self.loaded.processes[subject.process]
        return Envelope(
            mid=ids.digest(self.cause.mid, name),
            topic=topic,
            partition=found.part if partition is None else partition,
            subject=subject,
            body=body,
            cause=self.cause.mid.hex(),
            traceparent=trace.belongs(found.trace_context, found.experiment_id, subject.task, subject.attempt),
        )

    def save_attempt(self, task: Task, state: attempt.State, *, fresh: bool) -> Attempt:
        """The task's last attempt, in its epoch. One that this batch inserts stays one to insert, whatever becomes of it."""
        attempt_id = ids.derived("att", task.id, str(task.attempt))
        fresh = fresh or (attempt_id in self.changed["attempts"] and self.changed["attempts"][attempt_id].fresh)
        row = Attempt(attempt_id, task.id, task.process_id, task.attempt, state, task.epoch, fresh)
        self.changed["attempts"][attempt_id] = row
        return row

    def touch(self, found: Process) -> None:
        found.version += found.id not in self.changed["processes"]
        self.changed["processes"][found.id] = found

    def touch_task(self, task: Task) -> None:
        task.version += task.id not in self.changed["tasks"]
        self.changed["tasks"][task.id] = task


_ACTS: Mapping[type[Struct], Callable[[_Walk, Process, Task, Envelope], None]] = {
    TaskStarted: _Walk.started,
    TaskSucceeded: _Walk.succeeded,
    TaskFailed: _Walk.failed,
    TaskInDoubt: _Walk.in_doubt,
    RetryDue: _Walk.due,
    AttemptAbandoned: _Walk.abandoned,
}
