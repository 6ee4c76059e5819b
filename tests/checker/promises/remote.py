"""P9 P10 P18: what the hosts remember, written by the application itself and by the helper under its lock, against what the database believes."""

import base64
import hashlib
import json
from collections import defaultdict
from itertools import pairwise
from typing import Any
from urllib.parse import unquote_to_bytes

from tests.checker.reading import Place, seconds_of
from tests.checker.tables import terminal
from tests.checker.verdicts import Promise

Line = tuple[Any, Place, str]  # the object, where it stands, the host


class OneExecution(Promise):
    """`tokens`: that started; `tasks`: with more than one token; `killed`: starts without an end."""

    number, title, counts = "P9", "one execution per attempt", ("tokens", "tasks", "killed")
    needs = frozenset({"hosts", "tables"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.starts: dict[str, list[Line]] = defaultdict(list)
        self.ends: dict[tuple[str, str], float] = {}
        self.ended: set[str] = set()
        self.exits: dict[str, float] = {}
        self.finished: dict[str, float] = {}

    def row(self, table: str, row: Any, place: Place) -> None:
        if table == "jobs" and row.get("finished_at"):
            self.finished[row["attempt_id"]] = seconds_of(row["finished_at"])

    def host(self, kind: str, host: str, line: Any, place: Place) -> None:
        if kind == "ledger" and line.get("kind") == "start":
            self.starts[line["token"]].append((line, place, host))
        elif kind == "ledger" and line.get("kind") == "end":
            self.ends[line["token"], str(line.get("pid"))] = float(line["at"])
            self.ended.add(line["token"])
        elif kind == "control" and (ended := _words(line.get("exit")).get("ended")):
            self.exits[line["token"]] = float(ended) + 1.0  # Whole seconds.

    def conclude(self) -> None:
        tasks: dict[str, list[tuple[float, float | None, str, Place]]] = defaultdict(list)
        for token, starts in self.starts.items():
            self.count("tokens")
            starts.sort(key=lambda each: float(each[0]["at"]))
            for (before, at, _), (after, place, _) in pairwise(starts):
                if not after.get("job") or after["job"] != before.get("job") or int(after.get("restarts") or 0) <= int(before.get("restarts") or 0):
                    self.broken(f"{token} started twice", at, place)
            line, place, _ = starts[-1]
            end = self.ends.get((token, str(line.get("pid"))))
            self.count("killed", end is None)
            last = end if end is not None else self.exits.get(token, self.finished.get(token))
            tasks[line["task"]].append((float(starts[0][0]["at"]), last, token, place))
        for task, spans in tasks.items():
            self._apart(task, sorted(spans, key=lambda each: each[0]))

    def _apart(self, task: str, spans: list[Any]) -> None:
        self.count("tasks", len(spans) > 1)
        for (_, ended, one, at), (begun, _, other, place) in pairwise(spans):
            if ended is None:
                self.missing(f"{task}: {other} started while nothing tells that {one} had ended", at, place)
            elif begun < ended - 0.001 and one in self.ended:
                self.broken(f"{task}: {other} started {ended - begun:.3f} s before {one} ended", at, place)
            elif begun < ended - 2.0:  # By exit file or row, which are later than the truth.
                self.broken(f"{task}: {other} started {ended - begun:.0f} s before {one} is known to have ended", at, place)


def _words(text: Any) -> dict[str, str]:
    """Of a line of the host's own: `pid=4711 boot=…`."""
    return dict(word.split("=", 1) for word in str(text or "").split() if "=" in word)


class NoOrphan(Promise):
    """`tokens`: on hosts; `jobs`: with a stored id; `lost`: LOST with evidence; `duplicates`: noted on hosts."""

    number, title, counts = "P10", "no orphan, no phantom", ("tokens", "jobs", "lost", "duplicates")
    needs = frozenset({"hosts", "tables"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.attempts: dict[str, tuple[str, Place]] = {}
        self.jobs: dict[str, tuple[Any, Place]] = {}
        self.controls: dict[str, tuple[Any, Place]] = {}
        self.started: dict[str, Place] = {}

    def row(self, table: str, row: Any, place: Place) -> None:
        if table == "attempts":
            self.attempts[row["id"]] = (row["state"], place)
        elif table == "jobs":
            self.jobs[row["attempt_id"]] = (row, place)

    def host(self, kind: str, host: str, line: Any, place: Place) -> None:
        if kind == "control":
            if line["token"] in self.controls:
                self.broken(f"{line['token']} is on two hosts", self.controls[line["token"]][1], place)
            self.controls[line["token"]] = (line, place)
        elif kind == "ledger" and line.get("kind") == "start":
            self.started.setdefault(line["token"], place)

    def conclude(self) -> None:
        for token, place in {**self.started, **{token: found[1] for token, found in self.controls.items()}}.items():
            self.count("tokens")
            if token not in self.attempts:
                self.missing(f"{token} is on a host and belongs to no attempt", place)
        for token, place in self.started.items():
            self._known(token, place)
        for token, (job, place) in self.jobs.items():
            if job.get("scheduler_job_id"):
                self._there(token, job, place)
        for control, place in self.controls.values():
            for note in control.get("duplicate") or ():
                self.count("duplicates")
                token = control["token"]
                evidence = str(self.jobs.get(token, ({}, place))[0].get("evidence") or "")
                if "duplicate" not in evidence:
                    self.missing(f"{token}: the host noted a duplicate ({note}), and the job's row does not tell of it", place, *([self.jobs[token][1]] if token in self.jobs else []))

    def _known(self, token: str, place: Place) -> None:
        """A program that ran is a job whose id is stored: an attempt that is over without it left an orphan."""
        state, at = self.attempts.get(token, ("", place))
        job, row = self.jobs.get(token, ({}, at))
        if state and terminal("attempts", state) and not job.get("scheduler_job_id"):
            self.missing(f"{token} ran on a host, its attempt is {state}, and no job id was ever stored", place, row)

    def _there(self, token: str, job: Any, place: Place) -> None:
        self.count("jobs")
        control, at = self.controls.get(token, ({}, place))
        words = _words(control.get("receipt"))
        if words and job["scheduler_job_id"] != f"{words.get('pid')}@{words.get('boot')}":
            self.broken(f"{token}: the row has job {job['scheduler_job_id']}, the host's receipt {words.get('pid')}@{words.get('boot')}", place, at)
        elif not words and not (job["state"] == "LOST" and job.get("evidence")):
            self.missing(f"{token}: job {job['scheduler_job_id']} is on no host, and the row is {job['state']} without evidence of a loss", place)
        self.count("lost", job["state"] == "LOST")


class WholeFiles(Promise):
    """`outputs`: staged, found at their destination; `inputs`: hashes that the application saw; `watched`: looks at final names."""

    number, title, counts = "P18", "staged files are whole", ("outputs", "inputs", "watched")
    needs = frozenset({"hosts", "tables"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.outputs: list[tuple[Any, Place]] = []
        self.wanted: dict[str, set[str]] = defaultdict(set)  # experiment's process → hashes told at launch
        self.given: dict[str, int] = {}  # process → how many staged files its program is given by name
        self.files: dict[str, tuple[Any, Place]] = {}
        self.by_hash: set[str] = set()
        self.starts: list[tuple[Any, Place]] = []
        self.ends: dict[str, tuple[Any, Place]] = {}
        self.process_of: dict[str, str] = {}
        self.ended: dict[str, list[str]] = defaultdict(list)
        self.watched: list[tuple[Any, Place]] = []

    def row(self, table: str, row: Any, place: Place) -> None:
        if table == "outputs" and row["state"] == "STAGED":
            self.outputs.append((row, place))
        elif table == "processes":
            self.process_of[row["experiment_id"]] = row["id"]
            snapshot = json.loads(row["snapshot"] or "{}")
            self.wanted[row["id"]] |= _hashes(snapshot.get("inputs"))
            self.given[row["id"]] = _files(snapshot)

    def host(self, kind: str, host: str, line: Any, place: Place) -> None:
        if kind == "files":
            self.files[line["path"]] = (line, place)
            if line.get("uri"):
                self.files[line["uri"]] = (line, place)
            self.by_hash.add(line["sha256"])
        elif kind == "ledger" and line.get("kind") == "start":
            self.starts.append((line, place))
        elif kind == "ledger" and line.get("kind") == "end":
            self.ends[line["token"]] = (line, place)
        elif kind == "watch":
            self.watched.append((line, place))

    def conclude(self) -> None:
        told = {sha for line, _ in self.ends.values() for sha in (line.get("outputs") or {}).values()}
        by_process: dict[str, dict[str, str]] = defaultdict(dict)
        for line, _ in self.starts:
            end = self.ends.get(line["token"])
            by_process[line.get("process", "")].update((end[0].get("outputs") or {}) if end else {})
        for row, place in self.outputs:
            self._output(row, place, by_process.get(self.process_of.get(row["experiment_id"], ""), {}), bool(told))
        for line, place in self.starts:
            saw, given = len(line.get("inputs") or {}), self.given.get(line.get("process", ""), 0)
            if saw < given:
                self.missing(f"{line['token']} started with {saw} of the {given} files it was given", place)
            for name, sha in (line.get("inputs") or {}).items():
                self.count("inputs")
                sources = self.wanted.get(line.get("process", ""), set())
                if sha not in self.by_hash and sha not in sources:
                    self.missing(f"{line['token']} saw input {name} with hash {sha[:16]}…, which no source has", place)
        for line, place in self.watched:
            self.count("watched")
            final = self.files.get(line["path"])
            if not line.get("part") and final is not None and line["sha256"] != final[0]["sha256"]:
                self.broken(f"{line['path']} stood half under its final name: {line['size']} of {final[0]['size']} bytes", place, final[1])

    def _output(self, row: Any, place: Place, made: dict[str, str], told: bool) -> None:
        found = self.files.get(row["uri"] or "")
        if found is None:
            self.doubt(f"output {row['name']} of {row['experiment_id']} lies where nobody looked: {row['uri']}")
            return
        self.count("outputs")
        line, at = found
        if (line["size"], line["sha256"]) != (row["size_bytes"], row["sha256"]):
            self.broken(f"output {row['name']} of {row['experiment_id']}: the row tells {row['size_bytes']} bytes {row['sha256'][:16]}…, the file has {line['size']} bytes {line['sha256'][:16]}…", place, at)
        elif told and made and row["sha256"] not in made.values() and row["type"] not in {"STDOUT", "STDERR"}:
            self.broken(f"output {row['name']} of {row['experiment_id']} is not what the application says it wrote", place, at)


def _hashes(value: Any) -> set[str]:
    """Every sha256 that a launch names for its inputs, and those of what it brings along itself (`data:`)."""
    if isinstance(value, str) and value.startswith("data:"):
        kind, _, text = value[5:].partition(",")
        raw = unquote_to_bytes(text)
        return {hashlib.sha256(base64.b64decode(raw) if kind.endswith(";base64") else raw).hexdigest()}
    if isinstance(value, dict):
        here = {value["sha256"]} if isinstance(value.get("sha256"), str) else set()
        return here.union(*(_hashes(each) for each in value.values()))
    return set().union(*(_hashes(each) for each in value)) if isinstance(value, list) else set()


def _files(snapshot: Any) -> int:
    """Staged inputs that stand on the command line."""
    values = snapshot.get("inputs") or {}
    found = 0
    for each in (snapshot.get("interface") or {}).get("inputs") or ():
        value = values.get(each["name"], each.get("default"))
        if each["type"] in {"URI", "URI_COLLECTION"} and each.get("on_command_line") and each.get("staged") is not False and value is not None:
            found += len(value) if isinstance(value, list) else 1
    return found
