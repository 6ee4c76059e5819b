"""The fourth proof: before anything restarts, MySQL, Kafka and the host are looked at and compared with what the point's place implies. So a point cannot silently move.

One entry a point, in the order of the catalogue: what must be seen when a case's own experiment is the only one under way. `before` is the same look, taken when the case was armed.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from confluent_kafka import TopicPartition

from app.dev.process import wait_until
from app.messages import ids
from app.messages.placement import Placement
from tests.chaos.lines import read
from tests.chaos.rig import Rig
from tests.chaos.topics import records

PLACEMENT = Placement(12, 4, 2)
SECONDS_TO_READ = 10.0
TOLD_SECONDS = 1.0
CLOCKS_SECONDS = 0.2  # How far apart two clocks that are asked one after the other may seem; leases are renewed every 0.5 s or later.


@dataclass(frozen=True)
class Subject:
    """What a case is about: its experiment (a draft when the case is armed), and what its ids will be, since they derive from it. `looked`: set when the frame was taken."""

    experiment: str
    host: int = 1
    looked: threading.Event = field(default_factory=threading.Event)

    @cached_property
    def process(self) -> str:
        return ids.derived("prc", self.experiment, "1")

    @cached_property
    def shard(self) -> int:
        return PLACEMENT.shard(PLACEMENT.of_experiment(self.experiment))

    @cached_property
    def launched(self) -> bytes:
        """The mid of its first message."""
        return ids.digest(self.experiment, "ExperimentLaunched")

    @cached_property
    def too_large(self) -> bytes:
        """The mid of the row that its provocation puts into the outbox and Kafka never takes."""
        return ids.digest("too large", self.experiment)

    def task(self, name: str) -> str:
        return ids.derived("tsk", self.process, name)

    def token(self, name: str, number: int = 1) -> str:
        return ids.derived("att", self.task(name), str(number))


@dataclass
class Look:
    """Counters that a point's act moves, and the clocks of MySQL and of this machine at the same moment."""

    mono: float
    mysql: float
    epochs: Mapping[str, int]
    settled: Mapping[int, int]
    letters: int


def look(rig: Rig) -> Look:
    epochs = {str(group).rpartition(".")[2]: int(total) for group, total in rig.rows("SELECT consumer_group, SUM(owner_epoch) FROM positions GROUP BY consumer_group")}
    settled = {int(shard): int(seq) for shard, seq in rig.rows("SELECT shard, settled FROM relay_shards")}
    letters = len(rig.dead_letters())
    with rig.connection() as connection, connection.cursor() as cursor:  # Connected first, which takes its time on a busy machine: both clocks are read together.
        mono = time.monotonic()
        cursor.execute("SELECT UNIX_TIMESTAMP(UTC_TIMESTAMP(6))")
        return Look(mono, float(cursor.fetchall()[0][0]), epochs, settled, letters)


