"""The API server: a public and an internal face in one process, stateless, any number of copies. Speaks neither Kafka nor SSH; reads the primary only."""

import asyncio
import contextlib
import json
import resource
import signal
import socket
import threading
import time
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app import clock, plugins, secrets
from app.api import resources
from app.api.access import Tokens
from app.api.application import Face, Services
from app.api.gate import HEADER_BYTES_MAX
from app.api.operations import Cursors
from app.api.problems import Problem
from app.api.sampler import Sampler
from app.api.waiting import Waiter
from app.errors import Misconfigured, Transient
from app.lifecycle import Lifecycle, run
from app.mysql import engine
from app.mysql.unit_of_work import UnitOfWork, now, unit_of_work
from app.nudge import Nudge
from observability import metrics

THREADS, BACKLOG = 16, 512
CONNECTIONS_MAX = 2048  # Of a face: each may hold a descriptor, 128 KiB of headers and a task.
HEADERS_SECONDS = 10.0
DRAIN_SECONDS, STOP_ACCEPTING_AFTER_SECONDS = 20.0, 5.0
CLOCK_SKEW_SECONDS, PING_SECONDS = 1.0, 1.0
SAMPLER_IDLE_SECONDS = 30  # Its session only reads, so no writer waits for it.
_FULL = json.dumps(Problem("overloaded", "too many connections to this copy: try again").document(instance="", trace_id=None)).encode()  # No request was read that could have an id.
FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_FULL), _FULL)


