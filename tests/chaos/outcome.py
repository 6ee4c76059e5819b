"""What a part of a chaos run came to: cases that passed or failed with why, and the run directory that holds the evidence."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

Say = Callable[[str], None]
_began = time.monotonic()


def say(text: str) -> None:
    """Progress, with the time of day and since the start."""
    print(f"--- {time.strftime('%H:%M:%S')} +{time.monotonic() - _began:.0f} s  {text}", flush=True)


class Undecidable(Exception):
    """A part that cannot be decided here, and why: said aloud and left in the report; the exit code is 2."""


@dataclass(frozen=True)
class Case:
    name: str
    why: str = ""  # Empty: passed.


@dataclass
class Outcome:
    """`verdict`: the checker's exit code, 0 only if each launch came to what its plan says as well."""

    part: str
    run: Path
    verdict: int = 2
    seconds: float = 0.0
    cases: list[Case] = field(default_factory=list)

    @property
    def failed(self) -> list[Case]:
        return [each for each in self.cases if each.why]
