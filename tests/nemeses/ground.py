"""A small load while a nemesis is on, and what must be true of a run when it is over."""

import itertools
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import TopicPartition

from tests.chaos.nemeses.nemesis import Nemesis, Undecided, tame, unleash
from tests.chaos.quiet import await_quiet
from tests.chaos.rig import Rig
from tests.chaos.topics import records
from tests.chaos.workload import Document, graph, keyed, planned

SEED = int(os.environ.get("AIRAVATA_TEST_SEED") or random.SystemRandom().randrange(10**6))
QUIET_SECONDS, READ_SECONDS, ON_SECONDS = 120.0, 60.0, 3.0
ON = {"N2": 6.0, "N3": 3.0, "N5": 5.0, "N6": 10.0, "N7": 10.0, "N16": 8.0, "N24": 8.0}
JOBS_MAY_DIE = {"N25"}
LEAVES_LETTERS = {"N19"}
_serial = itertools.count()


@contextmanager
def load(rig: Rig, rng: random.Random) -> Iterator[list[tuple[str, Document]]]:
    """A launch every half second: planner's graphs on both hosts and diamonds."""
    launched: list[tuple[str, Document]] = []
    faults: list[BaseException] = []
    stop = threading.Event()

    def launch() -> None:
        try:
            while not stop.wait(0.5):
                n = next(_serial)
                made = planned(rng, seconds=(0.5, 3.0), manner="plain", host=1 + n % 2) if n % 3 == 0 else graph(rng, "diamond", seconds=(0.1, 0.5), failing=0.0)
                plan = keyed(rng, SEED, n, made)
                launched.append((rig.launch(plan), plan))
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=launch, name="load", daemon=True)
    thread.start()
    try:
        yield launched
    finally:
        stop.set()
        thread.join(90.0)
        assert not faults, faults


def alone(rig: Rig, nemesis: Nemesis) -> None:
    """Strikes under load, heals, and looks. Skips by name what is Undecided here."""
    print(f"seed {SEED}")
    name = nemesis.name
    rng = random.Random(f"{SEED}{name}{nemesis.target}{nemesis.variant}")
    letters = rig.one("SELECT COUNT(*) FROM dead_letters")
    with load(rig, rng) as launched:
        rig.until(lambda: len(launched) >= 3, 60.0)
        fault = f"{name}-{next(_serial)}"
        try:
            proof = unleash(nemesis, rig, fault, rng)
        except Undecided as why:
            pytest.skip(f"{name} {nemesis.title}, {nemesis.variant or 'alone'} on {nemesis.target or 'all'}: UNDECIDED: {why}")
        finally:
            if nemesis.proof is not None:
                time.sleep(ON.get(name, ON_SECONDS))  # The fault's own length.
                tame(nemesis, rig, fault)
    print(json.dumps({"nemesis": name, "target": nemesis.target, "variant": nemesis.variant, "evidence": proof.evidence, "after": nemesis.after}, default=str))
    ended_well(rig, nemesis, launched, letters)


def ended_well(rig: Rig, nemesis: Nemesis, launched: list[tuple[str, Document]], letters: int) -> None:
    seconds, still_open = await_quiet(rig, QUIET_SECONDS)
    assert not still_open, (seconds, still_open)
    wrong = [(each, plan["application"], rig.gateway.told(each)) for each, plan in launched if rig.one("SELECT outcome FROM experiments WHERE id = %s", each) != plan["expect"]["outcome"]]
    assert not wrong or nemesis.name in JOBS_MAY_DIE, wrong[:3]
    assert {mid: count for mid, count in mids(rig).items() if count > 1} == {}, "records that a read_committed reader sees twice"
    starts = Counter(line["token"] for number in (1, 2) for line in ledger(rig, number) if line["kind"] == "start")
    assert {token: count for token, count in starts.items() if count > 1} == {}, "jobs that started twice"
    assert nemesis.name in LEAVES_LETTERS or rig.one("SELECT COUNT(*) FROM dead_letters") == letters, rig.dead_letters()[-3:]
    assert rig.rescues() == 0
    assert [each for each in rig.bugs() if each.code == 70] == []
    assert nemesis.broken == []


def ledger(rig: Rig, number: int) -> list[Document]:
    book = rig.host_directory(number) / "ledger"
    return [json.loads(line) for line in book.read_text().splitlines()] if book.exists() else []


def mids(rig: Rig) -> Counter[tuple[str, bytes]]:
    """(topic, mid) → how often, without the copies that a nemesis marked as its own."""
    found: Counter[tuple[str, bytes]] = Counter()
    places = [TopicPartition(topic, part, 0) for topic, part in rig.rows("SELECT DISTINCT topic, part FROM positions")]
    for each in records(rig.kafka, "nemesis-evidence", places, READ_SECONDS):
        if "nemesis" not in (headers := dict(each.headers() or [])):
            found[str(each.topic()), headers.get("mid", b"")] += 1
    return found
