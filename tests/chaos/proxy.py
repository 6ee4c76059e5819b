"""The fault proxy: a link stands in the connection of one process to one server, and harms it on command. What a link counts is the proof that it struck.

All links of a run live in one event loop on one thread: no second copy of a byte, no wake-up while nothing moves. Brokers need no listeners of their own for it: a link
writes the proxies' ports into their answers (tests/chaos/wire.py). Faults are attributes that any thread may set; `heal` takes all of them back.
"""

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Coroutine, Iterable
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, TypeVar

from tests.chaos import wire
from tests.chaos.wire import DOWN, UP, Order, Severed

T = TypeVar("T")
TICK_SECONDS = 0.02
CONNECT_SECONDS = 10.0
CALL_SECONDS = 15.0
Address = tuple[str, int]


class Connection:
    """One accepted connection and its fellow to the server."""

    def __init__(self, link: "Link", client: tuple[asyncio.StreamReader, asyncio.StreamWriter], server: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self.link, self.client, self.server = link, client[1], server[1]
        self.readers = {UP: client[0], DOWN: server[0]}
        self.writers = {UP: server[1], DOWN: client[1]}
        self.maimed = False
        for each in (self.client, self.server):
            with suppress(OSError):  # It may have gone again already.
                each.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def serve(self) -> None:
        """Both ways until both ends have said their last, or one was cut."""
        speaks = wire.WIRES[self.link.protocol](self)
        ways = [asyncio.create_task(self._one(UP, speaks.up())), asyncio.create_task(self._one(DOWN, speaks.down()))]
        try:
            await asyncio.gather(*ways)
        except (OSError, Severed):
            self.reset()
        finally:
            for each in ways:
                each.cancel()
            for writer in (self.client, self.server):
                writer.close()

    async def _one(self, way: str, pump: Coroutine[Any, Any, None]) -> None:
        with suppress(asyncio.IncompleteReadError):
            await pump
        if self.writers[way].can_write_eof():
            self.writers[way].write_eof()

    async def send(self, way: str, data: bytes) -> None:
        """Through the weather of the link. Raises Severed where the connection is cut."""
        link = self.link
        if link.delay_seconds:
            await asyncio.sleep(link.delay_seconds)
        if link.bytes_per_second:
            await asyncio.sleep(len(data) / link.bytes_per_second)
        if way in link.hanging:
            link.count[f"held.{way}"] += len(data)
        while way in link.hanging:  # noqa: ASYNC110  Any thread may change the set.
            await asyncio.sleep(TICK_SECONDS)
        if way in link.dropping:
            self.maimed = True  # Its stream has a hole: such a connection ends when the link is healed.
            link.count[f"dropped.{way}"] += len(data)
            return
        left = link.cuts.get(way)
        if left is not None:
            link.cuts[way] = left - len(data)
            if left <= len(data):
                del link.cuts[way]
                link.count[f"cut.{way}"] += 1
                await self.write(way, data[:left])
                raise Severed
        await self.write(way, data)

    async def write(self, way: str, data: bytes) -> None:
        self.link.count[way] += len(data)
        self.writers[way].write(data)
        await self.writers[way].drain()

    def reset(self, *ends: asyncio.StreamWriter) -> None:
        """RST, to both ends unless told."""
        self.link.count["resets"] += 1
        for writer in ends or (self.client, self.server):
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Link:
    """`protocol`: tcp, kafka or mysql. `count`: accepted, bytes and faults by name. `rewritten`: what is replaced in a broker's answers."""

    def __init__(self, proxy: "Proxy", name: str, target: Address, protocol: str) -> None:
        self.proxy, self.name, self.target, self.protocol = proxy, name, target, protocol
        self.count: Counter[str] = Counter()
        self.rewritten: list[tuple[bytes, bytes]] = []
        self.orders: list[Order] = []
        self.live: set[Connection] = set()
        self.accepted: set[asyncio.Task[None]] = set()
        self.server: asyncio.Server | None = None
        self.reserved = self._bound(0)
        self.port: int = self.reserved.getsockname()[1]
        self.clear()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    # ---- faults -----------------------------------------------------------------------------------------------------------------------------------
    def clear(self) -> None:
        self.delay_seconds = 0.0  # Each chunk, both ways; order is kept.
        self.bytes_per_second = 0.0
        self.hanging: set[str] = set()  # Connections stay, nothing passes, nothing is lost.
        self.dropping: set[str] = set()  # Read and thrown away: silence.
        self.cuts: dict[str, int] = {}  # way → after so many further bytes the connection that carries the last of them is reset.
        self.resetting = False  # Every new connection.
        self.orders.clear()

    def slow(self, *, delay_seconds: float = 0.0, bytes_per_second: float = 0.0) -> None:
        self.delay_seconds, self.bytes_per_second = delay_seconds, bytes_per_second

    def hang(self, *ways: str) -> None:
        self.hanging = set(ways or (UP, DOWN))

    def drop(self, *ways: str) -> None:
        self.dropping = set(ways or (UP, DOWN))

    def cut(self, after_bytes: int, way: str = DOWN) -> None:
        self.cuts[way] = after_bytes

    def reset(self, *, again: bool = False) -> int:
        """RST to all that live; with `again` to every new one as well, until healed. Returns how many."""
        self.resetting = again
        return self.proxy.run(self._reset(list(self.live)))

    def refuse(self) -> None:
        """Nobody listens; the port stays ours."""
        self.proxy.run(self._refuse())

    def order(self, order: Order) -> Order:
        """One thing to do once, to the first request that fits."""
        self.orders.append(order)
        return order

    def heal(self) -> None:
        """No fault is left, and no connection with a hole in its stream."""
        self.clear()
        self.proxy.run(self._heal())

    def server_ports(self) -> set[int]:
        """Our ends of the connections to the server, as it sees them."""
        return {each.server.get_extra_info("sockname")[1] for each in list(self.live)}

    def proven(self, *names: str) -> dict[str, int]:
        return {name: self.count[name] for name in names or sorted(self.count)}

    # ---- in the loop ------------------------------------------------------------------------------------------------------------------------------
    def _bound(self, port: int) -> socket.socket:
        """Bound and not listening: a connect is refused, and nobody else gets the port."""
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
        bound.setblocking(False)
        return bound

    async def listen(self) -> None:
        if self.server is None:
            self.server = await asyncio.start_server(self._accepted, sock=self.reserved)

    async def _refuse(self) -> None:
        if self.server is not None:
            self.server.close()
            self.server = None
            self.reserved = self._bound(self.port)
            self.count["refusing"] += 1

    async def _reset(self, connections: Iterable[Connection]) -> int:
        told = list(connections)
        for each in told:
            each.reset()
        return len(told)

    async def _heal(self) -> None:
        await self.listen()
        await self._reset([each for each in self.live if each.maimed])

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Its task is ours: whatever becomes of it, also where the proxy ends before its first step, the connection is closed."""
        self.count["accepted"] += 1
        task = asyncio.get_running_loop().create_task(self._carried(reader, writer))
        self.accepted.add(task)
        task.add_done_callback(lambda ended: (self.accepted.discard(ended), writer.close()))

    async def _carried(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                server = await asyncio.open_connection(*self.target)
        except (OSError, TimeoutError):
            self.count["unreachable"] += 1
            writer.transport.abort()
            return
        connection = Connection(self, (reader, writer), server)
        if self.resetting:
            connection.reset()
            return
        self.live.add(connection)
        try:
            await connection.serve()
        finally:
            self.live.discard(connection)

    async def close(self) -> None:
        if self.server is not None:
            self.server.close()
        self.reserved.close()
        await self._reset(list(self.live))


class Proxy:
    """The loop, its thread and its links. `links`: by name, `<process>><server>`."""

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="fault-proxy", daemon=True)
        self.thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(CALL_SECONDS)

    def link(self, process: str, server: str, target: Address, protocol: str = "tcp") -> Link:
        """Listening when it returns."""
        link = Link(self, f"{process}>{server}", target, protocol)
        self.links[link.name] = link
        self.run(link.listen())
        return link

    def kafka(self, process: str, bootstrap: str) -> list[Link]:
        """A link to each broker of `host:port,host:port`. Each writes the proxies' ports over the brokers' own wherever an answer names a broker."""
        brokers = [(host, int(port)) for host, _, port in (each.rpartition(":") for each in bootstrap.split(","))]
        links = [self.link(process, f"kafka-{number}", broker, "kafka") for number, broker in enumerate(brokers, 1)]
        for each in links:
            each.rewritten = [(wire.endpoint(*broker), wire.endpoint(broker[0], link.port)) for broker, link in zip(brokers, links, strict=True)]
        return links

    def of(self, process: str = "", server: str = "") -> list[Link]:
        """Links by the beginning of their two names."""
        return [each for name, each in self.links.items() if name.startswith(process) and name.rpartition(">")[2].startswith(server)]

    def heal(self) -> None:
        for each in self.links.values():
            each.heal()

    def close(self) -> None:
        async def end() -> None:
            for each in self.links.values():
                await each.close()
            while rest := asyncio.all_tasks() - {asyncio.current_task()}:  # Again: a connection may be accepted while others end.
                for task in rest:
                    task.cancel()
                await asyncio.gather(*rest, return_exceptions=True)

        with suppress(CancelledError):
            self.run(end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(CALL_SECONDS)
        self.loop.close()
