"""Exit codes of the command line (docs/api.md §6), and the one exception that carries them to the shell."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    OK = 0
    RUN_FAILED = 1  # The run is FAILED or CANCELED.
    USAGE = 2  # Also 400 and 422.
    NOT_FOUND = 3
    CONFLICT = 4  # Also a precondition that no longer holds.
    AUTH = 5
    SERVER = 6  # 429, 5xx and the network, after retries; MySQL or Kafka for local commands.
    IN_DOUBT = 7
    STILL_RUNNING = 8  # The wait ran out, the run goes on.
    MISCONFIGURED = 78
    INTERRUPTED = 130


class Failed(Exception):
    """Ends the command: `text` goes to stderr (nothing if empty), `code` to the shell."""

    def __init__(self, code: Exit, text: str = "", problem: dict[str, Any] | None = None) -> None:
        super().__init__(text)
        self.code, self.text, self.problem = code, text, problem or {}


@contextmanager
def local() -> Iterator[None]:
    """Our own errors as exit codes, for commands that speak to MySQL and Kafka themselves."""
    from app.errors import Misconfigured, Permanent, Transient

    try:
        yield
    except Misconfigured as fault:
        raise Failed(Exit.MISCONFIGURED, str(fault)) from fault
    except Transient as fault:
        raise Failed(Exit.SERVER, str(fault)) from fault
    except Permanent as fault:
        raise Failed(Exit.CONFLICT, str(fault)) from fault
