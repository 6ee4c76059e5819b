"""How the harness looks at a running system from outside: its own lag (a tick of 10 ms, so that a late look is not taken for a late system) and one sample a second."""

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pymysql
from confluent_kafka import KafkaException, TopicPartition

from tests.chaos.lines import Lines
from tests.chaos.topics import reader

TICK_SECONDS, SAMPLE_SECONDS = 0.01, 1.0
REMEMBERED = 200_000  # Ticks: half an hour.


class Tick:
    """Remembers how late each of its 10 ms ticks was."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tick", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stop.is_set():
            time.sleep(TICK_SECONDS)
            now = time.monotonic()
            self._late.append((now, now - last - TICK_SECONDS))
            last = now

    def lag_ms(self, since: float, until: float | None = None) -> float:
        """The largest lag between two monotonic times."""
        end = time.monotonic() if until is None else until
        return round(1000 * max((late for at, late in list(self._late) if since <= at <= end + 0.05), default=0.0), 1)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(1.0)


class Sampler:
    """One `sample` a second until closed. `processes`: name → pid; `hosts`: name → pid of its sshd. What cannot be had while a server is down is left out."""

    def __init__(self, lines: Lines, *, rows: Callable[..., Any], kafka: str, groups: list[str], processes: Callable[[], dict[str, int]], hosts: dict[str, int], tick: Tick) -> None:
        self.lines, self.rows, self.groups, self.processes, self.hosts, self.tick = lines, rows, groups, processes, hosts, tick
        self.readers = {group: reader(kafka, group, **{"socket.timeout.ms": 2000}) for group in groups}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            began = time.monotonic()
            told: dict[str, Any] = {}
            with suppress(KafkaException, pymysql.MySQLError):
                told["committed"] = self.committed()  # Before the positions, so that a commit in between cannot convict.
            with suppress(Exception):  # MySQL is away, or being killed under the question.
                told |= self.of_mysql()
            told["processes"] = {name: sizes for name, pid in self.processes().items() if (sizes := sizes_of(pid)) is not None}
            told["ssh_connections"] = {name: len(children(pid)) for name, pid in self.hosts.items()}
            self.lines.write("sample", **told, lag_ms=self.tick.lag_ms(began))

    def committed(self) -> list[tuple[str, str, int, int]]:
        """Asked with a consumer per group that joins nothing: the library's admin client ends the process (an assertion of its own) when the coordinator dies under this question."""
        places: dict[str, list[TopicPartition]] = {}
        for group, topic, part in self.rows("SELECT consumer_group, topic, part FROM positions WHERE next_offset > 0"):
            places.setdefault(group, []).append(TopicPartition(topic, part))
        return [(group, each.topic, each.partition, each.offset) for group, asked in places.items() for each in self.readers[group].committed(asked, timeout=2.0) if each.offset > 0]

    def of_mysql(self) -> dict[str, Any]:
        positions = self.rows("SELECT consumer_group, topic, part, next_offset FROM positions WHERE next_offset > 0")
        ((count, oldest),) = self.rows("SELECT COUNT(*), TIMESTAMPDIFF(MICROSECOND, MIN(created_at), UTC_TIMESTAMP(6)) / 1e6 FROM outbox")
        ((_, sessions),) = self.rows("SHOW STATUS LIKE 'Threads_connected'")
        return {"positions": positions, "outbox_rows": count, "outbox_oldest_seconds": float(oldest or 0), "mysql_sessions": int(sessions)}

    def close(self) -> None:
        self._stop.set()
        self._thread.join(60.0)
        for each in self.readers.values():
            each.close()


def children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def sizes_of(pid: int) -> dict[str, int] | None:
    """Memory, descriptors and threads of a living process."""
    with suppress(OSError, KeyError, ValueError, IndexError):
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return {"rss_bytes": int(status["VmRSS"].split()[0]) * 1024, "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())), "threads": int(status["Threads"])}
    return None
