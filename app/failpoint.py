"""Named places where a test may stop, break or kill a process: `module.operation.before` (nothing is done) or `.after` (done, its result neither used nor told).

`hit` is an empty function until `arm` is called by a `__main__` with the setting AIRAVATA_FAILPOINTS: `point=mode[:argument][@n|@*][?key=value[&key=value]]; …`, or `@FILE` with
one such entry a line, read again when the file changes, so that a running process can be armed. `*` as the point means every point; `@n` the n-th time since it was
armed (1 unless told), `@*` every time; `?key=value` fits what the call site tells. A point strikes once: its `struck` file (O_EXCL) is made first, and the restarted process, which finds it,
passes; `@*` strikes again. With environment=production arming is refused. Doors and shells only; pure modules may not import this. All points: tests/chaos/catalogue.py.
"""

import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app import journal
from app.errors import EXIT_BUG, EXIT_MISCONFIGURED, Misconfigured, OutcomeUnknown, StoreUnavailable

EVERY = 0
LOOK_SECONDS = 0.05
Raises = Mapping[str, Callable[[str], Exception]]
OURS: Raises = {"unknown": OutcomeUnknown, "definite": StoreUnavailable}
_ENTRY = re.compile(
    r"(?P<point>\*|[a-z_.-]+)=(?P<mode>crash|exit|pause|count|delay:\d+|raise:unknown|raise:definite)(?:@(?P<at>\*|[1-9]\d*))?(?:\?(?P<query>[^=&]+=[^&]*(?:&[^=&]+=[^&]*)*))?"
)


@dataclass(frozen=True)
class Entry:
    point: str
    mode: str
    at: int = 1
    conditions: tuple[tuple[str, str], ...] = ()

    def fits(self, point: str, told: Mapping[str, object]) -> bool:
        """`told`: texts and numbers, or collections of them, one of which must be the one that is wanted."""
        return self.point in {point, "*"} and all(value in _texts(told.get(key)) for key, value in self.conditions)


def parse(text: str) -> list[Entry]:
    """Entries separated by `;` or line ends; lines that begin with # say nothing. Raises Misconfigured."""
    entries = []
    for part in filter(None, (piece.strip() for line in text.splitlines() if not line.startswith("#") for piece in line.split(";"))):
        found = _ENTRY.fullmatch(part)
        if found is None:
            raise Misconfigured(f"AIRAVATA_FAILPOINTS: {part!r} is not point=mode[@n][?key=value] with mode one of crash, exit, pause, delay:MS, raise:unknown, raise:definite, count")
        conditions = tuple(tuple(pair.split("=", 1)) for pair in (found["query"] or "").split("&") if pair)
        entries.append(Entry(found["point"], found["mode"], EVERY if found["at"] == "*" else int(found["at"] or 1), conditions))
    return entries


def arm(text: str, *, environment: str, struck_directory: str = "", raises: Raises = OURS) -> None:
    """Replace `hit` by one that strikes. `raises`: what this process's doors raise for an outcome that is unknown, and for one that is definite."""
    global hit
    if not text:
        return
    if environment == "production":
        raise Misconfigured("AIRAVATA_FAILPOINTS is set although environment=production: unset it")
    hit = _Armed(text, Path(struck_directory) if struck_directory else None, raises)


def entries() -> Sequence[Entry]:
    """What this process is armed with now: for the scripts it stages."""
    return hit.entries() if isinstance(hit, _Armed) else ()


def on() -> bool:
    """Whether it pays to gather what a point would be told."""
    return hit is not _nothing


def _nothing(point: str, /, **_told: object) -> None:
    """Unarmed: costs a call."""


hit: Callable[..., None] = _nothing
about: dict[str, object] = {}  # Told at every point besides: what a worker process is doing just now.


class _Armed:
    def __init__(self, text: str, struck: Path | None, raises: Raises) -> None:
        self.struck, self.raises = struck, raises
        self.file = Path(text[1:]) if text.startswith("@") else None
        self.seen: object = None
        self.reached: Counter[tuple[Entry, str]] = Counter()
        self.lock = threading.Lock()
        self.looked, self.known = time.monotonic(), self._read() if self.file else parse(text)

    def __call__(self, point: str, /, **told: object) -> None:
        told = {**about, **told}
        fitting = [entry for entry in self.entries() if entry.fits(point, told)]
        with self.lock:
            self.reached.update((entry, point) for entry in fitting)
            reached = {entry: self.reached[entry, point] for entry in fitting}
            striking = [entry for entry in fitting if entry.at in {EVERY, reached[entry]} and (self._first(point, entry) or entry.at == EVERY)]
        for entry in striking:
            journal.write("failpoint.hit", point=point, reached=reached[entry], mode=entry.mode)
            self._act(point, entry.mode)

    def entries(self) -> list[Entry]:
        """Looks at the file at most every 50 ms. A file that was made unreadable while we run ends the process: nobody would know what is armed."""
        if self.file is not None and time.monotonic() - self.looked > LOOK_SECONDS:
            self.looked = time.monotonic()
            try:
                self.known = self._read()
            except Misconfigured as fault:
                sys.stderr.write(f"{fault}\n")
                os._exit(EXIT_MISCONFIGURED)
        return self.known

    def _read(self) -> list[Entry]:
        """A file that is not there arms nothing yet."""
        assert self.file is not None
        try:
            found = self.file.stat()
            seen = (found.st_mtime_ns, found.st_size, found.st_ino)
            if seen == self.seen:
                return self.known
            known = parse(self.file.read_text())
        except FileNotFoundError:
            seen, known = None, []
        self.seen = seen
        with self.lock:  # Written again is armed again, and counted anew.
            self.reached.clear()
        return known

    def _first(self, point: str, entry: Entry) -> bool:
        if self.struck is None:
            return True
        self.struck.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(self.struck / f"{point}.{entry.mode}.struck", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True

    def _act(self, point: str, mode: str) -> None:
        kind, _, argument = mode.partition(":")
        match kind:
            case "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(EXIT_BUG)
            case "pause":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "delay":
                time.sleep(int(argument) / 1000)
            case "raise":
                raise self.raises[argument](f"fail point {point}")


def _texts(told: object) -> set[str]:
    return {str(each) for each in told} if isinstance(told, Collection) and not isinstance(told, str) else {str(told)}
