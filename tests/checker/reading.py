"""Reading what a run left: JSON lines with their numbers, and the stored form of headers. Streams; keeps nothing.

A torn last line (the writer was killed in it) is counted and dropped; any other unreadable line is a fault of the source.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple


class Place(NamedTuple):
    """One record of the evidence: a file below the run directory, and its line from 1."""

    file: str
    line: int


class Lines:
    """The objects of one `.jsonl` file. After it was walked, `count`, `torn` and `faults` say how complete it is."""

    def __init__(self, run: Path, path: Path) -> None:
        self.path, self.file = path, str(path.relative_to(run))
        self.count, self.torn = 0, 0
        self.faults: list[str] = []

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        loads = json.loads
        number, last = 0, b""
        with self.path.open("rb") as lines:
            for number, last in enumerate(lines, 1):
                try:
                    found = loads(last)
                except ValueError:
                    if last.endswith(b"\n"):
                        self.faults.append(f"{self.file}:{number} is not JSON")
                    else:
                        self.torn += 1
                    continue
                self.count += 1
                yield number, found


def line_of(run: Path, place: Place, longest: int = 400) -> str:
    """The text of a record, for a witness."""
    with (run / place.file).open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if number == place.line:
                text = line.decode(errors="replace").strip()
                return text if len(text) <= longest else f"{text[:longest]}…"
    return ""


def seconds_of(stamp: str) -> float:
    """Since the epoch, of a time in UTC as journals, binary log or tables spell it."""
    return datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp()


def headers_of(packed: bytes) -> dict[str, bytes]:
    """The stored header list, msgpack [[name, value], …], as the outbox keeps it. Raises ValueError for anything else."""
    found: dict[str, bytes] = {}
    try:
        first = packed[0]
        count, at = (first & 15, 1) if first & 0xF0 == 0x90 else (int.from_bytes(packed[1:3], "big"), 3) if first == 0xDC else _wrong()
        for _ in range(count):
            if packed[at] != 0x92:
                _wrong()
            name, at = _text(packed, at + 1)
            value, at = _text(packed, at)
            found[name.decode()] = value
    except IndexError:
        _wrong()
    return found


def _text(packed: bytes, at: int) -> tuple[bytes, int]:
    """A string or a byte string and where the next thing begins."""
    kind = packed[at]
    if kind & 0xE0 == 0xA0:
        size, begin = kind & 31, at + 1
    elif kind in {0xC4, 0xD9}:
        size, begin = packed[at + 1], at + 2
    elif kind in {0xC5, 0xDA}:
        size, begin = int.from_bytes(packed[at + 1 : at + 3], "big"), at + 3
    else:
        _wrong()
    if begin + size > len(packed):
        _wrong()
    return packed[begin : begin + size], begin + size


def _wrong() -> Any:
    raise ValueError("stored headers are not a list of pairs")
