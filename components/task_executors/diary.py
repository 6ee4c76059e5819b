"""What a worker says of its remote work, over its pipe: a `Did` for each operation, as it ends. It exports nothing, so it may be killed at any instant and needs no collector.

All of them are measured; those of a sampled order are spans as well, but beyond SPANS_MAX the rest is folded into one, which says how many it stands for.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from app import clock
from app.messages import trace
from components.task_executors.plugin import OperationFailed, WorkOrder

SPANS_MAX = 50  # Of at most 60 an attempt: the rest are its messages.


class Did(NamedTuple):
    """One remote operation: when (ns), how it ended, and a few figures; never a command, a path or a name of a user."""

    name: str
    start: int
    end: int
    error: str
    attributes: Mapping[str, Any]
    span: bool = True
    measured: bool = True


class Diary:
    """What a worker did for the order in hand."""

    def __init__(self, order: WorkOrder, send: Callable[[Did], None]) -> None:
        self.send = send
        self.sampled, self.count = trace.sampled(order.traceparent), 0
        self.folded: Did | None = None

    def write(self, name: str, start: int, *, fault: OperationFailed | None = None, **attributes: Any) -> None:
        self.count += 1
        outcome = "ok" if fault is None else "failed" if fault.certain else "unknown"
        did = Did(name, start, clock.ns(), "" if fault is None else fault.code, {**attributes, "airavata.outcome": outcome})
        self.send(did._replace(span=self.sampled and self.count <= SPANS_MAX))
        if self.sampled and self.count > SPANS_MAX:
            first = self.folded or did
            self.folded = Did("ssh more", first.start, did.end, "", {"airavata.spans.folded": self.count - SPANS_MAX}, measured=False)

    def close(self) -> None:
        if self.folded is not None:
            self.send(self.folded)
