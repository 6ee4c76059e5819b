"""Every fail point, as data: where it sits in the protocol, what it can be aimed by, and whether its part exists yet. What a freeze frame must show there: freeze_frames.py.

`tests/architecture/test_failpoints.py` holds the product's code and host scripts against this, both ways. `POINTS` are the 98 of the design's page, and those that the one
consumer loop gives every consumer besides (`page=False`). `UNITS` are units of work that are no points of their own, each with the reason; since a unit's name always
gives `.before` and `.after`, a run with `*=count` meets them too. A unit whose name ends in `.read` writes nothing and has no points.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Point:
    """`tells`: keys it can be aimed by (`?process=prc_…`). `raises`: a failure raised here meets a door's handling; elsewhere it ends the process. `part`: what it waits for."""

    module: str
    step: str
    tells: tuple[str, ...] = ()
    raises: bool = True
    part: str = ""
    page: bool = True


Points = Iterator[tuple[str, Point]]
MESSAGES = ("process", "in", "out", "timers", "group")
WORKER = ("process", "task", "token")


def unit(name: str, module: str, step: str, *tells: str, part: str = "", page: tuple[bool, bool] = (True, True)) -> Points:
    """A unit of work: around its COMMIT."""
    yield f"{name}.before", Point(module, f"{step}, before COMMIT", tells, part=part, page=page[0])
    yield f"{name}.after", Point(module, f"{step}, COMMIT done", tells, part=part, page=page[1])


def consumer(component: str, listed: str, commit: str = "commit") -> Points:
    """What the loop gives every consumer (app/kafka/loop.py, consumer.py). `listed`: those on the design's page."""

    def point(name: str, step: str, *, raises: bool = True) -> tuple[str, Point]:
        return f"{component}.{name}", Point(component, step, raises=raises, page=name in listed.split())

    yield from unit(f"{component}.claim", component, "C0", "group", page=("claim.before" in listed, "claim.after" in listed))
    yield point("poll.after", "C1→C2, a batch in hand", raises=False)
    yield point("position.after", "C2, positions locked")
    yield point("aside.after", "C3, copy or dead letter written")
    yield from unit(f"{component}.{commit}", component, "E1" if component == "executor" else "C4", *MESSAGES)
    yield from committed(component, listed)


def committed(component: str, listed: str = "") -> Points:
    """C5 and the hand-over: the sink's too."""
    for name, step in (("offsets.before", "C5, before the offset commit"), ("offsets.after", "C5, handed to the client"), ("revoke.after", "hand-over half done")):
        yield f"{component}.{name}", Point(component, step, raises=False, page=name in listed.split())


def relay() -> Points:
    def point(name: str, step: str, *tells: str) -> tuple[str, Point]:
        return f"relay.{name}", Point("relay", step, tells)

    yield from unit("relay.lease", "relay", "R0", "shard")
    yield point("init.before", "R0→R1, no producer yet", "shard")
    yield point("init.after", "R1, predecessors fenced", "shard")
    yield point("read_state.after", "R2→R3", "shard")
    yield from unit("relay.settle", "relay", "R3", "shard")
    yield point("select.after", "R4→R5", "shard")
    yield point("produce.after", "R5, a row handed to the client")
    yield point("record.before", "R5, rows produced, state record not", "shard")
    yield point("commit.before", "R5→R6", "shard")
    yield point("commit.after", "R6→R7", "shard")
    yield from unit("relay.delete", "relay", "R7", "shard", "ids")
    yield from unit("relay.set_aside", "relay", "a row Kafka never takes", "shard", "ids")


def remote() -> Points:
    def point(name: str, step: str, *, module: str = "ssh", tells: tuple[str, ...] = WORKER) -> tuple[str, Point]:
        return name, Point(module, step, tells)

    yield point("ssh.connect.before", "E2, no connection yet", tells=("host", *WORKER))
    yield point("ssh.connect.after", "E2, authenticated", tells=("host", *WORKER))
    yield point("ssh.exec.before", "E2, a channel is open", tells=("host", *WORKER))
    yield point("ssh.exec.after", "E2, command and input sent, answer unread", tells=("host", *WORKER))
    yield point("staging.part.after", "each chunk", module="staging")
    yield point("staging.rename.before", "part whole and checked", module="staging")
    yield point("staging.rename.after", "final name", module="staging")
    yield point("staging.manifest.after", "parts removed; size and hash known, not told", module="staging")
    for name, step in (
        ("host.lock.after", "2 (i)"),
        ("host.epoch.after", "2 (ii)"),
        ("host.intent.after", "2 (v)"),
        ("host.accept.after", "2 (vi), the job exists, its id is not written"),
        ("host.receipt.before", "2 (vii)"),
        ("host.receipt.after", "2 (vii)"),
        ("job.guard.before", "5"),
        ("job.guard.after", "5"),
        ("job.exit.before", "6"),
        ("job.exit.after", "6"),
    ):
        yield name, Point("host", f"submission {step}", WORKER, raises=False)


