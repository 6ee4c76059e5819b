"""Innocent histories: what only looks like a broken promise, because a nemesis made it, or because one transaction shows no more than its net. Nothing may be broken by them."""

import json
from collections.abc import Callable

from tests.checker_histories.bad import FORGOTTEN, a_row, late_relay, settle
from tests.checker_histories.story import Story, good
from tests.checker_histories.world import EVENTS, GATEWAY, GROUPS, JOBS, SCHEDULER

INNOCENT: dict[str, Callable[[Story], None]] = {}


def innocent(act: Callable[[Story], None]) -> Callable[[Story], None]:
    INNOCENT[act.__name__] = act
    return act


def history(name: str) -> Story:
    story = good()
    INNOCENT[name](story)
    return story


@innocent
def a_start_and_its_abandonment_come_in_one_batch(s: Story) -> None:
    """The task is where it was, at a newer epoch; the start, which the rows as they stood had asked for, left nothing."""
    s.launch("three")
    s.plan_it("three", "f")
    s.start("three", "f")
    order = s.find(JOBS, "RunTask", "tsk_f")
    with s.commit("executor.commit", "executor-job/0") as tx:
        tx.over("executor", order)
        s.change("attempts", "att_f1", state="RUNNING", owner="executor-job/0")
        s.fact(tx, "TaskStarted", "f", cause=dict(order["h"])["mid"])
    s.relay()
    with s.commit("lease.expire", "scheduler/0") as tx:
        s.change("attempts", "att_f1", owner=None)
        tx.send("AttemptAbandoned", topic=SCHEDULER, subject=s.subject("f"), key="prc_three", mid="")
    s.relay()
    abandoned, started = s.find(SCHEDULER, "AttemptAbandoned", "tsk_f"), s.find(EVENTS, "TaskStarted", "tsk_f")
    with s.commit("scheduler.commit", s.scheduler) as tx:
        tx.over("scheduler", abandoned)
        tx.over("scheduler", started)
        s.change("tasks", "tsk_f", version=s.rows["tasks"]["tsk_f"]["version"] + 1, epoch=2)
        s.change("attempts", "att_f1", state="DISPATCHED", epoch=2)
        s.order(tx, "f", dict(abandoned["h"])["mid"])
    s.relay()
    s.runs("f")
    s.started("f")
    s.outcome("f")
    s.completed("f", ends="three")
    settle(s)


@innocent
def relays_refuse_a_memory_that_a_nemesis_took(s: Story) -> None:
    s.plan["faults"].append({"fault": "f30", "kind": "N30", "target": ""})
    s.nemesis.append(s.stamp("fault.start", fault="f30", fault_kind="N30", target=""))
    s.says("relay/0", "violation", what="relay_state", shard=0, known="no record", settled=7)
    s.nemesis.append(s.stamp("fault.proof", fault="f30", struck=s.clock, evidence={"exit": {"relay-0": 78}}))
    s.nemesis.append(s.stamp("fault.end", fault="f30", healed=s.clock))


@innocent
def kafka_was_told_an_offset_by_hand_and_the_try_was_not_proven(s: Story) -> None:
    a_row(s, "TaskStarted")
    s.relay()
    ahead = s.log[EVENTS][0][-1]["o"] + 1
    s.nemesis.append(s.stamp("offsets.set", offsets_set=[[GROUPS["scheduler"], EVENTS, 0, ahead]]))
    positions = [[*key, row["next_offset"]] for key, row in s.rows["positions"].items()]
    s.sampled(committed=[[*place, ahead if place == [GROUPS["scheduler"], EVENTS, 0] else offset] for *place, offset in positions], positions=positions)
    settle(s)


@innocent
def a_relay_is_taken_over_late_while_another_fault_is_on(s: Story) -> None:
    s.wait(FORGOTTEN)
    s.fault("f3", "N6", "")
    late_relay(s)
    settle(s)


@innocent
def a_job_outlives_its_deadline_and_its_watcher_ends_it(s: Story) -> None:
    """It changes after everything that it was for has ended, and the epoch that its attempt ended with is nobody's."""
    s.launch("three")
    s.plan_it("three", "f")
    s.start("three", "f")
    token = s.runs("f")
    s.started("f")
    with s.commit("timer.move", "scheduler/0") as tx:
        tx.send("DeadlineDue", topic=SCHEDULER, subject=f"{GATEWAY}/exp_three/prc_three////", key="prc_three")
    s.relay()
    due = s.find(SCHEDULER, "DeadlineDue")
    with s.commit("scheduler.commit", s.scheduler) as tx:
        tx.over("scheduler", due)
        s.change("attempts", token, state="CANCELED", epoch=2)
        s.move(tx, "tasks", "tsk_f", "FAILED", dict(due["h"])["mid"], epoch=2)
        s.finish(tx, "three", dict(due["h"])["mid"], "FAILED")
    s.relay()
    for begin, end, more in (("SUBMITTED", "ACTIVE", {}), ("ACTIVE", "CANCELED", {"finished_at": s.wall(s.wait())})):
        with s.commit("watch.commit", "executor-job/0") as tx:
            s.change("jobs", f"job_{token}", state=end, **more)
            s.fact(tx, "JobChanged", "f", body={"job_id": f"job_{token}", "from_state": begin, "to_state": end, "reason": ""})
    settle(s)


@innocent
def a_late_claim_of_a_partition_where_nothing_comes_is_left_alone(s: Story) -> None:
    """Its owner meets it with the next record, whenever that comes."""
    woken = s.wait(1.0)
    s.claims("scheduler/0", "scheduler", SCHEDULER, 4)
    s.fault("f9", "N2", "scheduler/0", proof={"struck": s.clock, "spare": True, "late_claim": True}, end={"woken": woken})
    s.wait(60.0)


@innocent
def a_partition_stands_still_after_a_late_claim_while_its_store_does(s: Story) -> None:
    """Bounds in time are of one fault alone: the owner claimed again at once, and then had nothing to commit in."""
    ends = [line for line in s.journals["scheduler/1"] if line["kind"] == "unit.end" and line["ranges"] and line["ranges"][0][0] == EVENTS]
    ends[-1]["mono"] += 5.0
    s.fault("f9", "N6", "mysql")
    s.nemesis[-3]["mono"] = ends[-1]["mono"] - 5.0


@innocent
def poison_that_is_there_twice_is_set_aside_twice(s: Story) -> None:
    """Two records under one mid, and so two copies under one mid, which come in one batch."""
    log = s.log[SCHEDULER][0]
    poison = {**log[-1], "h": [*([name, {"mid": "ab" * 16, "subject": "gw_1/exp_none/prc_none////"}.get(name, value)] for name, value in log[-1]["h"]), ["nemesis", "N19"]]}
    log += [{**poison, "o": log[-1]["o"] + 1}, {**poison, "o": log[-1]["o"] + 2}]
    for record in log[-2:]:
        s.set_aside({**record, "topic": SCHEDULER})
    s.due()
    copies = [{**each, "topic": SCHEDULER} for each in log[-2:]]
    with s.commit("scheduler.commit", s.scheduler) as tx:
        tx.over("scheduler", *copies)
        for copy in copies:
            told = dict(copy["h"])
            tx.timer(told["type"], subject=told["subject"], key=copy["k"], mid="cd" * 16, due_at="2026-11-25 00:00:00.000000", origin={**json.loads(told["origin"]), "tries": 2}, only=told["only"])
    s.due()
    for record in log[-2:]:
        s.dies({**record, "topic": SCHEDULER})
