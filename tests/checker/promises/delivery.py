"""P7 P11 P12 P15 P16: messages between outbox, topics, positions and dead letters."""

from collections import defaultdict
from typing import Any

from tests.checker.evidence import Advance, Message, Transaction
from tests.checker.reading import Place
from tests.checker.tables import FACTS, UNIT_OF, message_move, role
from tests.checker.verdicts import Promise


class AppliedOnce(Promise):
    """`records`: applied, group by group; `copies`: records published again by a nemesis, and deliveries that a journal calls late; `effects`: rows with a cause."""

    number, title, counts = "P7", "applied once", ("records", "effects", "copies")
    needs = frozenset({"binlog", "kafka", "tables"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.reached: dict[tuple[str, str, int], tuple[int, Place]] = {}
        self.caused: dict[tuple[str, str], Place] = {}
        self.violations: list[tuple[Any, Place]] = []
        self.forgotten: dict[str, list[float]] = {}  # N30, by fault: from when to when Kafka's memory was taken from the relays, who must refuse then.

    def fault(self, line: Any, place: Place) -> None:
        if line["kind"] == "fault.start" and line.get("fault_kind") == "N30":
            self.forgotten.setdefault(line["fault"], [line["mono"], float("inf")])
        elif line["kind"] == "fault.end" and line["fault"] in self.forgotten:
            self.forgotten[line["fault"]][1] = line["healed"]

    def conclude(self) -> None:
        for line, place in self.violations:
            if line.get("what") != "relay_state" or not any(since <= line["mono"] <= until for since, until in self.forgotten.values()):
                self.broken(f"{line.get('who')} saw a violation: {str(line)[:200]}", place)

    def journal(self, line: Any, place: Place) -> None:
        self.count("copies", line["kind"] == "late")
        if line["kind"] == "violation":
            self.violations.append((line, place))

    def record(self, record: Message, line: Any) -> None:
        self.count("copies", bool(record.marked))

    def transaction(self, tx: Transaction) -> None:
        for advance in tx.advances:
            self._tile(advance, tx.place)
        if tx.applied:
            self.count("records", len(tx.applied))
            self._left_out(tx)
        for each in tx.fresh:
            if each.cause and each.unit:
                self._effect(each, tx)

    def _tile(self, advance: Advance, place: Place) -> None:
        """What one transaction moves over begins where the last one ended."""
        key = advance[:3]
        end, before = self.reached.get(key, (advance.before, place))
        if advance.topic not in self.evidence.renewed and (advance.before != end or advance.after < advance.before):
            text = f"{role(advance.group)}'s position of {advance.topic}[{advance.part}] goes {advance.before} → {advance.after} after it stood at {end}"
            self.broken(text, *({before, place}))
        self.reached[key] = (advance.after, place)

    def _effect(self, message: Message, tx: Transaction) -> None:
        """A row with cause m stands in the very transaction that moved over m, and in no other of that unit."""
        unit = message.unit.partition(".")[0]
        records = self.evidence.records_of(message.cause)
        if unit not in UNIT_OF.values() or unit == "api" or not records:
            return
        self.count("effects")
        first = self.caused.setdefault((unit, message.cause), tx.place)
        if first != tx.place:
            self.broken(f"{message.unit} applied {records[0].type} {message.cause} twice", first, tx.place, records[0].place)
        elif not any(UNIT_OF[role(group)] == unit and record.mid == message.cause for group, record in tx.applied):
            self.broken(f"{message.unit} wrote {message.type} because of {records[0].type} {message.cause}, and moved no position over it", tx.place, records[0].place)

    def _left_out(self, tx: Transaction) -> None:
        """A record that the state of its task or process asks for must leave something in the transaction that moves over it."""
        causes = {each.cause for each in tx.fresh}
        moved = {after["id"] for table in ("tasks", "processes") for _, before, after in tx.changes.get(table, ()) if after and _asks(after) != _asks(before)}
        aside = {(letter["topic"], letter["part"], letter["log_offset"]) for kind, _, letter in tx.changes.get("dead_letters", ()) if kind == "I"}
        copied = {str(each.origin.get("mid")) for each in tx.copies if each.origin}
        for group, record in tx.applied:
            if record.mid in causes or record.marked or not self._asked(role(group), record):
                continue
            subject = record.task or record.process
            named = record.origin.get("mid") if record.origin else record.mid
            if subject not in moved and named not in copied and (record.topic, record.part, record.offset) not in aside:
                self.broken(f"{role(group)} moved over {record.type} of {subject} at {record.topic}[{record.part}]@{record.offset} without applying it", record.place, tx.place)

    def _asked(self, group: str, record: Message) -> bool:
        """Would the tables have it move something now, as the rows stood before this transaction?"""
        if group == "task-scheduler" and record.type in FACTS | {"RetryDue"}:
            state, attempt, epoch = self.evidence.tasks.get(record.task, ("", 0, 0))
            return (attempt, epoch) == (record.attempt, record.epoch) and message_move(state, record.type) == "move"
        if group == "task-scheduler" and record.type == "ProcessPlanned":
            return self.evidence.processes.get(record.process) in {"CREATED", "VALIDATED"}
        if group == "executor":
            return self.evidence.attempts.get((record.task, record.attempt)) == ("DISPATCHED", record.epoch)
        return group == "workflow-generator" and self.evidence.processes.get(record.process) == "CREATED"


def _asks(row: Any) -> tuple[Any, ...]:
    """What facts are compared with. The net of one transaction: an attempt that was begun and given away in one batch is where it was, at a newer epoch."""
    return row.get("state"), row.get("attempt"), row.get("epoch")


class OutboxConserved(Promise):
    """`rows`: inserted; `records`; `dead`: rows that Kafka never took; `left`: rows that still wait."""

    number, title, counts = "P11", "the outbox is conserved", ("rows", "records", "dead", "left")
    needs = frozenset({"binlog", "kafka", "tables"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.left: set[str] = set()
        self.dead: set[str] = set()
        self.inserted: dict[str, Place] = {}
        self.baseline: set[str] = set()
        self.deleted: dict[str, Place] = {}

    def row(self, table: str, row: Any, place: Place) -> None:
        if table == "outbox":
            self.left.add(row["mid"])
            self.count("left")
        elif table == "dead_letters" and row["consumer_group"] == "relay":
            self.dead.add(row["mid"])
            self.count("dead")

    def transaction(self, tx: Transaction) -> None:
        for kind, before, after in tx.changes.get("outbox", ()):
            if kind == "I":
                self._inserted(after, tx.place)
            elif kind == "D":
                self.deleted[before["mid"]] = tx.place
                if before["mid"] not in self.inserted:
                    self.baseline.add(before["mid"])
            else:
                self.broken(f"an outbox row was changed: {before['mid']}", tx.place)

    def _inserted(self, row: Any, place: Place) -> None:
        self.count("rows")
        mid = row["mid"]
        if mid in self.inserted and not self._of_a_nemesis(mid):
            self.broken(f"{mid} was put into the outbox twice", self.inserted[mid], place)
        self.inserted[mid] = place
        for record in self.evidence.records_of(mid):
            if record.marked:
                continue
            if (record.topic, record.part) != (row["topic"], row["part"]):
                self.broken(f"{mid} was written for {row['topic']}[{row['part']}] and lies in {record.topic}[{record.part}]", place, record.place)
            elif record.content != hash(bytes.fromhex(row["payload"]).decode(errors="replace")):
                self.broken(f"{mid} has another payload in {record.topic}[{record.part}]@{record.offset} than in the outbox", place, record.place)

    def _of_a_nemesis(self, mid: str) -> bool:
        """What became of poison that was given twice is there twice."""
        records = self.evidence.records_of(mid)
        return bool(records) and not any(map(self.evidence.ours, records))

    def conclude(self) -> None:
        for mid, place in self.inserted.items():
            record = self.evidence.by_mid.get(mid)
            ways = (record is not None) + (mid in self.dead)
            if not ways and mid not in self.left:
                deleted = self.deleted.get(mid)
                self.missing(f"{mid} was committed, {'was deleted' if deleted else 'is gone'}, and is in no topic and no dead letter", place, deleted)
            elif ways > 1:
                self.broken(f"{mid} is in a topic and among the dead letters", place, record.place if record else None)
        for mid in self.evidence.again:
            several = [each for each in self.evidence.records_of(mid) if self.evidence.ours(each)]
            if len(several) > 1:
                self.broken(f"{mid} ({several[0].type}) is visible {len(several)} times", *(each.place for each in several[:2]))
        for log in self.evidence.log.values():
            for record in log:
                if self.evidence.foreign(record):
                    continue
                self.count("records")
                if record.mid not in self.inserted and record.mid not in self.baseline:
                    self.missing(f"a record without a row: {record.type} {record.mid} at {record.topic}[{record.part}]@{record.offset}", record.place)


class OrderWithinKey(Promise):
    """`keys`: with at least two messages under one lock; `records`."""

    number, title, counts = "P12", "order within a key", ("keys", "records")
    needs = frozenset({"binlog", "kafka"})
    _LOCK = {"submit": "executor", "watch": "executor"}  # The attempt's row; the scheduler locks the process.

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.ordered: dict[str, tuple[int, Place]] = {}

    def transaction(self, tx: Transaction) -> None:
        for each in tx.fresh:
            unit = each.unit.partition(".")[0]
            if each.table == "outbox" and unit in {"api", "generator", "scheduler", "executor", "submit", "watch"}:
                self.ordered[each.mid] = (each.id, tx.place)

    def conclude(self) -> None:
        several: set[Any] = set()
        for log in self.evidence.log.values():
            last: dict[tuple[str, str], tuple[int, Message]] = {}
            for record in log:
                row = self.ordered.get(record.mid)
                if row is None or record.marked:
                    continue
                unit = record.unit.partition(".")[0]
                key = (record.key, self._LOCK.get(unit, unit))
                before = last.get(key)
                self.count("records")
                if before is not None:
                    several.add((record.topic, *key))
                    if before[0] > row[0]:
                        self.broken(
                            f"{record.type} (row {row[0]}) lies behind {before[1].type} (row {before[0]}) of key {record.key} in {record.topic}[{record.part}]", before[1].place, record.place,
                            self.ordered[before[1].mid][1], row[1],
                        )  # fmt: skip
                last[key] = (row[0], record)
        self.count("keys", len(several))


class SetAside(Promise):
    """`set_aside`: copies and dead letters; `dead`; `aborted`: records that only a read_uncommitted reader sees; `replayed`."""

    number, title, counts = "P15", "set aside, not lost", ("set_aside", "dead", "aborted", "replayed")
    needs = frozenset({"binlog", "kafka", "tables"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.successors: dict[tuple[Any, ...], list[Place]] = defaultdict(list)
        self.aborted: dict[str, Message] = {}
        self.aborted_at: dict[tuple[str, int, int], Message] = {}

    def uncommitted(self, record: Message, line: Any) -> None:
        if self.evidence.committed_at(record.where, record.offset):
            return
        self.count("aborted")
        self.aborted_at[record.topic, record.part, record.offset] = record
        if record.mid and record.mid not in self.evidence.by_mid:
            self.aborted[record.mid] = record

    def transaction(self, tx: Transaction) -> None:
        for kind, before, after in tx.changes.get("dead_letters", ()):
            if kind == "I" and after["log_offset"] is not None:
                self._dead(after, tx)
            elif kind == "U":
                self.count("replayed", after["settled"] == "REPLAYED" and before["settled"] is None)
        for each in tx.copies:
            if each.only and each.table == "timers":
                self._copied(each, tx)
        for each in tx.fresh:
            if each.cause in self.aborted:
                self.broken(f"{each.unit} applied {each.cause}, which was never committed to Kafka", self.aborted[each.cause].place, tx.place)

    def _dead(self, letter: Any, tx: Transaction) -> None:
        where = (letter["topic"], letter["part"], letter["log_offset"])
        self.count("set_aside")
        self.count("dead")
        self.successors[letter["consumer_group"], *where].append(tx.place)
        if where in self.aborted_at:
            self.broken(f"an aborted record became a dead letter: {where}", self.aborted_at[where].place, tx.place)
        if not _over(tx, letter["consumer_group"], *where):
            self.broken(f"{letter['consumer_group']} set {where[0]}[{where[1]}]@{where[2]} aside in a transaction that did not move over it", tx.place)

    def _copied(self, copy: Message, tx: Transaction) -> None:
        """The copy's predecessor: the origin, or the copy of one try less."""
        assert copy.origin is not None
        self.count("set_aside")
        mid, tries = str(copy.origin["mid"]), int(copy.origin.get("tries", 1))
        places = {(record.topic, record.part, record.offset) for group, record in tx.applied if group == copy.only and _tries(record, mid) == tries - 1}
        if tries == 1:
            places |= {(copy.origin["topic"], copy.origin["partition"], copy.origin["offset"])}
        over = sorted(each for each in places if _over(tx, copy.only, *each))
        if not over:
            self.broken(f"{copy.only} sent a copy of {mid} (try {tries}) in a transaction that did not move over what it copies", tx.place)
        for each in [place for place in over if not self.successors.get((copy.only, *place))][:1] or over[:1]:  # A record may be there twice, and each copy of it is set aside.
            self.successors[copy.only, *each].append(tx.place)

    def conclude(self) -> None:
        for (group, topic, part, offset), places in self.successors.items():
            if len(places) > 1:
                self.broken(f"{topic}[{part}]@{offset} has {len(places)} successors in {group}", *places[:2])


def _tries(record: Message, mid: str) -> int:
    """How often this record is a copy of `mid`: 0 for itself, -1 for a stranger."""
    if record.origin is None:
        return 0 if record.mid == mid else -1
    return int(record.origin.get("tries", 1)) if record.origin.get("mid") == mid else -1


def _over(tx: Transaction, group: str, topic: str, part: int, offset: int) -> bool:
    return any(each.group == group and (each.topic, each.part) == (topic, part) and each.before <= offset < each.after for each in tx.advances)


class NoTornStep(Promise):
    """`unknown`: units whose COMMIT had no answer; `lost_answers`: those that a nemesis counted; `committed`, `rolled_back`: as journals claim; `steps`: in B; `looked_up`: claims compared with B."""

    number, title, counts = "P16", "no torn step", ("unknown", "lost_answers", "committed", "rolled_back", "steps", "looked_up")
    needs = frozenset({"binlog", "journal"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.claims: dict[str, tuple[str, list[str], Place]] = {}  # step → outcome, messages out, place
        self.steps: dict[str, Place] = {}
        self.written: dict[str, set[Place]] = defaultdict(set)  # mid → the transactions that wrote it: a timer is written twice
        self.told: dict[tuple[str, str, int, int], tuple[int, Place]] = {}  # group, topic, partition, epoch → the position that its claim was told

    def fault(self, line: Any, place: Place) -> None:
        self.count("lost_answers", int((line.get("evidence") or {}).get("commit_answers_lost", 0)))

    def journal(self, line: Any, place: Place) -> None:
        if line["kind"] == "partition.claim":
            self.told[line["group"], line["topic"], line["partition"], line["epoch"]] = (line["next_offset"], place)
        if line["kind"] != "unit.end":
            return
        outcome, step = line["outcome"], str(line["step"])
        if outcome in self.counts:
            self.count(outcome)
        before = self.claims.get(step)
        self.claims[step] = (outcome, [*(before[1] if before else ()), *line.get("out", ())], place)

    def _looked_up(self, tx: Transaction) -> None:
        """C0 is the look at the witness of a COMMIT without an answer: under its lock it reads the position as it stands."""
        for kind, before, after in tx.changes.get("positions", ()):
            if kind == "U" and after["owner_epoch"] > before["owner_epoch"]:
                found = self.told.get((after["consumer_group"], after["topic"], after["part"], after["owner_epoch"]))
                if found is not None:
                    self.count("looked_up")
                    if found[0] != after["next_offset"]:
                        self.broken(f"the claim of {after['topic']}[{after['part']}] with epoch {after['owner_epoch']} was told {found[0]}; the row stood at {after['next_offset']}", found[1], tx.place)

    def transaction(self, tx: Transaction) -> None:
        self._looked_up(tx)
        named = {f"{each.unit}#{each.step}" for each in tx.sent if each.step and not each.moved}
        if len(named) > 1:
            self.broken(f"one transaction holds messages of several steps: {', '.join(sorted(named))}", tx.place)
        for step in named:
            self.count("steps")
            if step in self.steps:
                self.broken(f"step {step} is in two transactions", self.steps[step], tx.place)
            self.steps.setdefault(step, tx.place)
        for each in tx.sent:
            self.written[each.mid].add(tx.place)

    def conclude(self) -> None:
        for step, (outcome, out, place) in self.claims.items():
            there = self.steps.get(step)
            if outcome == "committed" and out:
                self._committed(step, out, there, place)
            elif outcome in {"rolled_back", "fenced"} and there is not None:
                self.broken(f"{step} says it was {outcome}, and its transaction is there", place, there)

    def _committed(self, step: str, out: list[str], there: Place | None, place: Place) -> None:
        """All its messages stand in one transaction."""
        lost = [mid for mid in out if mid not in self.written]
        if lost and there is None:
            self.missing(f"{step} says it committed, and no transaction has it", place)
        elif lost:
            self.missing(f"{step} says it committed {len(out)} messages, and {len(lost)} of them are nowhere", place, there)
        elif not set.intersection(*(self.written[mid] for mid in out), *([{there}] if there else [])):
            self.broken(f"what {step} committed is spread over several transactions", place, *{each for mid in out for each in self.written[mid]})
