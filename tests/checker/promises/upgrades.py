"""P26: two releases work side by side, and roll forward and back."""

from typing import Any

from tests.checker.evidence import Message, Transaction
from tests.checker.reading import Place
from tests.checker.verdicts import Promise

_REFUSED = 78  # The exit code of a process that will not run with what it found.


class UpgradesSafe(Promise):
    """`to_older`, `to_newer`: records written by a life of one release and applied by one of the other; `forward`, `back`: replacements while both lived; `messages`: whose
    schema version was compared.

    A life counts if its own journal names the release that the harness saw it run. Who wrote and who applied say the step ids in records and binary log, each claimed by the journal
    of one life; both lived if the one that went has lines before and after the first of the one that came. Convicted is a message of ours that a reader of ours could not read, one
    of a schema version beyond what the older release reads (no roll raises AIRAVATA_COMPATIBILITY), and a life that refused to run beside the others. The rest is P1–P18 over the
    same run: if one of them is not held, this is undecided. Not decided: that the schema was expanded under load; a roll begins on the newer one.
    """

    number, title, counts = "P26", "upgrades are safe", ("to_older", "to_newer", "forward", "back", "messages")
    needs = frozenset({"nemesis", "journal", "binlog", "kafka"})
    rests_on = frozenset(f"P{n}" for n in range(1, 19))

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.reads: dict[str, int] = {}  # version → the newest schema version it reads; the older release first
        self.seen: dict[str, str] = {}  # life → version, as the harness saw it
        self.replaced: list[tuple[str, str]] = []  # the lives that went and came
        self.lived: dict[str, list[float]] = {}  # life → its first and last line
        self.steps: dict[str, str] = {}  # step → version of the life that claims it

    def fault(self, line: Any, place: Place) -> None:
        if line["kind"] == "releases":
            self.reads = {each["version"]: each["reads"] for each in (line["older"], line["newer"])}
        told = {name: each for name, each in (line.get("evidence") or {}).items() if name in {"went", "came", "was", "is"} and isinstance(each, dict)}
        self.seen.update((each["life"], each["version"]) for each in told.values())
        if {"went", "came"} <= told.keys():
            self.replaced.append((told["went"]["life"], told["came"]["life"]))

    def journal(self, line: Any, place: Place) -> None:
        life, version = line["life"], self.seen.get(line["life"], "")
        if self.reads and line["kind"] == "life.stop" and line.get("code") == _REFUSED:
            self.broken(f"{line['who']} refused to run beside another release: {line.get('why')}", place)
        if line["kind"] == "life.start" and version in self.reads and line.get("version") == version:
            self.lived[life] = [line["mono"], line["mono"]]
        if life in self.lived:
            self.lived[life][1] = line["mono"]
            if line["kind"] == "unit.end":
                self.steps[str(line["step"])] = version

    def transaction(self, tx: Transaction) -> None:
        for letter in (after for kind, _, after in tx.changes.get("dead_letters", ()) if kind == "I"):
            if letter.get("error_class") == "Unreadable":
                self._unread(self.evidence.records_of(letter["mid"]), letter["consumer_group"], tx)
        for copy in tx.copies:
            if str((copy.origin or {}).get("error")).startswith("Unreadable"):
                self._unread([copy], copy.only, tx)
        applied = next((self.steps[step] for each in tx.sent if not each.moved and (step := _step(each)) in self.steps), None)
        if applied is None:
            return
        older = next(iter(self.reads))
        for _, record in tx.applied:
            written = self.steps.get(_step(record), applied)
            self.count("to_older" if applied == older else "to_newer", written != applied)

    def _unread(self, records: list[Message], group: str, tx: Transaction) -> None:
        for each in records:
            if self.evidence.ours(each):
                self.broken(f"{group} could not read {each.type} {each.mid} of {each.unit}, schema version {each.version}", each.place, tx.place)
                return

    def conclude(self) -> None:
        if len(self.reads) < 2:
            return
        (older, least), (newer, _) = self.reads.items()
        for log in self.evidence.log.values():
            for record in log:
                if record.version and self.evidence.ours(record):
                    self.count("messages")
                    if record.version > least:
                        self.broken(f"{record.type} {record.mid} of {record.unit} has schema version {record.version}, release {older} reads {least}", record.place)
        for went, came in self.replaced:
            if went in self.lived and came in self.lived and self.lived[went][0] < self.lived[came][0] < self.lived[went][1]:
                self.count("forward", (self.seen[went], self.seen[came]) == (older, newer))
                self.count("back", (self.seen[went], self.seen[came]) == (newer, older))


def _step(message: Message) -> str:
    return f"{message.unit}#{message.step}"
