"""The fault proxy against a real MySQL and a real Kafka: each fault does what it says, and its count proves it."""

import gc
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pymysql
import pytest
from confluent_kafka import Consumer, IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]
from sqlalchemy.engine import make_url

from app.dev.process import wait_until
from tests.chaos import wire
from tests.chaos.proxy import Link, Proxy
from tests.chaos.wire import DOWN, UP, Hold, LoseCommit, Swallow
from tests.support.servers import InOrder


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that says everything again."""
    server = socket.create_server(("127.0.0.1", 0))

    def speak(sock: socket.socket) -> None:
        with sock:
            try:
                while data := sock.recv(65536):
                    sock.sendall(data)
            except OSError:
                return

    def serve() -> None:
        while True:
            try:
                sock, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=speak, args=(sock,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def client(link: Link, timeout: float = 10.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout)


def says(sock: socket.socket, text: bytes = b"word") -> bytes:
    sock.sendall(text)
    return sock.recv(65536)


def test_bytes_pass_unharmed_and_are_counted_each_way(proxy: Proxy, echo: tuple[str, int]) -> None:
    link = proxy.link("client", "echo", echo)
    with client(link) as sock:
        assert says(sock) == b"word"
    assert (link.count["accepted"], link.count[UP], link.count[DOWN]) == (1, 4, 4)


def test_a_slow_link_delays_and_a_hanging_one_keeps_everything_until_it_is_healed(proxy: Proxy, echo: tuple[str, int]) -> None:
    link = proxy.link("client", "echo", echo)
    with client(link) as sock:
        link.slow(delay_seconds=0.2)
        began = time.monotonic()
        assert says(sock) == b"word"
        assert time.monotonic() - began >= 0.4
        link.clear()
        link.hang()
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            says(sock)
        link.heal()
        sock.settimeout(10.0)
        assert sock.recv(16) == b"word"
    assert link.count[f"held.{UP}"] == 4


def test_one_direction_dropped_is_silence_and_its_connection_ends_when_healed(proxy: Proxy, echo: tuple[str, int]) -> None:
    link = proxy.link("client", "echo", echo)
    with client(link, 0.3) as sock:
        link.drop(DOWN)
        with pytest.raises(TimeoutError):
            says(sock)
        assert wait_until(lambda: link.count[f"dropped.{DOWN}"] == 4, 5.0)
        assert link.count[UP] == 4
        link.heal()
        sock.settimeout(10.0)
        with pytest.raises(ConnectionResetError):
            sock.recv(16)


def test_a_link_is_cut_at_the_byte_named(proxy: Proxy, echo: tuple[str, int]) -> None:
    link = proxy.link("client", "echo", echo)
    link.cut(6)
    with client(link) as sock:
        assert says(sock) == b"word"
        sock.sendall(b"more")
        with pytest.raises(ConnectionResetError):
            while True:
                sock.recv(16)
    assert (link.count[DOWN], link.count[f"cut.{DOWN}"]) == (6, 1)
    with client(link) as sock:
        assert says(sock) == b"word"


def test_a_proxy_that_ends_closes_what_it_was_still_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio tells of a connection nobody closed only when it is collected: in whichever test that is."""
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda each: told.append(each.exc_value))
    with socket.create_server(("127.0.0.1", 0), backlog=0) as nobody, socket.create_connection(nobody.getsockname()):  # Its queue is full: a further connect is not answered.
        proxy = Proxy()
        link = proxy.link("client", "nobody", nobody.getsockname())
        with client(link) as sock:
            assert wait_until(lambda: link.count["accepted"] == 1, 5)
            proxy.close()
            assert sock.recv(1) == b""
    gc.collect()
    assert told == []


def test_reset_ends_what_lives_and_refuse_lets_nobody_in_until_healed(proxy: Proxy, echo: tuple[str, int]) -> None:
    link = proxy.link("client", "echo", echo)
    with client(link) as sock:
        assert says(sock) == b"word"
        assert link.reset(again=True) == 1
        with pytest.raises(ConnectionResetError):
            sock.recv(16)
    with pytest.raises(ConnectionResetError), client(link) as sock:
        says(sock)
    link.refuse()
    with pytest.raises(ConnectionRefusedError):
        client(link)
    link.heal()
    with client(link) as sock:
        assert says(sock) == b"word"


# ---- MySQL ------------------------------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def table(empty_database: str, proxy: Proxy) -> Iterator[tuple[Link, dict[str, object]]]:
    url = make_url(empty_database)
    direct = {"host": url.host or "", "user": url.username or "", "password": str(url.password or ""), "database": url.database or "", "port": url.port or 3306, "ssl_disabled": True, "read_timeout": 10}
    link = proxy.link("client", "mysql", (str(direct["host"]), url.port or 3306), "mysql")
    with pymysql.connect(**direct, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id INT PRIMARY KEY)")
    yield link, direct


