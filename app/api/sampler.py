"""The sampler: one API server, elected by a lock of MySQL's, reads every five seconds how the whole system stands; a scrape shows what was read last and asks no database.

It lives here because the API server has a database and is alive when relay or scheduler are not, which is when these figures are needed. Who is not elected shows none of them;
who could not read shows none either, so that nobody takes an old figure for a new one. Another is elected when this one's session ends.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from sqlalchemy import Engine

import migrations
from app.errors import AiravataError
from app.messages import codec
from app.mysql import hosts, sampling
from app.mysql.unit_of_work import Transaction, unit_of_work
from observability import logs, metrics
from observability.catalogue import CONDITIONS, PROCESS_STATES, TASK_STATES

EVERY_SECONDS, SLOWLY = 5.0, 12
PROBED_AFTER_SECONDS = 60  # Then somebody looks whether a circuit may be closed (components/task_executors/remote.py).
STUCK = {"CREATED": 2, "VALIDATED": 2, "CANCELING": 3}  # State of a process → which column of `sampling.processes` says how many stay too long.
KINDS = {"RetryDue": "retry", "DeadlineDue": "deadline"}


class Sampler:
    """`database`: a session of its own (pool of one). `readings` is replaced whole."""

    def __init__(self, database: Engine, *, shards: int, task_types: Sequence[str]) -> None:
        self.database, self.unit_of_work = database, unit_of_work(database)
        self.shards, self.types = shards, set(task_types)
        self.readings: list[metrics.Reading] = []
        self.turns, self.expiring = 0, (0, 0)
        self.out: set[str] = set()  # Hosts that have been out: their circuits are told as closed afterwards.
        self.log = logs.logger("sampler")

    def run(self, stopped: Callable[[float], bool]) -> None:
        while not stopped(EVERY_SECONDS):
            self.turn()

    def turn(self) -> None:
        try:
            with self.unit_of_work("api.sample.read") as tx:
                self.readings = list(self.sample(tx)) if sampling.elected(tx) else []
        except AiravataError as fault:
            self.readings = []
            self.log.warning("nothing sampled", fault=fault)
        except Exception as fault:  # Watching can never stop the work; it can only stop watching.
            self.readings = []
            self.log.error("nothing sampled", exc_info=fault)

    def sample(self, tx: Transaction) -> Iterator[metrics.Reading]:
        for shard in range(self.shards):
            rows, age = sampling.outbox(tx, shard)
            yield "airavata_outbox_rows", rows, {"shard": str(shard)}
            yield "airavata_outbox_oldest_age_seconds", float(age or 0), {"shard": str(shard)}
        yield from self.work(tx)
        yield from self.hosts(tx)
        yield from self.stores(tx)

    def work(self, tx: Transaction) -> Iterator[metrics.Reading]:
        stuck: Counter[str] = Counter()
        found = {row[0]: row for row in sampling.processes(tx)}
        for state in PROCESS_STATES:
            yield "airavata_processes", found[state][1] if state in found else 0, {"state": state}
            if state in STUCK:
                stuck[state] += int(found[state][STUCK[state]]) if state in found else 0
        counts, ready, held = Counter[tuple[str, str]](), dict[str, float](), Counter[str]()
        for kind, state, condition, many, age, overdue in sampling.tasks(tx):
            counts[kind, state] += many
            stuck[state] += int(overdue or 0) if state not in {"EXECUTING", "CREATED"} else 0
            held[condition] += many if condition else 0
            if state == "SCHEDULED":
                ready[kind] = float(age or 0)
        self.types |= {kind for kind, _ in counts}
        for kind in sorted(self.types):
            for state in TASK_STATES:
                yield "airavata_tasks", counts[kind, state], {"type": kind, "state": state}
            yield "airavata_tasks_ready", counts[kind, "SCHEDULED"], {"type": kind}
            yield "airavata_tasks_ready_oldest_age_seconds", ready.get(kind, 0.0), {"type": kind}
        for state in (*STUCK, "SCHEDULED", "RETRY_WAIT", "BLOCKED", "IN_DOUBT"):
            yield "airavata_stuck", stuck[state], {"state": state}
        for condition in CONDITIONS:
            yield "airavata_blocked_tasks", held[condition], {"condition": condition}

    def hosts(self, tx: Transaction) -> Iterator[metrics.Reading]:
        for host, state, many in sampling.jobs(tx):
            yield "airavata_jobs", many, {"host": host, "state": state}
        for host, many, age in sampling.doubts(tx):
            yield "airavata_attempts_in_doubt", many, {"host": host}
            yield "airavata_in_doubt_oldest_age_seconds", float(age or 0), {"host": host}
        rows = hosts.circuits(tx)
        states = {row[0]: "half_open" if row[6] >= PROBED_AFTER_SECONDS else "open" for row in rows}
        changed = {row[0] for row in rows if row[2] == "HOST_KEY_CHANGED"}
        self.out |= states.keys()
        for host in sorted(self.out):
            for state in ("closed", "half_open", "open"):
                yield "airavata_ssh_circuit_state", float(states.get(host, "closed") == state), {"host": host, "state": state}
            yield "airavata_ssh_host_key_changed", float(host in changed), {"host": host}

    def stores(self, tx: Transaction) -> Iterator[metrics.Reading]:
        due = Counter("requeue" if only else KINDS.get(kind, "requeue") for kind, only in map(codec.type_and_only, map(codec.headers_of, sampling.timers_due(tx))))
        for kind in ("retry", "deadline", "requeue"):
            yield "airavata_timers_due", due[kind], {"kind": kind}
        for topic, many in sampling.dead_letters(tx):
            yield "airavata_dead_letters", many, {"topic": topic}
        if self.turns % SLOWLY == 0:  # Reads them all, and changes by the day.
            self.expiring = sampling.credentials_expiring(tx)
        self.turns += 1
        for within, many in zip(("1d", "7d"), self.expiring, strict=True):
            yield "airavata_credentials_expiring", float(many), {"within": within}
        for name, value in zip(("history_list_length", "oldest_transaction_seconds"), sampling.server(tx), strict=True):
            if value is not None:
                yield f"airavata_mysql_{name}", value, {}
        if (age := sampling.sink_heartbeat_age(tx)) is not None:
            yield "airavata_sink_heartbeat_age_seconds", age, {}
        yield "airavata_schema_revision_match", float(migrations.judge(migrations.stored(tx)) is migrations.Schema.CURRENT), {}
