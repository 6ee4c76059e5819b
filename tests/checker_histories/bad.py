"""Bad histories: each begins as the good one and does one thing that must break exactly the promise it was made for.

An act that ends with `settle` leaves no loose end: what waits is sent, read and shown, so that nothing else is broken by it.
"""

import json
from collections.abc import Callable
from typing import Any

from tests.checker_histories.story import DUE, Story, good
from tests.checker_histories.world import EVENTS, GATEWAY, GROUPS, JOBS, LAUNCH, OTHER_GATEWAY, SCHEDULER, mid_of

Act = Callable[[Story], None]
BAD: dict[str, tuple[str, Act]] = {}
FORGOTTEN = 20.0  # Seconds until no fault is felt any more.
READERS = (("generator", LAUNCH), ("scheduler", SCHEDULER), ("scheduler", EVENTS))


def breaks(promise: str, *, settled: bool = True) -> Callable[[Act], Act]:
    def keep(act: Act) -> Act:
        def whole(story: Story) -> None:
            act(story)
            if settled:
                settle(story)

        BAD[act.__name__] = (promise, whole)
        return act

    return keep


def history(name: str) -> Story:
    story = good()
    BAD[name][1](story)
    return story


def settle(s: Story) -> None:
    s.relay()
    at = s.rows["positions"][GROUPS["executor"], JOBS, 0]["next_offset"]
    for order in [each for each in s.log[JOBS][0] if each["o"] >= at]:
        with s.commit("executor.commit", "executor-job/0") as tx:  # Whatever comes of them: they were heard.
            tx.over("executor", {**order, "topic": JOBS})
            told = dict(order["h"])
            tx.send("JobChanged", subject=told["subject"], key=order["k"], cause=told["mid"], body={"job_id": "job_1"})
    s.relay()
    for role, topic in READERS:
        for part, records in s.log[topic].items():
            key = (GROUPS[role], topic, part)
            if key in s.rows["positions"] and records and records[-1]["o"] >= s.rows["positions"][key]["next_offset"]:
                with s.commit(f"{role}.commit", s.of(role)) as tx:
                    tx.over(role, {**records[-1], "topic": topic})
    s.sink()


def a_row(s: Story, kind: str = "JobChanged", task: str = "a", unit: str = "watch.commit", **more: Any) -> dict[str, Any]:
    """One lone message about a task, committed and waiting to be sent."""
    with s.commit(unit, "executor-job/0") as tx:
        return s.fact(tx, kind, task, body={"job_id": "job_1", "from_state": "ACTIVE", "to_state": "QUEUED"}, **more)


def ended(s: Story, name: str) -> None:
    """At the end only: how the rows stand is not what is judged here."""
    for table, key in (("experiments", f"exp_{name}"), ("processes", f"prc_{name}")):
        s.rows[table][key]["state"] = "COMPLETED"


# ---- P1 -----------------------------------------------------------------------------------------------------------------------------------------------
@breaks("P1")
def accepted_and_never_launched(s: Story) -> None:
    s.asks("launch-x", "launch", key="kx")
    s.told("launch-x", experiment="exp_x", version=1)


@breaks("P1")
def launched_without_its_message(s: Story) -> None:
    s.launch("three", message=False)
    ended(s, "three")


@breaks("P1")
def launch_message_in_a_transaction_of_its_own(s: Story) -> None:
    s.launch("three", message=False)
    with s.commit("api.launch_commit", "api/0") as tx:
        tx.send("ExperimentLaunched", topic=LAUNCH, subject=f"{GATEWAY}/exp_three/prc_three////", key="exp_three")
    s.relay()
    s.plan_it("three", "t")
    s.start("three")
    _over(s, "three", "t")


def _over(s: Story, name: str, *tasks: str) -> None:
    ended(s, name)
    for task in tasks:
        s.rows["tasks"][f"tsk_{task}"]["state"] = "SKIPPED"


@breaks("P1")
def accepted_and_gone_at_the_end(s: Story) -> None:
    del s.rows["experiments"]["exp_one"]


# ---- P2 -----------------------------------------------------------------------------------------------------------------------------------------------
@breaks("P2")
def an_experiment_stays_open(s: Story) -> None:
    s.rows["experiments"]["exp_one"]["state"] = "EXECUTING"


@breaks("P2")
def a_task_waits_for_ever(s: Story) -> None:
    s.rows["tasks"]["tsk_a"]["state"] = "RETRY_WAIT"


@breaks("P2")
def a_task_is_blocked_by_a_condition_that_was_lifted(s: Story) -> None:
    s.plan["left_in_place"] = ["AUTH_REQUIRED"]
    s.rows["tasks"]["tsk_a"] |= {"state": "BLOCKED", "failure": json.dumps({"condition": "HOST_KEY_CHANGED"})}


@breaks("P2", settled=False)
def a_message_waits_in_the_outbox(s: Story) -> None:
    a_row(s)


