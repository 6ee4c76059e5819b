"""P25: whatever an experiment says stands in one trace, and hangs on a span that its rows can make."""

import hashlib
import json
import re
from typing import Any

from tests.checker.evidence import Transaction
from tests.checker.reading import Place
from tests.checker.verdicts import Promise

_SHAPE = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_PARTS = (("trace", slice(0, 36)), ("parent", slice(36, 52)), ("flags", slice(52, None)))


class TraceWhole(Promise):
    """`experiments`: whose records were compared; `messages`: those records; `events`: shown; `spans`: rows at the end that skeleton spans are made of.

    Decided: a process row keeps the trace context it was born with; each record and each event of the experiment names that trace, its flags and, as parent, the skeleton span of its
    attempt, else of the run (its id is computed here); and each attempt that is named so, or that a job hangs on, has its row: from that its span can be made again after any kill.
    Left out is what a nemesis forged, not what came of it. Not decided, since no run of this suite has a collector: whether the spans of an ended launch were handed to one, and which
    leaves went with a killed life: tests/observability asks a receiver. That P1–P18 hold without a collector they say themselves, of each such run.
    """

    number, title, counts = "P25", "a trace holds together", ("experiments", "messages", "events", "spans")
    needs = frozenset({"binlog", "kafka", "tables"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.contexts: dict[str, tuple[str, Place | None]] = {}  # experiment → its process' trace context
        self.attempts: dict[str, tuple[str, int]] = {}  # id → task, number
        self.jobs: list[tuple[str, str, Place]] = []
        self.events: list[tuple[tuple[str, str, int], str, Place]] = []
        self.belong: dict[tuple[str, str, int], str] = {}  # experiment, task, attempt → what such a message must bear
        self.hang: dict[tuple[str, int], Place] = {}  # task, attempt → who first names its span

    def row(self, table: str, row: Any, place: Place) -> None:
        if table == "processes":
            self.contexts[row["experiment_id"]] = (row["trace_context"], place)
            self.count("spans")
            if not _SHAPE.fullmatch(row["trace_context"]):
                self.broken(f"{row['id']} has no trace, but {row['trace_context']!r}", place)
        elif table == "attempts":
            self.attempts[row["id"]] = (row["task_id"], row["number"])
            self.count("spans")
        elif table == "jobs":
            self.jobs.append((row["id"], row["attempt_id"], place))
            self.count("spans")
        elif table == "events":
            self.count("events")
            shown = json.loads(row["document"])
            self.events.append(((row["experiment_id"], shown.get("task_id") or "", shown.get("attempt") or 0), shown.get("traceparent") or "", place))

    def transaction(self, tx: Transaction) -> None:
        for kind, before, after in tx.changes.get("processes", ()):
            if kind == "U" and after["trace_context"] != before["trace_context"]:
                self.broken(f"the trace of {after['experiment_id']} is changed from {before['trace_context']} to {after['trace_context']}", tx.place)

    def conclude(self) -> None:
        told = set()
        for log in self.evidence.log.values():
            for record in log:
                if record.experiment and self.evidence.ours(record):
                    told.add(record.experiment)
                    self._compare(record.type, (record.experiment, record.task, record.attempt), record.traceparent, record.place)
                    self.count("messages")
        for subject, traceparent, place in self.events:
            self._compare("an event", subject, traceparent, place)
        self.count("experiments", len(told))
        there = set(self.attempts.values())
        for (task, number), place in self.hang.items():
            if (task, number) not in there:
                self.missing(f"a message hangs on attempt {number} of {task}, of which there is no row", place)
        for job, attempt, place in self.jobs:
            if attempt not in self.attempts:
                self.missing(f"{job} hangs on {attempt}, of which there is no row", place)

    def _compare(self, what: str, subject: tuple[str, str, int], told: str, place: Place) -> None:
        """The first message stands for a process whose row is gone by now."""
        context, at = self.contexts.setdefault(subject[0], (told, None))
        belongs = self.belong.get(subject)
        if belongs is None:
            belongs = self.belong[subject] = f"{context[:36]}{_span(*subject)}{context[52:]}"
            if at is not None and subject[1] and subject[2]:
                self.hang[subject[1:]] = place
        if told != belongs:
            part = next(name for name, where in _PARTS if told[where] != belongs[where])
            self.broken(f"{what} of {' '.join(str(each) for each in subject if each)} bears {told or 'nothing'}: another {part} than {belongs}", at, place)


def _span(experiment: str, task: str, attempt: int) -> str:
    """The id of a skeleton span, as telemetry.md says: the first 8 bytes of SHA-256 over kind/id/attempt."""
    name = f"attempt/{task}/{attempt}" if task and attempt else f"experiment/{experiment}/0"
    return hashlib.sha256(name.encode()).hexdigest()[:16]
