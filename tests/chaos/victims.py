"""Whom a headline round strikes, what that component owns, and when its successor has taken over: asked of MySQL, which alone says who owns what.

What an instance owns is known by its pid, which stands in its name (`scheduler-host-4711-1a2b`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.support.system import System

Place = tuple[str, int]  # (topic or host or "shard", number)
POSITIONS = "SELECT topic, part, owner, next_offset FROM positions WHERE consumer_group LIKE %s"
SHARDS = "SELECT 'shard', shard, IF(until > UTC_TIMESTAMP(6), owner, NULL), settled FROM relay_shards WHERE %s"
WATCHES = """SELECT compute_resource_id, 0, IF(until > UTC_TIMESTAMP(6), owner, NULL), UNIX_TIMESTAMP(last_look_at) * 1000 FROM host_watches w
  WHERE %s AND EXISTS (SELECT 1 FROM jobs j WHERE j.compute_resource_id = w.compute_resource_id AND j.state IN ('HELD', 'SUBMITTED', 'QUEUED', 'ACTIVE', 'SUSPENDED', 'UNKNOWN', 'NON_CRITICAL_FAIL'))"""  # Nobody watches where no job is.


@dataclass(frozen=True)
class Victim:
    """`component` is struck. `group`: its consumer group, empty for what is owned otherwise. `busy`: end of the name of the topic whose partitions make it busy; empty: of all.
    `fed`: launches right after the blow, where nothing else would wait for the successor."""

    component: str
    group: str = ""
    busy: str = ""
    owned: str = POSITIONS
    copies: int = 2
    fed: int = 0

    def rows(self, system: System) -> Mapping[Place, tuple[str, int]]:
        """What there is to own → (owner, how far)."""
        parameter: object = f"%.{self.group}" if self.group else 1
        return {(row[0], int(row[1])): (row[2] or "", int(row[3] or 0)) for row in system.rows(self.owned, parameter)}

    def holds(self, system: System, copy: int) -> dict[Place, int]:
        """What a copy owns, and how far it has come there."""
        mark = f"-{system.pid_of(self.component, copy)}-"
        return {place: far for place, (owner, far) in self.rows(system).items() if mark in owner}

    def busier(self, system: System) -> tuple[int, dict[Place, int], float]:
        """The copy that owns more of the busy places, what it owns, and its share. Assignment balances partitions, not the busy ones."""
        busy = {row[0] for row in system.rows("SELECT DISTINCT part FROM processes WHERE state IN ('CREATED', 'VALIDATED', 'STARTED')")}
        held = {copy: self.holds(system, copy) for copy in range(self.copies)}
        count = {copy: sum(1 for place in places if not self.group or (place[1] in busy and place[0].endswith(self.busy))) for copy, places in held.items()}
        copy = max(count, key=lambda each: count[each])
        return copy, held[copy], count[copy] / max(1, sum(count.values()))

    def balanced(self, system: System) -> Callable[[], object]:
        """Every copy is ready and, where the group shares partition numbers, none has one more than another and one."""

        def look() -> bool:
            if any(system.ready(f"{self.component}-{copy}") is not None for copy in range(self.copies)):
                return False
            held = [self.holds(system, copy) for copy in range(self.copies)]
            numbers = [len({number for _, number in each}) for each in held]
            return sum(map(len, held)) == len(self.rows(system)) and (not self.group or max(numbers) - min(numbers) <= 1)

        return look


VICTIMS: Mapping[str, Victim] = {
    "scheduler": Victim("scheduler", "task-scheduler", busy="event-sink"),
    "generator": Victim("generator", "workflow-generator", fed=8),
    "relay": Victim("relay", owned=SHARDS),
    "executor": Victim("executor-noop", "executor-noop"),
    "watcher": Victim("executor-job", owned=WATCHES),
    "sink": Victim("event-sink", "event-sink"),
}


def taken(victim: Victim, system: System, of: Mapping[Place, int], was: int) -> Sequence[Place]:
    """What of the victim's is still not another's."""
    mark, rows = f"-{was}-", victim.rows(system)
    return [place for place in of if place in rows and (not rows[place][0] or mark in rows[place][0])]
