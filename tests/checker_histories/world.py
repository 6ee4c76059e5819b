"""A tiny make-believe installation that leaves the evidence of a run: histories are told act by act, and the binary log, topics, journals and final tables follow.

It knows the run directory (tests/checker/formats.py) and nothing of the product. Everything is kept as plain rows, so that a bad history can change any of them before it is written.
"""

import hashlib
import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

ENV, PREFIX = "t", "t."
GATEWAY, OTHER_GATEWAY = "gw_a", "gw_b"
GROUPS = {"generator": "t.workflow-generator", "scheduler": "t.task-scheduler", "sink": "t.event-sink", "executor": "t.executor-job"}
EVENTS, SCHEDULER, LAUNCH, JOBS = "t.event-sink", "t.airavata-scheduler", "t.airavata-launch", "t.job-submission-task"
KEYS = {"positions": ("consumer_group", "topic", "part"), "edges": ("from_task", "to_task"), "events": ("event_id",), "outbox": ("id",), "timers": ("id",), "outputs": ("experiment_id", "name")}
MACHINE = "2026-11-25"


def mid_of(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def trace_context(experiment: str, task: str = "", attempt: str = "") -> str:
    """The traceparent of what is about this; of the request that launched it, if `task` is `request`."""
    name = f"attempt/{task}/{attempt}" if attempt not in {"", "0"} else f"experiment/{experiment}/0"
    return f"00-{mid_of(experiment)}-{mid_of('request')[:16] if task == 'request' else hashlib.sha256(name.encode()).hexdigest()[:16]}-01"


def packed(headers: list[tuple[str, bytes]]) -> str:
    """msgpack of [[name, value], …], as the outbox stores it."""
    found = bytes([0x90 | len(headers)])
    for name, value in headers:
        found += bytes([0x92, 0xA0 | len(name)]) + name.encode() + (bytes([0xC4, len(value)]) if len(value) < 256 else b"\xc5" + len(value).to_bytes(2, "big")) + value
    return found.hex()


class World:
    """Acts append; `write(run)` lays the directory out. Times: `clock` is monotonic seconds; wall = 1000000 s later."""

    def __init__(self) -> None:
        self.clock, self.ids, self.serial = 100.0, itertools.count(1), itertools.count(1)
        self.steps = itertools.count(1)
        self.rows: dict[str, dict[Any, dict[str, Any]]] = defaultdict(dict)
        self.transactions: list[dict[str, Any]] = []
        self.open: list[Any] | None = None
        self.log: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
        self.aborted: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.waiting: list[dict[str, Any]] = []
        self.journals: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.client: list[dict[str, Any]] = []
        self.nemesis: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.hosts: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.files: dict[str, str] = {}
        self.committed: dict[str, dict[str, dict[str, int]]] = {}
        self.plan: dict[str, Any] = {"seed": 1, "required": {}, "faults": []}
        self.canaries: dict[str, Any] = {}
        self.manifest: dict[str, Any] = {"topic_prefix": PREFIX, "journal": True, "hosts": ["fork-a"], "lives": 0}
        for table in ("experiments", "processes", "tasks", "edges", "attempts", "jobs", "outputs", "outbox", "timers", "events", "dead_letters", "positions"):
            self.rows[table] = {}
        for group, topic in ((GROUPS["generator"], LAUNCH), (GROUPS["scheduler"], SCHEDULER), (GROUPS["scheduler"], EVENTS), (GROUPS["sink"], EVENTS), (GROUPS["executor"], JOBS)):
            self.rows["positions"][group, topic, 0] = {"consumer_group": group, "topic": topic, "part": 0, "topic_uuid": "u", "next_offset": 0, "owner": None, "owner_epoch": 1}

    # ---- time and journals --------------------------------------------------------------------------------------------------------------------------
    def wait(self, seconds: float = 0.01) -> float:
        self.clock = round(self.clock + seconds, 6)
        return self.clock

    def stamp(self, kind: str, **more: Any) -> dict[str, Any]:
        mono = self.wait()
        return {"mono": mono, "wall": self.wall(mono), "kind": kind, **more}

    @staticmethod
    def wall(mono: float) -> str:
        return f"{MACHINE}T{int(mono // 3600):02}:{int(mono // 60 % 60):02}:{mono % 60:09.6f}Z"

    def says(self, who: str, kind: str, **more: Any) -> dict[str, Any]:
        """A line of the product's own journal."""
        line = {"who": who, "life": f"{who}#1", **self.stamp(kind, **more)}
        self.journals[who].append(line)
        return line

    # ---- B: one transaction after the other -----------------------------------------------------------------------------------------------------------
    def insert(self, table: str, **row: Any) -> dict[str, Any]:
        key = tuple(row[name] for name in KEYS.get(table, ("id",)))
        self.rows[table][key if len(key) > 1 else key[0]] = row
        self._changes(["I", table, dict(row)])
        return row

    def change(self, table: str, key: Any, **changes: Any) -> dict[str, Any]:
        """Only what differs is a change; `version` and `state_since` are the caller's."""
        row = self.rows[table][key]
        self._changes(["U", table, dict(row), dict(changes)])
        row.update(changes)
        return row

    def delete(self, table: str, key: Any) -> None:
        self._changes(["D", table, self.rows[table].pop(key)])

    def _changes(self, change: list[Any]) -> None:
        assert self.open is not None, "rows change inside `with world.commit(…)`"
        self.open.append(change)

    def commit(self, unit: str, who: str = "", *, outcome: str = "committed", step: str | None = None) -> "Commit":
        return Commit(self, unit, who or f"{unit.split('.')[0]}/0", outcome, step)

    # ---- K ----------------------------------------------------------------------------------------------------------------------------------------------
    def relay(self) -> None:
        """Everything that waits is published and deleted."""
        rows, self.waiting = self.waiting, []
        for row in rows:
            self.publish(row)
        if rows:
            with self.commit("relay.delete"):
                for row in rows:
                    self.delete("outbox", row["id"])
            self.says("relay/0", "relay.transaction", shard=0, seq=next(self.serial), outcome="committed")

    def publish(self, row: dict[str, Any], **more: Any) -> dict[str, Any]:
        log = self.log[row["topic"]][row["part"]]
        offset = (log[-1]["o"] + 1) if log else 0
        log.append({"p": row["part"], "o": offset, "ts": self.epoch_ms(), "k": row["k"], "h": [[name, value] for name, value in row["told"]], "v": row["value"], **more})
        return log[-1]

    def epoch_ms(self) -> int:
        from datetime import datetime

        return int(datetime.fromisoformat(self.wall(self.clock).replace("Z", "+00:00")).timestamp() * 1000)

    def find(self, topic: str, kind: str, task: str = "", **where: Any) -> dict[str, Any]:
        """The last record of a type about a task."""
        for record in reversed([each for log in self.log[topic].values() for each in log]):
            told = dict(record["h"])
            if told["type"] == kind and (not task or told["subject"].split("/")[3] == task) and all(told.get(name) == value for name, value in where.items()):
                return {**record, "topic": topic}
        raise LookupError(f"{kind} of {task} in {topic}")

    # ---- writing it down ----------------------------------------------------------------------------------------------------------------------------------
    def write(self, run: Path) -> Path:
        self._write_books(run)
        self._write_mysql(run)
        self._write_kafka(run)
        for name, lines in self.hosts.items():
            _lines(run / "hosts/fork-a" / name, lines)
        for name, text in self.files.items():
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).write_text(text)
        for name in ("plan", "canaries", "manifest"):
            (run / f"{name}.json").write_text(json.dumps(getattr(self, name)))
        return run

    def _write_books(self, run: Path) -> None:
        for name in ("client", "nemesis", "samples"):
            lines = [{"n": n, "who": name, "life": name, **line} for n, line in enumerate(getattr(self, name), 1)]
            _lines(run / f"{name}.jsonl", lines)
        for who, lines in self.journals.items():
            _lines(run / "journal" / f"{who.replace('/', '-')}.1.jsonl", [{"n": n, **line} for n, line in enumerate(lines, 1)])

    def _write_mysql(self, run: Path) -> None:
        counts = {}
        for table, rows in self.rows.items():
            counts[table] = len(rows)
            _lines(run / f"mysql/tables/{table}.jsonl", [{"table": table, "columns": {}, "rows": len(rows)}, *({key: value for key, value in row.items() if key not in {"told", "value"}} for row in rows.values())])
        told = {"transactions": len(self.transactions), "rows": sum(len(each["rows"]) for each in self.transactions)}
        numbered = [{"t": t, **each} for t, each in enumerate(self.transactions, 1)]
        _lines(run / "mysql/binlog/transactions.jsonl", [{"file": "binlog.000001"}, *numbered, {"end": told}])
        self.manifest.setdefault("tables", counts)
        self.manifest.setdefault("binlog", {"from": ["binlog.000001", 4], "to": ["binlog.000001", 9], "transactions": len(self.transactions)})

    def _write_kafka(self, run: Path) -> None:
        ends: dict[str, dict[str, list[int]]] = {}
        for topic in (LAUNCH, SCHEDULER, EVENTS, JOBS):
            log = self.log[topic]
            last = {part: max([each["o"] for each in records] + [each["o"] for each in self.aborted[topic] if each["p"] == part], default=-1) + 1 for part, records in {0: [], **log}.items()}
            ends[topic] = {str(part): [0, end] for part, end in last.items()}
            for isolation in ("committed", "uncommitted"):
                records = [each for part in sorted(log) for each in log[part]] + (self.aborted[topic] if isolation == "uncommitted" else [])
                _lines(run / f"kafka/{topic}.{isolation}.jsonl", [*sorted(records, key=lambda each: (each["p"], each["o"])), {"end": ends[topic]}])
        self.manifest.setdefault("topics", ends)
        (run / "kafka/groups.json").write_text(json.dumps(self.committed))


