"""Every provider of servers gives the same: private processes, and containers where an engine answers. `make test-images` has one in any case, and asks its containers the same (tests/images)."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from app.dev import broker, compute_host, databases
from app.dev.compute_host import SshHost
from app.dev.servers import Native
from components.task_executors.plugin import OperationFailed, Ran
from components.task_executors.remote_host import HostAddress
from components.task_executors.ssh import SshHost as Door
from tests.deployment.engine import Engine
from tests.support.containers import Containers
from tests.support.servers import Servers

DURABLE = {
    "innodb_flush_log_at_trx_commit": "1", "sync_binlog": "1", "log_bin": "ON", "binlog_format": "ROW", "binlog_row_image": "FULL", "transaction_isolation": "READ-COMMITTED",
    "character_set_server": "utf8mb4",
}  # fmt: skip


@pytest.fixture(scope="module", params=["private processes", "containers"])
def provider(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    if request.param == "containers" and not Engine().answers():
        pytest.skip("no container engine answers, so containers were not asked: `make test-images` starts one and asks them")
    directory = tmp_path_factory.mktemp("servers")
    found = Native(directory) if request.param == "private processes" else Containers(directory)
    yield found
    found.close()


def test_a_database_is_durable_and_its_account_makes_schemas(provider: Servers) -> None:
    with provider.database("mysql").connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL VARIABLES")
        told = dict(cursor.fetchall())
        assert {name: told[name] for name in DURABLE} == DURABLE
        cursor.execute("CREATE DATABASE conformance")
        cursor.execute("CREATE TABLE conformance.kept (word VARCHAR(9) PRIMARY KEY)")
        cursor.execute("DROP DATABASE conformance")


def test_a_broker_keeps_what_a_transaction_committed_and_makes_no_topic_by_itself(provider: Servers) -> None:
    told = {"bootstrap.servers": provider.kafka(), "log_level": 0}
    admin = AdminClient(told)
    admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(30)
    producer = Producer({**told, "transactional.id": "conformance"})
    producer.init_transactions(30)
    for word, end in (("lost", producer.abort_transaction), ("kept", producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce("kept", word.encode())
        producer.flush(30)
        end(30)
    consumer = Consumer({**told, "group.id": "conformance", "isolation.level": "read_committed", "auto.offset.reset": "earliest", "session.timeout.ms": 1000, "heartbeat.interval.ms": 300})
    consumer.subscribe(["kept"])
    assert [each.value() for each in consumer.consume(1, 30)] == [b"kept"]
    consumer.close()
    assert set(admin.list_topics("nowhere", timeout=10).topics["nowhere"].partitions) == set()


def test_a_private_broker_finds_its_classes_in_the_archive_of_the_bootstrap(native_servers: Native) -> None:
    native_servers.kafka()
    assert f"/lib/kafka/{broker.ARCHIVE}" in Path(f"/proc/{native_servers.daemons['kafka'].pid}/maps").read_text()


def a_key(path: Path) -> tuple[Path, str]:
    """Its file, and what its public half says."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path, " ".join(path.with_suffix(".pub").read_text().split()[:2])


def said_by(host: SshHost, key: Path, host_key: str) -> Ran | str:
    """What a command there did, or why it could not."""
    door = Door(HostAddress(host.address, host.port, host.login, (host_key,), key.read_bytes()))
    try:
        return door.run(("sh", "-c", "cat; exit 3"), b"said")
    except OperationFailed as fault:
        return fault.code
    finally:
        door.close()


def test_a_host_lets_in_who_is_authorized_and_shows_the_key_it_is_known_by(provider: Servers, tmp_path: Path) -> None:
    host, (ours, public), (stranger, other) = provider.ssh_host(), a_key(tmp_path / "ours"), a_key(tmp_path / "stranger")
    assert said_by(host, ours, host.host_key) == "AUTH_REQUIRED"
    host.authorize(public)
    assert said_by(host, ours, host.host_key) == Ran(3, b"said", b"")
    assert said_by(host, stranger, host.host_key) == "AUTH_REQUIRED"
    assert said_by(host, ours, other) == "HOST_KEY_CHANGED"


def test_who_asks_again_gets_the_same(provider: Servers) -> None:
    assert [provider.database("mysql"), provider.kafka(), provider.ssh_host()] == [provider.database("mysql"), provider.kafka(), provider.ssh_host()]
    assert provider.ssh_host(2).port != provider.ssh_host(1).port


def test_nothing_answers_when_it_is_closed(provider: Servers) -> None:
    database, kafka, host = provider.database("mysql"), provider.kafka(), provider.ssh_host()
    provider.close()
    assert [databases.answers(database), broker.answers(kafka), compute_host.answers(host.address, host.port)] == [False, False, False]
