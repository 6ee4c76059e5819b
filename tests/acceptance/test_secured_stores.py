"""MySQL that refuses whoever comes in the clear, Kafka with TLS, accounts and access rules: a whole system runs there with the rights of docs/deploying.md, and with no more."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer

from app.dev.databases import DatabaseAddress
from app.dev.servers import ROOT
from app.errors import StoreUnavailable
from app.kafka import topics as declared
from app.messages.topics import EXECUTORS, Topics
from app.settings import read
from tests.support import secured
from tests.support.secured import Authority, Kafka
from tests.support.servers import InOrder
from tests.support.system import COMPONENTS, System, ledger

PAGE = (ROOT / "docs" / "deploying.md").read_text()
PREFIX, ENVIRONMENT, STRANGER = "secured.", "secured", "stranger"
WITH_HOSTS = [each for each in COMPONENTS if each != "executor-noop"]
USUAL, FURTHER = (found.replace("`", "") for found in re.search(r"`(SELECT[^`]*)` on the schema; `migrations` also `([^`]*)`", PAGE).groups())
Rules = Mapping[str, list[tuple[list[str], list[str]]]]  # Account → of topics, groups, transactional ids: names, operations.


def rules() -> Rules:
    """The page's table."""
    (table,) = re.findall(r"\| account \| topics \|.*?\n((?:\|.*\n)+)", PAGE)
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()[1:]]
    return {row[0]: [(re.findall(r"`(.+?)`", cell), re.sub(r"`.+?`", "", cell).split()) for cell in row[1:]] for row in rows}


RULES = rules()


@dataclass
class Stores:
    """Every account is made with its first mention, and is let in by TLS alone."""

    authority: Authority
    kafka: Kafka
    database: DatabaseAddress

    def url(self, account: str, rights: str = USUAL) -> str:
        self.database.execute(f"CREATE USER IF NOT EXISTS `{account}`@'%' IDENTIFIED BY 'pw' REQUIRE SSL", f"GRANT {rights} ON whole.* TO `{account}`@'%'")
        return f"mysql://{account}:pw@127.0.0.1:{self.database.port}/whole?ssl_ca={self.authority.certificate}"

    def brokers(self, account: str) -> dict[str, str]:
        return read({"AIRAVATA_KAFKA": self.kafka.bootstrap, "AIRAVATA_KAFKA_CLIENT_FILE": str(self.kafka.client(account))}, database=False).brokers


class Secured(System):
    """Each component has accounts of its own."""

    def __init__(self, stores: Stores, servers: InOrder, directory: Path) -> None:
        self.stores = stores
        super().__init__(
            servers, directory, database_url=stores.url("migrations", f"{USUAL}, {FURTHER}"), kafka=stores.kafka.bootstrap, topic_prefix=PREFIX, counts=dict.fromkeys(WITH_HOSTS, 1),
            kafka_client_file=stores.kafka.client("migrations"),
        )  # fmt: skip

    def _own(self, component: str, copy: int) -> dict[str, str]:
        account = {"MYSQL_URL": self.stores.url(component), "KAFKA_CLIENT_FILE": str(self.stores.kafka.client(component))}
        return super()._own(component, copy) | account