class Protocol(HttpToolsProtocol):
    """Refuses a connection too many. Closes a connection whose headers do not end within 10 s, or grow beyond every bound: the parser itself would wait for ever.

    The clock runs from the connection, and from the first byte of each later request on it. Bytes are counted after parsing: one read may bring headers and body.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_headers()
        if len(self.connections) > CONNECTIONS_MAX:
            metrics.count("airavata_overloads_total", bound="connections")
            transport.write(FULL)
            transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._timer.cancel()
        self._await_headers()

    def _await_headers(self) -> None:
        self._awaits_headers, self._received = True, 0
        self._timer = asyncio.get_running_loop().call_later(HEADERS_SECONDS, self._close)

    def _close(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._received += len(data)
        if self._awaits_headers and self._received > 8 * HEADER_BYTES_MAX:
            self._close()

    def on_headers_complete(self) -> None:
        self._awaits_headers = False
        self._timer.cancel()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)


class Readiness:
    """/readyz: MySQL answers within 1 s, its clock is ours, the schema is there. Asked at most once a second, by one thread, whose answer all probes wait for."""

    def __init__(self, unit: UnitOfWork) -> None:
        self.unit, self.lock, self.answered, self.asked = unit, threading.Lock(), threading.Event(), float("-inf")
        self.answered.set()
        self.answer: str | None = None

    def __call__(self) -> str | None:
        with self.lock:
            if self.answered.is_set() and time.monotonic() - self.asked > PING_SECONDS:
                self.answered.clear()
                threading.Thread(target=self._look, name="ready", daemon=True).start()
        return self.answer if self.answered.wait(PING_SECONDS) else "mysql: no answer within 1 s"

    def _look(self) -> None:
        try:
            self.answer = self._ask()
        except Exception as fault:  # A thread that ends without an answer would leave us unready for ever.
            self.answer = f"mysql: {type(fault).__name__}"
        self.asked = time.monotonic()
        self.answered.set()

    def _ask(self) -> str | None:
        try:
            with self.unit("api.ready.read") as tx:
                theirs = now(tx)
        except (Transient, Misconfigured) as fault:
            return f"mysql: {fault}"
        skew = abs((clock.utc_now().replace(tzinfo=None) - theirs).total_seconds())
        return f"clock: {skew:.1f} s away from MySQL's" if skew > CLOCK_SKEW_SECONDS else None


def work(lifecycle: Lifecycle) -> None:
    """Build everything by hand, serve both faces until SIGTERM, drain."""
    settings = lifecycle.settings
    if len(settings.token_key) < 32:
        raise Misconfigured("AIRAVATA_TOKEN_KEY (or …_FILE): at least 32 characters are wanted")
    if settings.environment == "production" and "/" in settings.posix_roots:
        raise Misconfigured("AIRAVATA_POSIX_ROOTS: say below which directories POSIX storages may lie, for example /data/{gateway}: gateways' administrators name their roots")
    master = secrets.master_key(settings.master_key)
    database = engine.connect(settings.mysql_url, size=THREADS + 2, idle_seconds=5, lock_wait_seconds=2)
    unit = unit_of_work(database, nudge=Nudge(settings.nudge_to).send, spans=True, compatibility=settings.compatibility)
    lifecycle.wait_for_database(database)
    token_key = settings.token_key.encode()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 3 * CONNECTIONS_MAX), most))  # Two faces' connections, MySQL's and files; 1,024 are usual.
    services = Services(
        unit_of_work=unit, tokens=Tokens(unit, token_key), cursors=Cursors(token_key), placement=settings.placement, topics=settings.topics,
        planners=plugins.planners(settings.enabled_planners), master_key=master, token_key=token_key, live_experiments_max=settings.live_experiments_max,
        posix_roots=settings.posix_roots, ready=Readiness(unit), draining=lifecycle.stop.is_set, stuck=lambda: _stuck(lifecycle),
    )  # fmt: skip
    sampler = Sampler(engine.connect(settings.mysql_url, size=1, idle_seconds=SAMPLER_IDLE_SECONDS), shards=settings.placement.shards, task_types=list(plugins.task_types()))
    metrics.watch(lambda: sampler.readings)
    threading.Thread(target=sampler.run, args=(lifecycle.stop.wait,), name="sampler", daemon=True).start()
    asyncio.run(serve(lifecycle, services, unit))


def _stuck(lifecycle: Lifecycle) -> str | None:
    status, told = lifecycle.status("/livez")
    return None if status == 200 else told


async def serve(lifecycle: Lifecycle, services: Services, unit: UnitOfWork) -> None:
    settings = lifecycle.settings
    services.waiter = waiter = Waiter(unit, resources.WAITS)
    faces = [Face(services, operations, threads=THREADS) for operations in (resources.PUBLIC, resources.INTERNAL)]
    servers = [_server(face, listen) for face, listen in zip(faces, (settings.public_listen, settings.internal_listen), strict=True)]
    metrics.watch(lambda: [("http_server_active_requests", face.gate.active, {}) for face in faces])
    sockets = [_socket(name, listen) for name, listen in (("PUBLIC_LISTEN", settings.public_listen), ("INTERNAL_LISTEN", settings.internal_listen))]
    tasks = [asyncio.create_task(each.serve([bound])) for each, bound in zip(servers, sockets, strict=True)]
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lifecycle.stop.set)
    lifecycle.ready = lambda: None if all(each.started for each in servers) else "listening"
    while not lifecycle.stop.is_set() and not any(each.done() for each in tasks):
        await asyncio.to_thread(lifecycle.each_turn, unit)
        await asyncio.sleep(0.2)
    lifecycle.stop.set()
    waiter.draining.set()  # Waits are answered now, with what is.
    if not any(each.done() for each in tasks):
        await asyncio.sleep(0 if settings.environment == "development" else STOP_ACCEPTING_AFTER_SECONDS)
    for server in servers:
        server.should_exit = True
    await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
    await asyncio.to_thread(lifecycle.leave, unit)
    for task in tasks:
        if task.done():
            task.result()  # A face that ended by a bug ends us as one.


def _socket(name: str, listen: tuple[str, int]) -> socket.socket:
    """Bound by us: uvicorn would end the process with an exit code of its own."""
    try:
        return socket.create_server(listen, family=socket.AF_INET6 if ":" in listen[0] else socket.AF_INET, backlog=BACKLOG)
    except OSError as fault:
        raise Misconfigured(f"AIRAVATA_{name}: {fault.strerror}: {listen[0]}:{listen[1]}") from fault


def _server(face: Face, listen: tuple[str, int]) -> uvicorn.Server:
    config = uvicorn.Config(
        face.gate, host=listen[0], port=listen[1], http=Protocol, loop="asyncio", lifespan="off", access_log=False, log_config=None, log_level="error", server_header=False, date_header=True,
        timeout_keep_alive=30, timeout_graceful_shutdown=int(DRAIN_SECONDS), backlog=BACKLOG,
    )  # fmt: skip
    server = uvicorn.Server(config)
    setattr(server, "capture_signals", contextlib.nullcontext)  # noqa: B010  Ours are handled by the life cycle.
    return server


if __name__ == "__main__":
    run("api", work)
