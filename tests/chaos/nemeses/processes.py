"""Faults of our own processes: killed, frozen, frozen with locks held, all at once."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from app.dev.process import wait_until
from tests.chaos.nemeses.nemesis import Nemesis, Proof, Random, Undecided, arm, daemon_name, disarm, held_by, names, others, patiently, proven, split
from tests.chaos.rig import Rig
from tests.support.system import COMPONENTS, state_of

EXECUTORS = ("executor-environment", "executor-data", "executor-job")
ORPHAN_SECONDS = 2.0  # A worker has 1 s to follow its parent; the look itself takes its time.
TAKEN_SECONDS, REACHED_SECONDS, READY_SECONDS = 20.0, 40.0, 90.0


def children_of(pid: int) -> list[int]:
    """All its descendants, whichever thread made them."""
    found = [pid]
    for each in found:
        with suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found[1:]


class Killed(Nemesis):
    """N1. Variants: the process; a remote worker of an executor, whose executor lives."""

    name, title, weight = "N1", "any process killed", 6
    components, variants = COMPONENTS, ("process",)

    def aim(self, rig: Rig, rng: Random) -> None:
        super().aim(rig, rng)
        if split(self.target)[0] in EXECUTORS and rng.random() < 0.3:
            self.variant = "worker"

    def strike(self, rig: Rig, rng: Random) -> Proof:
        if self.variant == "worker":
            return self._worker(rig, rng)
        spare = bool(others(rig, self.target))
        workers = children_of(rig.pid_of(*split(self.target)))
        struck, code = rig.strike(daemon_name(self.target))
        if code != -signal.SIGKILL:
            raise Undecided(f"{self.target} ended with {code}, not by our signal")
        began = time.monotonic()
        gone = wait_until(lambda: not any(_alive(each) for each in workers), 10.0)
        outlived = time.monotonic() - began
        self.must(gone and outlived <= ORPHAN_SECONDS, f"workers of {self.target} outlived it by {outlived:.1f} s")
        timed = split(self.target)[0] in {"scheduler", "generator", "event-sink", "relay"}
        return Proof(struck, {"wait_status": signal.SIGKILL.value, "workers": len(workers), "workers_gone_seconds": round(outlived, 3)}, {"spare": spare, "takeover": timed})

    def _worker(self, rig: Rig, rng: Random) -> Proof:
        pid = rig.pid_of(*split(self.target))
        workers = [each for each in children_of(pid) if not children_of(each)]  # Those with children of their own are the fork server.
        if not workers:
            raise Undecided(f"{self.target} has no worker process now")
        victim = rng.choice(workers)
        struck = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        proven(lambda: state_of(victim) in {"", "Z"}, 10.0, "the worker did not go")
        self.must(rig.alive(rig.daemons[daemon_name(self.target)]), f"{self.target} ended with its worker", alone=True)
        return Proof(struck, {"worker": victim, "gone": True, "executor_alive": rig.alive(rig.daemons[daemon_name(self.target)])})

    def heal(self, rig: Rig) -> None:
        if daemon_name(self.target) in rig.down:
            rig.restart(daemon_name(self.target))


def _alive(pid: int) -> bool:
    """Still a process of ours, not a stranger who was given its number: our settings stand in its environment."""
    with suppress(OSError):
        return state_of(pid) not in {"", "Z"} and b"AIRAVATA_" in Path(f"/proc/{pid}/environ").read_bytes()
    return False


class Frozen(Nemesis):
    """N2. Variants: anywhere; with a batch in hand (poll.after); before its claim (claim.before, which a killed neighbour provokes)."""

    name, title, weight = "N2", "zombie", 4
    components, variants = ("generator", "scheduler", "relay", "event-sink", "executor-noop", "executor-job"), ("anywhere", "batch", "claim")

    def aim(self, rig: Rig, rng: Random) -> None:
        super().aim(rig, rng)
        component = split(self.target)[0]
        if component not in {"scheduler", "generator"} or (self.variant == "claim" and not others(rig, self.target)):
            self.variant = "anywhere"

    def strike(self, rig: Rig, rng: Random) -> Proof:
        component, copy = split(self.target)
        self.pid = rig.pid_of(component, copy)
        self.fenced = self._fenced(rig)
        spare, neighbour = others(rig, self.target), ""
        self.held = held_by(rig, self.pid)
        struck = time.monotonic()
        if self.variant == "anywhere":
            rig.signal(daemon_name(self.target), signal.SIGSTOP)
        else:
            arm(rig, self.target, f"{component}.{'poll.after' if self.variant == 'batch' else 'claim.before'}=pause")
        if self.variant == "claim":
            neighbour = daemon_name(spare[0])
            rig.strike(neighbour)
        try:
            proven(lambda: state_of(self.pid) == "T", REACHED_SECONDS, f"{self.target} is not stopped")
        except Undecided:
            self.heal(rig)
            raise
        finally:
            disarm(rig, self.target)
            if neighbour:
                rig.restart(neighbour)
        more = {"spare": bool(spare)} | ({"zombie": True} if self.variant == "batch" else {}) | ({"late_claim": True} if self.variant == "claim" else {})
        return Proof(struck if self.variant == "anywhere" else time.monotonic(), {"state": "T", "held": self.held, "where": self.variant}, more)

    def heal(self, rig: Rig) -> None:
        """Woken only after its successor's claim, where there is a spare."""
        alive = state_of(self.pid) == "T"
        if alive and self.proof is not None and self.proof.more.get("spare"):
            taken = wait_until(lambda: patiently(lambda: held_by(rig, self.pid)) < max(1, self.held), TAKEN_SECONDS, 0.05)  # An idle partition may bear its name for long.
            self.after["successor_claimed_first"] = taken
            self.must(taken, f"nobody took over from {self.target} within {TAKEN_SECONDS:.0f} s", alone=True)
        still = state_of(self.pid) == "T"
        self.must(still or not alive, f"{self.target} did not stay stopped", alone=True)
        self.after["woken"] = time.monotonic()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        if alive and self.variant == "batch" and self.proof is not None and self.proof.more.get("spare"):
            seen = wait_until(lambda: self._fenced(rig) > self.fenced, 15.0, 0.1)
            self.after["fenced"] = self._fenced(rig) - self.fenced
            self.must(seen, f"{self.target} came back with a batch in hand and was not fenced", alone=True)

    def _fenced(self, rig: Rig) -> float:
        with suppress(OSError):
            return rig.metric(daemon_name(self.target), "airavata_fenced_total", what="relay" if self.target.startswith("relay") else "partition")
        return 0.0


