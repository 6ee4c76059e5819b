"""Lines of evidence written by the harness itself: one JSON object a line, one write a line, numbered without gaps, with the clock that orders all journals of a machine."""

import json
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


class Lines:
    """Safe for several threads. `who` names the writer."""

    def __init__(self, path: Path, who: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.who, self.life, self.n = path, who, os.urandom(8).hex(), 0
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._lock = threading.Lock()

    def write(self, kind: str, **told: Any) -> float:
        """The line's `mono`."""
        with self._lock:
            self.n += 1
            mono = time.monotonic()
            wall = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
            line = {"n": self.n, "who": self.who, "life": self.life, "mono": round(mono, 6), "wall": wall, "kind": kind, **told}
            os.write(self._file, json.dumps(line, default=str, separators=(",", ":")).encode() + b"\n")
        return mono

    def close(self) -> None:
        os.close(self._file)


def read(path: Path) -> list[dict[str, Any]]:
    """Every whole line; a torn last one is left out, and one whose lists go on in the next (`more`) is put together again."""
    if not path.exists():
        return []
    text, found, first = path.read_bytes(), list[dict[str, Any]](), None
    for line in text[: text.rfind(b"\n") + 1].splitlines():
        told = json.loads(line)
        goes_on = told.pop("more", False)
        if first is not None:
            told = first | {name: first.get(name, []) + value for name, value in told.items() if isinstance(value, list)}
        first = told if goes_on else None
        if not goes_on:
            found.append(told)
    return found
