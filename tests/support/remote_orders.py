"""Builders for orders to worker processes, and a loop that plays the executor's part: it says yes to every commit and keeps them."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.messages.envelope import Subject
from app.workflow.execution import Outcome, Succeeded
from components.task_executors import environment, submission
from components.task_executors.plugin import Commit, Exec, OperationFailed, Steps, TaskType, WorkOrder
from components.task_executors.remote_host import HostAddress
from components.task_executors.submission.ends import KILL, LOOK
from components.task_executors.workers import CommitRequested, Finished, Pool


def nap(order: WorkOrder) -> Steps:
    """Keeps a connection at work for as long as the model says."""
    yield Exec(("sleep", str(order.model["seconds"])))
    return Succeeded({})


TYPES: Mapping[str, TaskType] = {each.name: each for each in (*environment.TASK_TYPES, *submission.TASK_TYPES, LOOK, KILL, TaskType("NAP", nap))}


def a_snapshot(scratch: Path | str = "/scratch", *, process: str = "prc_1", program: str = "/bin/sh", **parts: Any) -> dict[str, Any]:
    """One program on one FORK host. `deployment`, `interface`, `inputs`, `scheduling` add to what is there."""
    return {
        "interface": {"inputs": [], "outputs": [], **parts.get("interface", {})},
        "deployment": {"executable_path": program, "environment": {}, **parts.get("deployment", {})},
        "host": {"id": "cmp_1", "job_manager": {"type": "FORK"}, "file_systems": {"SCRATCH": str(scratch)}, **parts.get("host", {})},
        "inputs": parts.get("inputs", {}),
        "scheduling": {"wall_time_seconds": 300, **parts.get("scheduling", {})},
        "work_dir": f"{scratch}/airavata/{process}",
    }


def an_order(task_type: str = "JOB_SUBMISSION", *, token: str = "att_1", epoch: int = 1, snapshot: Mapping[str, Any] | None = None, model: Any = None) -> WorkOrder:
    subject = Subject("gw_1", "exp_1", "prc_1", "tsk_1", task_type, 1, epoch)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    return WorkOrder(token, epoch, 1, subject, task_type, model or {}, dict(snapshot or a_snapshot()), trace)


def shell(text: str) -> dict[str, Any]:
    """Parts of a snapshot whose program is `sh -c TEXT`."""
    inputs = [{"name": "script", "type": "STRING", "order": 1, "on_command_line": True, "argument": "-c"}]
    return {"interface": {"inputs": inputs}, "inputs": {"script": text}}


class Executor:
    """Plays the executor: one pool, commits kept, outcomes by token."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.commits: list[tuple[str, Commit]] = []
        self.outcomes: dict[str, Finished] = {}
        self.waiting: list[tuple[Any, ...]] = []

    def start(self, order: WorkOrder, address: HostAddress, storages: Any = None) -> None:
        self.waiting.append((order, TYPES[order.task_type], address, storages))
        self.begin()

    def begin(self) -> None:
        self.waiting = [each for each in self.waiting if not self.pool.start(*each)]

    def run(self, order: WorkOrder, address: HostAddress, *, seconds: float = 60.0) -> Outcome:
        self.outcomes.pop(order.token, None)
        self.start(order, address)
        return self.wait([order.token], seconds=seconds)[0]

    def turn(self) -> None:
        for event in self.pool.poll():
            if isinstance(event, CommitRequested):
                self.commits.append((event.token, event.change))
                event.answer(True)
            else:
                self.outcomes[event.token] = event
        self.begin()

    def wait(self, tokens: Sequence[str], *, seconds: float = 60.0) -> list[Outcome]:
        ends_at = time.monotonic() + seconds
        while missing := [each for each in tokens if each not in self.outcomes]:
            assert time.monotonic() < ends_at, f"no outcome of {missing} within {seconds} s"
            self.turn()
            time.sleep(0.005)
        return [self.outcomes[each].outcome for each in tokens]

    def states(self, token: str) -> list[str]:
        return [change.state for key, change in self.commits if key == token]


def drive(order: WorkOrder, host: Any, *, commits: list[Commit] | None = None) -> Outcome:
    """Run an order's steps here, on this host; commits succeed and are kept."""
    steps = TYPES[order.task_type].steps(order)
    try:
        operation = next(steps)
        while True:
            try:
                result = None
                if isinstance(operation, Commit):
                    (commits if commits is not None else []).append(operation)
                else:
                    assert isinstance(operation, Exec)
                    result = host.run(operation.argv, operation.stdin, timeout_seconds=operation.timeout_seconds)
            except OperationFailed as fault:
                operation = steps.throw(fault)
            else:
                operation = steps.send(result)
    except StopIteration as end:
        return end.value
