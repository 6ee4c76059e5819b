"""The nudge: one lossy datagram that tells relays which shards got rows. It only shortens a wait; a lost one costs a poll interval, never a message.

The name is resolved by a thread of its own: a name server that does not answer holds a look-up for many seconds, and a writer must not notice.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

RESOLVE_EVERY_SECONDS = 5.0


class Nudge:
    """To every address of one name, resolved every 5 s. Never raises, never blocks; until the first answer it goes to nobody."""

    def __init__(self, address: str, *, resolve: Callable[..., Any] = socket.getaddrinfo) -> None:
        host, _, port = address.rpartition(":")
        self.host, self.port, self.resolve = host, int(port), resolve
        self.addresses: list[tuple[str, int]] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self._look()

    def send(self, shards: set[int]) -> None:
        if time.monotonic() - self.looked > RESOLVE_EVERY_SECONDS and not self.looking.is_alive():
            self._look()
        data = ",".join(map(str, sorted(shards))).encode()
        for address in self.addresses:
            with contextlib.suppress(OSError):
                self.socket.sendto(data, address)

    def _look(self) -> None:
        """The old answer serves until a new one is there."""
        self.looked, self.looking = time.monotonic(), threading.Thread(target=self._resolve, name="nudge", daemon=True)
        self.looking.start()

    def _resolve(self) -> None:
        with contextlib.suppress(OSError, UnicodeError):  # The second: of a name that is none.
            self.addresses = sorted({found[4][:2] for found in self.resolve(self.host, self.port, socket.AF_INET, socket.SOCK_DGRAM)})
