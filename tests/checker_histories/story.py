"""The good history: one experiment with a retry, a join, a job, a message set aside and one that died, a zombie, a lost COMMIT, a take-over. Every promise is exercised and held.

The acts it is told with are those a bad history is told with, too.
"""

import json
from typing import Any

from tests.checker.promises.history import event_id
from tests.checker_histories.world import EVENTS, GATEWAY, GROUPS, JOBS, LAUNCH, OTHER_GATEWAY, SCHEDULER, World, trace_context

REQUIRED = (
    "P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9", "P10", "P11", "P12", "P13", "P14", "P15", "P16", "P18", "P19", "P20", "P21", "P22", "P23", "P24", "P25", "P26",
)  # fmt: skip
DUE = "2026-11-25 00:00:00.000000"
BOOT = "boot-1"
OLDER, NEWER = "1.0", "1.1"
RELEASES = {"api/0": OLDER, "api/1": NEWER, "generator/0": NEWER, "scheduler/0": NEWER, "scheduler/1": OLDER}


class Story(World):
    """Acts of the product's components, in the shape their transactions really have."""

    scheduler = "scheduler/0"  # Who holds the partitions now.

    def of(self, role: str) -> str:
        return self.scheduler if role == "scheduler" else f"{role}/0"

    # ---- API ----------------------------------------------------------------------------------------------------------------------------------------
    def asks(self, op: str, operation: str, **more: Any) -> None:
        self.client.append(self.stamp("op.invoke", op=op, operation=operation, **{"tenant": GATEWAY, "session": "c1", "key": None, "body_sha256": "b1", **more}))

    def told(self, op: str, **more: Any) -> None:
        self.client.append(self.stamp("op.return", op=op, **{"outcome": "ok", "status": 202, "code": None, "experiment": None, "version": None, **more}))

    def launch(self, name: str, *, answered: bool = True, message: bool = True, key: str = "") -> str:
        """Experiment `exp_<name>`, process `prc_<name>`."""
        experiment, process, op = f"exp_{name}", f"prc_{name}", f"launch-{name}"
        if answered:
            self.asks(op, "launch", key=key or f"key-{name}")
        with self.commit("api.launch_commit", "api/0") as tx:
            self.insert("experiments", id=experiment, gateway_id=GATEWAY, state="LAUNCHED", version=1, process_id=process)
            self.insert("processes", id=process, experiment_id=experiment, gateway_id=GATEWAY, state="CREATED", version=1, trace_context=trace_context(experiment, "request"), snapshot=json.dumps({"inputs": {"i": {"sha256": "ab" * 32}}}))
            if message:
                tx.send("ExperimentLaunched", topic=LAUNCH, subject=f"{GATEWAY}/{experiment}/{process}////", key=experiment)
            tx.send("ExperimentChanged", subject=f"{GATEWAY}/{experiment}/{process}////", key=process, body=_move("CREATED", "LAUNCHED"))
        if answered:
            self.told(op, experiment=experiment, process=process, version=1)
        return experiment

    # ---- generator ------------------------------------------------------------------------------------------------------------------------------------
    def plan_it(self, name: str, tasks: str, edges: tuple[tuple[str, str, str], ...] = ()) -> None:
        self.relay()
        process, launched = f"prc_{name}", self.find(LAUNCH, "ExperimentLaunched")
        cause, subject = dict(launched["h"])["mid"], f"{GATEWAY}/exp_{name}/{process}////"
        with self.commit("generator.commit", "generator/0") as tx:
            tx.over("generator", launched)
            for task in tasks.split():
                waiting = sum(each[1] == task for each in edges)
                self.insert("tasks", id=f"tsk_{task}", process_id=process, state="CREATED", version=1, attempt=0, epoch=0, waiting_for=waiting, reason="", failure=None)
            for begin, end, on_end in edges:
                self.insert("edges", process_id=process, from_task=f"tsk_{begin}", to_task=f"tsk_{end}", on_end=on_end)
            self.change("processes", process, state="VALIDATED", version=2)
            tx.send("ProcessPlanned", topic=SCHEDULER, subject=subject, key=process, cause=cause)
            tx.send("ProcessChanged", subject=subject, key=process, cause=cause, body=_move("CREATED", "VALIDATED"))
        self.relay()

    # ---- scheduler ------------------------------------------------------------------------------------------------------------------------------------
    def start(self, name: str, *tasks: str, who: str = "") -> None:
        planned = self.find(SCHEDULER, "ProcessPlanned")
        cause = dict(planned["h"])["mid"]
        with self.commit("scheduler.commit", who or self.scheduler) as tx:
            tx.over("scheduler", planned)
            self.move(tx, "processes", f"prc_{name}", "STARTED", cause)
            self.move(tx, "experiments", f"exp_{name}", "EXECUTING", cause)
            for task in tasks:
                self.dispatch(tx, task, cause)
        self.relay()

    def subject(self, task: str) -> str:
        row = self.rows["tasks"][f"tsk_{task}"]
        name = row["process_id"].removeprefix("prc_")
        return f"{GATEWAY}/exp_{name}/{row['process_id']}/{row['id']}/JOB_SUBMISSION/{row['attempt']}/{row['epoch']}"

    def move(self, tx: Any, table: str, key: str, state: str, cause: str = "", **changes: Any) -> None:
        """State, version and the message that tells it."""
        row = self.rows[table][key]
        before = row["state"]
        self.change(table, key, state=state, version=row["version"] + 1, **changes)
        if table == "tasks":
            tx.send("TaskChanged", subject=self.subject(key.removeprefix("tsk_")), key=f"{row['process_id']}-{key}", cause=cause, body=_move(before, state))
        else:
            name = key.split("_", 1)[1]
            kind = {"processes": "ProcessChanged", "experiments": "ExperimentChanged"}[table]
            tx.send(kind, subject=f"{GATEWAY}/exp_{name}/prc_{name}////", key=f"prc_{name}", cause=cause, body=_move(before, state))

    def dispatch(self, tx: Any, task: str, cause: str, *, again: bool = False) -> None:
        row = self.rows["tasks"][f"tsk_{task}"]
        number, epoch = (row["attempt"], row["epoch"] + 1) if again else (row["attempt"] + 1, 1)
        token = f"att_{task}{number}"
        if row["state"] != "EXECUTING":
            self.move(tx, "tasks", row["id"], "SCHEDULED", cause, attempt=number, epoch=epoch)
        else:
            self.change("tasks", row["id"], version=row["version"] + 1, epoch=epoch)
        if again:
            self.change("attempts", token, state="DISPATCHED", epoch=epoch, owner=None)
        else:
            self.insert("attempts", id=token, task_id=row["id"], process_id=row["process_id"], number=number, state="DISPATCHED", epoch=1, owner=None)
        self.order(tx, task, cause)

    def order(self, tx: Any, task: str, cause: str) -> None:
        row = self.rows["tasks"][f"tsk_{task}"]
        tx.send("RunTask", topic=JOBS, subject=self.subject(task), key=f"{row['process_id']}-{row['id']}", cause=cause, body={"attempt_id": f"att_{task}{row['attempt']}"})

    def take(self, record: dict[str, Any], task: str, state: str, *, who: str = "", **changes: Any) -> Any:
        """A fact makes a task's move; returns the commit, so that more may be done in it."""
        commit = self.commit("scheduler.commit", who or self.scheduler)
        commit.__enter__()
        commit.over("scheduler", record)
        self.move(commit, "tasks", f"tsk_{task}", state, dict(record["h"])["mid"], **changes)
        return commit

    def started(self, task: str, **more: Any) -> None:
        self.take(self.find(EVENTS, "TaskStarted", f"tsk_{task}"), task, "EXECUTING", **more).__exit__(None)
        self.relay()

    def completed(self, task: str, *successors: str, ends: str = "", **more: Any) -> None:
        record = self.find(EVENTS, "TaskSucceeded", f"tsk_{task}")
        cause = dict(record["h"])["mid"]
        tx = self.take(record, task, "COMPLETED", **more)
        for each in successors:
            self.dispatch(tx, each, cause)
        if ends:
            self.finish(tx, ends, cause)
        tx.__exit__(None)
        self.relay()

    def finish(self, tx: Any, name: str, cause: str, state: str = "COMPLETED") -> None:
        self.move(tx, "processes", f"prc_{name}", state, cause)
        self.move(tx, "experiments", f"exp_{name}", state, cause)

    def waits(self, task: str) -> None:
        record = self.find(EVENTS, "TaskFailed", f"tsk_{task}")
        tx = self.take(record, task, "RETRY_WAIT")
        tx.timer("RetryDue", subject=self.subject(task), key=self.rows["tasks"][f"tsk_{task}"]["process_id"], cause=dict(record["h"])["mid"], due_at=DUE)
        tx.__exit__(None)
        self.relay()

    def due(self) -> None:
        """All timers become due."""
        with self.commit("timer.move", "scheduler/0") as tx:
            for row in list(self.rows["timers"].values()):
                self.delete("timers", row["id"])
                moved = {**row, "id": next(self.ids), "shard": 0, "created_at": self.wall(self.clock)}
                del moved["due_at"]
                self.insert("outbox", **moved)
                tx.out.append(moved["mid"])
                self.waiting.append({**moved, "told": _unpacked(row["headers"]), "value": bytes.fromhex(row["payload"]).decode()})
        self.relay()

    def again(self, task: str) -> None:
        record = self.find(SCHEDULER, "RetryDue", f"tsk_{task}")
        with self.commit("scheduler.commit", self.scheduler) as tx:
            tx.over("scheduler", record)
            self.dispatch(tx, task, dict(record["h"])["mid"])
        self.relay()

    # ---- executor -------------------------------------------------------------------------------------------------------------------------------------
    def runs(self, task: str) -> str:
        """E1, and the job on the host."""
        order = self.find(JOBS, "RunTask", f"tsk_{task}")
        token = json.loads(order["v"])["attempt_id"]
        with self.commit("executor.commit", "executor-job/0") as tx:
            tx.over("executor", order)
            self.change("attempts", token, state="RUNNING", owner="executor-job/0")
            self.fact(tx, "TaskStarted", task, cause=dict(order["h"])["mid"])
        with self.commit("submit.intent_commit", "executor-job/0") as tx:
            self.insert("jobs", id=f"job_{token}", attempt_id=token, state="SUBMITTING", scheduler_job_id=None, finished_at=None, evidence=None)
            self.fact(tx, "JobChanged", task, body={"job_id": f"job_{token}", **_move("PREPARED", "SUBMITTING")})
        self.on_host(token, task)
        with self.commit("submit.id_commit", "executor-job/0") as tx:
            self.change("jobs", f"job_{token}", state="SUBMITTED", scheduler_job_id=f"{self.pid(token)}@{BOOT}")
            self.change("attempts", token, owner=None)
            self.fact(tx, "JobChanged", task, body={"job_id": f"job_{token}", **_move("SUBMITTING", "SUBMITTED")})
        self.relay()
        return token

    @staticmethod
    def pid(token: str) -> str:
        return str(1000 + sum(token.encode()))

    def fact(self, tx: Any, kind: str, task: str, *, cause: str = "", body: dict[str, Any] | None = None, subject: str = "") -> dict[str, Any]:
        row = self.rows["tasks"][f"tsk_{task}"]
        return tx.send(kind, subject=subject or self.subject(task), key=f"{row['process_id']}-{row['id']}", cause=cause, body=body)

    def on_host(self, token: str, task: str, *, at: float | None = None) -> None:
        pid, began = self.pid(token), at or self.wait()
        row = self.rows["tasks"][f"tsk_{task}"]
        self.hosts["ledger"].append({"kind": "start", "token": token, "task": row["id"], "attempt": "1", "process": row["process_id"], "job": "", "restarts": "0", "pid": pid, "boot": BOOT, "at": str(began), "inputs": {"i": "ab" * 32}})
        self.hosts["control.jsonl"].append({"token": token, "receipt": f"pid={pid} start=1 boot={BOOT} host=h began={int(began)}", "exit": None, "duplicate": []})

    def ends_on_host(self, token: str, *, at: float | None = None) -> None:
        self.hosts["ledger"].append({"kind": "end", "token": token, "pid": self.pid(token), "boot": BOOT, "at": str(at or self.wait()), "status": "0", "outputs": {"result.txt": "cd" * 32}})

    def outcome(self, task: str, kind: str = "TaskSucceeded", **body: Any) -> None:
        """E3 of a watched job."""
        row = self.rows["tasks"][f"tsk_{task}"]
        token = f"att_{task}{row['attempt']}"
        self.ends_on_host(token)
        with self.commit("watch.commit", "executor-job/0") as tx:
            state = {"TaskSucceeded": ("SUCCEEDED", "COMPLETED"), "TaskFailed": ("FAILED", "FAILED")}[kind]
            self.change("jobs", f"job_{token}", state=state[1], finished_at="2026-11-25 00:02:00.000000")
            self.change("attempts", token, state=state[0])
            self.fact(tx, kind, task, body=body)
        self.relay()

    # ---- sink -------------------------------------------------------------------------------------------------------------------------------------------
    def sink(self) -> None:
        """Everything that was told and is not shown yet."""
        at = self.rows["positions"][GROUPS["sink"], EVENTS, 0]["next_offset"]
        records = [{**each, "topic": EVENTS} for each in self.log[EVENTS][0] if each["o"] >= at]
        with self.commit("api.events_commit", "api/0") as tx:
            for record in records:
                told = dict(record["h"])
                if told["type"] != "Nothing" and told.get("only") in {None, GROUPS["sink"]}:
                    self.show(record, told)
            if records:
                tx.over("sink", records[-1])

    def show(self, record: dict[str, Any], told: dict[str, str]) -> None:
        _, experiment, process, task, _, attempt, epoch = told["subject"].split("/")
        body = json.loads(record["v"])
        found = event_id(json.loads(told["origin"])["mid"] if "origin" in told else told["mid"])
        if (found,) in self.rows["events"] or found in self.rows["events"]:
            return
        seq = 1 + sum(each["experiment_id"] == experiment for each in self.rows["events"].values())
        document = {"id": found, "type": told["type"], "traceparent": told["traceparent"], "process_id": process, "task_id": task or None, "attempt": int(attempt or 0) or None, "epoch": int(epoch or 0) or None}
        document |= {name: body.pop(name) for name in ("from_state", "to_state", "reason") if name in body} | {"data": body}
        self.insert("events", experiment_id=experiment, seq=seq, event_id=found, gateway_id=GATEWAY, document=json.dumps(document))

    # ---- what is set aside --------------------------------------------------------------------------------------------------------------------------------
    def set_aside(self, record: dict[str, Any], *, tries: int = 1, over: bool = True, role: str = "scheduler", error: str = "Illegal") -> None:
        """A copy through a timer, for this group alone."""
        told = dict(record["h"])
        before = json.loads(told["origin"]) if "origin" in told else {"mid": told["mid"], "topic": record["topic"], "partition": record["p"], "offset": record["o"]}
        with self.commit(f"{role}.commit", self.of(role)) as tx:
            if over:
                tx.over(role, record)
            tx.timer(told["type"], subject=told["subject"], key=record["k"], due_at=DUE, origin={**before, "tries": tries, "error": error}, only=GROUPS[role])
            self.rows["timers"][max(self.rows["timers"])]["topic"] = record["topic"]
            assert self.open is not None
            self.open[-1][2]["topic"] = record["topic"]

    def dies(self, record: dict[str, Any], *, over: bool = True, role: str = "scheduler") -> None:
        """A dead letter."""
        told = dict(record["h"])
        with self.commit(f"{role}.commit", self.of(role)) as tx:
            if over:
                tx.over(role, record)
            self.insert("dead_letters", id=f"dlt_{next(self.serial)}", consumer_group=GROUPS[role], topic=record["topic"], part=record["p"], log_offset=record["o"], mid=told["mid"], settled=None)

    def passes(self, record: dict[str, Any], *, role: str = "scheduler") -> None:
        """Late: the position moves, nothing else does."""
        with self.commit(f"{role}.commit", self.of(role)) as tx:
            tx.over(role, record)
        self.says(self.of(role), "late")

    # ---- the nemesis ----------------------------------------------------------------------------------------------------------------------------------------
    def fault(self, name: str, kind: str, target: str, *, proof: dict[str, Any] | None = None, end: dict[str, Any] | None = None, planned: bool = True) -> None:
        if planned:
            self.plan["faults"].append({"fault": name, "kind": kind, "target": target})
        self.nemesis.append(self.stamp("fault.start", fault=name, fault_kind=kind, target=target))
        self.nemesis.append(self.stamp("fault.proof", fault=name, **{"struck": self.clock, "evidence": {"wait_status": 9}, **(proof or {})}))
        self.nemesis.append(self.stamp("fault.end", fault=name, healed=self.clock, **(end or {})))

    def claims(self, who: str, role: str, topic: str, epoch: int, *, written: bool = True) -> None:
        key = (GROUPS[role], topic, 0)
        if written:
            with self.commit(f"{role}.claim", who):
                self.change("positions", key, owner=who, owner_epoch=epoch)
        self.says(who, "partition.claim", group=key[0], topic=topic, partition=0, epoch=epoch, next_offset=self.rows["positions"][key]["next_offset"])

    def sampled(self, **more: Any) -> None:
        committed = [[*key, row["next_offset"]] for key, row in self.rows["positions"].items()]
        self.samples.append(self.stamp("sample", **{"committed": committed, "positions": committed, "outbox_rows": 3, "processes": {"scheduler/1": {"rss_bytes": 9}}, **more}))


