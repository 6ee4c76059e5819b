"""Every point once (docs/chaos.md): each fail point of the catalogue strikes at its first hit, on real servers, and all goes on as if nothing had happened.

First a run that only counts, with every provocation: a point never reached is a failure, and so is one that is not in the catalogue. Then one case a point, the stack stays up:
arm → provoke → three proofs → freeze frame → restart at once, or a spare takes over → the experiment ends as in the counting run. A case without its four proofs is UNDECIDED.
"""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient

from app.dev.process import wait_until
from app.dev.servers import Native
from tests.chaos import bounds, freeze_frames, proofs, workload
from tests.chaos.catalogue import BUILT, POINTS, known
from tests.chaos.expectations import unmet
from tests.chaos.freeze_frames import FRAMES, PLACEMENT, Frame, Subject
from tests.chaos.outcome import Case, Outcome, Say
from tests.chaos.provocations import FIRST, PROVOKED, command, launch
from tests.chaos.rig import Rig

Document = dict[str, Any]
MODES = ("crash", "pause", "delay:3000", "raise:unknown", "raise:definite")
SETTINGS = {"lease_seconds": 3, "sweep_after_seconds": 3, "purge_every_seconds": 3, "partitions": PLACEMENT.partitions, "placement_width": PLACEMENT.width}
CASE_SECONDS = 60.0  # Twice what the page allows: two cores that others use, too.
ARMED_SECONDS = 0.1  # A running process looks at its file every 50 ms.
STANDING_SECONDS = 0.3
PAUSE_SECONDS = 5.0  # Past session and lease.
REQUIRED = ("P1", "P2", "P3", "P5", "P6", "P7", "P8", "P9", "P10", "P11", "P12", "P13", "P14", "P15", "P18", "P25")
COMPONENT = {  # By the first word of a point: the component it strikes in.
    "api": "api", "dead_letter": "api", "relay": "relay", "generator": "generator", "scheduler": "scheduler", "timer": "scheduler", "sweeper": "scheduler", "purge": "scheduler",
    "lease": "scheduler", "executor": "executor-noop", "ssh": "executor-environment", "staging": "executor-data", "submit": "executor-job", "host": "executor-job", "job": "executor-job",
    "watch": "executor-job", "doubt": "executor-job", "sink": "event-sink",
}  # fmt: skip
LOST = ("host.receipt.after", "job.exit.before")  # The job's wrapper dies and leaves no exit file: nobody can tell how it ended, and after a search of 60 s it is LOST. First of all, judged at the end.
GROUP = {"api": "event-sink", "generator": "workflow-generator", "scheduler": "task-scheduler", "executor": "executor-noop"}
HOSTED = ("ssh", "staging", "submit", "host", "job", "watch", "doubt")


def word(point: str) -> str:
    return point.partition(".")[0]


def act(point: str) -> str:
    """`module.operation`."""
    return point.rpartition(".")[0]


# ---- the plan -----------------------------------------------------------------------------------------------------------------------------------------
def draw(seed: int, *, mode: str = "crash", hit: int = 1, only: Sequence[str] = ()) -> Document:
    rng = random.Random(seed)
    cases = []
    points = [each for each in BUILT if word(each) in COMPONENT and fits(each, mode)]
    for n, point in enumerate([*(each for each in points if each in LOST), *interleaved([each for each in points if each not in LOST])]):
        if not only or point in only or act(point) in only:
            spare = (seed + n) % 2 == 1 and COMPONENT[word(point)] != "api" and act(point) not in FIRST  # A sink cannot go on without its API server, and nobody when two have died.
            cases.append({"point": point, "mode": mode, "hit": hit, "spare": spare, "launch": workload.keyed(rng, seed, n, a_launch(rng, point)) | {"repeat_after": []}})
    faults = [{"fault": each["point"], "kind": "N1", "target": COMPONENT[word(each["point"])]} for each in cases]
    return {"seed": seed, "kind": "points", "mode": mode, "eight": workload.eight(rng, seed, 1000), "cases": cases, "faults": faults, "required": {**{each: {} for each in REQUIRED if each != "P15" or not only}, "P16": {"committed": 1}, **bounds.REQUIRED}, "caps": dict(bounds.CAPS)}


def fits(point: str, mode: str) -> bool:
    """An unknown outcome is raised after the act, a definite one before it, and neither where no door handles it."""
    return not mode.startswith("raise:") or (BUILT[point].raises and point.endswith(".after" if mode == "raise:unknown" else ".before"))


