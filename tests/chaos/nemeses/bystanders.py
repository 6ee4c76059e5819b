"""Faults of mere helpers: nothing may depend on them."""

import socket
import threading
import time

from tests.chaos.nemeses.nemesis import Nemesis, Proof, Random, Undecided, proven
from tests.chaos.rig import Rig

FORGED_PER_SECOND = 10_000


class Nudges(Nemesis):
    """N31. Variants: every nudge to the relay is lost; 10,000 forged ones a second. A collector that swallows comes with telemetry."""

    name, title, weight = "N31", "mere helpers fail", 2
    variants = ("lost", "forged")

    def strike(self, rig: Rig, rng: Random) -> Proof:
        self.stop, self.sent = threading.Event(), 0
        struck, nudges = time.monotonic(), rig.links.nudges
        if self.variant == "lost":
            if nudges is None:
                raise Undecided("no nudge goes through the proxy")
            before, nudges.losing = nudges.count["lost"], True
            try:
                proven(lambda: nudges.count["lost"] > before, 40.0, "nobody nudged")
            except Undecided:
                nudges.losing = False
                raise
            return Proof(struck, {"nudges_lost": nudges.count["lost"] - before})
        self.thread = threading.Thread(target=self._flood, args=(rig.port("nudge-0"),), name="rogue-nudges", daemon=True)
        self.thread.start()
        proven(lambda: self.sent >= FORGED_PER_SECOND, 20.0, "no 10,000 datagrams were sent")
        return Proof(struck, {"datagrams_sent": self.sent, "per_second": int(self.sent / (time.monotonic() - struck))})

    def _flood(self, port: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
            words = (b"0", b"1", b"0,1", b"99999999999", b"\xff" * 300, b"")
            while not self.stop.wait(0.01):
                for n in range(FORGED_PER_SECOND // 100):
                    out.sendto(words[n % len(words)], ("127.0.0.1", port))
                    self.sent += 1

    def heal(self, rig: Rig) -> None:
        self.stop.set()
        if rig.links.nudges is not None:
            rig.links.nudges.losing = False
        if self.sent:
            self.thread.join(10.0)
            self.after["datagrams_sent"] = self.sent
