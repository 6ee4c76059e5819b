"""Between the executor and its workers: where an order goes, with which key, and whether it may go now.

Circuits: a refused key or a changed host key stops everything for that host and credential at once; one probe a minute looks whether it is mended, and a new version of the
host (new keys) closes it. Budget: a connection needs one of the host's slots, shared by all replicas; given back when it has been cold for 5 s.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app import secrets
from app.errors import Misconfigured, Transient
from app.mysql import access, catalogue, hosts, jobs
from app.mysql.unit_of_work import Transaction, UnitOfWork
from app.workflow import job
from app.workflow.execution import Failed, InDoubt, Outcome
from components.task_executors.executor import Happened, Work
from components.task_executors.plugin import TaskType
from components.task_executors.remote_host import HostAddress
from components.task_executors.workers import CommitRequested, Pool
from observability import logs, metrics

REMEMBERED_SECONDS = 2.0
SLOT_SECONDS, RENEW_SECONDS, COLD_SECONDS = 10, 3.0, 5.0
PROBE_SECONDS = 60
TRIPPING = frozenset({"AUTH_REQUIRED", "HOST_KEY_CHANGED"})
_ENABLED = frozenset({"ENABLED", "DRAINING"})


@dataclass(frozen=True)
class Way:
    """How to reach a host now; `blocked`: why not (condition, sentence)."""

    address: HostAddress | None
    compute_resource_id: str
    credential_id: str
    version: int
    connections: int
    blocked: tuple[str, str] | None = None

    @property
    def slot(self) -> str:
        return f"{self.address.host}:{self.address.port}" if self.address else ""


class Ways:
    """Looks ways up: the host as it is in the catalogue *now* (its keys may have been renewed), the credential opened with the master key."""

    def __init__(self, master_key: bytes) -> None:
        self.master_key = master_key
        self.remembered: dict[str, tuple[float, Way]] = {}

    def find(self, tx: Transaction, compute_resource_id: str, credential_id: str | None, login: str | None) -> Way:
        key = f"{compute_resource_id}/{credential_id}"
        found = self.remembered.get(key)
        if found is None or found[0] < time.monotonic():
            found = self.remembered[key] = (time.monotonic() + REMEMBERED_SECONDS, self._look(tx, compute_resource_id, credential_id, login))
        return found[1]

    def _look(self, tx: Transaction, compute_resource_id: str, credential_id: str | None, login: str | None) -> Way:
        host = catalogue.many(tx, [compute_resource_id]).get(compute_resource_id)
        if host is None:
            return Way(None, compute_resource_id, credential_id or "", 0, 0, ("HOST_DISABLED", "The compute resource is not there any more."))
        used = host["access"]["credential_id"] or credential_id or ""

        def blocked(condition: str, text: str) -> Way:
            return Way(None, compute_resource_id, used, host["version"], 0, (condition, text))

        if host["state"] == "SUSPENDED":
            return blocked("HOST_KEY_CHANGED", f"{host['name']} is suspended because its host key changed: give its new host_keys after checking them.")
        if host["state"] not in _ENABLED:
            return blocked("HOST_DISABLED", f"{host['name']} is {host['state']}.")
        sealed = access.sealed(tx, used)
        if sealed is None:
            return blocked("AUTH_REQUIRED", f"The credential for {host['name']} is gone: give the host another one.")
        try:
            key = secrets.open_sealed(sealed[1], master=self.master_key, gateway_id=sealed[0], credential_id=used)
        except Misconfigured as fault:
            return blocked("AUTH_REQUIRED", str(fault))
        address = HostAddress(host["host"], host["port"], host["access"]["login"] or login or "", tuple(host["host_keys"]), key)
        return Way(address, compute_resource_id, used, host["version"], host["limits"]["connections"])

    def storages(self, tx: Transaction, described: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Mapping[str, Any], bytes | None]]:
        """Storage id → its description and its opened secret, for a worker."""
        found = {}
        for storage_id, each in described.items():
            sealed = access.sealed(tx, each["credential_id"]) if each.get("credential_id") else None
            secret = secrets.open_sealed(sealed[1], master=self.master_key, gateway_id=sealed[0], credential_id=each["credential_id"]) if sealed else None
            found[storage_id] = (each, secret)
        return found


class Slots:
    """The connection budget: which slots this instance holds, per host."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.held: dict[str, list[int]] = {}
        self.cold_since: dict[str, float] = {}
        self.renewed = time.monotonic()

    def may_connect(self, tx: Transaction, way: Way, in_use: int) -> bool:
        """Room among the slots held, or one more claimed."""
        held = self.held.setdefault(way.slot, [])
        if in_use < len(held):
            return True
        hosts.ensure_slots(tx, way.slot, way.connections)
        slot = hosts.claim_slot(tx, way.slot, count=way.connections, owner=self.owner, seconds=SLOT_SECONDS)
        if slot is None:
            return False
        held.append(slot)
        return True

    def tend(self, unit_of_work: UnitOfWork, in_use: Mapping[str, int]) -> None:
        """Renew what is held, give back what has been cold long enough."""
        if time.monotonic() - self.renewed < RENEW_SECONDS or not any(self.held.values()):
            return
        self.renewed = time.monotonic()
        with unit_of_work("executor.slots") as tx:
            hosts.renew_slots(tx, self.owner, seconds=SLOT_SECONDS)
            for host, slots in self.held.items():
                if in_use.get(host, 0) >= len(slots):
                    self.cold_since.pop(host, None)
                elif time.monotonic() - self.cold_since.setdefault(host, time.monotonic()) > COLD_SECONDS:
                    for n in slots[in_use.get(host, 0) :]:
                        hosts.give_back_slot(tx, host, n, self.owner)
                    del slots[in_use.get(host, 0) :]