def interleaved(points: Sequence[str]) -> list[str]:
    """Round and round the components, so that what one case killed is up again when its turn comes."""
    queues: dict[str, list[str]] = {}
    for each in points:
        queues.setdefault(COMPONENT[word(each)], []).append(each)
    return [queue[n] for n in range(max(map(len, queues.values()))) for queue in queues.values() if n < len(queue)]


def a_launch(rng: random.Random, point: str) -> Document:
    """What reaches the point: the planner's graph, a task that is tried again, one that lasts, or a diamond."""
    if word(point) in HOSTED:
        made = workload.planned(rng, manner="plain", host=1, size=4096) | {"cleanup_strategy": "NONE"}
        return made | ({"expect": {"state": "FAILED", "outcome": "LOST_JOB"}} if point in LOST else {})
    behaviour = {"timer": "a:fail=1", "sweeper": "a:fail=1"}.get(word(point), "a:sleep_ms=4000" if act(point) == "lease.expire" else "a:sleep_ms=20")
    edges = workload.diamond(rng)
    return {"shape": "diamond", "application": "shape", "inputs": {"edges": " ".join(edges), "behaviour": behaviour}, "expect": workload.COMPLETED}


# ---- the run ------------------------------------------------------------------------------------------------------------------------------------------
@dataclass
class Going:
    rig: Rig
    plan: Document
    say: Say
    reference: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)  # What a launch is → how its tasks ended when nobody struck.
    launched: dict[str, Document] = field(default_factory=dict)
    reached: set[str] = field(default_factory=set)
    struck: set[str] = field(default_factory=set)

    def draft(self, planned: Document) -> Subject:
        """An experiment that is not launched yet: all its ids are known, so that the point can be aimed."""
        body = self.rig.body(planned) | {"launch": False}
        experiment = self.rig.client.post("/experiments", body, planned["key"])["id"]
        self.launched[experiment] = planned
        return Subject(experiment, planned.get("host", 1))

    def ended(self, subject: Subject) -> bool:
        """It has ended, and its history says so."""
        return bool(
            self.rig.one("SELECT COUNT(*) FROM experiments WHERE id = %s AND finished_at IS NOT NULL", subject.experiment)
            and self.rig.one("SELECT COUNT(*) FROM events WHERE experiment_id = %s AND type = 'ExperimentChanged'", subject.experiment) >= 3
        )

    def tasks(self, subject: Subject) -> list[tuple[Any, ...]]:
        return self.rig.rows("SELECT name, type, state FROM tasks WHERE process_id = %s ORDER BY name", subject.process)

    def faults(self, subject: Subject) -> list[str]:
        """What is not as if nothing had happened."""
        planned, found = self.launched[subject.experiment], self.tasks(subject)
        faults = unmet(self.rig, {subject.experiment: planned})
        wanted = self.reference.setdefault(kind_of(planned), found)
        return faults if found == wanted else [*faults, f"tasks ended as {found}, in the counting run as {wanted}"]


def kind_of(planned: Document) -> str:
    inputs = planned["inputs"]
    return " ".join(str(each) for each in (planned["application"], *(inputs.get(name, "") for name in ("edges", "behaviour", "manner", "status")), planned.get("cleanup_strategy", "")))


def rig(directory: Path, native: Native, plan: Document, **settings: Any) -> Rig:
    return Rig(directory, native, plan, **SETTINGS, **settings)


def run(rig: Rig, *, say: Say) -> Outcome:
    outcome, plan = Outcome("points", rig.run), rig.plan
    going = Going(rig, plan, say)
    outcome.cases += record(going)
    say(f"{len(going.reached)} points reached in the counting run")
    with ThreadPoolExecutor(1) as beside:
        operators = beside.submit(commands, going)
        for n, case in enumerate(plan["cases"]):
            start = time.monotonic()
            outcome.cases.append(single(going, case))
            say(f"{n + 1}/{len(plan['cases'])} {case['point']} {time.monotonic() - start:.1f} s {outcome.cases[-1].why}")
        outcome.cases += operators.result()
    rig.lives += len(COMMANDS)  # Of those that died; counted here, for a thread that adds to a number loses some.
    told = {"known": len(POINTS), "reached": len(going.reached & set(POINTS)), "struck": len(going.struck), "absent": len(POINTS) - len(BUILT)}
    (rig.run / "points.json").write_text(json.dumps(told | {"names": sorted(going.struck)}, indent=1))
    outcome.verdict = rig.finish(going.launched)
    return outcome