@breaks("P2")
def a_due_timer_never_moves(s: Story) -> None:
    with s.commit("scheduler.commit", "scheduler/1") as tx:
        tx.timer("RetryDue", subject=s.subject("a"), key="prc_one", due_at=DUE)


@breaks("P2", settled=False)
def a_record_is_never_read(s: Story) -> None:
    with s.commit("lease.expire", "scheduler/0") as tx:
        tx.send("AttemptAbandoned", topic=SCHEDULER, subject=s.subject("a"), key="prc_one")
    s.relay()


@breaks("P2")
def it_never_gets_quiet(s: Story) -> None:
    s.nemesis[-1]["quiet"] = False


# ---- P3 -----------------------------------------------------------------------------------------------------------------------------------------------
@breaks("P3")
def one_key_two_experiments(s: Story) -> None:
    s.launch("three", key="k1")
    s.plan_it("three", "t")
    s.start("three")
    _over(s, "three", "t")


@breaks("P3")
def one_key_two_bodies(s: Story) -> None:
    s.asks("other-body", "launch", key="k1", body_sha256="b2")
    s.told("other-body", experiment="exp_one", version=1)


@breaks("P3")
def two_processes_of_one_launch(s: Story) -> None:
    s.rows["processes"]["prc_more"] = {**s.rows["processes"]["prc_one"], "id": "prc_more"}


# ---- P4 -----------------------------------------------------------------------------------------------------------------------------------------------
@breaks("P4")
def the_epoch_of_a_position_falls(s: Story) -> None:
    with s.commit("scheduler.claim", "scheduler/0"):
        s.change("positions", (GROUPS["scheduler"], EVENTS, 0), owner_epoch=3)


@breaks("P4")
def the_epoch_of_an_attempt_falls(s: Story) -> None:
    with s.commit("scheduler.commit", "scheduler/0"):
        s.change("attempts", "att_a1", epoch=0)


@breaks("P4")
def a_fact_is_written_by_an_older_epoch(s: Story) -> None:
    with s.commit("watch.commit", "executor-job/0") as tx:
        s.change("attempts", "att_a2", outcome="seen")
        s.fact(tx, "TaskStarted", "a", subject=f"{GATEWAY}/exp_one/prc_one/tsk_a/JOB_SUBMISSION/2/0")


@breaks("P4")
def a_zombie_commits_by_its_old_claim(s: Story) -> None:
    """The row is locked and its epoch is not compared: the guard is missing."""
    with s.commit("lease.expire", "scheduler/0") as tx:
        tx.send("AttemptAbandoned", topic=SCHEDULER, subject=s.subject("a"), key="prc_one")
    s.relay()
    with s.commit("scheduler.commit", "scheduler/0") as tx:
        tx.over("scheduler", s.find(SCHEDULER, "AttemptAbandoned", "tsk_a"))


@breaks("P4")
def a_journal_says_another_epoch_than_the_row(s: Story) -> None:
    lines = [line for line in s.journals["scheduler/1"] if line["kind"] == "unit.end" and line["ranges"]]
    lines[-1]["ranges"][0][4] = 4


@breaks("P4")
def a_late_claim_is_not_overruled(s: Story) -> None:
    claims = [line for line in s.journals["scheduler/1"] if line["kind"] == "partition.claim"]
    claims[-1]["mono"] += 5.0


@breaks("P4", settled=False)
def a_partition_stands_still_after_a_late_claim(s: Story) -> None:
    ends = [line for line in s.journals["scheduler/1"] if line["kind"] == "unit.end" and line["ranges"] and line["ranges"][0][0] == EVENTS]
    ends[-1]["mono"] += 5.0


# ---- P5 -----------------------------------------------------------------------------------------------------------------------------------------------
@breaks("P5")
def a_finished_task_is_opened_again(s: Story) -> None:
    with s.commit("scheduler.commit", "scheduler/1") as tx:
        s.move(tx, "tasks", "tsk_a", "EXECUTING")
    s.rows["tasks"]["tsk_a"]["state"] = "COMPLETED"


@breaks("P5")
def a_version_jumps(s: Story) -> None:
    with s.commit("scheduler.commit", "scheduler/1"):
        s.change("tasks", "tsk_a", version=99)


@breaks("P5")
def an_executor_ends_a_task(s: Story) -> None:
    s.launch("three")
    s.plan_it("three", "t")
    s.start("three", "t")
    with s.commit("executor.outcome_commit", "executor-job/0") as tx:
        s.move(tx, "tasks", "tsk_t", "COMPLETED")
    ended(s, "three")
    s.rows["attempts"]["att_t1"]["state"] = "SUCCEEDED"


@breaks("P5")
def a_row_is_deleted(s: Story) -> None:
    with s.commit("scheduler.commit", "scheduler/1"):
        s.delete("jobs", "job_att_a1")
    s.rows["jobs"]["job_att_a1"] = {"id": "job_att_a1", "attempt_id": "att_a1", "state": "FAILED", "scheduler_job_id": f"{s.pid('att_a1')}@boot-1", "evidence": None, "finished_at": None}