@dataclass
class Frame:
    """`struck`, `begun`: of the blow, and of the unit it struck in (monotonic)."""

    rig: Rig
    subject: Subject
    before: Look
    struck: float
    begun: float
    victim: str  # Component and copy.
    pid: int

    @cached_property
    def now(self) -> Look:
        return look(self.rig)

    # ---- MySQL --------------------------------------------------------------------------------------------------------------------------------------
    def has(self, statement: str, *values: Any) -> bool:
        return bool(self.rig.rows(f"SELECT 1 FROM {statement} LIMIT 1", *values))

    def process(self, *states: str) -> bool:
        """Its process row is in one of these; none named: there is no row."""
        rows = self.rig.rows("SELECT state FROM processes WHERE id = %s", self.subject.process)
        return (rows[0][0] in states) if rows and states else not rows and not states

    def attempt(self, name: str, *states: str) -> bool:
        return self.has(f"attempts WHERE id = %s AND state IN ({', '.join(['%s'] * len(states))})", self.subject.token(name), *states)

    def any_attempt(self, *states: str) -> bool:
        return self.has(f"attempts WHERE process_id = %s AND state IN ({', '.join(['%s'] * len(states))})", self.subject.process, *states)

    def job(self, *states: str) -> bool:
        rows = self.rig.rows("SELECT state FROM jobs WHERE process_id = %s", self.subject.process)
        return (rows[0][0] in states) if rows else not states

    @property
    def waits(self) -> bool:
        """A message of its is in the outbox."""
        return self.has("outbox WHERE k LIKE %s", f"{self.subject.process}%")

    @property
    def told(self) -> bool:
        """An event of its is in the history."""
        return self.has("events WHERE experiment_id = %s", self.subject.experiment)

    @property
    def timer(self) -> bool:
        return self.has("timers WHERE process_id = %s", self.subject.process)

    def claimed(self, group: str) -> bool:
        """An epoch of the group rose since the case was armed."""
        return self.now.epochs[group] > self.before.epochs[group]

    def renewed(self, statement: str, *values: Any) -> bool:
        """Some lease of the victim's was renewed in the struck unit: its time (MySQL's clock, as seconds) lies behind the unit's begin."""
        shift = self.now.mysql - self.now.mono
        return any(row[0] is not None and float(row[0]) - shift >= self.begun - CLOCKS_SECONDS for row in self.rig.rows(statement, *values))

    def by_another(self, unit: str, *, for_all: bool = False) -> bool:
        """What was left undone another copy did at once, as its journal says: the loops that all schedulers run wait for nobody to be found dead. `for_all`: it is about no process."""
        component, own = self.victim.rpartition("-")[0], self.victim.replace("-", "/")

        def told() -> bool:
            lines = (line for file in (self.rig.run / "journal").glob(f"{component}-[0-9]*.jsonl") for line in read(file) if line["mono"] > self.struck and line["who"] != own)
            done = (line for line in lines if line["kind"] == "unit.end" and (line["unit"], line["outcome"]) == (unit, "committed"))
            return any(for_all or self.subject.process in line.get("process", ()) for line in done)

        return wait_until(told, TOLD_SECONDS)

    @property
    def mine(self) -> str:
        return f"%-{self.pid}-%"

    @property
    def kept(self) -> bool:
        """Its first message is in the outbox."""
        return self.has("outbox WHERE mid = %s", self.subject.launched)

    # ---- Kafka --------------------------------------------------------------------------------------------------------------------------------------
    @cached_property
    def visible(self) -> bool:
        """A committed reader sees its first message."""
        parts = self.rig.rows("SELECT part FROM processes WHERE id = %s", self.subject.process)
        places = [TopicPartition(f"{self.rig.settings['TOPIC_PREFIX']}airavata-launch", part, 0) for (part,) in parts]
        return any(dict(each.headers() or []).get("mid") == self.subject.launched for each in records(self.rig.kafka, "chaos-frame", places, SECONDS_TO_READ))

    # ---- the host -----------------------------------------------------------------------------------------------------------------------------------
    @property
    def control(self) -> Path:
        return self.rig.host_directory(self.subject.host) / "scratch/.airavata/jobs" / self.subject.token("job-submission")

    def on_host(self, *present: str, absent: tuple[str, ...] = ()) -> bool:
        """Names in the token's control directory, links that lead nowhere included."""
        found = {each.name for each in self.control.iterdir()} if self.control.is_dir() else set()
        return set(present) <= found and not found & set(absent)

    @property
    def staged(self) -> bool:
        """The input lies in the work directory under its final name."""
        return (self.rig.host_directory(self.subject.host) / "scratch/airavata" / self.subject.process / "data").exists()


Seen = Callable[[Frame], bool]
LEASE = "SELECT UNIX_TIMESTAMP(until) - 2 FROM relay_shards WHERE owner LIKE %s AND shard = %s"
BEAT = "SELECT UNIX_TIMESTAMP(heartbeat_at) FROM instances WHERE id LIKE %s"
OLD = "idempotency WHERE created_at < UTC_TIMESTAMP() - INTERVAL 7 DAY"
WATCH = "SELECT UNIX_TIMESTAMP(until) - %s FROM host_watches WHERE owner LIKE %s"


def draft(f: Frame) -> bool:
    return f.process() and not f.waits


def unsent(f: Frame) -> bool:
    return f.kept and not f.visible


