"""The checker's own copy of docs: which moves are legal, who writes what, which group takes which message. Typed in from the pages, never imported from the product."""

from collections.abc import Mapping

Moves = Mapping[str, frozenset[str]]


def _moves(text: str) -> Moves:
    """`A: B C` a line; a state that stands alone has no next."""
    lines = (line.split(":") for line in text.strip().splitlines())
    return {state.strip(): frozenset(after.split()) for state, after in lines}


EXPERIMENT = _moves("""
CREATED: VALIDATED LAUNCHED
VALIDATED: CREATED LAUNCHED
LAUNCHED: EXECUTING CANCELING FAILED
EXECUTING: COMPLETED FAILED CANCELING
CANCELING: CANCELED
COMPLETED:
FAILED:
CANCELED:
""")
PROCESS = _moves("""
CREATED: VALIDATED CANCELING FAILED
VALIDATED: STARTED CANCELING FAILED
STARTED: COMPLETED FAILED CANCELING
CANCELING: CANCELED
COMPLETED:
FAILED:
CANCELED:
""")
TASK = _moves("""
CREATED: SCHEDULED SKIPPED FAILED CANCELED
SCHEDULED: EXECUTING COMPLETED FAILED RETRY_WAIT BLOCKED IN_DOUBT CANCELED
EXECUTING: COMPLETED FAILED RETRY_WAIT BLOCKED IN_DOUBT CANCELED
RETRY_WAIT: SCHEDULED FAILED CANCELED
BLOCKED: SCHEDULED FAILED CANCELED
IN_DOUBT: COMPLETED FAILED SCHEDULED RETRY_WAIT BLOCKED CANCELED
COMPLETED:
FAILED:
CANCELED:
SKIPPED:
""")
ATTEMPT = _moves("""
DISPATCHED: RUNNING CANCELED
RUNNING: SUCCEEDED FAILED IN_DOUBT DISPATCHED CANCELED
IN_DOUBT: SUCCEEDED FAILED DISPATCHED CANCELED
SUCCEEDED:
FAILED:
CANCELED:
""")
_SEEN = "HELD SUBMITTED QUEUED ACTIVE SUSPENDED UNKNOWN NON_CRITICAL_FAIL"
_ENDS = "COMPLETED FAILED CANCELED LOST"
JOB: Moves = {
    "PREPARED": frozenset({"SUBMITTING", "CANCELED"}),
    "SUBMITTING": frozenset({"HELD", "SUBMITTED", "FAILED", "IN_DOUBT"}),
    # SUBMITTING: through PREPARED in one transaction, when the same token is asked for again.
    "IN_DOUBT": frozenset([*_SEEN.split(), *_ENDS.split(), "PREPARED", "SUBMITTING"]),
    **{each: frozenset([*_SEEN.split(), *_ENDS.split()]) - {each} - (frozenset() if each == "HELD" else {"SUBMITTED"}) for each in _SEEN.split()},
    **dict.fromkeys(_ENDS.split(), frozenset[str]()),
}
STATES: Mapping[str, Moves] = {"experiments": EXPERIMENT, "processes": PROCESS, "tasks": TASK, "attempts": ATTEMPT, "jobs": JOB}
FIRST: Mapping[str, frozenset[str]] = {  # The states in which a row may be born.
    "experiments": frozenset({"CREATED", "LAUNCHED"}),  # Created and launched in one transaction.
    "processes": frozenset({"CREATED"}),
    "tasks": frozenset({"CREATED"}),
    "attempts": frozenset({"DISPATCHED", "CANCELED"}),
    "jobs": frozenset({"PREPARED", "SUBMITTING"}),
}
CHANGED: Mapping[str, str] = {"experiments": "ExperimentChanged", "processes": "ProcessChanged", "tasks": "TaskChanged", "jobs": "JobChanged"}


def terminal(table: str, state: str) -> bool:
    return not STATES[table].get(state, frozenset())


# Who writes what: table → state it is moved to → first words of the units that may (protocol.md). "" stands for a unit that sends no message of that kind.
WRITERS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "experiments": {"CREATED": ("api", ""), "VALIDATED": ("api", ""), "LAUNCHED": ("api",), "*": ("scheduler",)},
    "processes": {"CREATED": ("api",), "VALIDATED": ("generator",), "*": ("scheduler",)},
    "tasks": {"CREATED": ("generator",), "*": ("scheduler",)},
    "attempts": {"DISPATCHED": ("scheduler",), "CANCELED": ("scheduler",), "*": ("executor", "watch")},
    "jobs": {"*": ("executor", "submit", "doubt", "watch")},
}


def writers(table: str, state: str) -> tuple[str, ...]:
    return WRITERS[table].get(state, WRITERS[table]["*"])


# Who takes what, by the group's name without the environment.
FACTS = frozenset({"TaskStarted", "TaskSucceeded", "TaskFailed", "TaskInDoubt"})
_HISTORY = FACTS | {"JobChanged", "ExperimentChanged", "ProcessChanged", "TaskChanged"}
_ORDERS = {"ProcessPlanned", "RetryDue", "DeadlineDue", "AttemptAbandoned", "CancelRequested", "PauseRequested", "ResumeRequested", "RetryNow", "DoubtResolved"}
WANTED: Mapping[str, frozenset[str]] = {
    "workflow-generator": frozenset({"ExperimentLaunched"}),
    "task-scheduler": FACTS | _ORDERS,  # JobChanged moves no task.
    "event-sink": _HISTORY,
    "executor": frozenset({"RunTask"}),
}
UNIT_OF: Mapping[str, str] = {"workflow-generator": "generator", "task-scheduler": "scheduler", "executor": "executor", "event-sink": "api"}


def role(group: str) -> str:
    """`chaos17.executor-job` → executor; the rest by its own name."""
    name = group.rsplit(".", 1)[-1]
    return "executor" if name.startswith("executor-") else name


def wanted(group: str, kind: str, only: str) -> bool:
    """Is a record of this type for this group? One without a readable type is everybody's, to be set aside."""
    return (not kind or kind in WANTED.get(role(group), frozenset())) and (not only or only == group)


def message_move(state: str, kind: str) -> str:
    """What the table of messages says of a task in this state: `move`, `stay`, `late` or `error` (domain.md §4), for the current attempt and epoch."""
    if kind == "DeadlineDue":
        return "late" if terminal("tasks", state) else "move"
    if terminal("tasks", state):
        return "late"
    if state == "CREATED":
        return "error"
    if state in {"SCHEDULED", "EXECUTING"}:
        return {"TaskStarted": "move" if state == "SCHEDULED" else "stay", "RetryDue": "late"}.get(kind, "move")
    if state == "IN_DOUBT":
        return {"TaskStarted": "late", "AttemptAbandoned": "late", "TaskInDoubt": "stay"}.get(kind, "move")
    return "move" if kind == "RetryDue" else "late"