@pytest.mark.parametrize(("after_seconds", "counted", "rows"), [(0.0, "commit.at_once", 1), (0.5, "commit.late", 1), (None, "commit.never", 0)])
def test_the_answer_to_a_commit_is_lost_and_the_row_is_there_or_not(table: tuple[Link, dict[str, object]], after_seconds: float | None, counted: str, rows: int) -> None:
    link, direct = table
    order = LoseCommit(after_seconds=after_seconds)
    link.order(order)
    proxied = {**direct, "host": "127.0.0.1", "port": link.port}
    with pytest.raises(pymysql.OperationalError) as fault, pymysql.connect(**proxied) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        connection.commit()  # Wrote nothing: not this one.
        cursor.execute("INSERT INTO t VALUES (1)")
        connection.commit()
    assert fault.value.args[0] in {2006, 2013}
    assert order.struck.wait(10.0)
    assert link.count[counted] == 1
    with pymysql.connect(**direct, autocommit=True) as connection, connection.cursor() as cursor:
        assert cursor.execute("SELECT id FROM t") == rows


# ---- Kafka ------------------------------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def topic(servers: InOrder, topic_prefix: str) -> str:
    name = f"{topic_prefix}proxied"
    admin = AdminClient({"bootstrap.servers": servers.kafka()})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30.0)
    return name


def a_producer(link: Link, name: str) -> Producer:
    made = Producer({"bootstrap.servers": link.address, "transactional.id": name, "transaction.timeout.ms": 10_000, "linger.ms": 0, "log_level": 0})
    made.init_transactions(30.0)
    return made


def settled(admin: AdminClient, place: TopicPartition) -> bool:
    """A broker answers EndTxn before the marker is in the log: until then a reader of what is committed comes to its end too early."""
    ends = [admin.list_offsets({place: OffsetSpec.latest()}, isolation_level=each)[place].result(10.0).offset for each in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)]
    return ends[0] == ends[1]


def visible(servers: InOrder, topic: str) -> list[bytes]:
    """What a reader of committed records finds, once no transaction is open."""
    admin = AdminClient({"bootstrap.servers": servers.kafka()})
    assert wait_until(lambda: settled(admin, TopicPartition(topic, 0)), 30)
    consumer = Consumer({"bootstrap.servers": servers.kafka(), "group.id": topic, "isolation.level": "read_committed", "enable.partition.eof": True, "auto.offset.reset": "error", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[bytes] = []
    try:
        while (message := consumer.poll(30.0)) is not None and message.error() is None:
            found.append(message.value() or b"")
    finally:
        consumer.close()
    return found


def test_a_client_given_the_proxy_alone_never_learns_the_brokers_own_address(proxy: Proxy, servers: InOrder, topic: str) -> None:
    (link,) = proxy.kafka("client", servers.kafka())
    producer = a_producer(link, topic)
    producer.begin_transaction()
    producer.produce(topic, b"a")
    producer.commit_transaction(30.0)
    assert {f"{each.host}:{each.port}" for each in producer.list_topics(timeout=10.0).brokers.values()} == {link.address}
    assert [link.count[f"asked.{api}"] > 0 for api in ("Metadata", "FindCoordinator", "InitProducerId", "Produce", "EndTxn")] == [True] * 5
    assert visible(servers, topic) == [b"a"]


def test_an_end_of_a_transaction_is_held_and_handed_over_when_the_producer_has_a_newer_epoch(proxy: Proxy, servers: InOrder, topic: str) -> None:
    (link,) = proxy.kafka("client", servers.kafka())
    producer = a_producer(link, topic)
    order = Hold("EndTxn", sever=False)
    link.order(order)
    producer.begin_transaction()
    producer.produce(topic, b"a")
    with pytest.raises(KafkaException):
        producer.commit_transaction(2.0)
    assert order.struck.wait(5.0)
    told = wire.end_txn(order.frame[4:])
    assert (told.transactional_id, told.committed) == (topic, True)
    a_producer(link, topic)
    assert wire.end_txn_error(order.release(link.target)) in {47, 90}  # INVALID_PRODUCER_EPOCH, PRODUCER_FENCED
    assert link.count["held.EndTxn"] == 1
    assert visible(servers, topic) == []


def test_one_answer_is_swallowed_and_the_next_one_comes(proxy: Proxy, servers: InOrder, topic: str) -> None:
    (link,) = proxy.kafka("client", servers.kafka())
    orders = [Swallow(api) for api in ("InitProducerId", "Produce", "EndTxn")]
    for each in orders:
        link.order(each)
    producer = a_producer(link, topic)
    producer.begin_transaction()
    producer.produce(topic, b"a")
    producer.commit_transaction(30.0)
    assert [each.struck.is_set() for each in orders] == [True] * 3
    assert link.proven(*(f"swallowed.{each.api}" for each in orders)) == {f"swallowed.{each.api}": 1 for each in orders}
    assert visible(servers, topic) == [b"a"]
