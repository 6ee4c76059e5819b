"""MySQL or Kafka restarted, or gone for a while, under load: processes wait and go on, none ends, nothing is lost, nothing is done twice. Servers of their own."""

from collections import Counter
from collections.abc import Iterator

import httpx2
import pytest

from app.dev.process import Daemon
from app.dev.servers import Native
from tests.support.system import WITHOUT_HOSTS, System

LOAD = 30


@pytest.fixture(scope="module")
def breakable(database_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, Native]]:
    """A system on a database and a broker that nobody else uses."""
    tmp_path = tmp_path_factory.mktemp("stores")
    native = Native(tmp_path / "servers")
    try:
        native.together(database_kind, "kafka")
        server = native.database(database_kind)
        server.execute("CREATE DATABASE whole")
        counts = {**WITHOUT_HOSTS, "scheduler": 2}
        with System(native, tmp_path / "system", database_url=server.url("whole"), kafka=native.kafka(), topic_prefix="stores.", counts=counts) as system:
            yield system, native
    finally:
        native.close()


def restarted(daemon: Daemon) -> None:
    daemon.kill()
    daemon.start()
    daemon.wait()


def launched(system: System, count: int = LOAD) -> list[str]:
    shape = system.gateway.shape()
    slow = " ".join(f"{name}:sleep_ms=300" for name in "abcde")
    return [system.gateway.launch(shape, {"edges": "a>b a>c b>d c>d d>e", "behaviour": slow}) for _ in range(count)]


def all_ended_well(system: System, experiments: list[str], seconds: float) -> None:
    ended = [system.gateway.wait(each, seconds) for each in experiments]
    assert Counter(each["outcome"] for each in ended) == Counter({"NORMAL_COMPLETION": len(experiments)})
    assert [name for name, each in system.daemons.items() if not system.alive(each)] == []
    system.quiet()
    assert system.dead_letters() == []
    assert system.one("SELECT COUNT(*) FROM attempts WHERE epoch > 1 OR number > 1") == 0
    started = system.rows("SELECT task_id, COUNT(*) FROM events WHERE type = 'TaskStarted' GROUP BY task_id HAVING COUNT(*) > 1")
    assert started == []


def under_way(system: System) -> None:
    """At least as many tasks as there are experiments have ended since."""
    done = system.one("SELECT COUNT(*) FROM attempts WHERE state = 'SUCCEEDED'")
    system.until(lambda: system.one("SELECT COUNT(*) FROM attempts WHERE state = 'SUCCEEDED'") > done + LOAD, 120.0)


def test_mysql_killed_and_started_again_under_load(breakable: tuple[System, Native], database_kind: str) -> None:
    system, native = breakable
    experiments = launched(system)
    for _ in range(2):
        under_way(system)
        restarted(native.daemons[database_kind])
        experiments += launched(system)
    all_ended_well(system, experiments, 120.0)


def test_kafka_killed_and_started_again_under_load(breakable: tuple[System, Native]) -> None:
    system, native = breakable
    experiments = launched(system)
    for _ in range(2):
        under_way(system)
        restarted(native.daemons["kafka"])
        experiments += launched(system)
    all_ended_well(system, experiments, 120.0)


def test_a_store_that_is_away_is_told_by_readyz_and_launches_are_kept_while_kafka_is_away(breakable: tuple[System, Native], database_kind: str) -> None:
    system, native = breakable
    native.daemons["kafka"].kill()
    experiments = launched(system, 5)  # Accepted: the API server does not need Kafka.
    assert system.outbox_rows() >= 5
    native.daemons["kafka"].start()
    native.daemons["kafka"].wait()
    all_ended_well(system, experiments, 90.0)
    native.daemons[database_kind].kill()
    system.until(lambda: _refuses(system.url), 60.0)
    native.daemons[database_kind].start()
    native.daemons[database_kind].wait()
    all_ended_well(system, launched(system, 5), 90.0)


def _refuses(url: str) -> bool:
    return httpx2.get(f"{url}/readyz", timeout=10.0).status_code == 503