def record(going: Going) -> list[Case]:
    """Without crashes, all points on `count`, the eight at once and every provocation."""
    rig = going.rig
    for component in rig.counts:
        rig.arm(component, "*=count")
    eight = [(rig.launch(each), each) for each in going.plan["eight"]]
    going.launched |= dict(eight)
    subjects, done = [Subject(experiment) for experiment, _ in eight], set()
    for case in [each for each in going.plan["cases"] if each["point"] not in LOST]:  # Those are launches like others, which end as others do when nobody strikes.
        provoke, first = PROVOKED.get(act(case["point"]), launch), FIRST.get(act(case["point"]))
        key = (provoke, kind_of(case["launch"]), first)
        if key not in done:
            done.add(key)
            subjects.append(going.draft(case["launch"] | {"key": f"count-{case['launch']['key']}"}))
            if first is not None and first[0] == "executor-job":  # An ambiguous answer: no component dies of it.
                rig.arm(first[0], "*=count", entry(rig, {"point": first[1], "mode": "crash", "hit": 1}, subjects[-1]))
            extra = provoke(rig, subjects[-1])
            if "restart" in extra:
                assert wait_until(lambda: rig.rows("SELECT 1 FROM attempts WHERE process_id = %s AND owner IS NULL OR epoch > 1", subjects[-1].process) != [], CASE_SECONDS), "its lease did not end"
                rig.restart(extra["restart"])
    still = list(subjects)
    while still:
        assert wait_until(lambda: going.ended(still[0]), 2 * CASE_SECONDS), f"{going.launched[still[0].experiment]['name']}: {going.tasks(still[0])}"
        going.faults(still.pop(0))
    going.reached = reached(rig)
    for component in rig.counts:
        rig.disarm(component)
    missing = [case["point"] for case in going.plan["cases"] if case["point"] not in going.reached]
    unknown = sorted(each for each in going.reached if not known(each))
    return [Case("every point is reached", f"never reached: {missing}" if missing else ""), Case("every point is in the catalogue", f"unknown: {unknown}" if unknown else "")]


def reached(rig: Rig) -> set[str]:
    """By the marks of our processes, and the `hits` of the hosts."""
    hits = [line for path in (rig.run / "scratch").glob("*/scratch/.airavata/hits") for line in path.read_text().splitlines()]
    return {each.name.split(".count")[0] for each in (rig.run / "struck").glob("*/*.count.struck")} | {line.split()[0] for line in hits}


def entry(rig: Rig, case: Document, subject: Subject) -> str:
    """Aimed at the case's experiment by what the point is told."""
    point, tells = case["point"], BUILT[case["point"]].tells
    if "process" in tells:
        aim = f"?process={subject.process}"
    elif "group" in tells:  # Not the sink's heartbeat, which carries nothing, nor a claim of nothing.
        aim = f"?group={rig.settings['ENVIRONMENT']}.{GROUP[word(point)]}"
    elif "host" in tells:
        aim = f"?host={rig.places['hosts'][subject.host]}"
    elif "shard" in tells:
        aim = f"?shard={subject.shard}"
    else:
        aim = ""
    return f"{point}={case['mode']}" + (f"@{case['hit']}" if case["hit"] != 1 else "") + aim


LEASE = "SELECT owner FROM relay_shards WHERE until > UTC_TIMESTAMP(6) AND shard = %s"


def armed_copies(rig: Rig, point: str, subject: Subject) -> list[int]:
    """All; of the relays whoever holds the lease, where it is renewed: the other only looks whether it is free."""
    component = COMPONENT[word(point)]
    owners = [row[0] for row in rig.rows(LEASE, subject.shard)] if act(point) == "relay.lease" else []
    copies = range(rig.counts[component])
    return [copy for copy in copies if any(f"-{rig.pid_of(component, copy)}-" in owner for owner in owners)] or list(copies)


def standing(rig: Rig) -> Callable[[], bool]:
    """Whether no position has moved since it was asked first, for long enough that a record on its way would have been met."""
    seen: list[Any] = []

    def stand() -> bool:
        moved = rig.rows("SELECT SUM(next_offset) FROM positions")
        if not seen or moved != seen[0]:
            seen[:] = [moved, time.monotonic()]
        return bool(time.monotonic() - seen[1] >= STANDING_SECONDS)

    return stand