def _move(begin: str, end: str) -> dict[str, Any]:
    return {"from_state": begin, "to_state": end, "reason": ""}


def _unpacked(headers: str) -> list[tuple[str, str]]:
    from tests.checker.reading import headers_of

    return [(name, value.hex() if name == "mid" else value.decode()) for name, value in headers_of(bytes.fromhex(headers)).items()]


def good() -> Story:
    """Diamond a → b, a → c, b + c → d; a fails once. Then a second experiment while the scheduler is taken over."""
    s = Story()
    s.nemesis.append(s.stamp("releases", older={"version": OLDER, "reads": 1}, newer={"version": NEWER, "reads": 2}))
    for who in ("api/0", "generator/0", "scheduler/0", "scheduler/1"):
        s.says(who, "life.start", role=who.partition("/")[0], version=RELEASES[who])
    for topic in (SCHEDULER, EVENTS):
        s.claims("scheduler/0", "scheduler", topic, 2)
    s.launch("one", key="k1")
    s.asks("launch-one-again", "launch", key="k1")
    s.told("launch-one-again", experiment="exp_one", version=1, status=200)
    s.asks("launch-lost", "launch", key="k9")
    s.told("launch-lost", outcome="unknown", status=None)
    s.plan_it("one", "a b c d", (("a", "b", "SUCCESS"), ("a", "c", "ENDED"), ("b", "d", "SUCCESS"), ("c", "d", "SUCCESS")))
    s.start("one", "a")
    s.runs("a")
    s.started("a")
    s.outcome("a", "TaskFailed", code="INTERNAL", transient=True)
    s.waits("a")
    s.due()
    s.again("a")
    s.runs("a")
    s.started("a")
    s.outcome("a")
    s.completed("a", "b", "c")
    for task, after, end in (("b", (), ""), ("c", ("d",), ""), ("d", (), "one")):
        s.runs(task)
        s.started(task)
        s.outcome(task)
        s.completed(task, *after, ends=end)
    _staged(s)
    _aside(s)
    for topic in (SCHEDULER, EVENTS, SCHEDULER):  # Ends what a broker left unmarked: it has no row, no mid, and nobody applies it.
        s.publish({"topic": topic, "part": 0, "k": "", "told": [("type", "Nothing")], "value": ""})
    _taken_over(s)
    _replaced(s)
    _seen_from_outside(s)
    s.sink()
    s.committed = {}
    for (group, topic, part), row in s.rows["positions"].items():
        s.committed.setdefault(group, {}).setdefault(topic, {})[str(part)] = row["next_offset"]
    s.nemesis.append(s.stamp("healed"))
    s.nemesis.append(s.stamp("quiet", quiet=True, asked_seconds=1.0, open=[]))
    s.plan["required"] = {each: {} for each in REQUIRED}
    return s


