"""Named places where a test may kill or freeze a process: `module.operation.before` (nothing is done) or `.after` (done, its result neither used nor told).

`hit` is an empty function until `arm` is called by a `__main__` with the setting AIRAVATA_FAILPOINTS, for example
`scheduler.commit.after=crash@3?process=prc_01k…; relay.commit.before=pause`. `@n` strikes the n-th time in this life (1 unless told),
`?key=value` fits what the call site tells. With environment=production arming is refused. Doors and shells only; pure modules may not import this.
"""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.errors import Misconfigured


@dataclass(frozen=True)
class Entry:
    point: str
    mode: str
    at: int = 1
    conditions: Mapping[str, str] = field(default_factory=dict)


def parse(text: str) -> list[Entry]:
    """`point=mode[@n][?key=value[&key=value]]`, separated by `;`. Raises Misconfigured."""
    entries = []
    for part in filter(None, (piece.strip() for piece in text.split(";"))):
        point, _, rest = part.partition("=")
        rest, _, query = rest.partition("?")
        mode, _, at = rest.partition("@")
        if mode not in _ACTS or not (at or "1").isdigit():
            raise Misconfigured(f"AIRAVATA_FAILPOINTS: {part!r} is not point=mode[@n][?key=value] with mode one of {', '.join(_ACTS)}")
        conditions = dict(pair.split("=", 1) for pair in query.split("&") if "=" in pair)
        entries.append(Entry(point.strip(), mode, int(at or 1), conditions))
    return entries


def arm(text: str, *, environment: str, struck_directory: Path | None = None) -> None:
    """Replace `hit` by one that strikes. A point strikes once: its `struck` file (O_EXCL) is made first, and the restarted process passes."""
    global hit
    if not text:
        return
    if environment == "production":
        raise Misconfigured("AIRAVATA_FAILPOINTS is set although environment=production: unset it")
    hit = _armed(parse(text), struck_directory)


def _nothing(point: str, /, **_told: object) -> None:
    """Unarmed: costs a call."""


hit: Callable[..., None] = _nothing


def _armed(entries: list[Entry], struck_directory: Path | None) -> Callable[..., None]:
    seen: Counter[int] = Counter()
    lock = threading.Lock()

    def strike(point: str, /, **told: object) -> None:
        for index, entry in enumerate(entries):
            if entry.point != point or any(str(told.get(key)) != value for key, value in entry.conditions.items()):
                continue
            with lock:
                seen[index] += 1
                if seen[index] != entry.at or not _first_strike(struck_directory, entry):
                    continue
            _ACTS[entry.mode]()

    return strike


def _first_strike(directory: Path | None, entry: Entry) -> bool:
    if directory is None:
        return True
    directory.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(directory / f"{entry.point}.{entry.mode}.struck", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _pause() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


_ACTS: Mapping[str, Callable[[], None]] = {"crash": _crash, "pause": _pause}