@breaks("P5")
def the_row_says_otherwise_than_the_message(s: Story) -> None:
    s.launch("three")
    s.plan_it("three", "t")
    s.start("three")
    with s.commit("scheduler.commit", "scheduler/1") as tx:
        row = s.rows["tasks"]["tsk_t"]
        s.change("tasks", "tsk_t", state="FAILED", version=2)
        tx.send("TaskChanged", subject=s.subject("t"), key=f"{row['process_id']}-tsk_t", body={"from_state": "CREATED", "to_state": "SKIPPED", "reason": ""})
    ended(s, "three")


@breaks("P5")
def an_attempt_is_born_running(s: Story) -> None:
    with s.commit("executor.commit", "executor-job/0") as tx:
        s.insert("attempts", id="att_d2", task_id="tsk_other", process_id="prc_one", number=1, state="RUNNING", epoch=1, owner="x")
        s.fact(tx, "JobChanged", "d", body={})
    s.rows["attempts"]["att_d2"]["state"] = "FAILED"


@breaks("P5")
def a_job_goes_back(s: Story) -> None:
    with s.commit("watch.commit", "executor-job/0") as tx:
        s.change("jobs", "job_att_a1", state="ACTIVE")
        s.fact(tx, "JobChanged", "a", body={"job_id": "job_att_a1", "from_state": "FAILED", "to_state": "ACTIVE"})


@breaks("P5")
def a_state_moves_without_a_version(s: Story) -> None:
    s.launch("three")
    s.plan_it("three", "t")
    s.start("three")
    with s.commit("scheduler.commit", "scheduler/1") as tx:
        s.move(tx, "tasks", "tsk_t", "SKIPPED")
        s.open[0][3]["version"] = 1
    s.rows["tasks"]["tsk_t"]["version"] = 1
    ended(s, "three")


# ---- P6 -----------------------------------------------------------------------------------------------------------------------------------------------
def _two_tasks(s: Story, on_end: str = "SUCCESS") -> str:
    s.launch("three")
    s.plan_it("three", "t u", (("t", "u", on_end),))
    return str(dict(s.find(SCHEDULER, "ProcessPlanned")["h"])["mid"])


@breaks("P6")
def a_task_is_dispatched_before_what_it_needs(s: Story) -> None:
    _two_tasks(s)
    s.start("three", "t", "u")
    _finished(s, "three", "t", "u")


def _finished(s: Story, name: str, *tasks: str) -> None:
    ended(s, name)
    for task in tasks:
        s.rows["tasks"][f"tsk_{task}"]["state"] = "COMPLETED"
        for row in s.rows["attempts"].values():
            if row["task_id"] == f"tsk_{task}":
                row["state"] = "SUCCEEDED"


@breaks("P6")
def a_task_is_dispatched_twice(s: Story) -> None:
    _two_tasks(s)
    s.start("three", "t")
    with s.commit("scheduler.commit", "scheduler/1") as tx:
        s.order(tx, "t", "")
    _finished(s, "three", "t", "u")


@breaks("P6")
def a_task_is_dispatched_after_a_failed_ancestor(s: Story) -> None:
    _two_tasks(s)
    s.start("three", "t")
    with s.commit("scheduler.commit", "scheduler/1") as tx:
        s.move(tx, "tasks", "tsk_t", "FAILED")
        s.dispatch(tx, "u", "")
    _finished(s, "three", "u")
    s.rows["attempts"]["att_t1"]["state"] = "FAILED"


# ---- P7 -----------------------------------------------------------------------------------------------------------------------------------------------
@breaks("P7", settled=False)
def a_position_goes_back(s: Story) -> None:
    row = s.rows["positions"][GROUPS["scheduler"], SCHEDULER, 0]
    end = row["next_offset"]
    for offset in (end - 1, end):
        with s.commit("scheduler.commit", "scheduler/1"):
            s.change("positions", (GROUPS["scheduler"], SCHEDULER, 0), next_offset=offset)


@breaks("P7")
def a_fact_is_applied_a_second_time(s: Story) -> None:
    record = s.find(EVENTS, "TaskStarted", "tsk_a")
    with s.commit("scheduler.commit", "scheduler/1") as tx:
        tx.send("ProcessChanged", subject=f"{GATEWAY}/exp_one/prc_one////", key="prc_one", cause=dict(record["h"])["mid"], body={})


@breaks("P7")
def a_fact_is_applied_and_no_position_moves(s: Story) -> None:
    with s.commit("lease.expire", "scheduler/0") as tx:
        row = tx.send("AttemptAbandoned", topic=SCHEDULER, subject=s.subject("a"), key="prc_one")
    s.relay()
    with s.commit("scheduler.commit", "scheduler/1") as tx:
        tx.send("ProcessChanged", subject=f"{GATEWAY}/exp_one/prc_one////", key="prc_one", cause=row["mid"], body={})


