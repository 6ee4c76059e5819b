"""Faults of the relay and of its way to Kafka: two on a shard, an end of a transaction that comes late, one answer lost, a transaction beyond its time."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pymysql

from app.dev.process import wait_until
from tests.chaos import wire
from tests.chaos.nemeses.databases import root
from tests.chaos.nemeses.nemesis import Nemesis, Proof, Random, Tail, Undecided, arm, daemon_name, disarm, proven, split
from tests.chaos.proxy import Link
from tests.chaos.rig import Rig
from tests.chaos.wire import Hold, Order, Swallow

FENCED_TOO_OFTEN, FENCING_SECONDS = 75, 10.0  # Three times though its lease was its own: docs/operators.md. The last may come after the leases count again.
TRAFFIC_SECONDS, HELD_SECONDS, OPEN_SECONDS = 40.0, 15.0, 5.0
EPOCH_ERRORS = {47: "INVALID_PRODUCER_EPOCH", 90: "PRODUCER_FENCED"}


def relays(rig: Rig) -> list[str]:
    return sorted(each for each in rig.daemons if each.startswith("relay-") and rig.alive(rig.daemons[each]))


def withdraw(orders: Sequence[tuple[Link, Order]]) -> None:
    """Those that nothing has fitted yet."""
    for link, order in orders:
        if order in link.orders:
            link.orders.remove(order)


def asked(links: list[Link], api: str) -> int:
    return sum(each.count[f"asked.{api}"] for each in links)


class TwoRelays(Nemesis):
    """N4. Leases off, from outside: a rogue session ends every lease ten times a second, so that each relay thinks the shard is free."""

    name, title = "N4", "two relays a shard"

    def strike(self, rig: Rig, rng: Random) -> Proof:
        self.two = relays(rig)
        if len(self.two) < 2:
            raise Undecided("there are no two relays alive")
        self.logs = {name: Tail(rig.daemons[name].log) for name in self.two}
        self.began = time.monotonic()
        self.stop = threading.Event()
        struck = time.monotonic()
        self.thread = threading.Thread(target=self._end_leases, args=(rig,), name="rogue-leases", daemon=True)
        self.thread.start()
        try:
            proven(lambda: all(self._fenced().values()), 60.0, "not both relays were fenced")
        except Undecided:
            self.heal(rig)
            raise
        return Proof(struck, {"fenced": self._fenced()})

    def _fenced(self) -> dict[str, int]:
        return {name: log.count('"fenced"') for name, log in self.logs.items()}

    def _end_leases(self, rig: Rig) -> None:
        with suppress(pymysql.MySQLError), root(rig) as connection, connection.cursor() as cursor:  # Lost with its server, when another fault is on.
            while not self.stop.wait(0.1):
                cursor.execute("UPDATE relay_shards SET until = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND WHERE owner IS NOT NULL")

    def heal(self, rig: Rig) -> None:
        self.stop.set()
        self.thread.join(10.0)
        rig.meant += [(name, FENCED_TOO_OFTEN, self.began, time.monotonic() + FENCING_SECONDS) for name in self.two]
        self.after["fenced"] = self._fenced()


class LateEndTxn(Nemesis):
    """N12. The end of a transaction is held (variant severed: its connection breaks; unanswered: it just stays), and handed over when a transaction is open after three later ones, or after 15 s."""

    name, title, weight = "N12", "late EndTxn", 4
    variants = ("severed", "severed", "severed", "unanswered")

    def strike(self, rig: Rig, rng: Random) -> Proof:
        links = [link for name in relays(rig) for link in rig.links.proxy.of(f"{name}>", "kafka")]
        orders = [(link, Hold("EndTxn", sever=self.variant == "severed")) for link in links]
        for link, order in orders:
            link.order(order)
        try:
            proven(lambda: any(order.struck.is_set() for _, order in orders), TRAFFIC_SECONDS, "no relay ended a transaction")
        finally:
            withdraw(orders)
        held = [(link, order) for link, order in orders if order.struck.is_set()]  # More than one, if they came at once; each is handed over.
        told = [self._hand_over(rig, link, order) for link, order in held]
        self.must(not any(each["answer"] == 0 and each["later_ends"] > 1 for each in told), f"the broker took a late EndTxn: {told}")
        refused = [(order, each) for (_, order), each in zip(held, told, strict=True) if each["answer"] in EPOCH_ERRORS.values()]
        if not refused:
            raise Undecided(f"no epoch error: {told}")
        order, evidence = refused[0]
        return Proof(order.seen["mono"], {**evidence, "held": len(held)})

    def _hand_over(self, rig: Rig, link: Link, order: Hold) -> dict[str, Any]:
        """Where a shard has ended nothing since, but for the library's own repetition (MySQL was away, say), the broker answers 0 to what is no more than repeated."""
        of_relay, frame = rig.links.proxy.of(link.name.split(">")[0] + ">", "kafka"), wire.end_txn(order.frame[4:])
        mine, opens = (f"{api} {frame.transactional_id}" for api in ("EndTxn", "AddPartitionsToTxn"))
        ends, begins = asked(of_relay, mine), asked(of_relay, "InitProducerId")
        if wait_until(lambda: asked(of_relay, mine) >= ends + 3, HELD_SECONDS, 0.01):
            opened = asked(of_relay, opens)
            wait_until(lambda: asked(of_relay, opens) > opened, OPEN_SECONDS, 0.0005)
        later, new, code = asked(of_relay, mine) - ends, asked(of_relay, "InitProducerId") - begins, wire.end_txn_error(order.release(link.target))
        return {
            "correlation": order.seen["correlation"], "transactional_id": frame.transactional_id, "epoch": frame.epoch, "committed": frame.committed, "held_seconds": round(order.seen["held_seconds"], 2),
            "later_ends": later, "new_producers": new, "answer": EPOCH_ERRORS.get(code, code), "variant": self.variant,
        }  # fmt: skip

    def heal(self, rig: Rig) -> None:
        """Nothing is left on."""


