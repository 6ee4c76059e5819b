"""Between the executor and its workers: where an order goes, with which key, and whether it may go now.

Circuits: a refused key or a changed host key stops everything for that host and credential at once; one probe a minute looks whether it is mended, and a new version of the
host (new keys) closes it. Orders wait here until a worker is free and the host's budget has room (slots.py), each host's in a line of its own: a full one holds up no other's, and
what waits for it takes none of the executor's capacity.
"""

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from app.errors import Transient
from app.mysql import access, catalogue, hosts, jobs
from app.mysql.answering import Answering
from app.mysql.unit_of_work import Transaction
from app.workflow import job
from app.workflow.execution import Failed, InDoubt, Outcome
from components.task_executors.executor import Work
from components.task_executors.plugin import TaskType
from components.task_executors.slots import Slots
from components.task_executors.ways import REMEMBERED_SECONDS, Way, Ways
from components.task_executors.workers import Finished, Pool, WorkerEvent
from observability import logs, metrics

PROBE_SECONDS = 60
Line: TypeAlias = tuple[str, str | None, str | None]  # Host, credential, login.
TRIPPING = frozenset({"AUTH_REQUIRED", "HOST_KEY_CHANGED"})


class Workers:
    """The executor's `Remote`."""

    def __init__(self, *, pool: Pool, unit_of_work: Answering, task_types: Mapping[str, TaskType], ways: Ways, owner: str) -> None:
        self.pool, self.unit_of_work, self.task_types, self.ways = pool, unit_of_work, task_types, ways
        self.slots = Slots(pool, owner, unit_of_work)
        self.waiting: dict[Line, deque[Work]] = {}
        self.full: set[Line] = set()  # Those whose host had no room when it was last asked.
        self.under_way: dict[str, Way] = {}
        self.circuits: dict[tuple[str, str], Any] = {}
        self.circuits_read = float("-inf")
        self.told: list[Finished] = []
        self.retry_at = 0.0
        self.log = logs.logger("remote")

    def start(self, work: Work) -> None:
        snapshot = work.order.snapshot
        line = snapshot["host"]["id"], snapshot.get("credential"), snapshot.get("login")
        if line not in self.waiting:  # Else it is behind others, which are tried in their own time.
            self.retry_at = 0.0
        self.waiting.setdefault(line, deque()).append(work)

    def abandon(self, token: str) -> None:
        self.waiting = {line: kept for line, works in self.waiting.items() if (kept := deque(each for each in works if each.order.token != token))}
        self.under_way.pop(token, None)
        self.pool.abandon(token)

    @property
    def standing(self) -> int:
        """How many orders wait for a full host."""
        return sum(len(self.waiting.get(line, ())) for line in self.full)

    def close(self) -> None:
        self.slots.close()

    def poll(self) -> Sequence[WorkerEvent]:
        events = self.pool.poll()
        for event in events:
            if isinstance(event, Finished):
                self._heard(event.token, event.outcome)
        if self.pool.freed or time.monotonic() >= self.retry_at:
            self.pool.freed = False
            try:
                self.slots.tend()
                if self.waiting:
                    self._begin()
            except Transient as fault:
                self.slots.doubt()
                self.retry_at = time.monotonic() + 0.5
                self.log.warning("orders wait", fault=fault, lines=len(self.waiting))
        told, self.told = self.told, []
        return [*events, *told]

    # ---- whether and where ------------------------------------------------------------------------------------------------------------------------------
    def _begin(self) -> None:
        """Who has waited longest is first, while there are workers and room. Where the circuit is open all are refused, but for one that looks whether it is mended."""
        lines, planned, asked = {line: deque(works) for line, works in self.waiting.items()}, Counter[str](), set[Line]()
        starts: list[tuple[Line, Work, Way, Any]] = []
        with self.unit_of_work("executor.begin") as tx:
            self._read_circuits(tx)
            ways = {line: self.ways.find(tx, *line) for line in lines}
            blocked = {line: why for line, way in ways.items() if (why := way.blocked or self._circuit(tx, way))}
            while planned.total() < self.pool.free and (rest := [line for line, works in lines.items() if works and line not in asked]):
                line = min(rest, key=lambda each: lines[each][0].began)
                way = ways[line]
                room = (line not in blocked or self._due(way)) and self.slots.claim(tx, way, planned[way.slot])
                (self.full.discard if room else self.full.add)(line)
                if line in blocked or not room:
                    asked.add(line)
                if room and (line not in blocked or hosts.probe(tx, compute_resource_id=way.compute_resource_id, credential_id=way.credential_id, seconds=PROBE_SECONDS)):
                    planned[way.slot] += 1
                    access.used(tx, way.credential_id)
                    work = lines[line].popleft()
                    starts.append((line, work, way, self.ways.storages(tx, work.order.snapshot.get("storages") or {})))
            stopped = [(work, why) for line, why in blocked.items() for work in lines.pop(line)]
            maybe_sent = self._maybe_sent(tx, [work for work, _ in stopped])
        self.told += [Finished(work.order.token, self._refused(work, why, maybe_sent=work.order.token in maybe_sent)) for work, why in stopped]
        for line, work, way, storages in reversed(starts):
            if self.slots.start(way, work.order, self.task_types[work.order.task_type], storages):
                self.under_way[work.order.token] = way
                metrics.observe("airavata_ssh_budget_wait_seconds", time.monotonic() - work.began)
            else:
                lines.setdefault(line, deque()).appendleft(work)
        self.waiting = {line: works for line, works in lines.items() if works}
        self.retry_at = time.monotonic() + 0.2 if self.waiting else 0.0

    def _maybe_sent(self, tx: Transaction, works: Sequence[Work]) -> frozenset[str]:
        """Whose job an earlier epoch may have started, as only its host can say: to fail such an attempt would be to start the job once more, under another token."""
        again = [work.order.token for work in works if work.order.epoch > 1 and self.task_types[work.order.task_type].once]
        return frozenset(token for token, each in jobs.of_attempts(tx, again).items() if each.state not in job.TERMINAL)

    def _refused(self, work: Work, blocked: tuple[str, str], *, maybe_sent: bool) -> Outcome:
        condition, text = blocked
        if maybe_sent:
            return InDoubt(f"It is not known whether the job was started, and its host cannot be asked: {text}", (condition,))
        return Failed(self.task_types[work.order.task_type].failure_code, text, condition=condition)

    # ---- circuits ------------------------------------------------------------------------------------------------------------------------------------
    def _read_circuits(self, tx: Transaction) -> None:
        if time.monotonic() - self.circuits_read > REMEMBERED_SECONDS:
            self.circuits_read = time.monotonic()
            self.circuits = {(row[0], row[1]): row for row in hosts.circuits(tx)}

    def _circuit(self, tx: Transaction, way: Way) -> tuple[str, str] | None:
        row = self.circuits.get((way.compute_resource_id, way.credential_id))
        if row is None:
            return None
        if row[5] != way.version:
            self._close(tx, way)
            return None
        return row[2], row[4]

    def _due(self, way: Way) -> bool:
        """As this process last read it; the row says whether nobody else was faster."""
        row = self.circuits.get((way.compute_resource_id, way.credential_id))
        return way.blocked is None and row is not None and row[6] >= PROBE_SECONDS

    def _close(self, tx: Transaction, way: Way) -> None:
        hosts.close_circuit(tx, compute_resource_id=way.compute_resource_id, credential_id=way.credential_id)
        self.circuits.pop((way.compute_resource_id, way.credential_id), None)

    def _heard(self, token: str, outcome: Outcome) -> None:
        """A refusal opens the circuit, anything that needed a login closes it."""
        way = self.under_way.pop(token, None)
        if way is None or isinstance(outcome, InDoubt):
            return
        refused = outcome if isinstance(outcome, Failed) else None
        condition = refused and refused.condition
        if condition == "AUTH_REQUIRED":
            metrics.count("airavata_ssh_auth_failures_total", host=way.compute_resource_id)
        if condition not in TRIPPING and (condition is not None or (way.compute_resource_id, way.credential_id) not in self.circuits):
            return
        try:
            with self.unit_of_work("executor.circuit") as tx:
                if refused is None or condition is None:
                    self._close(tx, way)
                else:
                    hosts.open_circuit(
                        tx, compute_resource_id=way.compute_resource_id, credential_id=way.credential_id, condition=condition, detail=refused.message, host_version=way.version
                    )
                if condition == "HOST_KEY_CHANGED":
                    catalogue.suspend(tx, way.compute_resource_id)
            self.circuits_read = float("-inf")
            self.ways.remembered.clear()
        except Transient as fault:
            self.log.warning("circuit not stored", fault=fault)
