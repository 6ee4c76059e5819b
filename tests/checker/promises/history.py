"""P13: the events we show are the events that happened."""

import json
from collections import defaultdict
from typing import Any

from tests.checker.evidence import Message
from tests.checker.reading import Place
from tests.checker.tables import role, wanted
from tests.checker.verdicts import Promise

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_MOVED = ("from_state", "to_state", "reason")


def event_id(mid: str) -> str:
    """`evt_` and 26 characters of Crockford's base 32, most significant first."""
    number = int(mid, 16)
    return "evt_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


class OneHistory(Promise):
    """`events`: shown; `experiments`; `left_out`: among the sink's dead letters."""

    number, title, counts = "P13", "one history", ("events", "experiments", "left_out")
    needs = frozenset({"tables", "kafka"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.shown: dict[str, tuple[str, int, str, Place]] = {}  # event id → experiment, seq, document, place
        self.seqs: dict[str, list[tuple[int, Place]]] = defaultdict(list)
        self.dead: set[tuple[str, int, int]] = set()
        self.order: dict[str, tuple[int, Place]] = {}  # experiment → seq of its last record
        self.happened: set[str] = set()

    def row(self, table: str, row: Any, place: Place) -> None:
        if table == "events":
            self.count("events")
            if row["event_id"] in self.shown:
                self.broken(f"{row['event_id']} is shown twice", self.shown[row["event_id"]][3], place)
            self.shown[row["event_id"]] = (row["experiment_id"], row["seq"], row["document"], place)
            self.seqs[row["experiment_id"]].append((row["seq"], place))
        elif table == "dead_letters" and role(row["consumer_group"]) == "event-sink":
            self.dead.add((row["topic"], row["part"], row["log_offset"]))

    def record(self, record: Message, line: Any) -> None:
        if self.evidence.base(record.topic) != "event-sink":
            return
        sink = next((group for group, topic, _ in self.evidence.positions if topic == record.topic and role(group) == "event-sink"), "event-sink")
        if not wanted(sink, record.type, record.only) or record.offset >= self.evidence.positions.get((sink, record.topic, record.part), 0):
            return  # Not for it, or not read yet: P2's.
        if (record.topic, record.part, record.offset) in self.dead:
            self.count("left_out")
            return
        mid = str(record.origin["mid"]) if record.origin else record.mid
        found = event_id(mid) if len(mid) == 32 else ""
        if found in self.happened:
            return  # A copy.
        self.happened.add(found)
        event = self.shown.get(found)
        if event is None:
            self.missing(f"{record.type} {found} of {record.experiment} was told at {record.topic}[{record.part}]@{record.offset} and is not in the history", record.place)
            return
        experiment, seq, document, place = event
        before = self.order.get(experiment)
        if before is not None and seq < before[0]:
            self.broken(f"{found} has seq {seq}, and what was told before it has {before[0]}", before[1], place, record.place)
        self.order[experiment] = (seq, place)
        if experiment != record.experiment or not _alike(record, line["v"], document):
            self.broken(f"{found} is shown otherwise than it was told", place, record.place)

    def conclude(self) -> None:
        self.count("experiments", len(self.seqs))
        for experiment, seqs in self.seqs.items():
            seqs.sort()
            for expected, (seq, place) in enumerate(seqs, 1):
                if seq != expected:
                    self.broken(f"{experiment}: seq {seq} stands where {expected} must", place)
                    break
        for found, (_, _, _, place) in self.shown.items():
            if found not in self.happened:
                self.missing(f"{found} is shown and was never told", place)


def _alike(record: Message, payload: Any, document: str) -> bool:
    """Every field of the payload stands in the document, the moves at its top, the rest under `data`; and the subject is the same."""
    told, shown = json.loads(payload), json.loads(document)
    data = shown.get("data") or {}
    subject = (shown.get("type"), shown.get("process_id"), shown.get("task_id") or "", shown.get("attempt") or 0, shown.get("epoch") or 0)
    if subject != (record.type, record.process, record.task, record.attempt, record.epoch):
        return False
    return all((shown.get(name) or "") == (value or "") if name in _MOVED else data.get(name) == value for name, value in told.items())