class Workers:
    """The executor's `Remote`: orders wait here until they may go, then in the pool until a worker is free."""

    def __init__(self, *, pool: Pool, unit_of_work: UnitOfWork, task_types: Mapping[str, TaskType], ways: Ways, owner: str) -> None:
        self.pool, self.unit_of_work, self.task_types, self.ways = pool, unit_of_work, task_types, ways
        self.slots = Slots(owner)
        self.waiting: deque[Work] = deque()
        self.under_way: dict[str, Way] = {}
        self.circuits: dict[tuple[str, str], Any] = {}
        self.circuits_read = float("-inf")
        self.told: list[Happened] = []
        self.retry_at = 0.0
        self.log = logs.logger("remote")

    def start(self, work: Work) -> None:
        self.waiting.append(work)

    def abandon(self, token: str) -> None:
        self.waiting = deque(each for each in self.waiting if each.order.token != token)
        self.under_way.pop(token, None)
        self.pool.abandon(token)

    def close(self) -> None:
        """The workers end; their slots are others' at once."""
        self.pool.close()
        try:
            with self.unit_of_work("executor.slots") as tx:
                hosts.give_back_all(tx, self.slots.owner)
        except Transient as fault:
            self.log.warning("slots not given back; their leases run out", fault=fault)

    def poll(self) -> Sequence[Happened]:
        try:
            if self.waiting and time.monotonic() >= self.retry_at:
                self._begin()
            self.slots.tend(self.unit_of_work, self.pool.connections())
        except Transient as fault:
            self.retry_at = time.monotonic() + 0.5
            self.log.warning("orders wait", fault=fault, count=len(self.waiting))
        for event in self.pool.poll():
            if isinstance(event, CommitRequested):
                self.told.append(Happened(event.token, change=event.change, answer=event.answer))
            else:
                self._heard(event.token, event.outcome)
                self.told.append(Happened(event.token, outcome=event.outcome))
        told, self.told = self.told, []
        return told

    # ---- whether and where ------------------------------------------------------------------------------------------------------------------------------
    def _begin(self) -> None:
        left: deque[Work] = deque()
        with self.unit_of_work("executor.begin") as tx:
            self._read_circuits(tx)
            planned: Counter[str] = Counter()
            starts: list[tuple[Work, Way, Any]] = []
            stopped: list[tuple[Work, tuple[str, str]]] = []
            for work in self.waiting:
                snapshot = work.order.snapshot
                way = self.ways.find(tx, snapshot["host"]["id"], snapshot.get("credential"), snapshot.get("login"))
                blocked = way.blocked or self._circuit(tx, way)
                if blocked is not None:
                    stopped.append((work, blocked))
                elif way.address is not None and ((self.pool.is_warm(way.address) and not planned[way.slot]) or self._room(tx, way, planned)):
                    planned[way.slot] += 1
                    access.used(tx, way.credential_id)
                    starts.append((work, way, self.ways.storages(tx, snapshot.get("storages") or {})))
                else:
                    left.append(work)
            maybe_sent = self._maybe_sent(tx, [work for work, _ in stopped])
        self.waiting = left
        self.retry_at = time.monotonic() + 0.2 if left else 0.0
        self.told += [Happened(work.order.token, outcome=self._refused(work, blocked, maybe_sent=work.order.token in maybe_sent)) for work, blocked in stopped]
        for work, way, storages in starts:
            assert way.address is not None
            self.under_way[work.order.token] = way
            metrics.observe("airavata_ssh_budget_wait_seconds", time.monotonic() - work.began)
            self.pool.start(work.order, self.task_types[work.order.task_type], way.address, storages)

    def _room(self, tx: Transaction, way: Way, planned: Mapping[str, int]) -> bool:
        """Orders beyond the pool's size queue there without a connection of their own."""
        in_use = self.pool.connections()[way.slot] + planned.get(way.slot, 0)
        return (len(self.pool.workers) >= self.pool.size and in_use > 0) or self.slots.may_connect(tx, way, in_use)

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
        if row[6] >= PROBE_SECONDS:  # One looks whether it is mended; the others keep waiting.
            hosts.open_circuit(tx, compute_resource_id=row[0], credential_id=row[1], condition=row[2], detail=row[4], host_version=row[5])
            self.circuits_read = float("-inf")
            return None
        return row[2], row[4]

    def _close(self, tx: Transaction, way: Way) -> None:
        hosts.close_circuit(tx, compute_resource_id=way.compute_resource_id, credential_id=way.credential_id)
        self.circuits.pop((way.compute_resource_id, way.credential_id), None)

    def _heard(self, token: str, outcome: Outcome) -> None:
        """A refusal opens the circuit, anything that needed a login closes it."""
        way = self.under_way.pop(token, None)
        if way is None or isinstance(outcome, InDoubt):
            return
        condition = outcome.condition if isinstance(outcome, Failed) else None
        key = (way.compute_resource_id, way.credential_id)
        act: Callable[[Transaction], None] | None = None
        if condition == "AUTH_REQUIRED":
            metrics.count("airavata_ssh_auth_failures_total", host=way.compute_resource_id)
        if condition in TRIPPING and isinstance(outcome, Failed):
            detail, tripped = outcome.message, str(condition)

            def act(tx: Transaction) -> None:
                hosts.open_circuit(tx, compute_resource_id=key[0], credential_id=key[1], condition=tripped, detail=detail, host_version=way.version)
                if tripped == "HOST_KEY_CHANGED":
                    catalogue.suspend(tx, key[0])

        elif condition is None and key in self.circuits:

            def act(tx: Transaction) -> None:
                self._close(tx, way)

        if act is not None:
            try:
                with self.unit_of_work("executor.circuit") as tx:
                    act(tx)
                self.circuits_read = float("-inf")
                self.ways.remembered.clear()
            except Transient as fault:
                self.log.warning("circuit not stored", fault=fault)
