"""Logs: one JSON object a line on stderr, with the ids of what it is about. Nothing secret, nothing endless, nothing that a terminal obeys.

Fixed fields: `ts` (UTC, µs), `level`, `event` (a constant, in snake case; values are fields), `component`, `instance`, `version`; where known `trace_id`, `span_id`, `gateway_id`, `experiment_id`,
`process_id`, `task_id`, `attempt`, `epoch`, `topic`, `partition`, `offset`, `message_id`. Of a fault (`fault=`, `exc_info=`): `error_class`, `retriable`, `error`, and the stack of a bug.
A repeated warning is written once a second, with how many were `suppressed`. Libraries' loggers go the same way.
"""

import json
import logging
import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeAlias

from app.errors import Transient
from app.messages import trace
from app.messages.envelope import Subject

_RICH = sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # structlog would load it, for tracebacks that we never draw: a sixth of what a process loads when it starts.
import structlog  # noqa: E402

if _RICH is None:
    del sys.modules["rich"]

Event: TypeAlias = MutableMapping[str, Any]
FIXED = ("ts", "level", "event", "component", "instance", "version")
LINE_BYTES_MAX, ERROR_CHARACTERS_MAX, REPEAT_SECONDS = 8192, 500, 1.0
WRITE_SECONDS = 1.0
LOOKED_AT_MAX = 16_384  # Characters of a value: what is beyond is not looked at, and not written.
_CUTS = (4000, 1000, 200, 40)  # Characters of a value; the longest of these with which a line has its size.
MASK = "***"
_SECRET = re.compile(r"secret|passw|passphrase|token|private|authorization|cookie|master_key|api_key|sealed", re.IGNORECASE)
_CONTENT = frozenset({"script", "stdin", "payload", "body", "parameters", "headers", "content"})
_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL), MASK),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(r"\bairv_[0-9A-Za-z]+_[0-9A-Za-z]+"), f"airv_{MASK}"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), MASK),
    (re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{0,20}://[^:/@\s]{0,200}:)\S{0,500}@"), rf"\1{MASK}@"),
    (re.compile(r"\b(\w{0,40}(?:secret|password|passwd|passphrase|api_?key)\w*[\"']?\s*[=:]\s*[\"']?)[^\s\"',;&]+", re.IGNORECASE), rf"\1{MASK}"),
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


# ---- secrets ------------------------------------------------------------------------------------------------------------------------------------------
def mask(_logger: Any, _name: str, event: Event) -> Event:
    """By name of the field, and by shape: PEM blocks, bearer tokens, passwords in URLs and beside their names."""
    for name, value in event.items():
        event[name] = _masked(name, value)
    return event


def _masked(name: str, value: Any) -> Any:
    if _SECRET.search(name) or name in _CONTENT:
        return MASK
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {str(each): _masked(str(each), inner) for each, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked("", each) for each in value]
    return value if value is None or isinstance(value, bool | int | float) else f"{len(value)} bytes" if isinstance(value, bytes) else masked(str(value))


def masked(text: str) -> str:
    """Without what has the shape of a secret. Also for error bodies and span attributes."""
    text = text[:LOOKED_AT_MAX]
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text


# ---- what a line says -----------------------------------------------------------------------------------------------------------------------------------
_process: dict[str, str] = {}  # Who writes: also in threads, whose context begins empty.


def _whose(_logger: Any, _name: str, event: Event) -> Event:
    return {**_process, **event}


def _traced(under_way: Callable[[], str], _logger: Any, _name: str, event: Event) -> Event:
    """The span that is under way here, if one is: `under_way` gives its traceparent, or nothing."""
    found = trace.parse(under_way())
    return {"trace_id": found[0], "span_id": found[1], **event} if found else event


def _named(_logger: Any, _name: str, event: Event) -> Event:
    """The event as a word for machines: what is written as a sentence in the code is a constant all the same."""
    event["event"] = re.sub(r"[^a-z0-9]+", "_", str(event["event"]).lower()).strip("_")[:80]
    return event


def _faults(_logger: Any, _name: str, event: Event) -> Event:
    """What went wrong: `fault`, a failure that is dealt with, or `exc_info`, a bug, whose stack comes along."""
    fault, bug = event.pop("fault", None), event.get("exc_info")
    told = bug[1] if isinstance(bug, tuple) else bug if isinstance(bug, BaseException) else sys.exc_info()[1] if bug else fault
    if isinstance(told, BaseException):
        event.update(error_class=type(told).__name__, retriable=isinstance(told, Transient), error=str(told)[:ERROR_CHARACTERS_MAX])
    elif told is not None:
        event["error"] = str(told)[:ERROR_CHARACTERS_MAX]
    return event


def _stack(_logger: Any, _name: str, event: Event) -> Event:
    if "exception" in event:
        event["stack"] = event.pop("exception")[-_CUTS[0] :]
    return event


class Repeats:
    """The same warning of the same part, once a second. What is dropped is counted in the next one that is written, and by `count`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, count: Callable[[str], None] = lambda _: None) -> None:
        self.clock, self.count = clock, count
        self.lock, self.written, self.dropped = threading.Lock(), dict[tuple[str, str], float](), dict[tuple[str, str], int]()

    def __call__(self, _logger: Any, method: str, event: Event) -> Event:
        if method != "warning":
            return event
        key, at = (str(event.get("part", "")), str(event["event"])), self.clock()
        with self.lock:
            if at - self.written.get(key, float("-inf")) < REPEAT_SECONDS:
                self.dropped[key] = self.dropped.get(key, 0) + 1
                self.count(key[1])
                raise structlog.DropEvent
            self.written[key] = at
            if suppressed := self.dropped.pop(key, 0):
                event["suppressed"] = suppressed
        return event


# ---- how it is written ----------------------------------------------------------------------------------------------------------------------------------
def _line(_logger: Any, _name: str, event: Event) -> str:
    """JSON, ASCII, so that nothing forges a line; shorter values where it would be too long, and at last the fixed fields alone."""
    ordered = {name: event[name] for name in FIXED if name in event} | dict(event)
    for most in _CUTS:
        line = json.dumps({name: _cut(value, most) for name, value in ordered.items()}, default=str).replace("\x7f", "\\u007f")
        if len(line) <= LINE_BYTES_MAX:
            return line
    return json.dumps({name: _cut(ordered[name], _CUTS[-1]) for name in FIXED if name in ordered} | {"truncated": True}, default=str)


def _cut(value: Any, most: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= most else value[:most] + "…"
    if isinstance(value, dict):
        return {_cut(name, most): _cut(each, most) for name, each in list(value.items())[:50]}
    return [_cut(each, most) for each in value[:50]] if isinstance(value, list) else value


def _harmless(_logger: Any, _name: str, event: Event) -> Event:
    """For terminals: control characters, ANSI and turns of direction as text."""
    return {name: _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value) if isinstance(value, str) and name != "stack" else value for name, value in event.items()}


def processors(form: str, repeats: Repeats, under_way: Callable[[], str] = str) -> list[Any]:
    """From what the code said to the line."""
    last = [_line] if form == "json" else [_harmless, structlog.dev.ConsoleRenderer(colors=False, timestamp_key="ts")]
    return [
        structlog.contextvars.merge_contextvars, _whose, partial(_traced, under_way), _named, repeats, structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%S.%fZ", utc=True, key="ts"),
        _faults, structlog.processors.format_exc_info, _stack, mask, *last,
    ]  # fmt: skip


class Lines:
    """Whole lines on stderr. One that cannot be written, or not soon, is lost and counted: nothing that is said about the work may end it or hold it up."""

    def __init__(self) -> None:
        self.lost: Callable[[], None] = lambda: None
        self.lock, self.stuck, self.cut = threading.Lock(), False, False

    def msg(self, line: str) -> None:
        told = False
        if self.lock.acquire(timeout=WRITE_SECONDS):
            try:
                told = self._write((b"\n" if self.cut else b"") + line.encode("utf-8", "backslashreplace") + b"\n")
            finally:
                self.lock.release()
        if not told:
            self.lost()

    def _write(self, data: bytes) -> bool:
        """In pieces that a pipe takes whole as soon as it takes anything. Who reads and does not, is waited for once."""
        whole = len(data)
        try:
            while data:
                if not select.select([], [sys.stderr], [], 0.0 if self.stuck else WRITE_SECONDS)[1]:
                    self.stuck = True
                    break
                data = data[os.write(sys.stderr.fileno(), data[: select.PIPE_BUF]) :]
                self.stuck = False
        except (OSError, ValueError, TypeError):  # Nobody reads any more, the disk is full, it is closed, it never was there.
            pass
        self.cut = (self.cut and len(data) == whole) or 0 < len(data) < whole
        return not data

    log = debug = info = warn = warning = error = critical = exception = msg


_lines = Lines()
say = _lines.msg  # For people: what ends a process before it, and its logs, are set up.


class _Libraries(logging.Handler):
    """The standard library's loggers, through the same pipeline."""

    def emit(self, record: logging.LogRecord) -> None:
        logger(record.name).log(record.levelno, "library", message=record.getMessage(), exc_info=record.exc_info)


# ---- for everybody --------------------------------------------------------------------------------------------------------------------------------------
def configure(
    *, component: str, instance: str, version: str = "", level: str = "info", form: str = "json", under_way: Callable[[], str] = str, suppressed: Callable[[str], None] = lambda _: None,
    lost: Callable[[], None] = lambda: None,
) -> None:
    """Once, by the life cycle. `under_way`: the traceparent of the span that is; `suppressed` counts by event, `lost` what could not be written. Libraries (uvicorn, paramiko, sqlalchemy, librdkafka) are heard at warning and above."""
    structlog.configure(
        processors=processors(form, Repeats(count=suppressed), under_way),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: _lines,
        cache_logger_on_first_use=True,
    )
    _lines.lost = lost
    structlog.contextvars.clear_contextvars()
    _process.update(component=component, instance=instance, version=version)
    logging.basicConfig(handlers=[_Libraries()], level=logging.WARNING, force=True)
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # Its transport thread logs tracebacks of what we translate at the door.


def logger(name: str) -> Any:
    return structlog.get_logger(part=name)


def library(name: str) -> logging.Logger:
    """For client libraries that want to be given one."""
    return logging.getLogger(name)


def about(**ids: Any) -> AbstractContextManager[Any]:
    """What every line inside is about; also in the threads that requests are handed to."""
    return structlog.contextvars.bound_contextvars(**{name: value for name, value in ids.items() if value})


def of_key(key: str) -> dict[str, Any]:
    """The ids that a message's key names."""
    process, _, task = key.partition("-")
    return {"process_id": process, "task_id": task or None}


def of(subject: Subject) -> dict[str, Any]:
    """The ids of a message's subject, as fields."""
    told = {"gateway_id": subject.gateway, "experiment_id": subject.experiment, "process_id": subject.process, "task_id": subject.task, "attempt": subject.attempt, "epoch": subject.epoch}
    return {name: value for name, value in told.items() if value}
