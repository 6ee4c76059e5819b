"""P1 P2 P3 P21 P23: what clients were told, against what the database did and how it stands at the end."""

import json
from collections import defaultdict
from typing import Any

from tests.checker.evidence import Transaction
from tests.checker.reading import Place
from tests.checker.tables import role, terminal
from tests.checker.verdicts import Promise


class Accepted(Promise):
    """`launches`: answered 2xx; `unknown`: without an answer; `transactions`: launches in B."""

    number, title, counts = "P1", "accepted is durable", ("launches", "unknown", "transactions")
    needs = frozenset({"client", "binlog", "tables"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.accepted: dict[str, Place] = {}
        self.launched: dict[str, Place] = {}
        self.there: set[str] = set()

    def answered(self, asked: Any, at: Place, line: Any, place: Place) -> None:
        if asked.get("operation") == "launch":
            self.count("launches", line["outcome"] == "ok")
            self.count("unknown", line["outcome"] == "unknown")
            if line["outcome"] == "ok" and line.get("experiment"):
                self.accepted.setdefault(line["experiment"], place)

    def row(self, table: str, row: Any, place: Place) -> None:
        if table == "experiments":
            self.there.add(row["id"])

    def transaction(self, tx: Transaction) -> None:
        launched = [after["id"] for _, before, after in tx.changes.get("experiments", ()) if after and after["state"] == "LAUNCHED" and before.get("state") != "LAUNCHED"]
        messages = [each.experiment for each in tx.fresh if each.type == "ExperimentLaunched" and each.unit.startswith("api")]
        born = [after["experiment_id"] for kind, _, after in tx.changes.get("processes", ()) if kind == "I"]
        for experiment in {*launched, *messages, *born}:
            self.count("transactions")
            halves = (launched.count(experiment), messages.count(experiment), born.count(experiment))
            if halves != (1, 1, 1):
                self.broken(f"a launch of {experiment} is half there: {halves[0]} moves to LAUNCHED, {halves[1]} launch messages, {halves[2]} processes in one transaction", tx.place)
            if experiment in self.launched:
                self.broken(f"{experiment} was launched twice", self.launched[experiment], tx.place)
            self.launched[experiment] = tx.place

    def conclude(self) -> None:
        self.count("unknown", sum(asked.get("operation") == "launch" for asked, _ in self.evidence.asked.values()))
        for experiment, place in self.accepted.items():
            if experiment not in self.launched:
                self.missing(f"{experiment} was accepted, and no transaction launched it", place)
            elif experiment not in self.there:
                self.missing(f"{experiment} was accepted and launched, and is not there at the end", place, self.launched[experiment])


class Ended(Promise):
    """`experiments`: launched ones at the end; `tasks`; `blocked`: tasks held by a condition that the plan leaves in place."""

    number, title, counts = "P2", "everything ends", ("experiments", "tasks", "blocked")
    needs = frozenset({"tables", "kafka", "nemesis"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.left = frozenset(evidence.plan.get("left_in_place") or ())
        self.quiet: dict[str, Any] | None = None
        self.quiet_place: Place | None = None
        self.healed = False
        self.open: list[tuple[str, str, str, Place]] = []  # table, process or experiment, text, place
        self.excused: set[str] = set()  # processes with a blocked task
        self.owners: dict[str, str] = {}  # experiment → process
        self.due: list[tuple[str, Place]] = []

    def fault(self, line: Any, place: Place) -> None:
        if line["kind"] == "quiet":
            self.quiet, self.quiet_place = line, place
        self.healed |= line["kind"] == "healed"

    def row(self, table: str, row: Any, place: Place) -> None:
        if table == "experiments":
            launched = row["state"] not in {"CREATED", "VALIDATED"}
            self.count("experiments", launched)
            self.owners[row["id"]] = row.get("process_id") or ""
            if launched and not terminal(table, row["state"]):
                self.open.append((table, row["id"], f"experiment {row['id']} is {row['state']}", place))
        elif table == "processes" and not terminal(table, row["state"]):
            self.open.append((table, row["id"], f"process {row['id']} is {row['state']}", place))
        elif table == "tasks":
            self.count("tasks")
            if row["state"] == "BLOCKED" and _condition(row) in self.left:
                self.count("blocked")
                self.excused.add(row["process_id"])
            elif not terminal(table, row["state"]):
                self.open.append((table, row["process_id"], f"task {row['id']} is {row['state']}: {row['reason']}", place))
        elif table == "attempts" and not terminal(table, row["state"]):
            self.open.append((table, row["process_id"], f"attempt {row['id']} is {row['state']}", place))
        elif table == "outbox":
            self.missing(f"a message still waits in the outbox: {row['topic']} {row['mid']}", place)
        elif table == "timers":
            self.due.append((row["due_at"], place))

    def conclude(self) -> None:
        if self.quiet is None or not self.healed:
            self.doubt("the nemesis did not say that all was healed, or nobody asked whether it was quiet")
            return
        if not self.quiet.get("quiet"):
            self.broken(f"it never got quiet: {str(self.quiet.get('open'))[:300]}", self.quiet_place)
        for table, owner, text, place in self.open:
            process = self.owners.get(owner, owner) if table == "experiments" else owner
            held = process in self.excused and (table != "tasks" or "is CREATED" in text)
            if not held:
                self.missing(f"{text} after everything was healed and quiet", place)
        line = str(self.quiet.get("wall", "")).replace("T", " ").rstrip("Z")
        for due_at, place in self.due:
            if line and due_at < line:
                self.missing(f"a timer that was due at {due_at} never moved; it was quiet at {line}", place)
        self._read_to_the_end()

    def _read_to_the_end(self) -> None:
        for (group, topic, part), position in self.evidence.positions.items():
            log = self.evidence.log.get((topic, part))
            if log and log[-1].offset >= position:
                for each in self.evidence.between(group, topic, part, position, log[-1].offset + 1)[:1]:
                    self.missing(f"{role(group)} stands at {position} of {topic}[{part}] and never read {each.type or 'a record'} at {each.offset}", each.place)


def _condition(task: Any) -> str:
    failure = json.loads(task["failure"]) if task.get("failure") else {}
    return str(failure.get("condition") or "")


class OneKey(Promise):
    """`keys`: tenant and key with more than one answer; `launches`; `refused`: answers that the key had been used for another body."""

    number, title, counts = "P3", "one key, one launch", ("keys", "launches", "refused")
    needs = frozenset({"client", "tables"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.answers: dict[tuple[str, str], list[tuple[str, str, Place]]] = defaultdict(list)
        self.processes: dict[str, list[Place]] = defaultdict(list)

    def answered(self, asked: Any, at: Place, line: Any, place: Place) -> None:
        if asked.get("operation") != "launch" or not asked.get("key"):
            return
        if line["outcome"] == "ok":
            self.answers[asked["tenant"], asked["key"]].append((str(line.get("experiment")), str(asked.get("body_sha256")), place))
        self.count("refused", line.get("code") == "idempotency_key_reused")

    def row(self, table: str, row: Any, place: Place) -> None:
        if table == "processes":
            self.processes[row["experiment_id"]].append(place)

    def conclude(self) -> None:
        for (tenant, key), answers in self.answers.items():
            self.count("launches")
            self.count("keys", len(answers) > 1)
            first = answers[0]
            for experiment, body, place in answers[1:]:
                if experiment != first[0]:
                    self.broken(f"{tenant} sent key {key} again and got {experiment} after {first[0]}", first[2], place)
                elif body != first[1]:
                    self.broken(f"{tenant} sent key {key} with two bodies, and both were accepted", first[2], place)
        for experiment, places in self.processes.items():
            if len(places) > 1:
                self.broken(f"{experiment} has {len(places)} processes for one launch", *places[:2])


UNAVAILABLE = (503, "unavailable")  # While a store is away nobody is told whether a request was good; whoever asked asks again.


class Refused(Promise):
    """`refusals`: bad requests whose answer was told beforehand."""

    number, title, counts = "P21", "clean refusal", ("refusals",)
    needs = frozenset({"client", "binlog"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.markers: dict[str, Place] = {}

    def invoked(self, line: Any, place: Place) -> None:
        if line.get("expect") and line.get("marker"):
            self.markers[str(line["marker"])] = place

    def answered(self, asked: Any, at: Place, line: Any, place: Place) -> None:
        wants = asked.get("expect")
        if not wants or line["outcome"] == "unknown" or (line["status"], line.get("code")) == UNAVAILABLE:
            return
        self.count("refusals", line["outcome"] == "refused")
        if line["status"] not in wants["status"] or (wants.get("code") and line.get("code") != wants["code"]):
            self.broken(f"{asked['operation']} was answered {line['status']} {line.get('code')}, not {wants['status']} {wants.get('code')}", at, place)
        if asked.get("deadline_ms") and (line["mono"] - asked["mono"]) * 1000 > asked["deadline_ms"]:
            self.broken(f"{asked['operation']} was answered after {line['mono'] - asked['mono']:.1f} s", at, place)

    def transaction(self, tx: Transaction) -> None:
        if not self.markers:
            return
        texts = [value for changes in tx.changes.values() for _, _, after in changes for value in after.values() if isinstance(value, str)]
        for marker, place in self.markers.items():
            for _ in (text for text in texts if marker in text or marker.encode().hex() in text):
                self.broken(f"a refused request left a row: {marker}", place, tx.place)


class NoGoingBack(Promise):
    """`reads`: versions seen by a session after another of the same experiment."""

    number, title, counts = "P23", "no going back", ("reads",)
    needs = frozenset({"client"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.seen: dict[tuple[str, str], list[tuple[float, int, Place]]] = defaultdict(list)

    def answered(self, asked: Any, at: Place, line: Any, place: Place) -> None:
        """Reads alone: a launch that is repeated under its key is answered as it was the first time."""
        if asked.get("operation") != "read" or line["outcome"] != "ok" or not line.get("experiment") or not isinstance(line.get("version"), int):
            return
        session = str(asked.get("session"))
        before = self.seen[session, line["experiment"]]
        for ended, version, seen_at in before[-50:]:
            if ended <= asked["mono"] and version > line["version"]:  # Only answers that were there before this was asked.
                self.broken(f"session {session} saw {line['experiment']} at version {version}, then at {line['version']}", seen_at, place)
        self.count("reads", bool(before))
        before.append((line["mono"], line["version"], place))