@breaks("P7")
def a_success_is_passed_over(s: Story) -> None:
    s.launch("three")
    s.plan_it("three", "t")
    s.start("three", "t")
    s.runs("t")
    s.started("t")
    s.outcome("t")
    s.passes(s.find(EVENTS, "TaskSucceeded", "tsk_t"))
    _finished(s, "three", "t")


@breaks("P7")
def a_plan_is_passed_over(s: Story) -> None:
    s.launch("three")
    s.plan_it("three", "t")
    s.passes(s.find(SCHEDULER, "ProcessPlanned"))
    _over(s, "three", "t")


@breaks("P7")
def a_command_is_passed_over(s: Story) -> None:
    _two_tasks(s)
    s.start("three", "t")
    with s.commit("executor.commit", "executor-job/0") as tx:
        tx.over("executor", s.find(JOBS, "RunTask", "tsk_t"))
    _finished(s, "three", "t", "u")


@breaks("P7")
def a_journal_tells_a_gap(s: Story) -> None:
    s.says("scheduler/1", "violation", text="position_gap")


# ---- P8 -----------------------------------------------------------------------------------------------------------------------------------------------
def _retrying(s: Story) -> None:
    """Task t is RUNNING in its attempt 1."""
    s.launch("three")
    s.plan_it("three", "t")
    s.start("three", "t")
    s.runs("t")
    s.started("t")


def _attempt(s: Story, number: int, **more: Any) -> None:
    with s.commit("scheduler.commit", "scheduler/1") as tx:
        row = {"id": f"att_t{number}", "task_id": "tsk_t", "process_id": "prc_three", "number": number, "state": "DISPATCHED", "epoch": 1, "owner": None, **more}
        s.insert("attempts", **row)
        s.change("tasks", "tsk_t", attempt=number, epoch=1, version=s.rows["tasks"]["tsk_t"]["version"] + 1)
        s.order(tx, "t", "")


@breaks("P8")
def an_attempt_number_is_left_out(s: Story) -> None:
    _retrying(s)
    s.outcome("t", "TaskFailed", code="X", transient=True)
    s.waits("t")
    s.due()
    s.rows["tasks"]["tsk_t"]["attempt"] = 2
    s.again("t")
    _finished(s, "three", "t")


@breaks("P8")
def an_attempt_is_opened_while_the_last_one_runs(s: Story) -> None:
    _retrying(s)
    _attempt(s, 2)
    s.ends_on_host("att_t1")
    _finished(s, "three", "t")


@breaks("P8")
def an_attempt_is_opened_that_nobody_decided(s: Story) -> None:
    _retrying(s)
    s.outcome("t", "TaskFailed", code="X", transient=True)
    s.waits("t")
    _attempt(s, 2)
    s.due()
    _finished(s, "three", "t")


@breaks("P8")
def an_epoch_jumps(s: Story) -> None:
    with s.commit("scheduler.commit", "scheduler/1"):
        s.change("attempts", "att_a1", epoch=7)


@breaks("P8")
def an_attempt_is_missing_at_the_end(s: Story) -> None:
    s.rows["tasks"]["tsk_e"]["attempt"] = 2


@breaks("P8")
def an_executor_raises_an_epoch(s: Story) -> None:
    with s.commit("executor.commit", "executor-job/0"):
        s.change("attempts", "att_a1", epoch=2)


# ---- P9 -----------------------------------------------------------------------------------------------------------------------------------------------
@breaks("P9")
def a_token_starts_twice(s: Story) -> None:
    s.hosts["ledger"].append({**s.hosts["ledger"][0], "pid": "77", "at": str(s.wait())})


@breaks("P9")
def two_jobs_of_a_task_live_at_once(s: Story) -> None:
    first = next(line for line in s.hosts["ledger"] if line["kind"] == "end" and line["token"] == "att_a1")
    first["at"] = str(float(first["at"]) + 50.0)


@breaks("P9")
def a_batch_job_starts_again_without_a_restart(s: Story) -> None:
    start = next(line for line in s.hosts["ledger"] if line["token"] == "att_b1")
    start |= {"job": "41", "restarts": "1"}
    s.hosts["ledger"].append({**start, "at": str(s.wait())})


# ---- P10 ----------------------------------------------------------------------------------------------------------------------------------------------
@breaks("P10")
def a_token_belongs_to_no_attempt(s: Story) -> None:
    s.hosts["control.jsonl"].append({"token": "att_unknown", "receipt": None, "exit": None, "duplicate": []})


@breaks("P10")
def a_stored_job_is_on_no_host(s: Story) -> None:
    s.hosts["control.jsonl"] = [line for line in s.hosts["control.jsonl"] if line["token"] != "att_b1"]


@breaks("P10")
def the_row_has_another_job_than_the_receipt(s: Story) -> None:
    s.rows["jobs"]["job_att_b1"]["scheduler_job_id"] = "7@boot-1"


@breaks("P10")
def a_job_ran_whose_id_was_never_stored(s: Story) -> None:
    s.rows["jobs"]["job_att_b1"]["scheduler_job_id"] = None


