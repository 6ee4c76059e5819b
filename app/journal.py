"""The journal: what this process did and saw, one JSON object a line, for the checker of the chaos suite (tests/checker). It may convict us, never acquit us.

`write` is an empty function until `begin` is called by a `__main__` with the setting AIRAVATA_JOURNAL; with environment=production that is refused. One file per life, O_APPEND;
each line is one `os.write` under one lock: what `write` has taken the kernel keeps when the process is killed (a kill inside it can tear the last line, no other). No buffer,
no logging handler, no thread in between. A line has at most 16 KiB; the lists of a longer one go on in the lines that follow it at once, of the same kind: all but the last
say `more`. A write that fails ends the process, since a run without evidence is void. Not the log: logs are for people.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from app import clock, instance
from app.errors import EXIT_BUG, Misconfigured

LINE_BYTES_MAX = 16 << 10
HEAD_BYTES_MAX = 1 << 10  # n, who, life, times, kind.
_encode = msgspec.json.Encoder().encode


def begin(directory: str, *, environment: str, who: str, **life: object) -> None:
    """From here on `write` writes, and begins with `life.start`. `who`: component and copy, as `scheduler/1`. Does nothing without a directory; raises Misconfigured."""
    global write
    if not directory:
        return
    if environment == "production":
        raise Misconfigured("AIRAVATA_JOURNAL is set although environment=production: unset it")
    try:
        write = _Journal(Path(directory), who)
    except OSError as fault:
        raise Misconfigured(f"AIRAVATA_JOURNAL: {fault.strerror}: {directory}") from fault
    write("life.start", pid=os.getpid(), **life)


def on() -> bool:
    """Whether it pays to gather what would be written."""
    return write is not _nothing


def _nothing(kind: str, /, **_told: object) -> None:
    """Off: costs a call."""


write: Callable[..., None] = _nothing


class _Journal:
    def __init__(self, directory: Path, who: str) -> None:
        self.who, self.life, self.n, self.lock = who, instance.fresh_bytes(8).hex(), 0, threading.Lock()
        directory.mkdir(parents=True, exist_ok=True)
        self.file = os.open(directory / f"{who.replace('/', '-')}.{self.life}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)

    def __call__(self, kind: str, /, **told: Any) -> None:
        pieces = list(_pieces(told))
        with self.lock:
            for piece in pieces[:-1]:
                self._line(kind, {**piece, "more": True})
            self._line(kind, pieces[-1])

    def _line(self, kind: str, told: Mapping[str, Any]) -> None:
        self.n += 1
        wall = clock.utc_now().isoformat(timespec="microseconds").replace("+00:00", "Z")
        line = _encode({"n": self.n, "who": self.who, "life": self.life, "mono": time.monotonic(), "wall": wall, "kind": kind, **told}) + b"\n"
        try:
            whole = len(line) <= LINE_BYTES_MAX and os.write(self.file, line) == len(line)
        except OSError:
            whole = False
        if not whole:
            sys.stderr.write(f"the journal of {self.who} cannot be written: ending this process\n")
            os._exit(EXIT_BUG)


def _pieces(told: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Lists halved until a line can hold them; what is no list stands in the first piece."""
    long = {name: value for name, value in told.items() if isinstance(value, list) and len(value) > 1}
    if not long or len(_encode(told)) <= LINE_BYTES_MAX - HEAD_BYTES_MAX:
        yield told
        return
    yield from _pieces({name: value[: len(value) // 2] if name in long else value for name, value in told.items()})
    yield from _pieces({name: value[len(value) // 2 :] for name, value in long.items()})
