"""How a point off the straight road is reached: one provocation each. All others are reached by an experiment that is launched.

A provocation is carried out when the point is armed and the case's experiment is a draft, and launches it. It may name a component that it left dead (`restart`).
"""

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx2
from confluent_kafka import Producer
from sqlalchemy.engine import make_url

from app.dev.process import wait_until
from app.dev.servers import ROOT
from app.messages import codec
from app.messages.envelope import Envelope
from app.messages.envelope import Subject as Addressee
from app.messages.events import ProcessPlanned
from app.messages.placement import Placement
from tests.chaos.freeze_frames import Subject
from tests.chaos.rig import Rig
from tests.support.gateway import Gateway

Extra = Mapping[str, Any]
Provoke = Callable[[Rig, Subject], Extra]
TOO_LARGE = 1_100_000  # Bytes: beyond what a topic takes.
SECONDS = 30.0


def _post(client: Gateway, subject: Subject, path: str, body: Mapping[str, Any], key: str) -> None:
    """Where the server dies over it, the same key is tried again only when the frame was taken."""
    try:
        client.send("POST", f"{client.urls[0]}/v1{path}", json=body, headers={"Idempotency-Key": key}).raise_for_status()
    except httpx2.HTTPError:
        subject.looked.wait(SECONDS)
        client.post(path, body, key)


def launch(rig: Rig, subject: Subject) -> Extra:
    """The ordinary one."""
    _post(rig.client, subject, f"/experiments/{subject.experiment}/launches", {}, f"launch-{subject.experiment}")
    return {}


def a_hand_over(component: str) -> Provoke:
    """SIGTERM to the second copy, and a new one at once: partitions are revoked, assigned and claimed, there and back."""

    def provoke(rig: Rig, subject: Subject) -> Extra:
        rig.recycle(f"{component}-1")
        return launch(rig, subject)

    return provoke


def another_relay(rig: Rig, subject: Subject) -> Extra:
    """Whoever holds the experiment's shard is told to stop; the spare goes through R0 to R3. The other shard may be the other copy's."""
    held = "SELECT owner FROM relay_shards WHERE shard = %s AND until > UTC_TIMESTAMP(6)"
    assert wait_until(lambda: rig.rows(held, subject.shard) != [], SECONDS), f"nobody holds shard {subject.shard}"
    owner = rig.one(held, subject.shard)
    copy = next(copy for copy in (0, 1) if f"-{rig.pid_of('relay', copy)}-" in owner)
    rig.recycle(f"relay-{copy}")
    return launch(rig, subject)


def too_large(rig: Rig, subject: Subject) -> Extra:
    """An outbox row that Kafka will never take: a message of ours in all but its size."""
    about = Addressee("gw_chaos", subject.experiment, subject.process)
    message = Envelope(mid=subject.too_large, topic=f"{rig.settings['TOPIC_PREFIX']}event-sink", partition=0, subject=about, body=ProcessPlanned())
    record = codec.encode(message)
    with rig.connection() as connection, connection.cursor() as cursor:
        placement = Placement(int(rig.settings["PARTITIONS"]), int(rig.settings["PLACEMENT_WIDTH"]))
        part = placement.of_experiment(subject.experiment)
        values = (placement.shard(part), part, record.mid, record.topic, record.key, record.headers, b" " * TOO_LARGE)
        cursor.execute("INSERT INTO outbox (shard, part, mid, topic, k, headers, payload, created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, UTC_TIMESTAMP(6))", values)
    return launch(rig, subject)


def poison(topic: str) -> Provoke:
    """A record that is no message of ours; it bears the nemesis' mark, so that the checker knows whose it is."""

    def provoke(rig: Rig, subject: Subject) -> Extra:
        producer = Producer({"bootstrap.servers": rig.kafka, "acks": "all", "log_level": 0})
        producer.produce(f"{rig.settings['TOPIC_PREFIX']}{topic}", b"\x00 no message", key=b"poison", partition=0, headers=[("nemesis", b"points")])
        assert producer.flush(10.0) == 0
        return launch(rig, subject)

    return provoke