@breaks("P10")
def a_duplicate_is_not_told(s: Story) -> None:
    s.hosts["control.jsonl"][0]["duplicate"] = ["h:1:2:3"]


# ---- P11 ----------------------------------------------------------------------------------------------------------------------------------------------
@breaks("P11")
def a_message_is_lost(s: Story) -> None:
    row = a_row(s)
    s.waiting.clear()
    with s.commit("relay.delete"):
        s.delete("outbox", row["id"])


@breaks("P11")
def a_message_is_published_twice(s: Story) -> None:
    row = a_row(s)
    s.publish(row)


@breaks("P11")
def a_record_has_no_row(s: Story) -> None:
    row = a_row(s)
    s.publish({**row, "told": [("mid", mid_of("stranger")), *row["told"][1:]]})


@breaks("P11")
def a_message_lies_in_another_topic(s: Story) -> None:
    with s.commit("lease.expire", "scheduler/0") as tx:
        tx.send("AttemptAbandoned", topic=SCHEDULER, subject=s.subject("a"), key="prc_one")
    s.waiting[-1]["topic"] = LAUNCH


@breaks("P11")
def a_payload_is_altered_on_its_way(s: Story) -> None:
    a_row(s)
    s.waiting[-1]["value"] = json.dumps({"job_id": "job_2"})


@breaks("P11")
def a_message_is_published_and_dead(s: Story) -> None:
    row = a_row(s)
    s.rows["dead_letters"]["dlt_x"] = {"id": "dlt_x", "consumer_group": "relay", "topic": EVENTS, "part": 0, "log_offset": None, "mid": row["mid"], "settled": None}


@breaks("P11")
def an_outbox_row_is_changed(s: Story) -> None:
    row = a_row(s)
    with s.commit("relay.delete"):
        s.change("outbox", row["id"], shard=1)


@breaks("P11")
def a_message_is_inserted_twice(s: Story) -> None:
    row = a_row(s)
    s.relay()
    _same_again(s, row)


def _same_again(s: Story, row: dict[str, Any]) -> None:
    with s.commit("watch.commit", "executor-job/0") as tx:
        tx.send("JobChanged", subject=s.subject("a"), key=row["k"], mid=row["mid"], body=json.loads(row["value"]))
    s.waiting.clear()
    with s.commit("relay.delete"):
        s.delete("outbox", max(s.rows["outbox"]))


# ---- P12 ----------------------------------------------------------------------------------------------------------------------------------------------
@breaks("P12")
def two_messages_of_a_key_change_places(s: Story) -> None:
    a_row(s)
    a_row(s)
    s.waiting.reverse()


@breaks("P12")
def the_schedulers_words_change_places(s: Story) -> None:
    with s.commit("scheduler.commit", "scheduler/1") as tx:
        for number in range(3):
            tx.send("ProcessChanged", subject=f"{GATEWAY}/exp_one/prc_one////", key="prc_one", body={"n": number})
    s.waiting.append(s.waiting.pop(0))


# ---- P13 ----------------------------------------------------------------------------------------------------------------------------------------------
def _event(s: Story, index: int) -> dict[str, Any]:
    return sorted((each for each in s.rows["events"].values() if each["experiment_id"] == "exp_one"), key=lambda each: each["seq"])[index]


@breaks("P13")
def the_last_event_is_not_shown(s: Story) -> None:
    found = _event(s, -1)
    s.rows["events"] = {key: each for key, each in s.rows["events"].items() if each is not found}


@breaks("P13")
def an_event_is_shown_that_never_was(s: Story) -> None:
    last = _event(s, -1)
    s.rows["events"]["more"] = {**last, "seq": last["seq"] + 1, "event_id": "evt_00000000000000000000000000"}


@breaks("P13")
def a_seq_is_left_out(s: Story) -> None:
    _event(s, -1)["seq"] += 1


@breaks("P13")
def two_events_change_places(s: Story) -> None:
    one, two = _event(s, 3), _event(s, 4)
    one["seq"], two["seq"] = two["seq"], one["seq"]


@breaks("P13")
def an_event_is_shown_otherwise(s: Story) -> None:
    found = _event(s, 5)
    found["document"] = json.dumps({**json.loads(found["document"]), "to_state": "CANCELED", "process_id": "prc_other"})


@breaks("P13")
def an_event_is_shown_twice(s: Story) -> None:
    last = _event(s, -1)
    s.rows["events"]["again"] = {**last, "seq": last["seq"] + 1}


# ---- P14 ----------------------------------------------------------------------------------------------------------------------------------------------
@breaks("P14")
def a_sample_sees_offsets_run_ahead(s: Story) -> None:
    ahead = [[GROUPS["scheduler"], EVENTS, 0, s.rows["positions"][GROUPS["scheduler"], EVENTS, 0]["next_offset"]]]
    s.sampled(committed=ahead, positions=[[GROUPS["scheduler"], EVENTS, 0, 3]])


