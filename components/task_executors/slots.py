"""The connection budget of a host: slots in the database, shared by all pools of all processes. A pool has never more connections to a host than it holds slots there.

The table is right, what is held here is its copy: read again with each renewal, and after a fault before anything begins. What was lost is ended, what has no connection is given
back. A pool that has nothing at a full host says so; whoever has something gives up one as soon as it is idle, and who has waited longest gets it: nobody starves behind the busy.
"""

import time
from typing import Any

from app.errors import Transient
from app.mysql import hosts
from app.mysql.answering import Answering
from app.mysql.unit_of_work import Transaction
from components.task_executors.plugin import TaskType, WorkOrder
from components.task_executors.ways import Way
from components.task_executors.workers import Pool
from observability import logs

SLOT_SECONDS, RENEW_SECONDS = 10, 3.0
NEVER, AT_ONCE = float("inf"), float("-inf")


class Slots:
    """One pool's slots. One thread uses both."""

    def __init__(self, pool: Pool, owner: str, unit_of_work: Answering) -> None:
        self.pool, self.owner, self.unit_of_work = pool, owner, unit_of_work
        self.held: dict[str, list[int]] = {}
        self.yields: set[str] = set()  # Hosts where one is being given up.
        self.waits: dict[str, tuple[float, float]] = {}  # Host without a slot → since when, and until when, one was looked for.
        self.due_at, self.lapse_at = NEVER, 0.0

    def allowed(self, way: Way) -> int:
        """How many connections this pool may have there. A budget that was lowered takes the higher slots away."""
        held = sum(n < way.connections for n in self.held.get(way.slot, ()))
        return held - (way.slot in self.yields) if time.monotonic() < self.lapse_at else 0

    def room(self, way: Way, planned: int = 0) -> bool:
        """For one more order at work, beside `planned` ones."""
        return self.pool.busy()[way.slot] + planned < self.allowed(way)

    def claim(self, tx: Transaction, way: Way, planned: int = 0) -> bool:
        """Room, or one more slot for it, if nobody else has waited longer. If the transaction fails, `doubt`."""
        if self.room(way, planned):
            return True
        now, sound = time.monotonic(), self.unit_of_work.for_as_long_as(SLOT_SECONDS)
        first = hosts.ensure_slots(tx, way.slot, way.connections)
        ours = first is None or first[1] == self.owner
        n = hosts.claim_slot(tx, way.slot, count=way.connections, owner=self.owner, seconds=SLOT_SECONDS, lapsed=sound) if ours else None
        if n is not None:
            hosts.wait_no_more(tx, way.slot, self.owner)
            self.waits.pop(way.slot, None)
            self.held.setdefault(way.slot, []).append(n)
            if self.due_at == NEVER:  # The first.
                self.due_at, self.lapse_at = now + RENEW_SECONDS, now + SLOT_SECONDS
        elif not self.held.get(way.slot):
            since, last = self.waits.get(way.slot, (now, now))
            since = since if now - last < RENEW_SECONDS else now
            self.waits[way.slot] = (since, now)
            row = max(hosts.WAITING, hosts.WAITING_LAST - int(now - since))
            if first is None or ours or row < first[0]:  # Else whoever waits longer has said so for us, too.
                hosts.wait_for_slot(tx, way.slot, self.owner, row)
        return self.room(way, planned)

    def start(self, way: Way, order: WorkOrder, task_type: TaskType, storages: Any = None) -> bool:
        """False: no worker is free, or no connection. Ask again."""
        assert way.address is not None
        return self.room(way) and self.pool.start(order, task_type, way.address, storages, connect=self.pool.connections()[way.slot] < self.allowed(way))

    def doubt(self) -> None:
        """A transaction failed: what was claimed in it may be ours or not. Nothing is allowed before the table was read."""
        self.due_at, self.lapse_at = AT_ONCE, 0.0

    def tend(self) -> None:
        """When it is time: renew, and keep the pool to what is ours. Raises Transient: then nothing may begin."""
        for host in self.yields:
            self.pool.keep(host, len(self.held[host]) - 1)
            if self.pool.connections()[host] < len(self.held[host]):
                self.due_at = AT_ONCE
        if time.monotonic() < self.due_at:
            return
        began = time.monotonic()
        with self.unit_of_work("executor.slots") as tx:
            rows = hosts.renew_slots(tx, self.owner, {*self.held, *self.pool.connections()}, seconds=SLOT_SECONDS)
        self._read(rows)
        self._give_back()
        self.due_at, self.lapse_at = began + RENEW_SECONDS if self.held else NEVER, began + SLOT_SECONDS

    def _read(self, rows: list[Any]) -> None:
        self.held = {}
        for host, n, owner in rows:
            if owner == self.owner and n < hosts.WAITING:
                self.held.setdefault(host, []).append(n)
        self.yields = {host for host, n, owner in rows if n >= hosts.WAITING and owner != self.owner} & self.held.keys()
        for host in self.pool.connections():
            self.pool.keep(host, len(self.held.get(host, ())), end_busy=True)

    def _give_back(self) -> None:
        """What has no connection, the highest: a lowered budget has taken those away."""
        here = self.pool.connections()
        spare = [(host, n) for host, slots in self.held.items() for n in slots[here[host] :]]
        if spare:
            with self.unit_of_work("executor.slots") as tx:
                for host, n in spare:
                    hosts.give_back_slot(tx, host, n, self.owner)
        for host, n in spare:
            self.held[host].remove(n)
            self.yields.discard(host)

    def close(self) -> None:
        """The workers end; their slots are others' at once."""
        self.pool.close()
        try:
            with self.unit_of_work("executor.slots") as tx:
                hosts.give_back_all(tx, self.owner)
        except Transient as fault:
            logs.logger("slots").warning("slots not given back; their leases run out", fault=fault)