class AnswerLost(Nemesis):
    """N13. One reply is swallowed and its connection broken. Variants: the request whose answer it is; `api`: the API server's answer to the sink."""

    name, title, weight = "N13", "one answer lost", 5
    variants = ("EndTxn", "Produce", "InitProducerId", "OffsetCommit", "api")

    def strike(self, rig: Rig, rng: Random) -> Proof:
        if self.variant == "api":
            return self._api(rig)
        mine = relays(rig) if self.variant != "OffsetCommit" else [each for each in rig.daemons if each.split("-")[0] in {"scheduler", "generator", "executor", "event"}]
        links = [link for name in mine for link in rig.links.proxy.of(f"{name}>", "kafka")]
        apis = ("EndTxn", self.variant) if self.variant == "InitProducerId" else (self.variant,)  # A relay asks for an id when it does not know how its last transaction ended.
        placed: list[tuple[Link, Order]] = [(link, link.order(Swallow(api))) for api in apis for link in links]
        orders = [(link, order) for link, order in placed if order.api == self.variant]
        began = time.monotonic()
        try:
            proven(lambda: any(order.struck.is_set() for _, order in orders), TRAFFIC_SECONDS, f"no answer to {self.variant} came by")
        finally:
            withdraw(placed)
        struck = [(link, order) for link, order in orders if order.struck.is_set()]
        return Proof(began, {f"swallowed.{self.variant}": sum(link.count[f"swallowed.{self.variant}"] for link, _ in struck), "of": sorted(link.name for link, _ in struck)})

    def _api(self, rig: Rig) -> Proof:
        links = rig.links.proxy.of("event-sink", "api")
        before = sum(each.count["cut.down"] for each in links)
        began = time.monotonic()
        for each in links:
            each.cut(1)
        try:
            proven(lambda: sum(each.count["cut.down"] for each in links) > before, TRAFFIC_SECONDS, "the sink asked nothing")
        finally:
            for each in links:
                each.cuts.clear()
        return Proof(began, {"answers_cut": sum(each.count["cut.down"] for each in links) - before})

    def heal(self, rig: Rig) -> None:
        """One answer; nothing is left on."""


class BeyondItsTime(Nemesis):
    """N14. The relay stands still between its rows and EndTxn for longer than the transaction may take: the broker aborts it, and the client's fault is fatal."""

    name, title, weight = "N14", "transaction over its time", 1
    components = ("relay",)

    def strike(self, rig: Rig, rng: Random) -> Proof:
        log = Tail(rig.daemons[daemon_name(self.target)].log)
        arm(rig, self.target, "relay.commit.before=delay:22000")
        struck = time.monotonic()
        component, copy = split(self.target)
        point = rig.run / "struck" / component
        try:
            proven(lambda: any(point.glob("relay.commit.before.*")), TRAFFIC_SECONDS, "the relay reached no commit")
            struck = time.monotonic()
            proven(lambda: log.count('"shard starts again"', '"fenced"'), 60.0, f"{component}-{copy} went on with its old producer")
        finally:
            disarm(rig, self.target)
        return Proof(struck, {"delay_ms": 22000, **log.counts('"shard starts again"', '"fenced"', "fatal")})

    def heal(self, rig: Rig) -> None:
        """Over when it was proven."""