def sent_and_kept(f: Frame) -> bool:
    return f.kept and f.visible


def sent(f: Frame) -> bool:
    return not f.kept and f.visible


def leased(f: Frame) -> bool:
    return f.renewed(LEASE, f.mine, f.subject.shard)


def holds_a_shard(f: Frame) -> bool:
    return f.has("relay_shards WHERE owner LIKE %s", f.mine)


def undecided(f: Frame) -> bool:
    return f.process("VALIDATED") and not f.any_attempt("DISPATCHED", "RUNNING", "SUCCEEDED", "FAILED")


def purged(f: Frame) -> bool:
    """What was old when the struck unit began is gone. The case's own row may have come behind it: the provocation, which says by its age when, runs beside the blow."""
    began = f.begun - CLOCKS_SECONDS + f.now.mysql - f.now.mono
    return not f.has(f"{OLD} AND created_at + INTERVAL 8 DAY < FROM_UNIXTIME(%s)", began)


def at_work(f: Frame) -> bool:
    """A worker died: its attempt is under way, or the executor that lives has already seen that it was cut off."""
    return f.any_attempt("RUNNING", "FAILED") and not f.any_attempt("SUCCEEDED")


def watched(f: Frame) -> bool:
    return f.renewed(WATCH, int(f.rig.settings.get("LEASE_SECONDS", "10")), f.mine)


def poison_waits(f: Frame) -> bool:
    return f.now.letters == f.before.letters


def anywhere(_: Frame) -> bool:
    """C5 and the hand-over commit offsets lazily, for lag tools alone: what they leave is judged by P14 at every sample."""
    return True


def lazy(component: str) -> dict[str, Seen]:
    return {f"{component}.{each}": anywhere for each in ("offsets.before", "offsets.after", "revoke.after")}


def consumer(component: str, group: str, undone: Seen, done: Seen, *, commit: str = "commit") -> dict[str, Seen]:
    """What the one loop gives every consumer."""
    return {
        f"{component}.claim.before": lambda f: not f.claimed(group), f"{component}.claim.after": lambda f: f.claimed(group), f"{component}.poll.after": undone, f"{component}.position.after": undone,
        f"{component}.aside.after": poison_waits, f"{component}.{commit}.before": undone, f"{component}.{commit}.after": done, **lazy(component),
    }  # fmt: skip


