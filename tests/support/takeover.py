"""How soon a graph goes on after its scheduler was killed, measured in MySQL's clock alone: for every process on a partition the victim held, from the kill (or from the end
of the task before, if that came later) to the start of its next task. A round's figure is its slowest process: every one of them has to go on.
"""

import math
from dataclasses import dataclass
from datetime import datetime

from tests.support.system import System

TASKS, SLEEP_MS, CHAINS = 10, 250, 12
EDGES = " ".join(f"t{n}>t{n + 1}" for n in range(1, TASKS))
BEHAVIOUR = " ".join(f"t{n}:sleep_ms={SLEEP_MS}" for n in range(1, TASKS + 1))
MID_GRAPH = """SELECT COUNT(*) FROM processes p WHERE p.state = 'STARTED' AND EXISTS (SELECT 1 FROM tasks t WHERE t.process_id = p.id AND t.state = 'COMPLETED')
  AND EXISTS (SELECT 1 FROM tasks t WHERE t.process_id = p.id AND t.state IN ('SCHEDULED', 'EXECUTING')) AND EXISTS (SELECT 1 FROM tasks t WHERE t.process_id = p.id AND t.state = 'CREATED')"""
GAPS = """SELECT TIMESTAMPDIFF(MICROSECOND, GREATEST(%s, b.finished_at), a.started_at) / 1e6, a.process_id FROM attempts a JOIN edges e ON e.to_task = a.task_id
  JOIN attempts b ON b.task_id = e.from_task JOIN processes p ON p.id = a.process_id
  WHERE a.started_at > %s AND b.finished_at IS NOT NULL AND p.part IN ({parts}) ORDER BY a.process_id, a.started_at"""

UNTOUCHED = """SELECT p.id FROM processes p WHERE p.state = 'STARTED' AND p.part IN ({parts})
  AND EXISTS (SELECT 1 FROM tasks t WHERE t.process_id = p.id AND t.state = 'CREATED' AND t.waiting_for > 0)"""


@dataclass(frozen=True)
class Round:
    """One kill. `share`: of the busy fact partitions the victim held."""

    victim: int
    share: float
    processes: int
    seconds: float


def launch(system: System, shape: str, count: int = CHAINS) -> list[str]:
    return [system.gateway.launch(shape, {"edges": EDGES, "behaviour": BEHAVIOUR}) for _ in range(count)]


def mid_graph(system: System, at_least: int = 8) -> None:
    system.until(lambda: system.one(MID_GRAPH) >= at_least, 60.0, lambda: system.one(MID_GRAPH))


def victim_of(system: System) -> tuple[int, list[int], float]:
    """The scheduler that holds more of the busy fact partitions, and which of them."""
    busy = {row[0] for row in system.rows("SELECT DISTINCT part FROM processes WHERE state = 'STARTED'")}
    held: dict[int, list[int]] = {0: [], 1: []}
    pids = {f"-{system.pid_of('scheduler', copy)}-": copy for copy in held}
    for part, owner in system.rows("SELECT part, owner FROM positions WHERE consumer_group LIKE %s AND topic LIKE %s", "%task-scheduler", "%event-sink"):
        for pid, copy in pids.items():
            if part in busy and owner and pid in owner:
                held[copy].append(part)
    victim = max(held, key=lambda copy: len(held[copy]))
    return victim, held[victim], len(held[victim]) / max(1, len(busy))


def first_gaps(system: System, killed_at: datetime, parts: list[int]) -> dict[str, float]:
    """Process → the first gap after the kill."""
    found: dict[str, float] = {}
    for seconds, process in system.rows(GAPS.format(parts=",".join(map(str, parts))), killed_at, killed_at):
        found.setdefault(process, float(seconds))
    return found


def kill_round(system: System, shape: str) -> tuple[Round, list[str]]:
    """Mid-graph, SIGKILL to the scheduler that holds more; both are up again when it returns."""
    launched = launch(system, shape)
    mid_graph(system)
    victim, parts, share = victim_of(system)
    killed_at = system.one("SELECT UTC_TIMESTAMP(6)")
    system.kill("scheduler", victim)
    waiting = {row[0] for row in system.rows(UNTOUCHED.format(parts=",".join(map(str, parts))))}  # Asked after the kill: what is untouched now starts after it.
    system.until(lambda: waiting <= set(first_gaps(system, killed_at, parts)), 60.0, lambda: f"{len(waiting - set(first_gaps(system, killed_at, parts)))} processes stand still")
    gaps = first_gaps(system, killed_at, parts)
    system.revive("scheduler", victim)
    both_hold(system)
    return Round(victim, share, len(waiting), max((gaps[each] for each in waiting), default=0.0)), launched


def both_hold(system: System) -> None:
    """Both schedulers have partitions, and together all of both topics."""
    total = 2.0 * int(system.settings["PARTITIONS"])

    def held() -> list[float]:
        return [system.metric(f"scheduler-{copy}", "airavata_partitions_held") for copy in (0, 1)]

    system.until(lambda: min(held()) > 0 and sum(held()) == total, 60.0, held)


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
