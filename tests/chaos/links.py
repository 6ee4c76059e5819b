"""Which links stand where: one between each process and each server it speaks to, one before each compute host, one for the relays' nudges. All of one run's proxy."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy.engine import make_url

from app.dev.compute_host import SshHost
from tests.chaos.proxy import Link, Proxy

WITHOUT_DATABASE = frozenset({"event-sink"})
WITHOUT_BROKER = frozenset({"api"})


class Nudges(asyncio.DatagramProtocol):
    """Datagrams on their way to a relay: counted, passed on, or lost."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target, self.count, self.losing = target, Counter[str](), False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, _: Any) -> None:
        self.count["lost" if self.losing else "passed"] += 1
        if not self.losing:
            self.transport.sendto(data, self.target)

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there just now: a nudge may be lost."""
        self.count["unheard"] += 1


class Links:
    """`own` is what a copy is told instead of the servers' own addresses; a copy's links stay while it is started again."""

    def __init__(self, database_url: str, kafka: str) -> None:
        self.url, self.kafka = make_url(database_url), kafka
        self.proxy = Proxy()
        self.known: dict[str, dict[str, str]] = {}
        self.hosts: dict[int, Link] = {}
        self.nudges: Nudges | None = None

    def own(self, component: str, copy: int, *, internal_url: str = "", nudge_to: str = "") -> dict[str, str]:
        """Settings without the prefix."""
        who = f"{component}-{copy}"
        if who not in self.known:
            self.known[who] = made = {}
            if component not in WITHOUT_DATABASE:
                link = self.proxy.link(who, "mysql", (self.url.host or "127.0.0.1", self.url.port or 3306), "mysql")
                made["MYSQL_URL"] = self.url.set(host="127.0.0.1", port=link.port).render_as_string(hide_password=False)
            if component not in WITHOUT_BROKER:
                made["KAFKA"] = ",".join(each.address for each in self.proxy.kafka(who, self.kafka))
            if internal_url:
                made["INTERNAL_URL"] = f"http://{self.proxy.link(who, 'api', _address(internal_url)).address}"
            if nudge_to:
                made["NUDGE_TO"] = self._nudges(_address(f"udp://{nudge_to}"))
        return self.known[who]

    def host(self, number: int, host: SshHost) -> SshHost:
        """A compute host as the executors see it: one link for all of them, since its address stands in the catalogue."""
        if number not in self.hosts:
            self.hosts[number] = self.proxy.link("executors", f"fork-{number}", (host.address, host.port))
        return replace(host, address="127.0.0.1", port=self.hosts[number].port)

    def _nudges(self, target: tuple[str, int]) -> str:
        if self.nudges is None:
            loop = self.proxy.loop
            self.nudge_transport, self.nudges = self.proxy.run(loop.create_datagram_endpoint(lambda: Nudges(target), local_addr=("127.0.0.1", 0)))
        return f"127.0.0.1:{self.nudge_transport.get_extra_info('sockname')[1]}"

    def close(self) -> None:
        if self.nudges is not None:
            self.proxy.loop.call_soon_threadsafe(self.nudge_transport.close)
        self.proxy.close()


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80
