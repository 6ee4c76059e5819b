"""What the fault proxy knows of two protocols: Kafka's frames (api key, correlation id) and MySQL's COMMIT packet. No TLS: the tests' URLs have it switched off.

An *order* is done once, to the first request that fits: hold it and hand it over later, swallow its answer, or decide what becomes of a COMMIT; one that is `lasting` to every
request that fits. `struck` is set when it was, `seen` says what was measured.
"""

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from tests.chaos.proxy import Connection, Link

UP, DOWN = "up", "down"
CHUNK, FRAME_BYTES_MAX = 65536, 128 << 20
COM_QUERY, COMMIT = b"\x03", b"\x03COMMIT"
WRITES = (b"\x03INSERT", b"\x03UPDATE", b"\x03DELETE")
APIS = {
    0: "Produce", 1: "Fetch", 2: "ListOffsets", 3: "Metadata", 8: "OffsetCommit", 9: "OffsetFetch", 10: "FindCoordinator", 11: "JoinGroup", 12: "Heartbeat", 13: "LeaveGroup",
    14: "SyncGroup", 18: "ApiVersions", 22: "InitProducerId", 24: "AddPartitionsToTxn", 26: "EndTxn",
}  # fmt: skip
OF_TRANSACTIONS = frozenset({"AddPartitionsToTxn", "EndTxn"})


class Severed(Exception):
    """The connection was cut here, on purpose."""


@dataclass
class Order:
    """`api`: a Kafka request by name, or COMMIT. `fits`: a further look at the request's bytes."""

    lasting: ClassVar[bool] = False
    api: str
    act: Callable[["Connection", "Order", bytes], Any] | None = None
    fits: Callable[[bytes], bool] = lambda _: True
    struck: threading.Event = field(default_factory=threading.Event)
    seen: dict[str, Any] = field(default_factory=dict)

    def strikes(self, **seen: Any) -> None:
        self.seen |= {"mono": time.monotonic(), **seen}
        self.struck.set()


@dataclass
class Hold(Order):
    """Keep the request back: the server does not get it until `release`. `sever`: the client loses its connection, and believes what it likes; else its request stays unanswered."""

    sever: bool = True
    frame: bytes = b""

    def release(self, target: tuple[str, int], seconds: float = 10.0) -> bytes:
        """Hand the frame over, on a connection of its own as a router would that had kept it. The server's answer without its length."""
        with socket.create_connection(target, seconds) as late:
            late.sendall(self.frame)
            answer = _exactly(late, int.from_bytes(_exactly(late, 4), "big"))
        self.seen |= {"released": time.monotonic(), "held_seconds": time.monotonic() - self.seen["mono"]}
        return answer


@dataclass
class Swallow(Order):
    """The server gets the request and answers; the client never hears it. `sever`: instead it loses the connection."""

    sever: bool = True


@dataclass
class Pretend(Order):
    """The server never gets the request, AddPartitionsToTxn or EndTxn; the client is told that all went well. Every time, until the link is healed."""

    lasting = True


@dataclass
class LoseCommit(Order):
    """COMMIT of a transaction that wrote: forwarded after so many seconds or (None) never; the answer is swallowed and the client's connection reset."""

    api: str = "COMMIT"
    after_seconds: float | None = 0.0


