"""P5 P6 P8: every row change of experiments, processes, tasks, attempts and jobs, against the tables of domain.md, in commit order."""

from collections import defaultdict
from typing import Any

from tests.checker.evidence import Message, Transaction
from tests.checker.reading import Place
from tests.checker.tables import CHANGED, FIRST, STATES, terminal, writers
from tests.checker.verdicts import Promise

_SUBJECT = {"experiments": "experiment", "processes": "process", "tasks": "task"}


class LegalMoves(Promise):
    """`moves`: changes of a state column; `units`: those whose writer is told by a message of the same transaction."""

    number, title, counts = "P5", "only legal moves, by their one writer", ("moves", "units")
    needs = frozenset({"binlog"})

    def transaction(self, tx: Transaction) -> None:
        tables = [table for table in STATES if table in tx.changes]
        if not tables:
            return
        steps = _steps(tx)
        units = {each.unit.partition(".")[0] for each in tx.fresh}
        for table in tables:
            for kind, before, after in _net(tx, table):
                if kind == "D":
                    self.broken(f"a row of {table} was deleted: {before['id']}", tx.place)
                    continue
                self._version(table, kind, before, after, tx.place)
                if kind == "I" or before["state"] != after["state"]:
                    self.count("moves")
                    self._move(table, before.get("state"), after, steps, tx.place)
                    self._writer(table, after, units, tx.place)

    def _version(self, table: str, kind: str, before: Any, after: Any, place: Place) -> None:
        if kind != "U" or "version" not in after:
            return
        rise = after["version"] - before["version"]
        if rise not in {0, 1} or (rise == 0 and before["state"] != after["state"]):
            self.broken(f"{after['id']} {before['state']} → {after['state']}: version {before['version']} → {after['version']}", place)

    def _move(self, table: str, old: str | None, after: Any, steps: dict[tuple[str, str], list[tuple[str, str]]], place: Place) -> None:
        """Through the moves that the transaction itself tells, where it tells them: two in one transaction are one row change."""
        new, state = after["state"], old
        told = steps.get((table, after["id"]), [])
        if old is None:
            if new not in FIRST[table]:
                self.broken(f"{after['id']} was born {new}", place)
            return
        for begin, end in told:
            if begin != state or end not in STATES[table].get(begin, frozenset()):
                self.broken(f"{after['id']} is said to go {begin} → {end} while {state}: no such move", place)
                return
            state = end
        if told and state != new:
            self.broken(f"{after['id']} is said to end {state}, its row says {new}", place)
        elif not told and new not in STATES[table].get(old, frozenset()):
            self.broken(f"{after['id']} went {old} → {new}: no such move", place)

    def _writer(self, table: str, after: Any, units: set[str], place: Place) -> None:
        allowed = writers(table, after["state"])
        self.count("units", bool(units))
        if not (units & set(allowed) or (not units and "" in allowed)):
            who = ", ".join(sorted(units)) or "a unit that tells no message"
            self.broken(f"{after['id']} was moved to {after['state']} by {who}, not by {' or '.join(filter(None, allowed))}", place)


def _net(tx: Transaction, table: str) -> list[tuple[str, Any, Any]]:
    """First before and last after of each row: several statements of one transaction are one change."""
    found: dict[str, tuple[str, Any, Any]] = {}
    for kind, before, after in tx.changes[table]:
        key = (after or before)["id"]
        first = found.get(key)
        found[key] = (kind, before, after) if first is None else ("I" if first[0] == "I" else kind, first[1], after)
    return list(found.values())