def _staged(s: Story) -> None:
    with s.commit("executor.outcome_commit", "executor-data/0"):
        s.insert("outputs", experiment_id="exp_one", name="result", type="URI", state="STAGED", uri="storage://sto_1/result.txt", size_bytes=9, sha256="cd" * 32)
    s.hosts["files.jsonl"].append({"path": "/data/result.txt", "uri": "storage://sto_1/result.txt", "size": 9, "sha256": "cd" * 32, "process": None})
    s.hosts["watch.jsonl"].append({"mono": s.wait(), "path": "/data/result.txt.part", "size": 4, "sha256": "00", "part": True})


def abandoned(s: Story) -> list[dict[str, Any]]:
    return [{**each, "topic": SCHEDULER} for each in s.log[SCHEDULER][0] if dict(each["h"])["type"] == "AttemptAbandoned"]


def _aside(s: Story) -> None:
    """A late fact comes three times: twice set aside and applied as a copy, once dead; and one that only an uncommitted reader sees."""
    with s.commit("lease.expire", "scheduler/0") as tx:
        for name in ("first", "second", "third"):
            tx.send("AttemptAbandoned", topic=SCHEDULER, subject=s.subject("a"), key="prc_one", mid="", body={"name": name})
    s.relay()
    first, second, third = abandoned(s)
    s.set_aside(first)
    s.dies(second)
    s.set_aside(third)
    s.due()  # Both copies at once, though two transactions made them.
    for copy in abandoned(s)[3:]:
        s.passes(copy)
    s.aborted[LAUNCH].append({**s.log[LAUNCH][0][0], "o": 5, "h": [["mid", "ee" * 16], ["type", "ExperimentLaunched"], ["subject", "//////"], ["cause", "x#1:"]]})


