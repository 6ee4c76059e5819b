"""The workloads: w1 a chain of five no-ops, w2 1 → 8 → 1, w3 20 experiments of half-second tasks with a component killed in the middle. Each returns what it measured."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.dev.servers import ROOT
from tests.bench.measure import FIRST, Meter, cost, hops_ms, quantiles
from tests.support.system import System

W1 = "a>b b>c c>d d>e"
W2 = " ".join([*(f"a>m{n}" for n in range(8)), *(f"m{n}>z" for n in range(8))])
SECONDS_MAX = 300


@dataclass(frozen=True)
class Shape:
    """A graph of no-ops, and how many of them make a run."""

    edges: str
    tasks: int
    experiments: int
    window: int


SHAPES = {"w1": Shape(W1, 5, 3000, 1000), "w2": Shape(W2, 10, 1500, 500)}  # Windows that the load generator can keep full: with 400 and four connections the system waited for launches.


class Bench:
    """One system, measured again and again."""

    def __init__(self, system: System, meter: Meter, *, connections: int = 16) -> None:
        self.system, self.meter, self.connections = system, meter, connections
        self.interface = system.gateway.shape()
        self.serial = 0

    def load(self, shape: Shape, *, experiments: int, window: int, rate: float = 0.0, behaviour: str = "") -> dict[str, Any]:
        """Run the load generator to its end; counters around it."""
        self.serial += 1
        since = self.system.one("SELECT UTC_TIMESTAMP(6)")
        body = {"application_interface_id": self.interface, "inputs": {"edges": shape.edges, **({"behaviour": behaviour} if behaviour else {})}, "launch": True}
        plan = {
            "name": f"bench-{self.serial}", "urls": self.system.gateway.urls, "token": self.system.gateway.token, "body": body, "experiments": experiments, "window": window, "rate": rate,
            "connections": min(self.connections, window), "database_url": self.system.database_url, "since": str(since), "seconds_max": SECONDS_MAX,
        }  # fmt: skip
        before = self.meter.read()
        done = subprocess.run([sys.executable, "-m", "tests.bench.load", json.dumps(plan)], cwd=ROOT, check=False, capture_output=True, text=True, timeout=SECONDS_MAX + 60)
        after = self.meter.read()
        told = json.loads(done.stdout) if done.stdout else {"problems": [done.stderr[-500:]]}
        if told["problems"]:
            raise RuntimeError(f"the load generator met problems: {told['problems'][:3]}")
        tasks = experiments * shape.tasks
        spent = cost(before, after, tasks=tasks, seconds=told["seconds"], generator_cpu=told["cpu_seconds"])
        rates = {"tasks_per_second": round(tasks / told["seconds"], 1), "experiments_per_second": round(experiments / told["seconds"], 1), "tasks": tasks, "seconds": round(told["seconds"], 2)}
        return {**rates, **spent, "hop_ms": hops_ms(self.system, since), "launch_to_first_task_ms": self.first_task_ms(since, told["answers"])}

    def first_task_ms(self, since: Any, answers: list[tuple[str, float]]) -> dict[str, float]:
        """From the answer's arrival at the client to the start of the first task; both clocks are this machine's."""
        started = {row[0]: row[1].replace(tzinfo=UTC).timestamp() for row in self.system.rows(FIRST, since)}
        return quantiles([1000 * (started[experiment] - at) for experiment, at in answers if experiment in started])

    def saturated(self, name: str, scale: float) -> dict[str, Any]:
        shape = SHAPES[name]
        return self.load(shape, experiments=max(50, int(shape.experiments * scale)), window=shape.window)

    def warm(self, scale: float) -> None:
        """Not measured: the broker's virtual machine compiles what it runs often, buffers fill, statements are prepared."""
        self.load(SHAPES["w1"], experiments=max(50, int(2000 * scale)), window=SHAPES["w1"].window)

    def alone(self, name: str, experiments: int = 60) -> dict[str, Any]:
        """One at a time: what a user waits for on a quiet system."""
        return self.load(SHAPES[name], experiments=experiments, window=1)

    def half(self, name: str, saturated: dict[str, Any], seconds: float = 15.0) -> dict[str, Any]:
        rate = saturated["experiments_per_second"] / 2
        return self.load(SHAPES[name], experiments=max(20, int(rate * seconds)), window=SHAPES[name].window, rate=rate)

    def resting(self, seconds: float = 10.0) -> dict[str, Any]:
        """Nobody launches: what the heartbeats and long polls cost."""
        self.system.quiet()
        before, began = self.meter.read(), time.monotonic()
        time.sleep(seconds)
        after, lasted = self.meter.read(), time.monotonic() - began
        cpu = {name: round(100 * (after.cpu[name] - before.cpu[name]) / lasted, 2) for name in after.cpu}
        return {"percent_of_a_core": round(sum(cpu.values()), 2), "by_process": cpu, "commits_per_second": round((after.status["commits"] - before.status["commits"]) / lasted, 1)}

    def killed(self, component: str) -> dict[str, Any]:
        """w3: 20 chains of half-second tasks, `component` killed once half have gone two steps; the slowest step on record is the price."""
        behaviour = " ".join(f"{each}:sleep_ms=500" for each in "abcde")
        since = self.system.one("SELECT UTC_TIMESTAMP(6)")
        began = time.monotonic()
        launched = [self.system.gateway.launch(self.interface, {"edges": W1, "behaviour": behaviour}) for _ in range(20)]
        ended = "SELECT COUNT(*) FROM attempts a JOIN processes p ON p.id = a.process_id JOIN experiments x ON x.id = p.experiment_id WHERE a.state = 'SUCCEEDED' AND x.launched_at >= %s"
        self.system.until(lambda: self.system.one(ended, since) >= 20, 60.0)
        self.system.kill(component, self.holder(component))
        outcomes = [self.system.gateway.wait(each, 90.0)["outcome"] for each in launched]
        lasted = time.monotonic() - began
        self.revive(component)
        again = self.system.one("SELECT COUNT(*) FROM attempts a JOIN processes p ON p.id = a.process_id JOIN experiments x ON x.id = p.experiment_id WHERE x.launched_at >= %s AND (a.epoch > 1 OR a.number > 1)", since)
        return {"seconds": round(lasted, 2), "completed": outcomes.count("NORMAL_COMPLETION"), "slowest_step_ms": self.slowest(since), "attempts_begun_again": again}

    def slowest(self, since: Any) -> float:
        worst = self.system.rows(
            "SELECT MAX(TIMESTAMPDIFF(MICROSECOND, b.finished_at, a.started_at)) / 1000 FROM attempts a JOIN edges e ON e.to_task = a.task_id JOIN attempts b ON b.task_id = e.from_task "
            "JOIN processes p ON p.id = a.process_id JOIN experiments x ON x.id = p.experiment_id WHERE x.launched_at >= %s",
            since,
        )
        return round(float(worst[0][0]), 1)

    def holder(self, component: str) -> int:
        """The copy that has the work: with the relay, the one that leases; else the one with more of the busy partitions."""
        tables = {"relay": "SELECT owner, COUNT(*) FROM relay_shards WHERE owner IS NOT NULL GROUP BY owner ORDER BY 2 DESC"}
        query = tables.get(component, "SELECT owner, COUNT(*) FROM positions p WHERE owner IS NOT NULL AND part IN (SELECT part FROM processes WHERE state = 'STARTED') GROUP BY owner ORDER BY 2 DESC")
        for owner, _ in self.system.rows(query):
            for copy in (0, 1):
                if f"{component}-{copy}" in self.system.daemons and f"-{self.system.pid_of(component, copy)}-" in owner:
                    return copy
        return 0

    def revive(self, component: str) -> None:
        for copy in (0, 1):
            daemon = self.system.daemons.get(f"{component}-{copy}")
            if daemon is not None and not self.system.alive(daemon):
                self.system.revive(component, copy)


def at() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