@pytest.fixture(scope="module")
def stores(database_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    base = tmp_path_factory.mktemp("secured")
    authority = Authority(base / "authority")
    daemon, address = secured.database(database_kind, base / "database", authority)
    kafka = Kafka(base / "kafka", authority, [*RULES, "api", STRANGER])
    try:
        for each in (daemon, kafka.daemon):
            each.start()
        for each in (daemon, kafka.daemon):
            each.wait()
        address.execute("CREATE DATABASE whole")
        for account, allowed in RULES.items():
            for resource, (names, operations) in zip(secured.RESOURCES, allowed, strict=True):
                for name in names:
                    kafka.allow(account, resource, PREFIX + name if resource == "topic" else name.replace("ENV", ENVIRONMENT), operations)
        yield Stores(authority, kafka, address)
    finally:
        for each in (kafka.daemon, daemon):
            each.stop()


@pytest.fixture(scope="module")
def system(stores: Stores, servers: InOrder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with Secured(stores, servers, tmp_path_factory.mktemp("secured-system")) as running:
        yield running


def test_a_whole_system_runs_with_the_rights_of_the_page(system: Secured, servers: InOrder, tmp_path: Path) -> None:
    gateway = system.gateway
    effect, book = gateway.effect(gateway.host(servers.ssh_host(), tmp_path / "scratch"), tmp_path / "effect")
    launched = gateway.launch(effect, {}, output_storage_id=gateway.storage(tmp_path / "storage"))
    ended = gateway.wait(launched)
    assert (ended["state"], ended["outcome"]) == ("COMPLETED", "NORMAL_COMPLETION"), gateway.told(launched)
    assert len(ledger(book)) == 1
    system.quiet()
    system.until(lambda: any(each["type"] == "ExperimentChanged" and each["to_state"] == "COMPLETED" for each in gateway.events(launched)), 60.0)


@pytest.mark.parametrize("account", RULES)
def test_an_account_sees_the_topics_of_the_page_and_no_other(system: Secured, stores: Stores, account: str) -> None:
    every = [each.name for each in declared.desired(Topics(PREFIX), environment=ENVIRONMENT, partitions=1, shards=1, task_types=EXECUTORS)]
    client, seen = declared.Admin(stores.brokers(account)), []
    for topic in every:
        try:
            seen += declared.described(client, [topic])
        except StoreUnavailable as fault:
            assert "TOPIC_AUTHORIZATION_FAILED" in str(fault)
    allowed = {PREFIX + name for name in RULES[account][0][0]}
    assert set(seen) == (set(every) if f"{PREFIX}*" in allowed else allowed)


@pytest.mark.parametrize("account", [each for each in RULES if each != "relay"])
def test_who_is_no_relay_neither_writes_nor_takes_a_relays_place(system: Secured, stores: Stores, account: str) -> None:
    refused: list[str] = []
    writer = Producer(stores.brokers(account))
    writer.produce(f"{PREFIX}airavata-scheduler", b"x", on_delivery=lambda error, _: refused.append(error.name()))
    writer.flush(30)
    with pytest.raises(KafkaException) as fault:
        Producer({**stores.brokers(account), "transactional.id": f"{ENVIRONMENT}.relay.0"}).init_transactions(30)
    assert [*refused, fault.value.args[0].name()] == ["TOPIC_AUTHORIZATION_FAILED", "TRANSACTIONAL_ID_AUTHORIZATION_FAILED"]


@pytest.mark.parametrize("account", RULES)
def test_an_account_joins_no_group_but_its_own(system: Secured, stores: Stores, account: str) -> None:
    (topics, _), (own, _), _ = RULES[account]
    topic = PREFIX + (topics[0] if topics != ["*"] else "airavata-launch")
    for group in {name for _, (names, _), _ in RULES.values() for name in names} - {*own}:
        reader = Consumer({**stores.brokers(account), "group.id": group.replace("ENV", ENVIRONMENT)})
        reader.subscribe([topic])
        try:
            told = next(filter(None, (reader.poll(1) for _ in range(30)))).error()
            assert told is not None and told.name() == "GROUP_AUTHORIZATION_FAILED", group
        finally:
            reader.close()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("password of Kafka", "Kafka: .*Invalid username or password"),
        ("authority of Kafka", "Kafka: .*certificate verify failed"),
        ("account of Kafka", "Kafka: .*TOPIC_AUTHORIZATION_FAILED"),
        ("authority of MySQL", "MySQL: .*certificate verify failed"),
    ],
)
def test_who_is_not_let_in_waits_and_says_why(system: Secured, stores: Stores, tmp_path: Path, wrong: str, says: str) -> None:
    foreign = Authority(tmp_path / "foreign")
    told = {
        "password of Kafka": {"KAFKA_CLIENT_FILE": str(stores.kafka.client("generator", password="wrong"))},
        "authority of Kafka": {"KAFKA_CLIENT_FILE": str(stores.kafka.client("generator", authority=foreign))},
        "account of Kafka": {"KAFKA_CLIENT_FILE": str(stores.kafka.client(STRANGER))},
        "authority of MySQL": {"MYSQL_URL": stores.url("generator").replace(str(stores.authority.certificate), str(foreign.certificate))},
    }[wrong]
    daemon = system.daemon("generator", 1, **told)
    daemon.start()
    try:
        system.until(lambda: re.match(says, system.ready(daemon.name) or "", re.IGNORECASE), 60.0, lambda: system.ready(daemon.name))
        system.asked_to_stop("generator", 60.0, 1)
    finally:
        daemon.kill()
        del system.daemons[daemon.name]


def test_a_file_that_is_not_there_ends_the_start_with_one_line(system: Secured, stores: Stores, tmp_path: Path) -> None:
    (file := tmp_path / "client").write_text("security.protocol=SSL\nssl.ca.location=/not/there\n")
    file.chmod(0o400)
    daemon = system.daemon("generator", 1, KAFKA_CLIENT_FILE=str(file))
    daemon.start()
    assert daemon.child is not None
    try:
        assert daemon.child.wait(60.0) == 78
        assert "generator: AIRAVATA_KAFKA_CLIENT: " in daemon.tail(3)
    finally:
        del system.daemons[daemon.name]
