"""Who this process is, and the one place where chance comes from: instance ids, fresh ids, epoch-free jitter of loops."""

import os
import random  # noqa: TID251  The one place.
import socket
import time

from app.messages import ids


def name(component: str) -> str:
    """`<component>-<host>-<pid>-<4 characters>`: unique among living instances, readable in `airavata consumers`."""
    return f"{component}-{socket.gethostname()[:24]}-{os.getpid()}-{os.urandom(2).hex()}"


def fresh_id(prefix: str) -> str:
    """A UUIDv7 (RFC 9562 §5.7) with our spelling: sorted by creation time."""
    milliseconds = time.time_ns() // 1_000_000
    random_bits = int.from_bytes(os.urandom(10), "big")
    number = milliseconds << 80 | 0x7 << 76 | (random_bits >> 68 & 0xFFF) << 64 | 0b10 << 62 | random_bits & (1 << 62) - 1
    return ids.named(prefix, number.to_bytes(16, "big"))


def fresh_bytes(count: int) -> bytes:
    return os.urandom(count)


def jitter(low_seconds: float, high_seconds: float) -> float:
    """For waits of loops only; what a decision needs derives from the message (app/workflow/retry.py)."""
    return random.uniform(low_seconds, high_seconds)