def single(going: Going, case: Document) -> Case:
    """One point. Undecided without its four proofs; failed if it is not as if nothing had happened."""
    rig, point, component = going.rig, case["point"], COMPONENT[word(case["point"])]
    copies = [f"{component}-{copy}" for copy in range(rig.counts[component])]
    rig.until(lambda: all(rig.ready(each) is None for each in copies) and rig.outbox_rows() == 0, 60.0, lambda: f"{component} is not ready")
    if "group" in BUILT[point].tells and "process" not in BUILT[point].tells:  # It is not told whose record it meets: what the case before left to be read would strike it.
        rig.until(standing(rig), 60.0, lambda: "positions move on")
    subject = going.draft(case["launch"])
    if component != "api":  # Else whoever launches waits for the frame before it asks the other server.
        subject.looked.set()
    rig.nemesis_lines.write("fault.start", fault=point, fault_kind="N1", target=component, detail={"mode": case["mode"], "spare": case["spare"]})
    before, hits = freeze_frames.look(rig), proofs.Hits(rig, component)
    rig.down |= set(copies)
    first = FIRST.get(act(point))
    rig.arm(component, *([entry(rig, {"point": first[1], "mode": "crash", "hit": 1}, subject)] if first else []), entry(rig, case, subject), copies=armed_copies(rig, point, subject))
    extra: Document = {}
    time.sleep(ARMED_SECONDS)
    provoking = threading.Thread(target=lambda: extra.update(PROVOKED.get(act(point), launch)(rig, subject)), daemon=True)
    provoking.start()
    try:
        hit = hits.wait(point, case["mode"])
        seen = FRAMES[point](Frame(rig, subject, before, hit.mono, hit.begun, hit.name, hit.pid))
        proof = hits.proof(hit, case["mode"])
    except proofs.NotProven as fault:
        seen, proof, why = False, None, f"UNDECIDED: {fault}"
    else:
        why = "" if seen else "UNDECIDED: the freeze frame is not what the point's place implies"
        rig.nemesis_lines.write("fault.proof", fault=point, struck=proof.struck, evidence={**proof.evidence, "frame": seen})
    finally:
        subject.looked.set()
    rig.disarm(component)
    if not case["spare"]:
        raise_the_dead(rig, copies)
    provoking.join(60.0)
    if case["mode"] == "pause" and proof is not None:
        time.sleep(PAUSE_SECONDS)
        with suppress(ProcessLookupError):
            os.kill(hit.pid, signal.SIGCONT)
    if "restart" in extra:
        rig.restart(extra["restart"])
    ended = point in LOST or wait_until(lambda: going.ended(subject), CASE_SECONDS, 0.02)
    raise_the_dead(rig, copies)
    rig.nemesis_lines.write("fault.end", fault=point, healed=time.monotonic())
    going.struck |= {point} if not why else set()
    faults = [] if point in LOST else going.faults(subject) if ended else [f"not ended within {CASE_SECONDS:.0f} s: {going.tasks(subject)}"]
    return Case(f"{point} {case['mode']}", "; ".join([why, *faults] if why else faults))


def raise_the_dead(rig: Rig, copies: Sequence[str]) -> None:
    """Whoever died lives again, and the keeper looks after all of them. A provocation may be giving one a new life just now."""
    for each in copies:
        rig.restart(each)


COMMANDS = {  # Points of operators' commands: the command, and what its death leaves.
    "migration.step.after": (("migrate",), lambda rig, schema: made(rig, schema, "gateways") and not version(rig, schema)),
    "topics.apply.after": (("topics", "--apply"), lambda rig, schema: f"{schema}.event-sink" in AdminClient({"bootstrap.servers": rig.kafka}).list_topics(timeout=10).topics and not positions(rig, schema)),
}


def commands(going: Going) -> list[Case]:
    """A command that dies at its point, and once more: it goes on where it was. All beside the cases, for it has a schema and topics of its own."""
    rig, cases = going.rig, []
    schema = f"{rig.schema}_command"
    rig.native.database(rig.kind).execute(f"CREATE DATABASE {schema}")
    for point, (argv, left) in COMMANDS.items():
        hits = proofs.Hits(rig, "command")
        status = command(rig, *argv, schema=schema, point=point)
        struck = (rig.run / "struck" / "command" / f"{point}.crash.struck").exists() and hits.look(point, "crash") is not None
        frame = left(rig, schema)
        again = command(rig, *argv, schema=schema)
        why = "" if (status, struck, frame, again) == (-signal.SIGKILL, True, True, 0) else f"status {status}, struck {struck}, frame {frame}, repeated {again}"
        cases.append(Case(f"{point} crash", why))
        going.struck |= {point} if not why else set()
    going.reached |= set(COMMANDS)
    rig.native.database(rig.kind).execute(f"DROP DATABASE {schema}")
    return cases


def made(rig: Rig, schema: str, table: str) -> bool:
    return bool(rig.rows("SELECT 1 FROM information_schema.tables WHERE table_schema = %s AND table_name = %s", schema, table))


def version(rig: Rig, schema: str) -> list[tuple[Any, ...]]:
    return rig.rows(f"SELECT version_num FROM {schema}.alembic_version") if made(rig, schema, "alembic_version") else []


def positions(rig: Rig, schema: str) -> list[tuple[Any, ...]]:
    return rig.rows(f"SELECT 1 FROM {schema}.positions LIMIT 1")
