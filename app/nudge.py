"""The nudge: one lossy datagram that tells relays which shards got rows. It only shortens a wait; a lost one costs a poll interval, never a message."""

import contextlib
import socket
import time

RESOLVE_EVERY_SECONDS = 5.0


class Nudge:
    """To every address of one name, resolved every 5 s. Never raises, never blocks."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.host, self.port = host, int(port)
        self.addresses: list[tuple[str, int]] = []
        self.resolved = float("-inf")
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)

    def send(self, shards: set[int]) -> None:
        if time.monotonic() - self.resolved > RESOLVE_EVERY_SECONDS:
            self.resolved = time.monotonic()
            with contextlib.suppress(OSError):
                self.addresses = sorted({found[4][:2] for found in socket.getaddrinfo(self.host, self.port, socket.AF_INET, socket.SOCK_DGRAM)})  # type: ignore[misc]
        data = ",".join(map(str, sorted(shards))).encode()
        for address in self.addresses:
            with contextlib.suppress(OSError):
                self.socket.sendto(data, address)