def _taken_over(s: Story) -> None:
    """scheduler/0 is frozen with a batch in hand; scheduler/1 takes over in 0.9 s, and meets the zombie's late claim of another partition."""
    s.launch("two")
    s.plan_it("two", "e")
    struck = s.wait()
    for topic in (SCHEDULER, EVENTS):
        s.clock += 0.4
        s.claims("scheduler/1", "scheduler", topic, 3)
    s.scheduler = "scheduler/1"
    s.start("two", "e")
    s.runs("e")
    s.started("e")
    s.outcome("e")
    woken = s.wait(2.0)
    s.says("scheduler/0", "unit.end", unit="scheduler.commit", step="scheduler.commit#dead00000001", outcome="fenced", group=GROUPS["scheduler"], ranges=[], out=[])
    s.claims("scheduler/0", "scheduler", EVENTS, 4)
    s.wait(0.5)
    s.claims("scheduler/1", "scheduler", EVENTS, 5)
    s.completed("e", ends="two")
    s.says("scheduler/1", "unit.end", unit="scheduler.commit", step="scheduler.commit#dead00000002", outcome="unknown", group=GROUPS["scheduler"], ranges=[], out=[])
    s.fault("f1", "N2", "scheduler/0", proof={"struck": struck, "takeover": True, "spare": True, "lag_ms": 3.0, "zombie": True, "late_claim": True}, end={"woken": woken})