FRAMES: Mapping[str, Seen] = {
    "api.state.after": draft, "api.launch_commit.before": draft, "api.launch_commit.after": lambda f: not f.process(),
    "api.positions_commit.before": lambda f: not f.claimed("event-sink"), "api.positions_commit.after": lambda f: f.claimed("event-sink"),
    "api.events_commit.before": lambda f: not f.told, "api.events_commit.after": lambda f: f.told,
    "relay.lease.before": lambda f: not leased(f), "relay.lease.after": leased,
    "relay.init.before": holds_a_shard, "relay.init.after": holds_a_shard, "relay.read_state.after": lambda f: f.now.settled == f.before.settled,
    "relay.settle.before": sent_and_kept, "relay.settle.after": sent,
    "relay.select.after": unsent, "relay.produce.after": unsent, "relay.record.before": unsent, "relay.commit.before": unsent, "relay.commit.after": sent_and_kept,
    "relay.delete.before": sent_and_kept, "relay.delete.after": sent,
    "relay.set_aside.before": lambda f: poison_waits(f) and f.has("outbox WHERE LENGTH(payload) > 1000000"),
    "relay.set_aside.after": lambda f: f.now.letters == f.before.letters + 1 and not f.has("outbox WHERE LENGTH(payload) > 1000000"),
    **consumer("generator", "workflow-generator", lambda f: f.process("CREATED"), lambda f: not f.process("CREATED")), "generator.graph.after": lambda f: f.process("CREATED"),
    **consumer("scheduler", "task-scheduler", undecided, lambda f: f.any_attempt("DISPATCHED", "RUNNING", "SUCCEEDED")), "scheduler.load.after": undecided, "scheduler.state.after": undecided,
    **consumer("executor", "executor-noop", lambda f: f.attempt("a", "DISPATCHED"), lambda f: f.attempt("a", "RUNNING"), commit="start_commit"),
    "timer.move.before": lambda f: f.timer or f.by_another("timer.move"), "timer.move.after": lambda f: not f.timer,
    "lease.heartbeat.before": lambda f: not f.renewed(BEAT, f.mine), "lease.heartbeat.after": lambda f: f.renewed(BEAT, f.mine),
    "lease.expire.before": lambda f: f.has("attempts WHERE process_id = %s AND owner IS NOT NULL", f.subject.process) or f.by_another("lease.expire"),
    "lease.expire.after": lambda f: f.has("attempts WHERE process_id = %s AND (owner IS NULL AND state = 'RUNNING' OR epoch > 1)", f.subject.process),  # Another may have sent it again by now.
    "sweeper.rescue.before": lambda f: not f.timer and not f.waits and f.has("tasks WHERE process_id = %s AND state = 'RETRY_WAIT'", f.subject.process),
    "sweeper.rescue.after": lambda f: f.waits or f.has("tasks WHERE process_id = %s AND attempt > 1", f.subject.process),
    "purge.before": lambda f: wait_until(lambda: f.has(OLD), TOLD_SECONDS) or f.by_another("purge", for_all=True), "purge.after": purged,
    "executor.outcome_commit.before": lambda f: f.attempt("a", "RUNNING"), "executor.outcome_commit.after": lambda f: f.attempt("a", "SUCCEEDED"),
    "ssh.connect.before": at_work, "ssh.connect.after": at_work, "ssh.exec.before": at_work, "ssh.exec.after": at_work,
    "staging.part.after": lambda f: not f.staged, "staging.rename.before": lambda f: not f.staged, "staging.rename.after": lambda f: f.staged, "staging.manifest.after": lambda f: f.staged,
    "submit.intent_commit.before": lambda f: f.job() and not f.control.exists(), "submit.intent_commit.after": lambda f: f.job("SUBMITTING") and not f.control.exists(),
    "submit.id_commit.before": lambda f: f.job("SUBMITTING") and f.on_host("receipt"), "submit.id_commit.after": lambda f: f.job("SUBMITTED", "ACTIVE") and f.on_host("receipt"),
    "host.lock.after": lambda f: f.on_host("lock.1", absent=("epoch", "intent", "receipt")), "host.epoch.after": lambda f: f.on_host("lock.1", "epoch", absent=("intent", "receipt")),
    "host.intent.after": lambda f: f.on_host("epoch", "intent", absent=("guard.1", "receipt")), "host.accept.after": lambda f: f.on_host("intent", "script.1"),
    "host.receipt.before": lambda f: f.on_host("guard.1", absent=("receipt",)), "host.receipt.after": lambda f: f.on_host("guard.1", "receipt", absent=("exit",)),
    "job.guard.before": lambda f: f.on_host("intent", absent=("receipt",)), "job.guard.after": lambda f: f.on_host("guard.1", absent=("receipt",)),
    "job.exit.before": lambda f: f.on_host("receipt", absent=("exit",)), "job.exit.after": lambda f: f.on_host("receipt", "exit"),
    "watch.claim.before": lambda f: not watched(f), "watch.claim.after": watched,
    "watch.commit.before": lambda f: f.job("SUBMITTED"), "watch.commit.after": lambda f: f.job("ACTIVE", "COMPLETED"),
    "doubt.verdict.before": lambda f: f.job("SUBMITTING"), "doubt.verdict.after": lambda f: f.job("IN_DOUBT"),
    "sink.claim.before": lambda f: not f.claimed("event-sink"), "sink.claim.after": lambda f: f.claimed("event-sink"),
    **lazy("sink"), "sink.post.before": lambda f: not f.told, "sink.post.after": lambda f: f.told,
    "dead_letter.replay.before": lambda f: f.has("dead_letters WHERE mid = %s AND settled IS NULL", f.subject.too_large),
    "dead_letter.replay.after": lambda f: f.has("dead_letters WHERE mid = %s AND settled = 'REPLAYED'", f.subject.too_large),
}  # fmt: skip
