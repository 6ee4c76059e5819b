"""How a process lives: starts whole or not at all, says how it is on its admin port, beats once a second, and leaves cleanly on SIGTERM.

Exit codes: 0 ok · 70 bug · 75 fenced three times by a stranger · 78 settings, secrets, schema ahead, unsafe server (docs/operators.md).
A second SIGTERM changes nothing; SIGKILL is as safe.
"""

import faulthandler
import hashlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn

from sqlalchemy import Engine

import migrations
from app import VERSION, failpoint, instance, journal
from app.errors import EXIT_BUG, EXIT_FENCED, EXIT_MISCONFIGURED, EXIT_OK, Fenced, Misconfigured, Transient
from app.mysql import engine, instances
from app.mysql.unit_of_work import UnitOfWork
from app.settings import Settings, read
from observability import logs, metrics, tracing

LIVE_SECONDS = 30.0
HEARTBEAT_SECONDS = 1.0
ADMIN_CONNECTIONS_MAX = 32


class Lifecycle:
    """One per process, made by `run`. `stop` is set by SIGTERM and SIGINT; `waiting_for` names what keeps it from being ready."""

    def __init__(self, component: str, settings: Settings) -> None:
        self.component, self.settings = component, settings
        self.instance, self.revision = instance.name(component), migrations.head()
        self.stop = threading.Event()
        self.waiting_for: str | None = "start"
        self.facts: Callable[[], dict[str, Any]] = dict
        self.ready: Callable[[], str | None] = lambda: "start"  # Names what is missing, None when nothing is; whoever serves sets it.
        self.log = logs.logger(component)
        self._turned = time.monotonic()
        self._beaten = 0.0

    def turned(self) -> None:
        """The main loop went round: /livez measures its age."""
        self._turned = time.monotonic()

    def each_turn(self, unit_of_work: UnitOfWork) -> None:
        """Turned; and a heartbeat, if the last one is a second old. A store that is away is not the heartbeat's problem; a schema that has left us behind is (Misconfigured)."""
        self.turned()
        if time.monotonic() - self._beaten < HEARTBEAT_SECONDS:
            return
        self._beaten = time.monotonic()
        try:
            with unit_of_work("lease.heartbeat") as tx:
                migrations.refuse_ahead(migrations.judge(migrations.stored(tx)))
                instances.beat(tx, self.instance, component=self.component, version=VERSION, facts=self.facts())
        except Transient as fault:
            self.log.warning("heartbeat not stored", fault=fault)

    def leave(self, unit_of_work: UnitOfWork) -> None:
        """Remove the instance row: whatever it still held is free at once."""
        try:
            with unit_of_work("lease.leave") as tx:
                instances.remove(tx, self.instance)
        except Transient as fault:
            self.log.warning("could not remove the instance row; its lease will run out", fault=fault)

    def wait(self, what: str, attempt: Callable[[], str | None]) -> None:
        """Until `attempt` returns None: it raises Transient, or returns what it still waits for. Backs off to 2 s, says so once a change, ends on stop."""
        delay, told = 0.1, ""
        while not self.stop.is_set():
            self.turned()
            try:
                missing = attempt()
            except Transient as fault:
                missing = f"{what}: {fault}"
            if missing is None:
                self.waiting_for = None
                return
            self.waiting_for = missing
            if missing != told:
                self.log.warning("waiting", waiting_for=missing)
                told = missing
            self.stop.wait(delay)
            delay = min(delay * 2, 2.0)

    def wait_for_database(self, database: Engine) -> None:
        """Until MySQL answers, is set as the protocol needs, and carries our schema. Raises Misconfigured where waiting cannot help."""
        pool: Any = database.pool
        metrics.watch(lambda: [("db_client_connection_count", float(many), {"state": state}) for state, many in (("used", pool.checkedout()), ("idle", pool.checkedin()))])

        def look() -> str | None:
            engine.check_settings(database)
            found = migrations.refuse_ahead(migrations.check(database))
            return "the schema is behind: run `airavata admin migrate`" if found is migrations.Schema.BEHIND else None

        self.wait("MySQL", look)

    def wait_for_topics(self, names: list[str], *, partitions: int) -> Callable[[], dict[str, str]]:
        """Until Kafka answers and has these topics; returns who tells their UUIDs as they are by then. Raises Misconfigured for a wrong partition count."""
        from app.kafka import topics

        client = topics.Admin(self.settings.brokers)
        found: dict[str, str] = {}

        def look() -> str | None:
            there = topics.described(client, names)
            missing = topics.refuse_unless([topics.Desired(name, partitions, {}) for name in names], there)
            found.update({name: uuid for name, (uuid, _) in there.items()})
            return missing

        self.wait("Kafka", look)
        return lambda: found | {name: uuid for name, (uuid, _) in topics.described(client, names).items()}

    def consume(self, *, group: str, names: list[str], wants: frozenset[str], unit_of_work: UnitOfWork, handler: Any, commit: str = "commit") -> Any:
        """The consumer loop of a component, with its readiness and facts wired to the admin port."""
        from app.kafka import figures, topics
        from app.kafka.loop import ConsumerLoop

        settings = self.settings
        uuids = self.wait_for_topics(names, partitions=settings.partitions)
        loop = ConsumerLoop(
            component=self.component.split("-")[0], group=topics.full_group(settings.environment, group), topics=names, brokers=settings.brokers,
            session_timeout_ms=settings.session_timeout_ms, wants=wants, unit_of_work=unit_of_work, handler=handler, owner=self.instance,
            topic_uuids=uuids, commit=commit,
        )  # fmt: skip
        self.ready, self.facts = lambda: loop.consumer.missing, loop.facts
        metrics.watch(partial(figures.readings, loop.consumer, settings.partitions))
        return loop

    def gauges(self) -> Iterator[metrics.Reading]:
        yield "airavata_build_info", 1.0, {"version": VERSION, "revision": self.revision}
        yield "airavata_ready", float(self.status("/readyz")[0] == 200), {}
        yield "airavata_main_loop_age_seconds", time.monotonic() - self._turned, {}

    def status(self, path: str) -> tuple[int, str]:
        """What a probe is told. No store is ever asked here."""
        if path == "/startupz":
            return 200, "started"
        if path == "/livez":
            age = time.monotonic() - self._turned
            return (200, "alive") if age < LIVE_SECONDS else (503, f"the main loop last turned {age:.0f} s ago")
        missing = "draining" if self.stop.is_set() else self.waiting_for or self.ready()
        return (503, missing) if missing else (200, "ready")