def _replaced(s: Story) -> None:
    """An API server of the older release by one of the newer, and a scheduler back, each while the other lived; a generator was killed. Nothing of it disturbs what came before."""
    s.wait(5.0)
    s.says("api/1", "life.start", role="api", version=RELEASES["api/1"])
    s.says("api/0", "life.stop", why="asked to", code=0)
    moves: tuple[tuple[str, dict[str, str]], ...] = (("N34", {"went": "api/0", "came": "api/1"}), ("N34", {"went": "scheduler/0", "came": "scheduler/1"}), ("N1", {"was": "generator/0"}))
    for number, (kind, lives) in enumerate(moves):
        seen = {name: {"life": f"{who}#1", "version": RELEASES[who]} for name, who in lives.items()}
        s.fault(f"m{number}", kind, next(iter(lives.values())), proof={"evidence": {"wait_status": 0, **seen}})


def _seen_from_outside(s: Story) -> None:
    s.asks("bad", "refused", expect={"status": [422], "code": "validation_failed"}, marker="MARK-1", deadline_ms=5000)
    s.told("bad", outcome="refused", status=422, code="validation_failed")
    s.asks("full", "read")
    s.told("full", outcome="refused", status=503, code="overloaded", retry_after=1)
    s.asks("theirs", "GET experiments", tenant=OTHER_GATEWAY)
    s.told("theirs", status=200, answer_text="canary-bbb of our own")
    for op, version in (("read-1", 2), ("read-2", 4)):
        s.asks(op, "read")
        s.told(op, status=200, experiment="exp_one", version=version, answer_text="only mine, canary-aaa")
    s.canaries = {"tenants": {GATEWAY: ["canary-aaa"], OTHER_GATEWAY: ["canary-bbb"]}, "secrets": ["hunter2-very-secret"]}
    s.plan["caps"] = {"rss_bytes": 100, "outbox_rows": 50}
    s.files |= {"logs/api-0.log": "nothing to see\n", "system/master-key": "hunter2-very-secret"}
    s.sampled()
    s.sampled()
