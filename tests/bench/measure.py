"""What a run cost, read from outside: CPU and memory per process from /proc, the machine's load and steal, MySQL's own counters, the components' figures, times from MySQL's rows."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.system import System
from tests.support.takeover import quantile

TICK = os.sysconf("SC_CLK_TCK")
STATUS = {"commits": "Com_commit", "fsyncs_redo": "Innodb_os_log_fsyncs", "fsyncs_data": "Innodb_data_fsyncs", "rows_inserted": "Innodb_rows_inserted"}
METRICS = ("relay_batch_rows_count", "relay_batch_rows_sum", "relay_batch_partitions_sum", "batch_messages_count", "batch_messages_sum", "mysql_errors_total", "requeues_total", "sink_post_seconds_count")


def cpu_seconds(pid: int) -> float:
    """Of a process and of the children it has reaped."""
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, words[11:15])) / TICK


def rss_peak_mib(pid: int) -> float:
    line = next((each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmHWM")), "VmHWM: 0 kB")
    return int(line.split()[1]) / 1024


def machine() -> tuple[int, int]:
    """(steal, total) jiffies of all cores."""
    words = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return words[7], sum(words)


def busy_elsewhere(own: float, seconds: float, before: tuple[int, int, int]) -> float:
    """Cores used by processes that are neither the system nor the load generator."""
    now = _idle()
    used = ((now[1] - before[1]) - (now[0] - before[0])) / TICK
    return max(0.0, (used - own) / seconds)


def _idle() -> tuple[int, int, int]:
    words = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return words[3] + words[4], sum(words), words[7]


@dataclass
class Reading:
    """Counters at one moment; the difference of two is a cost."""

    cpu: dict[str, float]
    status: dict[str, int]
    metrics: dict[str, dict[str, float]]
    stat: tuple[int, int, int]


class Meter:
    """`pids`: name → pid of everything that counts, MySQL and Kafka included."""

    def __init__(self, system: System, servers: dict[str, int]) -> None:
        self.system, self.servers = system, servers

    @property
    def pids(self) -> dict[str, int]:
        return {**{name: each.child.pid for name, each in self.system.daemons.items() if each.child is not None and each.child.poll() is None}, **self.servers}

    def read(self) -> Reading:
        cpu = {name: cpu_seconds(pid) for name, pid in self.pids.items()}
        rows = dict(self.system.rows("SHOW GLOBAL STATUS"))
        status = {name: int(rows.get(variable, 0)) for name, variable in STATUS.items()}
        components = [name for name in self.system.daemons if not name.startswith("api")]
        metrics = {name: {each: self.system.metric(name, f"airavata_{each}") for each in METRICS} for name in components}
        return Reading(cpu, status, metrics, _idle())

    def rss(self) -> dict[str, float]:
        return {name: round(rss_peak_mib(pid), 1) for name, pid in self.pids.items()}


def cost(before: Reading, after: Reading, *, tasks: int, seconds: float, generator_cpu: float) -> dict[str, Any]:
    cpu = {name: after.cpu[name] - before.cpu.get(name, 0.0) for name in after.cpu}
    total = sum(cpu.values())
    told: dict[str, Any] = {
        "cpu_ms_per_task": round(1000 * total / tasks, 3),
        "cpu_ms_per_task_by_process": {name: round(1000 * spent / tasks, 3) for name, spent in cpu.items()},
        "cores_used": round(total / seconds, 2),
        "commits_per_task": round((after.status["commits"] - before.status["commits"]) / tasks, 2),
        "fsyncs_per_task": round(sum(after.status[each] - before.status[each] for each in ("fsyncs_redo", "fsyncs_data")) / tasks, 2),
        "cores_used_elsewhere": round(busy_elsewhere(total + generator_cpu, seconds, before.stat), 2),
        "steal_percent": round(100 * (after.stat[2] - before.stat[2]) / max(1, after.stat[1] - before.stat[1]), 2),
        "load_1m": os.getloadavg()[0],
    }
    return told | _batches(before, after, tasks)


def _batches(before: Reading, after: Reading, tasks: int) -> dict[str, Any]:
    def grown(name: str, metric: str) -> float:
        return after.metrics[name][metric] - before.metrics.get(name, {}).get(metric, 0.0)

    relays = [name for name in after.metrics if name.startswith("relay")]
    batches = sum(grown(name, "relay_batch_rows_count") for name in relays)
    pairs = {name: ("batch_messages_sum", "sink_post_seconds_count" if "sink" in name else "batch_messages_count") for name in after.metrics if name not in relays}
    rows = {name: round(grown(name, messages) / max(1.0, grown(name, count)), 1) for name, (messages, count) in pairs.items()}
    return {
        "outbox_rows_per_task": round(sum(grown(name, "relay_batch_rows_sum") for name in relays) / tasks, 2),
        "relay_rows_per_batch": round(sum(grown(name, "relay_batch_rows_sum") for name in relays) / max(1.0, batches), 1),
        "partitions_per_kafka_transaction": round(sum(grown(name, "relay_batch_partitions_sum") for name in relays) / max(1.0, batches), 1),
        "messages_per_consumer_batch": rows,
        "mysql_errors": sum(grown(name, "mysql_errors_total") for name in after.metrics),
    }


# In this order: right after a load the optimizer's idea of the tables is old, and another order takes minutes.
HOPS = """SELECT STRAIGHT_JOIN TIMESTAMPDIFF(MICROSECOND, MAX(b.finished_at), MIN(a.started_at)) / 1000 FROM experiments x JOIN processes p ON p.experiment_id = x.id
  JOIN attempts a ON a.process_id = p.id JOIN edges e ON e.to_task = a.task_id JOIN attempts b ON b.task_id = e.from_task WHERE x.launched_at >= %s AND a.epoch = 1 GROUP BY a.id"""
FIRST = """SELECT STRAIGHT_JOIN x.id, MIN(a.started_at) FROM experiments x JOIN processes p ON p.experiment_id = x.id JOIN attempts a ON a.process_id = p.id WHERE x.launched_at >= %s GROUP BY x.id"""


def hops_ms(system: System, since: Any) -> dict[str, float]:
    """Task done (its outcome's transaction) → the next task started (the command's transaction), in MySQL's clock; a join counts from its last predecessor."""
    found = [float(row[0]) for row in system.rows(HOPS, since)]
    return quantiles(found)


def quantiles(values: list[float]) -> dict[str, float]:
    return {"p50": round(quantile(values, 0.5), 2), "p99": round(quantile(values, 0.99), 2), "count": len(values)} if values else {"p50": 0.0, "p99": 0.0, "count": 0}
