"""Faults of the roads between processes and servers: cut, silent, dying in the middle of a command, clogged one by one."""

import socket
import time

from tests.chaos.nemeses.nemesis import Nemesis, Proof, Random, Undecided, proven
from tests.chaos.proxy import Link
from tests.chaos.rig import Rig
from tests.chaos.wire import DOWN, UP

TRAFFIC_SECONDS = 40.0
CUT_BYTES_MAX = 200_000


class OneRoad(Nemesis):
    """`target`: a link by its name, `scheduler-1>mysql`."""

    def aim(self, rig: Rig, rng: Random) -> None:
        if not self.target:
            if not rig.links.proxy.links:
                raise Undecided("no connection of this run goes through the fault proxy")
            self.target = rng.choice(sorted(rig.links.proxy.links))
        super().aim(rig, rng)

    def link(self, rig: Rig) -> Link:
        return rig.links.proxy.links[self.target]

    def heal(self, rig: Rig) -> None:
        self.link(rig).heal()


class Cut(OneRoad):
    """N15. Variants: reset what lives and every new one; refuse; cut after a drawn number of bytes."""

    name, title, weight = "N15", "connections cut", 6
    variants = ("reset", "refuse", "cut")

    def strike(self, rig: Rig, rng: Random) -> Proof:
        link, struck = self.link(rig), time.monotonic()
        before = link.proven()
        if self.variant == "reset":
            link.reset(again=True)
        elif self.variant == "refuse":
            link.refuse()
            link.reset()
            if not refused(link):
                raise Undecided(f"{link.name} still lets in")
        else:
            link.cut(int(10 ** rng.uniform(0, 4)), rng.choice((UP, DOWN)))
        counted = {"reset": ("resets",), "refuse": ("refusing",), "cut": (f"cut.{UP}", f"cut.{DOWN}")}[self.variant]
        try:
            proven(lambda: sum(link.count[each] - before.get(each, 0) for each in counted) > 0, TRAFFIC_SECONDS, f"nothing passed {link.name}")
        except Undecided:
            link.heal()
            raise
        return Proof(struck, {"link": link.name, "way": self.variant, **{each: link.count[each] - before.get(each, 0) for each in counted}})


def refused(link: Link) -> bool:
    try:
        socket.create_connection(("127.0.0.1", link.port), 2.0).close()
    except ConnectionRefusedError:
        return True
    return False


class Silence(OneRoad):
    """N16. One direction or both: bytes go in and never come out; connections stay."""

    name, title, weight = "N16", "silence, one way or both", 5
    variants = (UP, DOWN, "both")

    def strike(self, rig: Rig, rng: Random) -> Proof:
        link, struck = self.link(rig), time.monotonic()
        ways = (UP, DOWN) if self.variant == "both" else (self.variant,)
        before = sum(link.count[f"dropped.{each}"] for each in ways)
        link.drop(*ways)
        try:
            proven(lambda: sum(link.count[f"dropped.{each}"] for each in ways) > before, TRAFFIC_SECONDS, f"nobody spoke over {link.name}")
        except Undecided:
            link.heal()
            raise
        return Proof(struck, {"link": link.name, "ways": ways, "bytes_dropped": sum(link.count[f"dropped.{each}"] for each in ways) - before})


class DiesInTheCommand(Nemesis):
    """N27. The road to a compute host is cut after N bytes: drawn over the whole of a submit exchange and of a staging copy."""

    name, title, weight = "N27", "link dies in the command", 5

    def aim(self, rig: Rig, rng: Random) -> None:
        if not self.target:
            self.target = rng.choice([each.name for each in rig.links.hosts.values()] or [""])

    def strike(self, rig: Rig, rng: Random) -> Proof:
        if not self.target:
            raise Undecided("there is no compute host behind a link")
        link, struck = rig.links.proxy.links[self.target], time.monotonic()
        before, after, way = sum(link.count[f"cut.{each}"] for each in (UP, DOWN)), int(CUT_BYTES_MAX ** rng.random()), rng.choice((UP, DOWN))
        link.cut(after, way)
        try:
            proven(lambda: sum(link.count[f"cut.{each}"] for each in (UP, DOWN)) > before, TRAFFIC_SECONDS, f"{after} bytes did not pass {link.name}")
        except Undecided:
            link.cuts.clear()
            raise
        return Proof(struck, {"link": link.name, "after_bytes": after, "way": way, "cut": 1})

    def heal(self, rig: Rig) -> None:
        """One cut; nothing is left on."""
        rig.links.proxy.links[self.target].cuts.clear()


class Swizzle(Nemesis):
    """N32. All roads clogged one by one; `heal` unclogs them in another order."""

    name, title, weight = "N32", "swizzle", 2

    def strike(self, rig: Rig, rng: Random) -> Proof:
        links = list(rig.links.proxy.links.values())
        rng.shuffle(links)
        struck = time.monotonic()
        before = {each.name: each.count["held.up"] + each.count["held.down"] for each in links}
        for each in links:
            each.hang()
            time.sleep(rng.uniform(0.0, 0.2))  # The fault itself: their order in time.
        self.order = rng.sample(links, len(links))
        self.pauses = [rng.uniform(0.0, 0.2) for _ in links]
        held = {each.name: each.count["held.up"] + each.count["held.down"] - before[each.name] for each in links}
        if not any(held.values()):
            self.heal(rig)
            raise Undecided("no byte was held")
        return Proof(struck, {"links": len(links), "links_that_held_bytes": sum(bool(each) for each in held.values()), "bytes_held": sum(held.values())})

    def heal(self, rig: Rig) -> None:
        for each, pause in zip(self.order, self.pauses, strict=True):
            each.heal()
            time.sleep(pause)