@breaks("P14", settled=False)
def offsets_are_ahead_at_the_end(s: Story) -> None:
    with s.commit("lease.expire", "scheduler/0") as tx:
        tx.send("AttemptAbandoned", topic=SCHEDULER, subject=s.subject("a"), key="prc_one")
    s.relay()
    s.committed[GROUPS["scheduler"]][SCHEDULER]["0"] += 1
    s.nemesis[-1]["kind"] = "told"  # P2 is then UNDECIDED: the record that is not read is P14's here.


# ---- P15 ----------------------------------------------------------------------------------------------------------------------------------------------
def _refused(s: Story) -> dict[str, Any]:
    with s.commit("lease.expire", "scheduler/0") as tx:
        tx.send("AttemptAbandoned", topic=SCHEDULER, subject=s.subject("a"), key="prc_one")
    s.relay()
    return s.find(SCHEDULER, "AttemptAbandoned", "tsk_a")


@breaks("P15")
def a_message_dies_twice(s: Story) -> None:
    record = _refused(s)
    s.dies(record)
    s.rows["dead_letters"].popitem()
    with s.commit("scheduler.commit", "scheduler/1"):
        for name in ("dlt_1", "dlt_2"):
            s.insert("dead_letters", id=name, consumer_group=GROUPS["scheduler"], topic=SCHEDULER, part=0, log_offset=record["o"], mid="aa" * 16, settled=None)


@breaks("P15")
def a_message_dies_and_the_position_moves_elsewhere(s: Story) -> None:
    record = _refused(s)
    s.dies(record, over=False)


@breaks("P15")
def a_copy_is_made_and_the_position_moves_elsewhere(s: Story) -> None:
    s.set_aside(_refused(s), over=False)
    s.due()


@breaks("P15")
def an_aborted_record_has_an_effect(s: Story) -> None:
    with s.commit("generator.commit", "generator/0") as tx:
        tx.send("ProcessChanged", subject=f"{GATEWAY}/exp_one/prc_one////", key="prc_one", cause="ee" * 16, body={})


@breaks("P15")
def an_aborted_record_is_a_dead_letter(s: Story) -> None:
    with s.commit("generator.commit", "generator/0"):
        s.change("positions", (GROUPS["generator"], LAUNCH, 0), next_offset=6)
        s.insert("dead_letters", id="dlt_a", consumer_group=GROUPS["generator"], topic=LAUNCH, part=0, log_offset=5, mid="ee" * 16, settled=None)


# ---- P16 ----------------------------------------------------------------------------------------------------------------------------------------------
@breaks("P16")
def a_step_is_in_two_transactions(s: Story) -> None:
    a_row(s, unit="watch.commit")
    with s.commit("watch.commit", "executor-job/0", step=f"{next(s.steps) - 1:012x}") as tx:
        s.fact(tx, "JobChanged", "a", body={})


@breaks("P16")
def a_transaction_holds_two_steps(s: Story) -> None:
    with s.commit("watch.commit", "executor-job/0") as tx:
        s.fact(tx, "JobChanged", "a", body={})
        tx.step = "feed00000001"
        s.fact(tx, "JobChanged", "a", body={})


@breaks("P16")
def a_witness_is_looked_up_without_a_lock(s: Story) -> None:
    s.claims("scheduler/1", "scheduler", EVENTS, 6)
    s.journals["scheduler/1"][-1]["next_offset"] -= 1


@breaks("P16")
def what_was_committed_is_nowhere(s: Story) -> None:
    s.says("scheduler/1", "unit.end", unit="scheduler.commit", step="scheduler.commit#feed00000002", outcome="committed", group="", ranges=[], out=["ab" * 16])


@breaks("P16")
def what_was_rolled_back_is_there(s: Story) -> None:
    a_row(s)
    s.journals["executor-job/0"][-1]["outcome"] = "rolled_back"


@breaks("P16")
def one_message_of_a_step_is_missing(s: Story) -> None:
    a_row(s)
    s.journals["executor-job/0"][-1]["out"].append("cd" * 16)


# ---- P18 ----------------------------------------------------------------------------------------------------------------------------------------------
@breaks("P18")
def an_output_is_cut(s: Story) -> None:
    s.hosts["files.jsonl"][0]["size"] = 4


@breaks("P18")
def an_output_is_not_what_the_application_wrote(s: Story) -> None:
    for each in (s.hosts["files.jsonl"][0], s.rows["outputs"]["exp_one", "result"]):
        each["sha256"] = "99" * 32


@breaks("P18")
def the_application_saw_another_input(s: Story) -> None:
    s.hosts["ledger"][0]["inputs"] = {"i": "77" * 32}


@breaks("P18")
def the_application_started_before_its_input_was_there(s: Story) -> None:
    s.hosts["ledger"][0]["inputs"] = {}
    process = s.rows["processes"]["prc_one"]
    process["snapshot"] = json.dumps(json.loads(process["snapshot"]) | {"interface": {"inputs": [{"name": "i", "type": "URI", "on_command_line": True}]}})