class Commit:
    """`with world.commit("scheduler.commit") as tx`: rows changed inside are one transaction; `send`, `timer` and `over` belong to it."""

    def __init__(self, world: World, unit: str, who: str, outcome: str, step: str | None) -> None:
        self.world, self.unit, self.who, self.outcome = world, unit, who, outcome
        self.step = step or f"{next(world.steps):012x}"
        self.out: list[str] = []
        self.ranges: list[list[Any]] = []
        self.group = ""

    def __enter__(self) -> "Commit":
        self.world.open = []
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        world = self.world
        rows, world.open = world.open, None
        if kind is not None:
            return
        if rows:
            world.transactions.append({"pos": 0, "at": world.wall(world.wait()), "rows": rows})
        world.says(self.who, "unit.end", unit=self.unit, step=f"{self.unit}#{self.step}", outcome=self.outcome, group=self.group, ranges=self.ranges, out=self.out, process=[])

    def headers(self, kind: str, mid: str, subject: str, cause: str, **more: Any) -> list[tuple[str, Any]]:
        _, experiment, _, task, _, attempt, _ = subject.split("/")
        told = [("mid", mid), ("type", kind), ("schema_version", "1"), ("subject", subject), ("cause", f"{self.unit}#{self.step}:{cause}"), ("traceparent", trace_context(experiment, task, attempt)), ("at", "")]
        return told + [(name, json.dumps(value) if isinstance(value, dict) else value) for name, value in more.items()]

    def send(
        self, kind: str, *, topic: str = EVENTS, subject: str, key: str, cause: str = "", body: dict[str, Any] | None = None, mid: str = "", table: str = "outbox", due_at: str = "", part: int = 0, **more: Any
    ) -> dict[str, Any]:
        """A message with the state it speaks of; returns its row, with the headers as text under `told`."""
        world = self.world
        mid = mid or mid_of(kind, subject, cause, next(world.serial))
        told, value = self.headers(kind, mid, subject, cause, **more), json.dumps(body or {})
        packed_headers = packed([(name, bytes.fromhex(text) if name == "mid" else text.encode()) for name, text in told])
        row = {"id": next(world.ids), "mid": mid, "topic": topic, "part": part, "k": key, "headers": packed_headers, "payload": value.encode().hex()}
        if table == "timers":
            row |= {"due_at": due_at}
        else:
            row |= {"shard": 0, "created_at": world.wall(world.clock)}
        world.insert(table, **row)
        self.out.append(mid)
        kept = {**row, "told": told, "value": value}
        if table == "outbox":
            world.waiting.append(kept)
        return kept

    def timer(self, kind: str, **more: Any) -> dict[str, Any]:
        return self.send(kind, table="timers", topic=SCHEDULER, due_at=more.pop("due_at", "2026-11-25 00:00:00.000000"), **more)

    def over(self, role: str, *records: dict[str, Any]) -> None:
        """The group's position moves over these records."""
        for record in records:
            key = (GROUPS[role], record["topic"], record["p"])
            row = self.world.rows["positions"][key]
            self.group = key[0]
            self.ranges.append([record["topic"], record["p"], row["next_offset"], record["o"], row["owner_epoch"]])
            self.world.change("positions", key, next_offset=record["o"] + 1)


def _lines(path: Path, lines: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
