"""Leg 2: ExperimentLaunched → the tasks and edges of the process, and ProcessPlanned. It plans only from CREATED; a repeat finds VALIDATED and does nothing."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.messages import ids, trace
from app.messages.envelope import Envelope
from app.messages.events import ExperimentLaunched, ProcessChanged, ProcessPlanned
from app.messages.topics import Topics
from app.workflow import process
from app.workflow.graph import Edge
from app.workflow.planners import TASKS_MAX, Plan, Planner, PlanRefused, Snapshot

WANTED = frozenset({ExperimentLaunched.__name__})


@dataclass(frozen=True)
class NewTask:
    id: str
    process_id: str
    name: str
    type: str
    model: Mapping[str, object]
    waiting_for: int


@dataclass
class Generated:
    """For one process: rows to insert, messages to send. `validated` is false for a refusal (the scheduler ends the process) and for a repeat."""

    process_id: str
    validated: bool = False
    tasks: list[NewTask] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    messages: list[Envelope] = field(default_factory=list)


def decide(message: Envelope, *, state: process.State, part: int, trace_context: str, snapshot: Snapshot, planners: Mapping[str, Planner], topics: Topics) -> Generated:
    """Never raises for a bad plan: a planner's refusal travels to the scheduler as the fault."""
    generated = Generated(message.subject.process)
    if state is not process.State.CREATED:
        return generated
    fault = None
    try:
        name = str(snapshot["interface"].get("planner", "batch-application"))
        if name not in planners:
            raise PlanRefused("/application_interface_id", "not_allowed", f"planner {name} is not enabled here")
        plan = planners[name].plan(snapshot)
        check(plan)
        _fill(generated, plan)
        generated.validated = True
    except PlanRefused as refusal:
        fault = refusal.detail

    context = trace.belongs(trace_context, message.subject.experiment)

    def send(body: ProcessPlanned | ProcessChanged, topic: str) -> None:
        mid = ids.digest(message.mid, type(body).__name__, message.subject.process)
        envelope = Envelope(mid=mid, topic=topic, partition=part, subject=message.subject, body=body, cause=message.mid.hex(), traceparent=context)
        generated.messages.append(envelope)

    send(ProcessPlanned(fault), topics.scheduler)
    if generated.validated:
        send(ProcessChanged(process.State.CREATED, process.State.VALIDATED), topics.events)
    return generated


def check(plan: Plan) -> None:
    """A plan is a directed acyclic graph over its own tasks, of 1 to 1,000, with one edge between two at most. Raises PlanRefused."""
    names = [task.name for task in plan.tasks]
    if not 1 <= len(names) <= TASKS_MAX:
        raise PlanRefused("/inputs/edges", "too_many" if names else "required", f"{len(names)} tasks; 1 to {TASKS_MAX} are allowed")
    if len(set(names)) != len(names):
        raise PlanRefused("/inputs/edges", "duplicate", "two tasks of one name")
    if len({(edge.from_task, edge.to_task) for edge in plan.edges}) != len(plan.edges):
        raise PlanRefused("/inputs/edges", "duplicate", "two edges between the same tasks")
    waiting = Counter(edge.to_task for edge in plan.edges)
    if unknown := ({edge.from_task for edge in plan.edges} | set(waiting)) - set(names):
        raise PlanRefused("/inputs/edges", "bad_format", f"an edge names {min(unknown)}, which is no task")
    leaving = defaultdict(list)
    for edge in plan.edges:
        leaving[edge.from_task].append(edge.to_task)
    ready = [name for name in names if not waiting[name]]
    for name in ready:  # Kahn's algorithm; the list grows while it is walked.
        for successor in leaving[name]:
            waiting[successor] -= 1
            if not waiting[successor]:
                ready.append(successor)
    if len(ready) != len(names):
        raise PlanRefused("/inputs/edges", "bad_format", "the edges contain a cycle")


def _fill(generated: Generated, plan: Plan) -> None:
    task_ids = {task.name: ids.derived("tsk", generated.process_id, task.name) for task in plan.tasks}
    waiting = Counter(edge.to_task for edge in plan.edges)
    generated.tasks = [NewTask(task_ids[task.name], generated.process_id, task.name, task.type, task.model, waiting[task.name]) for task in plan.tasks]
    generated.edges = [Edge(task_ids[edge.from_task], task_ids[edge.to_task], edge.on_end) for edge in plan.edges]
