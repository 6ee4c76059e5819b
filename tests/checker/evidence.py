"""The evidence of one run, walked once, source by source: what was asked, journals, samples, final tables, Kafka's records, then MySQL's transactions in commit order, then the hosts.

Hooks of the promises are called in that order, so whoever judges a transaction can look up every record, and whoever judges a record every final row. Kept in memory: one small
object per record, and the states of tasks and processes as the last transaction left them.
"""

import json
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.checker.reading import Lines, Place, headers_of
from tests.checker.tables import wanted
from tests.checker.verdicts import Promise

Change = tuple[str, dict[str, Any], dict[str, Any]]  # kind (I, U, D), row before, row after; empty where there is none.
_NOTHING: dict[str, Any] = {}


class Message:
    """What a header list says: of a row of outbox or timers (B), or of a record (K)."""

    __slots__ = ("attempt", "cause", "content", "epoch", "experiment", "gateway", "id", "key", "marked", "mid", "moved", "offset", "only", "origin", "part", "payload", "place", "process", "step", "table", "task", "time", "topic", "traceparent", "type", "unit", "version")

    def __init__(self, found: dict[str, Any], mid: str, where: tuple[str, int], key: str, place: Place) -> None:
        self.mid, (self.topic, self.part), self.key, self.place = mid, where, key, place
        self.type, self.only = _text(found.get("type")), _text(found.get("only"))
        subject = (_text(found.get("subject")).split("/") + [""] * 7)[:7]
        self.gateway, self.experiment, self.process, self.task = subject[:4]
        self.attempt, self.epoch = _number(subject[5]), _number(subject[6])
        writer, _, self.cause = _text(found.get("cause")).partition(":")
        self.unit, _, self.step = writer.partition("#")
        self.origin: dict[str, Any] | None = _object(found.get("origin"))
        self.marked = _text(found.get("nemesis"))
        self.traceparent, self.version = _text(found.get("traceparent")), _number(_text(found.get("schema_version")))
        self.id, self.offset, self.table, self.moved, self.payload, self.content, self.time = 0, -1, "", False, "", 0, 0.0

    @property
    def body(self) -> dict[str, Any]:
        """The payload of a row, decoded."""
        return _object(bytes.fromhex(self.payload)) or {}

    @property
    def where(self) -> tuple[str, int]:
        return self.topic, self.part


def _text(value: Any) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace") if isinstance(value, bytes) else ""


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _object(value: Any) -> dict[str, Any] | None:
    try:
        found = json.loads(value) if value else None
    except (ValueError, TypeError):
        return None
    return found if isinstance(found, dict) else None


def _whole(parts: list[dict[str, Any]], line: dict[str, Any]) -> dict[str, Any] | None:
    """Lines that say `more` go on in the next ones: lists are joined, the rest stands in the first. None: not whole yet."""
    parts.append(line)
    if line.get("more"):
        return None
    found = dict(parts[0])
    for each in parts[1:]:
        for name, value in each.items():
            if isinstance(value, list):
                found[name] = [*found.get(name, ()), *value]
    parts.clear()
    return found


class Advance(NamedTuple):
    """A position moved on: of which row, from where to where, by which owner epoch."""

    group: str
    topic: str
    part: int
    before: int
    after: int
    epoch: int


class Transaction:
    """One transaction of B. `changes` by table; `sent`: rows put into outbox and timers; `advances`; `applied`: (group, record) over which its positions moved and which the group wants."""

    __slots__ = ("advances", "applied", "at", "changes", "place", "sent", "t")

    def __init__(self, t: int, at: str, place: Place) -> None:
        self.t, self.at, self.place = t, at, place
        self.changes: dict[str, list[Change]] = {}
        self.sent: list[Message] = []
        self.advances: list[Advance] = []
        self.applied: list[tuple[str, Message]] = []

    @property
    def fresh(self) -> Iterator[Message]:
        """Messages that were decided here: not those that only moved from timers to outbox, nor copies (requeued, replayed), whose headers speak of their original."""
        return (each for each in self.sent if not each.moved and each.origin is None)

    @property
    def copies(self) -> Iterator[Message]:
        """Copies of what was set aside, where they were made."""
        return (each for each in self.sent if not each.moved and each.origin is not None)