def instruments(settings: Settings, role: str, name: str) -> None:
    """Journal and fail points, where they are switched on; also for commands. Raises Misconfigured in production."""
    given = hashlib.sha256(repr(sorted(settings.redacted().items())).encode()).hexdigest()[:16]
    journal.begin(settings.journal, environment=settings.environment, who=settings.journal_who or name, role=role, instance=name, version=VERSION, settings=given)
    failpoint.arm(settings.failpoints, environment=settings.environment, struck_directory=settings.struck_directory)


def watch(settings: Settings, component: str, name: str) -> None:
    """Spans have somewhere to go, where a setting says so."""
    metrics.watch(lambda: [("airavata_span_queue", tracing.waiting(), {})])
    tracing.begin(
        settings.otlp_endpoint, component=component, name=name, version=VERSION, environment=settings.environment, ratio=settings.trace_ratio, delay_seconds=settings.trace_delay_ms / 1000
    )


def run(component: str, work: Callable[[Lifecycle], None], *, database: bool = True) -> None:
    """A component's whole life, exit code included. `work` builds everything by hand, returns when `stop` is set and it has drained. A thread that dies ends it, too: what it did, nobody does."""
    if sys.stderr is not None:  # It may be closed.
        faulthandler.enable()  # A client library that aborts says where we were.
    threading.excepthook = lambda died: _end(component, died.exc_value)
    stopped: Exception | None = None
    try:
        settings = read(os.environ, database=database)  # noqa: TID251  Configuration is read here, once, for every component.
        lifecycle = Lifecycle(component, settings)
        logs.configure(
            component=component, instance=lifecycle.instance, version=VERSION, level=settings.log_level, form=settings.log_format, under_way=tracing.under_way,
            suppressed=lambda event: metrics.count("airavata_log_lines_suppressed_total", event=event),
            lost=lambda: metrics.count("airavata_log_lines_lost_total"),
        )  # fmt: skip
        instruments(settings, component, lifecycle.instance)
        metrics.begin(component, topic_prefix=settings.topics.prefix)
        metrics.watch(lifecycle.gauges)
        watch(settings, component, lifecycle.instance)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: lifecycle.stop.set())
        _serve_admin(lifecycle)
        lifecycle.log.info("started")
        work(lifecycle)
        lifecycle.log.info("stopped")
    except Exception as fault:
        stopped = fault
    _end(component, stopped)


def _end(component: str, fault: BaseException | None) -> NoReturn:
    """Says why, and exits by the kind of fault, whatever fails on the way: by `_exit`, for threads of client libraries must not keep a finished process alive."""
    code = EXIT_OK if fault is None else EXIT_MISCONFIGURED if isinstance(fault, Misconfigured) else EXIT_FENCED if isinstance(fault, Fenced) else EXIT_BUG
    try:
        if code == EXIT_BUG:
            logs.logger(component).error("bug", exc_info=fault, thread=threading.current_thread().name)
        elif fault is not None:
            logs.say(f"{component}: {fault}")
        tracing.close()  # The last thing: the group is left, the leases are given up.
        journal.write("life.stop", why="asked to" if fault is None else repr(fault)[:2000] if code == EXIT_BUG else str(fault)[:2000], code=code)
    finally:
        os._exit(code)


class _AdminServer(ThreadingHTTPServer):
    """A thread per connection, so few of them: the oldest makes room for a new one, which may be a probe."""

    daemon_threads = True
    request_queue_size = 128  # Of five, who comes in a storm is not heard and asks again a second later.

    def __init__(self, *arguments: Any) -> None:
        self.connections: list[Any] = []
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.append(request)
        if len(self.connections) > ADMIN_CONNECTIONS_MAX:
            with suppress(OSError):
                self.connections.pop(0).shutdown(socket.SHUT_RDWR)  # Its thread meets an end, and goes.
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with suppress(ValueError):
            self.connections.remove(request)
        super().shutdown_request(request)

    def handle_error(self, *_: object) -> None:
        logs.logger("admin").warning("request broken off", exc_info=True)


def _serve_admin(lifecycle: Lifecycle) -> None:
    """/metrics, /livez, /readyz, /startupz on the admin port, from a thread that touches nothing else."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self.answer(200, *metrics.exposition(self.headers.get("Accept", "")))
            elif path in {"/livez", "/readyz", "/startupz"}:
                code, text = lifecycle.status(path)
                self.answer(code, f"{text}\n".encode(), "text/plain; charset=utf-8")
            else:
                self.answer(404, b"not found\n", "text/plain; charset=utf-8")

        def answer(self, code: int, body: bytes, content_type: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    try:
        server = _AdminServer(lifecycle.settings.admin_listen, Handler)
    except OSError as fault:
        raise Misconfigured(f"AIRAVATA_ADMIN_LISTEN: {fault.strerror}: {lifecycle.settings.admin_listen}") from fault
    threading.Thread(target=server.serve_forever, name="admin", daemon=True).start()
