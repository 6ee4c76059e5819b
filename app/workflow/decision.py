"""What a leg of the journey decided: values for the shell to save. Nothing here does anything."""

from dataclasses import dataclass, field
from datetime import datetime

from app.messages.envelope import Envelope
from app.workflow.graph import Attempt, Experiment, Process, Task


@dataclass(frozen=True)
class Timer:
    """A message that becomes due. Due rows move to the outbox in one transaction."""

    due_at: datetime
    message: Envelope


@dataclass(frozen=True)
class Refused:
    """A message that could not be applied: again through a timer; a human's after five."""

    message: Envelope
    error: str
    text: str


@dataclass
class Decision:
    """Of the scheduler: rows to save (whole, as they shall stand) and messages to send, in order. `late`: facts that moved nothing."""

    experiments: list[Experiment] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    timers: list[Timer] = field(default_factory=list)
    messages: list[Envelope] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    late: list[Envelope] = field(default_factory=list)