@breaks("P18")
def half_a_file_stood_under_its_final_name(s: Story) -> None:
    s.hosts["watch.jsonl"].append({"mono": s.wait(), "path": "/data/result.txt", "size": 4, "sha256": "00", "part": False})


# ---- P19 P20 ------------------------------------------------------------------------------------------------------------------------------------------
@breaks("P19")
def an_answer_has_another_tenants_canary(s: Story) -> None:
    s.client[-1]["answer_text"] = "there is canary-bbb in it"


@breaks("P19")
def a_row_has_another_tenants_canary(s: Story) -> None:
    s.rows["experiments"]["exp_one"] |= {"name": "canary-aaa", "gateway_id": OTHER_GATEWAY}


@breaks("P19")
def a_record_has_another_tenants_canary(s: Story) -> None:
    with s.commit("watch.commit", "executor-job/0") as tx:
        s.fact(tx, "JobChanged", "a", body={"job_id": "canary-bbb"})
    s.relay()
    s.rows["positions"][GROUPS["sink"], EVENTS, 0]["next_offset"] += 0


@breaks("P20")
def a_secret_stands_in_a_log(s: Story) -> None:
    s.files["logs/api-0.log"] = "connecting with hunter2-very-secret\n"


@breaks("P20")
def a_secret_stands_in_a_log_as_base64(s: Story) -> None:
    import base64

    s.files["logs/api-0.log"] = base64.b64encode(b"user:hunter2-very-secret!").decode()


@breaks("P20")
def a_secret_stands_where_only_the_name_is_that_of_a_file_it_was_given_in(s: Story) -> None:
    s.files["system/processes/master-key"] = "hunter2-very-secret"


@breaks("P20")
def a_secret_stands_in_an_answer(s: Story) -> None:
    s.client[-1]["answer_text"] = '{"detail": "hunter2-very-secret"}'


@breaks("P20")
def a_secret_stands_in_a_row_as_hex(s: Story) -> None:
    s.rows["dead_letters"]["dlt_s"] = {"id": "dlt_s", "consumer_group": "relay", "topic": EVENTS, "part": 0, "log_offset": None, "mid": "", "payload": b"hunter2-very-secret".hex(), "settled": None}


# ---- P21 P22 P23 ---------------------------------------------------------------------------------------------------------------------------------------
@breaks("P21")
def a_bad_request_is_accepted(s: Story) -> None:
    s.asks("bad-2", "refused", expect={"status": [422], "code": "validation_failed"})
    s.told("bad-2", status=201)


@breaks("P21")
def a_bad_request_gets_another_code(s: Story) -> None:
    s.asks("bad-2", "refused", expect={"status": [422], "code": "validation_failed"})
    s.told("bad-2", outcome="refused", status=422, code="unknown_field")


@breaks("P21")
def a_refusal_comes_late(s: Story) -> None:
    s.asks("bad-2", "refused", expect={"status": [422]}, deadline_ms=1000)
    s.wait(3.0)
    s.told("bad-2", outcome="refused", status=422)


@breaks("P21")
def a_refused_request_leaves_a_row(s: Story) -> None:
    with s.commit("api.create", "api/0"):
        s.insert("outputs", experiment_id="exp_two", name="MARK-1", state="EXPECTED", uri=None, sha256=None, size_bytes=None, type="URI")


@breaks("P22")
def memory_exceeds_its_cap(s: Story) -> None:
    s.sampled(processes={"scheduler/1": {"rss_bytes": 101}})


@breaks("P22")
def the_outbox_exceeds_its_cap(s: Story) -> None:
    s.sampled(outbox_rows=51)


@breaks("P22")
def one_host_has_more_ssh_connections_than_it_allows(s: Story) -> None:
    s.plan["caps"]["ssh_connections"] = 8
    s.sampled(ssh_connections={"fork-a": 8, "fork-b": 9})


@breaks("P22")
def a_503_has_no_retry_after(s: Story) -> None:
    s.asks("full-2", "read")
    s.told("full-2", outcome="refused", status=503, code="overloaded")


@breaks("P23")
def a_version_goes_back(s: Story) -> None:
    s.asks("read-3", "read")
    s.told("read-3", status=200, experiment="exp_one", version=3)


# ---- P24 ----------------------------------------------------------------------------------------------------------------------------------------------
@breaks("P24")
def a_scheduler_is_taken_over_too_late(s: Story) -> None:
    proof = next(line for line in s.nemesis if line["kind"] == "fault.proof")
    s.plan["takeover_seconds"] = {"scheduler": 0.5}
    assert proof["takeover"]


@breaks("P24")
def a_partition_is_never_taken_over(s: Story) -> None:
    """The records beyond what scheduler/0 had done were applied, as the binary log says, by a unit that is in no journal of a successor."""
    for lines in s.journals.values():
        lines[:] = [line for line in lines if not (line["who"] == "scheduler/1" and (line["kind"] == "partition.claim" or line.get("ranges")))]