def _steps(tx: Transaction) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """(table, id) → the moves that messages of this transaction tell, in their order."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for each in tx.fresh:
        for table, kind in CHANGED.items():
            if each.type == kind and table in _SUBJECT:
                body = each.body
                found[table, getattr(each, _SUBJECT[table])].append((body["from_state"], body["to_state"]))
    return found


class GraphObeyed(Promise):
    """`dispatches`: commands given; `joins`: those of tasks with several predecessors."""

    number, title, counts = "P6", "the graph is obeyed", ("dispatches", "joins")
    needs = frozenset({"binlog"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.before: dict[str, list[tuple[str, str]]] = defaultdict(list)  # task → (predecessor, SUCCESS or ENDED)
        self.state: dict[str, tuple[str, Place]] = {}
        self.given: dict[tuple[str, int, int], Place] = {}

    def transaction(self, tx: Transaction) -> None:
        for kind, _, after in tx.changes.get("edges", ()):
            if kind == "I":
                self.before[after["to_task"]].append((after["from_task"], after["on_end"]))
        for _, _, after in tx.changes.get("tasks", ()):
            if after:
                self.state[after["id"]] = (after["state"], tx.place)
        for each in tx.fresh:
            if each.type == "RunTask":
                self._dispatched(each)

    def _dispatched(self, order: Message) -> None:
        key = (order.task, order.attempt, order.epoch)
        if key in self.given:
            self.broken(f"{order.task} attempt {order.attempt} epoch {order.epoch} was dispatched twice", self.given[key], order.place)
        self.given[key] = order.place
        edges = self.before.get(order.task, ())
        self.count("dispatches")
        self.count("joins", len(edges) > 1)
        for predecessor, on_end in edges:
            state, place = self.state.get(predecessor, ("CREATED", order.place))
            if state != "COMPLETED" and not (on_end == "ENDED" and terminal("tasks", state)):
                self.broken(f"{order.task} was dispatched while {predecessor}, on whose {on_end} it waits, was {state}", place, order.place)


class AttemptsAddUp(Promise):
    """`attempts`: opened; `retries`: numbers above 1; `epochs`: raised; `doubts`: attempts that were IN_DOUBT and asked again."""

    number, title, counts = "P8", "attempts add up", ("attempts", "retries", "epochs", "doubts")
    needs = frozenset({"binlog", "tables"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.last: dict[str, tuple[int, str, int, Place]] = {}  # task → number, state, epoch, place of its newest attempt
        self.final: dict[str, tuple[int, int, str, Place]] = {}
        self.rows: dict[str, list[tuple[int, int, str, Place]]] = defaultdict(list)

    def row(self, table: str, row: Any, place: Place) -> None:
        if table == "tasks":
            self.final[row["id"]] = (row["attempt"], row["epoch"], row["state"], place)
        elif table == "attempts":
            self.rows[row["task_id"]].append((row["number"], row["epoch"], row["state"], place))

    def transaction(self, tx: Transaction) -> None:
        for kind, before, after in tx.changes.get("attempts", ()):
            if kind == "I":
                self._opened(tx, after)
            elif kind == "U":
                self._changed(tx, before, after)
                self.last[after["task_id"]] = (after["number"], after["state"], after["epoch"], tx.place)

    def _opened(self, tx: Transaction, row: Any) -> None:
        number, state, _, place = self.last.get(row["task_id"], (0, "", 0, tx.place))
        self.count("attempts")
        self.count("retries", row["number"] > 1)
        if row["number"] != number + 1 or row["epoch"] != 1:
            self.broken(f"{row['task_id']}: attempt {row['number']} epoch {row['epoch']} was opened after attempt {number}", place, tx.place)
        elif number and not terminal("attempts", state):
            self.broken(f"{row['task_id']}: attempt {row['number']} was opened while attempt {number} was {state}", place, tx.place)
        elif number and not self._decided(tx, row["task_id"]):
            self.broken(f"{row['task_id']}: attempt {row['number']} was opened, and no RetryDue or RetryNow asked for it", place, tx.place)
        self.last[row["task_id"]] = (row["number"], row["state"], row["epoch"], tx.place)

    def _decided(self, tx: Transaction, task: str) -> bool:
        """The command's cause, or what the positions moved over in this transaction."""
        causes = [each.cause for each in tx.fresh if each.type == "RunTask" and each.task == task]
        kinds = {record.type for cause in causes for record in self.evidence.records_of(cause)}
        return bool(kinds & {"RetryDue", "RetryNow"}) or any(record.task == task and record.type in {"RetryDue", "RetryNow"} for _, record in tx.applied)

    def _changed(self, tx: Transaction, before: Any, after: Any) -> None:
        rise = after["epoch"] - before["epoch"]
        if (before["task_id"], before["number"]) != (after["task_id"], after["number"]):
            self.broken(f"{after['id']} changed its task or number", tx.place)
        if not rise:
            return
        self.count("epochs")
        self.count("doubts", before["state"] == "IN_DOUBT")
        if rise < 0:
            return  # P4's.
        if rise != 1 or after["state"] not in {"DISPATCHED", "CANCELED"}:
            self.broken(f"{after['id']}: epoch {before['epoch']} → {after['epoch']} while {before['state']} → {after['state']}", tx.place)

    def conclude(self) -> None:
        for task, (attempt, epoch, _, place) in self.final.items():
            rows = sorted(self.rows.get(task, ()))
            if [each[0] for each in rows] != list(range(1, attempt + 1)):
                self.missing(f"{task} is at attempt {attempt}; its attempts are {[each[0] for each in rows]}", place, *(each[3] for each in rows[:1]))
            elif rows and not (rows[-1][1] == epoch or (rows[-1][1] < epoch and rows[-1][2] in {"SUCCEEDED", "FAILED"})):  # Ended before the new epoch reached it: left alone.
                self.broken(f"{task} is at epoch {epoch}, its attempt {attempt} at {rows[-1][1]}", place, rows[-1][3])