def _exactly(sock: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = sock.recv(size - len(found))
        if not more:
            raise ConnectionError(f"the server closed after {len(found)} of {size} bytes")
        found += more
    return found


def endpoint(host: str, port: int) -> bytes:
    """A broker as every version of every answer spells it: the host's text, then its port as INT32. Same length before and after, so no frame changes its size."""
    return host.encode() + struct.pack(">i", port)


class EndTxn(NamedTuple):
    transactional_id: str
    producer_id: int
    epoch: int
    committed: bool


def _transactional(body: bytes) -> tuple[str, bytes]:
    """The transactional id of a request before flexible versions, behind header and client id, and what follows it."""
    at = 10 + max(0, int.from_bytes(body[8:10], "big", signed=True))
    end = at + 2 + int.from_bytes(body[at : at + 2], "big")
    return body[at + 2 : end].decode(), body[end:]


def end_txn(body: bytes) -> EndTxn:
    """An EndTxn request (librdkafka sends version 1): transactional id, producer, epoch, committed."""
    name, rest = _transactional(body)
    producer, epoch, committed = struct.unpack(">qh?", rest[:11])
    return EndTxn(name, producer, epoch, committed)


def all_well(api: str, request: bytes) -> bytes:
    """The answer "no error" to AddPartitionsToTxn 0 or EndTxn 1, as librdkafka sends them, without its length. Layout: kafka.apache.org/protocol."""
    head, no_throttle, no_error = request[4:8], struct.pack(">i", 0), struct.pack(">h", 0)
    if api == "EndTxn":
        return head + no_throttle + no_error
    at = 10 + max(0, int.from_bytes(request[8:10], "big", signed=True))
    at += 2 + int.from_bytes(request[at : at + 2], "big") + 10  # Transactional id, producer id, epoch.
    (topics,) = struct.unpack_from(">i", request, at)
    answer, at = head + no_throttle + struct.pack(">i", topics), at + 4
    for _ in range(topics):
        name = request[at : at + 2 + int.from_bytes(request[at : at + 2], "big")]
        (count,) = struct.unpack_from(">i", request, at + len(name))
        at += len(name) + 4
        answer += name + struct.pack(">i", count) + b"".join(request[at + 4 * n : at + 4 * n + 4] + no_error for n in range(count))
        at += 4 * count
    return answer


def end_txn_error(answer: bytes) -> int:
    """Its answer: correlation id, throttle time, error code."""
    return int.from_bytes(answer[8:10], "big", signed=True)


# ---- how a stream is cut into units ---------------------------------------------------------------------------------------------------------------
class Plain:
    """Any protocol: chunks as they come."""

    def __init__(self, connection: "Connection") -> None:
        self.connection = connection
        self.link: Link = connection.link

    def taken(self, api: str, body: bytes) -> Order | None:
        for order in self.link.orders:
            if order.api == api and order.fits(body):
                if not order.lasting:
                    self.link.orders.remove(order)
                return order
        return None

    async def up(self) -> None:
        await self._chunks(UP)

    async def down(self) -> None:
        await self._chunks(DOWN)

    async def _chunks(self, way: str) -> None:
        while data := await self.connection.readers[way].read(CHUNK):
            await self.connection.send(way, data)


class Kafka(Plain):
    """Frames: INT32 length, then api key, version and correlation id in a request, the correlation id in an answer."""

    def __init__(self, connection: "Connection") -> None:
        super().__init__(connection)
        self.asked: dict[int, str] = {}
        self.swallowed: dict[int, Swallow] = {}

    async def up(self) -> None:
        while True:
            frame = await self._frame(UP)
            key, version, correlation = struct.unpack_from(">hhi", frame, 4)
            api = self.asked[correlation] = APIS.get(key, str(key))
            self.link.count[f"asked.{api}"] += 1
            if api in OF_TRANSACTIONS:
                self.link.count[f"asked.{api} {_transactional(frame[4:])[0]}"] += 1
            order = self.taken(api, frame[4:]) if self.link.orders else None
            if isinstance(order, Hold):
                self._hold(order, frame, api=api, version=version, correlation=correlation)
                continue
            if isinstance(order, Pretend):
                answer = all_well(api, frame[4:])
                self.link.count[f"pretended.{api}"] += 1
                order.strikes(api=api, version=version)
                await self.connection.write(DOWN, len(answer).to_bytes(4, "big") + answer)
                continue
            if isinstance(order, Swallow):
                self.swallowed[correlation] = order
            await self.connection.send(UP, frame)

    def _hold(self, order: Hold, frame: bytes, **seen: Any) -> None:
        order.frame = frame
        self.link.count[f"held.{seen['api']}"] += 1
        order.strikes(link=self.link.name, **seen)
        if order.sever:
            raise Severed

    async def down(self) -> None:
        while True:
            frame = await self._frame(DOWN)
            correlation = int.from_bytes(frame[4:8], "big", signed=True)
            api = self.asked.pop(correlation, "?")
            if api == "JoinGroup":
                self.link.count["generation"] = max(self.link.count["generation"], int.from_bytes(frame[14:18], "big", signed=True))  # Behind throttle time and error; versions 2–5.
            order = self.swallowed.pop(correlation, None)
            if order is not None:
                self.link.count[f"swallowed.{api}"] += 1
                order.strikes(api=api, correlation=correlation, bytes=len(frame))
                if order.sever:
                    raise Severed
                continue
            for old, new in self.link.rewritten:
                frame = frame.replace(old, new)
            await self.connection.send(DOWN, frame)

    async def _frame(self, way: str) -> bytes:
        reader = self.connection.readers[way]
        head = await reader.readexactly(4)
        size = int.from_bytes(head, "big")
        if size > FRAME_BYTES_MAX:
            raise Severed(f"a frame of {size} bytes is no Kafka")
        return head + await reader.readexactly(size)


class MySQL(Plain):
    """Packets: three bytes length, one sequence number, which is 0 where a command begins."""

    def __init__(self, connection: "Connection") -> None:
        super().__init__(connection)
        self.wrote = False
        self.order: LoseCommit | None = None

    async def up(self) -> None:
        reader = self.connection.readers[UP]
        while True:
            head = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(head[:3], "little"))
            if head[3] == 0 and body.startswith(COM_QUERY):
                await self._query(body[:16].upper(), body, head + body)
            else:
                await self.connection.send(UP, head + body)

    async def _query(self, begins: bytes, body: bytes, packet: bytes) -> None:
        if begins.startswith(COMMIT):
            self.link.count["asked.COMMIT"] += 1
            order = self.taken("COMMIT", body) if self.wrote and self.link.orders else None
            self.wrote = False
            if isinstance(order, LoseCommit):
                await self._lose(order, packet)
                return
        self.wrote = (self.wrote or begins.startswith(WRITES)) and not begins.startswith(b"\x03ROLLBACK")
        await self.connection.send(UP, packet)

    async def _lose(self, order: LoseCommit, packet: bytes) -> None:
        """At once: the answer is awaited and swallowed. Late: the client is gone first, the session still open. Never: both ends are reset."""
        if order.after_seconds is None:
            self.link.count["commit.never"] += 1
            order.strikes(forwarded="never")
            raise Severed
        self.order = order
        if order.after_seconds:
            self.connection.reset(self.connection.client)
            await asyncio.sleep(order.after_seconds)
        self.link.count["commit.late" if order.after_seconds else "commit.at_once"] += 1
        await self.connection.write(UP, packet)
        await asyncio.Event().wait()  # Until the answer has come, which ends the connection; bounded by the server's own session time-out.

    async def down(self) -> None:
        reader = self.connection.readers[DOWN]
        while data := await reader.read(CHUNK):
            if self.order is not None:
                self.link.count["swallowed.COMMIT"] += 1
                self.order.strikes(forwarded=self.order.after_seconds, answer="ok" if data[4:5] == b"\x00" else "error", bytes=len(data))
                raise Severed
            await self.connection.send(DOWN, data)
        if self.order is not None:
            raise Severed


WIRES: dict[str, type[Plain]] = {"tcp": Plain, "kafka": Kafka, "mysql": MySQL}