LOCKED_AT = {"scheduler": "scheduler.position.after", "relay": "relay.delete.before", "executor-noop": "executor.outcome_commit.before", "api": "api.events_commit.before"}
WAITING = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"


class FrozenWithLocks(Frozen):
    """N3. The server itself must end its transaction (wait_timeout), so that its successor does not wait for it longer than 2 s (API 5 s)."""

    name, title, weight = "N3", "frozen inside an open transaction", 2
    components, variants = tuple(LOCKED_AT), ("locks",)

    def aim(self, rig: Rig, rng: Random) -> None:
        Nemesis.aim(self, rig, rng)

    def strike(self, rig: Rig, rng: Random) -> Proof:
        component, copy = split(self.target)
        self.pid = rig.pid_of(component, copy)
        self.fenced = self._fenced(rig)
        spare, self.held = others(rig, self.target), held_by(rig, self.pid)
        arm(rig, self.target, f"{LOCKED_AT[component]}=pause")
        try:
            proven(lambda: state_of(self.pid) == "T", REACHED_SECONDS, f"{self.target} did not reach {LOCKED_AT[component]}")
        except Undecided:
            self.heal(rig)
            raise
        finally:
            disarm(rig, self.target)
        struck = time.monotonic()
        waited = wait_until(lambda: rig.one(WAITING) > 0, 4.0, 0.15)  # InnoDB renews that table when nobody read it for 100 ms.
        ended = wait_until(lambda: not _open_transactions(rig, daemon_name(self.target)), 12.0, 0.15)
        seconds = time.monotonic() - struck
        self.must(ended, f"the transaction of the frozen {self.target} was still open after {seconds:.1f} s", alone=True)
        evidence = {"state": "T", "somebody_waited_for_a_lock": waited, "transaction_ended_seconds": round(seconds, 2)}
        return Proof(struck, evidence, {"spare": bool(spare)})


def _open_transactions(rig: Rig, name: str) -> int:
    """Transactions that a copy's sessions have open, known by the ports of its link."""
    ports = {port for link in rig.links.proxy.of(f"{name}>", "mysql") for port in link.server_ports()}
    hosts = rig.rows("SELECT p.host FROM information_schema.innodb_trx t JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id")
    return sum(int(host.rpartition(":")[2]) in ports for (host,) in hosts)


class Everything(Nemesis):
    """N33. Every process of ours, the database and the brokers, by SIGKILL; started again in random order."""

    name, title, weight = "N33", "everything at once", 1

    def strike(self, rig: Rig, rng: Random) -> Proof:
        self.order = [daemon_name(each) for each in names(rig)] + [each for each in rig.native.daemons if each in {rig.kind, "kafka"} or each.startswith("kafka-")]
        rng.shuffle(self.order)
        struck, codes = time.monotonic(), {}
        for each in self.order:
            if each in rig.daemons:
                if rig.alive(rig.daemons[each]):
                    codes[each] = rig.strike(each)[1]
            else:
                daemon = rig.native.daemons[each]
                daemon.kill()
                codes[each] = daemon.child.returncode if daemon.child is not None else 0
        not_killed = {each: code for each, code in codes.items() if code != -signal.SIGKILL}
        if not_killed:
            raise Undecided(f"not ended by our signal: {not_killed}")
        return Proof(struck, {"wait_status": signal.SIGKILL.value, "processes": len(codes)})

    def heal(self, rig: Rig) -> None:
        began = time.monotonic()
        for each in self.order:
            if each in rig.daemons:
                rig.restart(each)
            else:
                rig.native.daemons[each].start()
        for each in self.order:
            if each not in rig.daemons:
                rig.native.daemons[each].wait()
        served = time.monotonic()
        for each in self.order:
            if each in rig.daemons:
                rig.await_ready(each, READY_SECONDS)
        self.after |= {"servers_seconds": round(served - began, 1), "ready_seconds": round(time.monotonic() - served, 1)}
        self.must(time.monotonic() - served <= 60.0, f"not everything was ready within 60 s of its servers: {time.monotonic() - served:.0f} s")
