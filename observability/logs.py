"""Structured logs: one JSON object a line on stderr, with the ids of what it is about. Secrets are masked by name, whoever logs them."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRET = re.compile(r"(secret|password|passphrase|token|private|authorization|master_key|sealed)", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(\w+://[^:/@\s]*:)[^@/\s]+@")


def mask(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """By name of the field, and passwords inside URLs."""
    for key, value in event.items():
        if key != "event" and _SECRET.search(key):
            event[key] = "***"
        elif isinstance(value, str):
            event[key] = _URL_PASSWORD.sub(r"\1***@", value)
    return event


def configure(*, component: str, instance: str, level: str = "info", form: str = "json") -> None:
    """Once, by `__main__`. The standard library's loggers (uvicorn, paramiko) go the same way at warning and above."""
    renderer: Any = structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=False)
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        mask,
    ]
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(component=component, instance=instance)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer], foreign_pre_chain=processors))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # Its transport thread logs tracebacks of what we translate at the door.


def logger(name: str) -> Any:
    return structlog.get_logger(part=name)