class Evidence:
    def __init__(self, run: Path) -> None:
        self.run = run
        self.plan: dict[str, Any] = self._json("plan.json")
        self.canaries: dict[str, Any] = self._json("canaries.json")
        self.manifest: dict[str, Any] = self._json("manifest.json")
        self.prefix = str(self.manifest.get("topic_prefix", ""))
        self.lines: dict[str, list[Lines]] = defaultdict(list)  # source → files walked
        self.seen: dict[str, Any] = {}  # what the files said about their own completeness, for sources.py
        self.log: dict[tuple[str, int], list[Message]] = defaultdict(list)
        self.offsets: dict[tuple[str, int], Any] = defaultdict(lambda: array("q"))
        self.asked: dict[str, tuple[Any, Place]] = {}  # op → the request that has no answer yet
        self.by_mid: dict[str, Message] = {}
        self.again: dict[str, list[Message]] = {}  # further records of a mid
        self.timers: set[str] = set()
        self.tasks: dict[str, tuple[str, int, int]] = {}  # state, attempt, epoch
        self.attempts: dict[tuple[str, int], tuple[str, int]] = {}  # task, number → state, epoch
        self.processes: dict[str, str] = {}
        self.positions: dict[tuple[str, str, int], int] = {}  # at the end
        self.committed: dict[str, dict[str, dict[str, int]]] = {}
        self.renewed: set[str] = set()
        self.published: set[tuple[str, int, int]] = set()  # topic, partition, offset of what a nemesis published
        self.samples = 0

    def _json(self, name: str) -> dict[str, Any]:
        path = self.run / name
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def base(self, topic: str) -> str:
        """A topic's name without the run's prefix."""
        return topic.removeprefix(self.prefix)

    # ---- the walk ---------------------------------------------------------------------------------------------------------------------------------
    def walk(self, promises: Sequence[Promise]) -> None:
        self.promises = promises
        self._nemesis()
        self._clients()
        self._journals()
        self._samples()
        self._tables()
        self._kafka()
        self._binlog()
        self._hosts()
        for each in promises:
            each.conclude()

    def _listeners(self, hook: str) -> list[Any]:
        return [getattr(each, hook) for each in self.promises if getattr(type(each), hook) is not getattr(Promise, hook)]

    def _open(self, source: str, name: str) -> Lines | None:
        path = self.run / name
        if not path.exists():
            return None
        found = Lines(self.run, path)
        self.lines[source].append(found)
        return found

    def _numbered(self, source: str, name: str) -> Iterator[tuple[Any, Place]]:
        """The lines of a file in which they are numbered within a life: gaps are looked for here."""
        lines = self._open(source, name)
        last: dict[str, int] = {}
        for number, line in lines or ():
            life = str(line.get("life", ""))
            n = line.get("n")
            if lines is not None and n != last.get(life, 0) + 1:
                lines.faults.append(f"{name}:{number}: life {life[:12]} jumps from line {last.get(life, 0)} to {n}")
            last[life] = n if isinstance(n, int) else last.get(life, 0) + 1
            yield line, Place(name, number)
        self.seen.setdefault(f"{source}.lives", set()).update(last)

    def _nemesis(self) -> None:
        hooks = self._listeners("fault")
        for line, place in self._numbered("nemesis", "nemesis.jsonl"):
            evidence = line.get("evidence") or {}
            self.renewed.update(evidence.get("topics_renewed") or ())
            self.published.update((topic, part, offset) for topic, part, offset in evidence.get("published") or ())
            for each in hooks:
                each(line, place)

    def _clients(self) -> None:
        """Each answer together with what was asked; what was never answered stays in `asked`."""
        asking, answering = self._listeners("invoked"), self._listeners("answered")
        for line, place in self._numbered("client", "client.jsonl"):
            if line["kind"] == "op.invoke":
                self.asked[line["op"]] = (line, place)
                for each in asking:
                    each(line, place)
            elif line["op"] in self.asked:
                asked, at = self.asked.pop(line["op"])
                for each in answering:
                    each(asked, at, line, place)

    def _journals(self) -> None:
        hooks = self._listeners("journal")
        for path in sorted((self.run / "journal").glob("*.jsonl")):
            parts: list[dict[str, Any]] = []
            for part, place in self._numbered("journal", f"journal/{path.name}"):
                line = _whole(parts, part)
                for each in hooks if line is not None else ():
                    each(line, place)

    def _samples(self) -> None:
        hooks = self._listeners("sample")
        for line, place in self._numbered("samples", "samples.jsonl"):
            for each in hooks:
                each(line, place)

    def _tables(self) -> None:
        hooks = self._listeners("row")
        for path in sorted((self.run / "mysql/tables").glob("*.jsonl")):
            lines = self._open("tables", f"mysql/tables/{path.name}")
            assert lines is not None
            table, told = path.stem, None
            for number, row in lines:
                if told is None:
                    told = row.get("rows") if "columns" in row else -1
                    continue
                if table == "positions":
                    self.positions[row["consumer_group"], row["topic"], row["part"]] = row["next_offset"]
                place = Place(lines.file, number)
                for each in hooks:
                    each(table, row, place)
            self.seen.setdefault("tables", {})[table] = (told, lines.count - 1)

    def _kafka(self) -> None:
        groups = self.run / "kafka/groups.json"
        if groups.exists():
            self.committed = json.loads(groups.read_text())
        for isolation in ("committed", "uncommitted"):
            hooks = self._listeners("record" if isolation == "committed" else "uncommitted")
            for path in sorted((self.run / "kafka").glob(f"*.{isolation}.jsonl")):
                lines = self._open("kafka", f"kafka/{path.name}")
                assert lines is not None
                self._topic(lines, path.name.removesuffix(f".{isolation}.jsonl"), isolation, hooks)

    def _topic(self, lines: Lines, topic: str, isolation: str, hooks: list[Any]) -> None:
        keep = isolation == "committed"
        for number, line in lines:
            if "end" in line:
                self.seen.setdefault("kafka", {})[topic, isolation] = line["end"]
                continue
            found = {name: value if isinstance(value, str) else bytes.fromhex(value["hex"]) for name, value in line["h"]}
            record = Message(found, _text(found.get("mid")), (topic, line["p"]), line["k"] if isinstance(line["k"], str) else "", Place(lines.file, number))
            record.offset, record.time = line["o"], line.get("ts", 0) / 1000
            if keep:
                record.content = hash(line["v"] if isinstance(line["v"], str) else json.dumps(line["v"]))
                self._keep(record)
            for each in hooks:
                each(record, line)

    def _keep(self, record: Message) -> None:
        self.log[record.where].append(record)
        self.offsets[record.where].append(record.offset)
        if record.mid in self.by_mid:
            self.again.setdefault(record.mid, []).append(record)
        elif record.mid:
            self.by_mid[record.mid] = record

    # ---- B ------------------------------------------------------------------------------------------------------------------------------------------
    def _binlog(self) -> None:
        lines = self._open("binlog", "mysql/binlog/transactions.jsonl")
        if lines is None:
            return
        hooks = self._listeners("transaction")
        files: list[str] = []
        rows = count = 0
        self.seen["binlog.files"], self.seen["binlog.end"] = files, None
        for number, line in lines:
            if "rows" in line:
                count += 1
                rows += len(line["rows"])
                tx = self._transaction(line, Place(lines.file, number))
                for each in hooks:
                    each(tx)
                self._remember(tx)
            elif "file" in line:
                files.append(line["file"])
            else:
                self.seen["binlog.end"] = line.get("end")
        self.seen["binlog.counted"] = {"transactions": count, "rows": rows}

    def _transaction(self, line: dict[str, Any], place: Place) -> Transaction:
        tx = Transaction(line["t"], line.get("at", ""), place)
        for kind, table, *images in line["rows"]:
            before = images[0] if kind != "I" else _NOTHING
            after = images[0] if kind == "I" else {**before, **images[1]} if kind == "U" else _NOTHING
            tx.changes.setdefault(table, []).append((kind, before, after))
        for table in ("outbox", "timers"):
            for kind, _, after in tx.changes.get(table, ()):
                if kind == "I":
                    tx.sent.append(self._sent(table, after, place))
        if any(after.get("settled") == "REPLAYED" for kind, _, after in tx.changes.get("dead_letters", ()) if kind == "U"):
            for each in tx.sent:
                each.moved = True  # What the relay had set aside is sent as it was, without an origin.
        for kind, before, after in tx.changes.get("positions", ()):
            if kind == "U" and before["next_offset"] != after["next_offset"]:
                advance = Advance(after["consumer_group"], after["topic"], after["part"], before["next_offset"], after["next_offset"], after["owner_epoch"])
                tx.advances.append(advance)
                tx.applied += [(advance.group, each) for each in self.between(advance.group, advance.topic, advance.part, advance.before, advance.after)]
        return tx

    def _sent(self, table: str, row: dict[str, Any], place: Place) -> Message:
        try:
            found: dict[str, Any] = dict(headers_of(bytes.fromhex(row["headers"])))
        except ValueError:
            found = {}
        message = Message(found, row["mid"], (row["topic"], row["part"]), row["k"], place)
        message.id, message.table, message.payload = row["id"], table, row["payload"]
        if table == "timers":
            self.timers.add(message.mid)
        else:
            message.moved = message.mid in self.timers
        return message

    def between(self, group: str, topic: str, part: int, first: int, end: int) -> list[Message]:
        """The records of a partition in [first, end) that the group wants."""
        where = (topic, part)
        if where not in self.log:
            return []
        offsets, log = self.offsets[where], self.log[where]
        return [each for each in log[bisect_left(offsets, first) : bisect_left(offsets, end)] if wanted(group, each.type, each.only)]

    def committed_at(self, where: tuple[str, int], offset: int) -> bool:
        """Does a read_committed reader find a record there?"""
        offsets = self.offsets.get(where, ())
        at = bisect_left(offsets, offset)
        return at < len(offsets) and offsets[at] == offset

    def records_of(self, mid: str) -> list[Message]:
        first = self.by_mid.get(mid)
        return [] if first is None else [first, *self.again.get(mid, ())]

    def foreign(self, record: Message) -> bool:
        """What no outbox row stands for: the harness's own, a copy it made, the relay's memory, and what only ends an unmarked transaction."""
        return bool(record.marked) or record.type == "Nothing" or (record.topic, record.part, record.offset) in self.published or self.base(record.topic) == "airavata-relay-state"

    def ours(self, message: Message) -> bool:
        """Of a row or a record: the product's own words, and no copy of what is foreign."""
        origins = self.records_of(str(message.origin["mid"])) if message.origin else []
        return not self.foreign(message) and not (origins and all(map(self.foreign, origins)))

    def _remember(self, tx: Transaction) -> None:
        for _, _, after in tx.changes.get("tasks", ()):
            if after:
                self.tasks[after["id"]] = (after["state"], after["attempt"], after["epoch"])
        for _, _, after in tx.changes.get("attempts", ()):
            if after:
                self.attempts[after["task_id"], after["number"]] = (after["state"], after["epoch"])
        for _, _, after in tx.changes.get("processes", ()):
            if after:
                self.processes[after["id"]] = after["state"]

    # ---- L ------------------------------------------------------------------------------------------------------------------------------------------
    def _hosts(self) -> None:
        hooks = self._listeners("host")
        for directory in sorted(path for path in (self.run / "hosts").glob("*") if path.is_dir()):
            for name in ("ledger", "control.jsonl", "files.jsonl", "watch.jsonl"):
                lines = self._open("hosts", f"hosts/{directory.name}/{name}")
                for number, line in lines or ():
                    for each in hooks:
                        each(name.split(".")[0], directory.name, line, Place(f"hosts/{directory.name}/{name}", number))