def a_silent_owner(rig: Rig, subject: Subject) -> Extra:
    """The executor that runs the experiment's task is killed and stays away until its lease is over."""
    launch(rig, subject)
    owner = _wait(rig, "SELECT owner FROM attempts WHERE process_id = %s AND state = 'RUNNING' AND owner IS NOT NULL", subject.process)
    copy = next(copy for copy in (0, 1) if f"-{rig.pid_of('executor-noop', copy)}-" in owner)
    rig.strike(f"executor-noop-{copy}")
    return {"restart": f"executor-noop-{copy}"}


def a_lost_timer(rig: Rig, subject: Subject) -> Extra:
    """The timer of a retry is deleted behind the service's back: only the sweeper can help."""
    launch(rig, subject)
    with rig.connection() as connection, connection.cursor() as cursor:
        gone = wait_until(lambda: bool(cursor.execute("DELETE FROM timers WHERE process_id = %s", (subject.process,))), SECONDS, 0.002)
    assert gone, "no timer was seen"
    return {}


def old_rows(rig: Rig, subject: Subject) -> Extra:
    """Rows that retention takes away."""
    with rig.connection() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO idempotency (scope, fingerprint, created_at) VALUES (%s, %s, UTC_TIMESTAMP(6) - INTERVAL 8 DAY)", (os.urandom(32), bytes(32)))
    return launch(rig, subject)


def a_replay(rig: Rig, subject: Subject) -> Extra:
    """An operator sends a dead letter again."""
    too_large(rig, subject)
    letter = _wait(rig, "SELECT id FROM dead_letters WHERE settled IS NULL AND mid = %s", subject.too_large)
    operator = Gateway(rig.client.urls, rig.tokens["operator_token"])
    try:
        _post(operator, subject, f"/operator/dead-letters/{letter}/replays", {"reason": "chaos"}, f"replay-{letter}")
    finally:
        operator.close()
    return {}


def command(rig: Rig, *argv: str, schema: str, point: str = "") -> int:
    """`airavata admin …` on a schema and topics of its own, so that the installation that runs is left alone; its exit status. `point`: where it dies."""
    url = make_url(rig.database_url).set(database=schema).render_as_string(hide_password=False)  # The account bears the name of the run's own schema.
    settings = rig.environment | {"AIRAVATA_MYSQL_URL": url, "AIRAVATA_TOPIC_PREFIX": f"{schema}.", "AIRAVATA_ENVIRONMENT": schema, "AIRAVATA_PARTITIONS": "4"}
    armed = {
        "AIRAVATA_FAILPOINTS": f"{point}=crash", "AIRAVATA_STRUCK_DIRECTORY": str(rig.run / "struck" / "command"), "AIRAVATA_JOURNAL": str(rig.run / "journal"), "AIRAVATA_JOURNAL_WHO": "command/0",
    }  # fmt: skip
    environment = {**os.environ, **settings, **(armed if point else {}), "PYTHONPATH": str(ROOT)}
    return subprocess.run([str(ROOT / ".venv/bin/airavata"), "admin", *argv], env=environment, check=False, capture_output=True, timeout=120).returncode


def _wait(rig: Rig, statement: str, *values: Any) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (rows := rig.rows(statement, *values)):
        assert time.monotonic() < deadline, f"never seen: {statement}"
        time.sleep(0.01)
    return rows[0][0]


PROVOKED: Mapping[str, Provoke] = {
    "api.positions_commit": a_hand_over("event-sink"), "sink.claim": a_hand_over("event-sink"), "generator.claim": a_hand_over("generator"), "scheduler.claim": a_hand_over("scheduler"),
    "scheduler.revoke": a_hand_over("scheduler"), "generator.revoke": a_hand_over("generator"), "sink.revoke": a_hand_over("event-sink"), "executor.claim": a_hand_over("executor-noop"),
    "executor.revoke": a_hand_over("executor-noop"), "executor.aside": poison("noop-task"), "relay.init": another_relay, "relay.read_state": another_relay, "relay.set_aside": too_large, "generator.aside": poison("airavata-launch"),
    "scheduler.aside": poison("airavata-scheduler"), "lease.expire": a_silent_owner, "sweeper.rescue": a_lost_timer, "purge": old_rows, "dead_letter.replay": a_replay,
}  # fmt: skip
FIRST: Mapping[str, tuple[str, str]] = {  # Another point that must strike first, and in which component: what it leaves behind is what the case is about.
    "relay.settle": ("relay", "relay.commit.after"),
    "doubt.verdict": ("executor-job", "host.intent.after"),
}