def all_points() -> Points:
    yield "api.state.after", Point("api", "launch: state written, message not", ("process",))
    yield from unit("api.launch_commit", "api", "launch", *MESSAGES)
    yield from unit("api.cancel_commit", "api", "cancel", *MESSAGES, part="cancel")
    yield from unit("api.positions_commit", "api", "C0 for the sink", "group")
    yield from unit("api.events_commit", "api", "events, the sink's position, dead letters", "group")
    yield from relay()
    yield from consumer("generator", "claim.after poll.after aside.after offsets.after")
    yield "generator.graph.after", Point("generator", "C3, task rows written")
    yield from consumer("scheduler", "claim.before claim.after poll.after position.after aside.after offsets.before offsets.after revoke.after")
    yield "scheduler.load.after", Point("scheduler", "C3, aggregates locked", ("process",))
    yield "scheduler.state.after", Point("scheduler", "C3, dispatch not yet in the outbox", ("process",))
    yield from unit("timer.move", "timer", "due rows → outbox", "process", "out")
    yield from unit("lease.heartbeat", "lease", "instance row, every component")
    yield from unit("lease.expire", "lease", "owner := NULL + AttemptAbandoned", "process", "out")
    yield from unit("sweeper.rescue", "sweeper", "push", "process", "out")
    yield from unit("purge", "purge", "a bite of old rows")
    yield from consumer("executor", "", commit="start_commit")
    yield from unit("executor.outcome_commit", "executor", "E3", "process", "token", "out")
    yield from remote()
    yield from unit("submit.intent_commit", "submit", "submission 1", "process", "token", "out")
    yield from unit("submit.id_commit", "submit", "submission 3", "process", "token", "out")
    yield from unit("submit.release", "submit", "submission 4", part="batch systems")
    yield from unit("watch.claim", "watch", "host_watches row", "host")
    yield from unit("watch.commit", "watch", "verdicts", "process", "out")
    yield from unit("doubt.verdict", "doubt", "evidence gathered", "process", "token", "out")
    yield "cancel.tombstone.after", Point("cancel", "tombstone written, nothing killed", WORKER, part="cancel")
    yield "cancel.kill.after", Point("cancel", "killed, not told", WORKER, part="cancel")
    yield "sink.claim.before", Point("sink", "C0 over HTTP")
    yield "sink.claim.after", Point("sink", "C0 answered")
    yield "sink.post.before", Point("sink", "slices not sent", ("process",))
    yield "sink.post.after", Point("sink", "stored, Kafka's offset not committed", ("process",))
    yield from committed("sink")
    yield from unit("dead_letter.replay", "operator", "copy and settlement", "process", "out")
    yield "migration.step.after", Point("operator", "a revision's statement, its number not stored")
    yield "topics.apply.after", Point("operator", "topics made")


POINTS: Mapping[str, Point] = dict(all_points())
BUILT: Mapping[str, Point] = {name: point for name, point in POINTS.items() if not point.part}

UNITS: Mapping[str, str] = {  # Patterns of fnmatch → why these are no points.
    "api.*": "one request, one transaction: what api.launch_commit shows of the answer and the idempotency row holds for them; nothing is sent",
    "admin.*": "a command of the operator, repeatable; it sends nothing",
    "dev.*": "a tool of the embedded system",
    "executor.begin": "connection slots and circuits: leases that run out by themselves",
    "executor.circuit": "a circuit opens or closes; a lost one is found anew by the next failure",
    "executor.reconcile": "only reads, under lock",
    "executor.slots": "renewal of leases that run out by themselves",
    "lease.leave": "a courtesy: without it the lease runs out",
    "relay.give_up": "a courtesy: without it the lease runs out",
    "relay.shards": "makes rows that are missing; repeated at every start",
    "skeletons.sent": "telemetry: without it the same spans are sent once more",
    "topics.positions": "makes rows that are missing; the command is repeated (topics.apply.after stands before it)",
    "watch.leave": "a courtesy: without it the lease runs out",
}


def known(point: str) -> bool:
    """Whether a run may reach it: a point that exists, or the edge of a unit that is none."""
    name = point.rpartition(".")[0]
    return point in BUILT or (not name.endswith(".read") and any(fnmatchcase(name, pattern) for pattern in UNITS))