@breaks("P24")
def an_executors_work_is_taken_over_too_late(s: Story) -> None:
    s.wait(FORGOTTEN)
    s.says("executor-job/0", "attempt.start", token="att_x1", number=1, epoch=1)
    struck = s.wait()
    s.wait(14.0)
    s.says("executor-job/1", "attempt.start", token="att_x1", number=1, epoch=2)
    s.fault("f2", "N1", "executor-job/0", proof={"struck": struck, "takeover": True, "spare": True, "lag_ms": 1.0})


@breaks("P24")
def a_relay_is_taken_over_too_late(s: Story) -> None:
    s.wait(FORGOTTEN)
    late_relay(s)


def late_relay(s: Story) -> None:
    struck = s.wait()
    s.wait(7.0)
    a_row(s)
    s.relay()
    s.journals["relay/0"][-1] |= {"who": "relay/1"}
    s.fault("f2", "N1", "relay/0", proof={"struck": struck, "takeover": True, "spare": True, "lag_ms": 1.0})


# ---- P25 ----------------------------------------------------------------------------------------------------------------------------------------------
OTHER_TRACE = f"00-{'ab' * 16}-{'cd' * 8}-01"


def _record(s: Story) -> dict[str, Any]:
    """The last one about an attempt."""
    a_row(s)
    s.relay()
    return s.log[EVENTS][0][-1]


def _bears(record: dict[str, Any], change: Callable[[str], str]) -> None:
    record["h"] = [[name, change(value) if name == "traceparent" else value] for name, value in record["h"]]


@breaks("P25")
def a_message_begins_a_trace_of_its_own(s: Story) -> None:
    _bears(_record(s), lambda _: OTHER_TRACE)


@breaks("P25")
def a_message_has_no_trace(s: Story) -> None:
    _bears(_record(s), lambda _: "")


@breaks("P25")
def a_message_hangs_on_its_cause(s: Story) -> None:
    _bears(_record(s), lambda told: f"{told[:36]}{'cd' * 8}{told[52:]}")


@breaks("P25")
def a_message_is_not_sampled_like_its_launch(s: Story) -> None:
    _bears(_record(s), lambda told: f"{told[:53]}00")


@breaks("P25")
def an_event_is_shown_in_another_trace(s: Story) -> None:
    found = _event(s, 5)
    found["document"] = json.dumps({**json.loads(found["document"]), "traceparent": OTHER_TRACE})


@breaks("P25")
def a_launch_changes_its_trace(s: Story) -> None:
    was = s.rows["processes"]["prc_one"]["trace_context"]
    for context in (OTHER_TRACE, was):
        with s.commit("scheduler.commit", "scheduler/1"):
            s.change("processes", "prc_one", trace_context=context, version=s.rows["processes"]["prc_one"]["version"] + 1)


@breaks("P25")
def a_launch_is_in_no_trace(s: Story) -> None:
    """It and all that is said of it have the one of zeros."""

    def of_zeros(told: str) -> str:
        return f"00-{'0' * 32}{told[35:]}"

    process = s.rows["processes"]["prc_two"]
    process["trace_context"] = of_zeros(process["trace_context"])
    for record in [each for log in s.log.values() for each in log[0] if "/exp_two/" in dict(each["h"]).get("subject", "")]:
        _bears(record, of_zeros)
    for event in [each for each in s.rows["events"].values() if each["experiment_id"] == "exp_two"]:
        shown = json.loads(event["document"])
        event["document"] = json.dumps({**shown, "traceparent": of_zeros(shown["traceparent"])})


@breaks("P25")
def an_attempt_that_is_spoken_of_has_no_row(s: Story) -> None:
    a_row(s, subject=s.subject("a").replace("/2/1", "/7/1"))


@breaks("P25")
def a_job_hangs_on_no_attempt(s: Story) -> None:
    s.rows["jobs"]["job_x"] = {**s.rows["jobs"]["job_att_a1"], "id": "job_x", "attempt_id": "att_x", "state": "CANCELED", "scheduler_job_id": None}


# ---- P26 ----------------------------------------------------------------------------------------------------------------------------------------------
@breaks("P26")
def a_message_is_newer_than_the_older_release_reads(s: Story) -> None:
    record = _record(s)
    record["h"] = [[name, "2" if name == "schema_version" else value] for name, value in record["h"]]


@breaks("P26")
def the_older_release_sets_a_message_of_the_newer_aside(s: Story) -> None:
    s.dies(_refused(s))
    s.transactions[-1]["rows"][-1][2]["error_class"] = "Unreadable"


@breaks("P26")
def the_older_release_sends_itself_a_copy_of_what_it_cannot_read(s: Story) -> None:
    s.set_aside(_refused(s), error="Unreadable: 'only'")
    s.due()


@breaks("P26")
def a_life_refuses_to_run_beside_the_other_release(s: Story) -> None:
    s.says("generator/0", "life.stop", why="schema 12 is ahead of 11", code=78)
