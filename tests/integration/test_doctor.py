"""`airavata doctor` and `airavata admin` on real servers: each thing that can be set up wrong is found, and named with what mends it."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType  # type: ignore[attr-defined]
from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from app import secrets
from app.cli import doctor, root
from tests.support.ssh_host import SshServer, until

ROOT = Path(__file__).parents[2]


class Told(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Airavata = Callable[..., Told]

pytestmark = [pytest.mark.mysql, pytest.mark.kafka]


@pytest.fixture
def airavata(empty_database: str, kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Airavata:
    settings = {
        "MYSQL_URL": empty_database,
        "KAFKA": kafka_bootstrap,
        "TOPIC_PREFIX": topic_prefix,
        "PARTITIONS": "4",
        "RELAY_SHARDS": "2",
        "URL": "http://127.0.0.1:9",
    }

    def run(*words: str, **changed: str) -> Told:
        """In this process: a new one would cost a second of CPU each time (tests/acceptance/test_cli_process.py has those)."""
        foreign = {name: None for name in os.environ if name.startswith("AIRAVATA_")}
        told = CliRunner().invoke(root, words, env={**foreign, "HOME": str(tmp_path), **{f"AIRAVATA_{name}": value for name, value in {**settings, **changed}.items()}})
        assert told.exception is None or isinstance(told.exception, SystemExit), told.exc_info
        return Told(told.exit_code, told.stdout, told.stderr)

    return run


@pytest.fixture
def root_of(empty_database: str) -> Iterator[Engine]:
    made = create_engine(make_url(empty_database).set(drivername="mysql+pymysql"), isolation_level="AUTOCOMMIT")
    yield made
    made.dispose()


def wrong(told: Told) -> dict[str, dict[str, Any]]:
    """Findings by check, without the API, which is not there."""
    found = json.loads(told.stdout)
    assert told.returncode == (0 if found["well"] else 78)
    return {each["check"]: each for each in found["findings"] if not each["well"] and each["check"] != "api"}


def examined(airavata: Airavata, **changed: str) -> dict[str, dict[str, Any]]:
    return wrong(airavata("doctor", "-o", "json", **changed))


def made_whole(airavata: Airavata) -> None:
    assert airavata("admin", "migrate").returncode == 0
    assert airavata("admin", "topics", "--apply").returncode == 0


def test_from_nothing_to_whole_each_finding_names_the_next_step(airavata: Airavata) -> None:
    assert "airavata admin migrate" in examined(airavata)["schema"]["fix"]
    assert airavata("admin", "migrate").returncode == 0
    missing = examined(airavata)["topics"]
    assert "airavata admin topics --apply" in missing["fix"]
    difference = airavata("admin", "topics")
    assert (difference.returncode, "airavata-launch is missing (4 partitions)" in difference.stdout) == (78, True)
    assert airavata("admin", "topics", "--apply").returncode == 0
    assert examined(airavata) == {}
    again = airavata("admin", "topics", "--apply")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "topics and positions are as declared\n")


def test_missing_position_rows_and_a_wrong_partition_count(airavata: Airavata, root_of: Engine) -> None:
    made_whole(airavata)
    with root_of.connect() as connection:
        connection.exec_driver_sql("DELETE FROM positions WHERE part = 3")
    assert "position rows are missing" in examined(airavata)["topics"]["text"]
    assert airavata("admin", "topics", "--apply").returncode == 0
    assert examined(airavata) == {}
    many = examined(airavata, PARTITIONS="8")["topics"]
    assert "has 4 partitions, must have 8" in json.dumps(many) or "position rows" in many["text"]
    refused = airavata("admin", "topics", "--apply", PARTITIONS="8")
    assert refused.returncode == 78
    assert "has 4 partitions, must have 8: partitions are never changed on a live topic" in refused.stdout


def test_a_recreated_topic_is_told_and_mended_as_its_runbook_says(airavata: Airavata, root_of: Engine, kafka_bootstrap: str, topic_prefix: str) -> None:
    made_whole(airavata)
    topic, kafka = f"{topic_prefix}airavata-scheduler", AdminClient({"bootstrap.servers": kafka_bootstrap})
    kafka.delete_topics([topic])[topic].result(30)
    until(lambda: "is missing" in airavata("admin", "topics").stdout)
    told = airavata("admin", "topics", "--apply")
    assert (told.returncode, f"topic {topic} was recreated" in told.stdout) == (78, True)
    assert examined(airavata)["topics"]["fix"].startswith("see docs/runbooks/topic-recreated.md")
    (delete,) = re.findall("`(DELETE FROM positions .*?)`", (ROOT / "docs/runbooks/topic-recreated.md").read_text())
    with root_of.connect() as connection:
        connection.exec_driver_sql(delete.replace("<topic>", topic))
    assert airavata("admin", "topics", "--apply").returncode == 0
    assert examined(airavata) == {}


def test_a_topic_that_is_set_otherwise_is_told_and_set(airavata: Airavata, kafka_bootstrap: str, topic_prefix: str) -> None:
    """Compacted, the orders of a key that nobody has read yet would be thrown away."""
    made_whole(airavata)
    topic, kafka = f"{topic_prefix}airavata-scheduler", AdminClient({"bootstrap.servers": kafka_bootstrap})
    changed = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in (("retention.ms", "60000"), ("cleanup.policy", "compact"))]
    (done,) = kafka.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, topic, incremental_configs=changed)]).values()
    done.result(30)
    until(lambda: f"topic {topic}: retention.ms is 60000, must be 604800000" in airavata("admin", "topics").stdout)
    told = airavata("admin", "topics")
    assert (told.returncode, told.stdout.count("\n"), f"topic {topic}: cleanup.policy is compact, must be delete" in told.stdout) == (78, 2, True)
    assert examined(airavata)["topics"]["fix"] == "run `airavata admin topics --apply`"
    mended = airavata("admin", "topics", "--apply")
    assert (mended.returncode, mended.stderr) == (0, f"set topic {topic}\ntopics and positions are as declared\n")
    assert examined(airavata) == {}


@pytest.mark.parametrize(("setting", "values", "says"), [("innodb_flush_log_at_trx_commit", (2, 1), "innodb_flush_log_at_trx_commit is 2, must be 1"), ("read_only", (1, 0), "read-only")])
def test_unsafe_server_settings(airavata: Airavata, root_of: Engine, setting: str, values: tuple[int, int], says: str) -> None:
    made_whole(airavata)
    with root_of.connect() as connection:
        connection.exec_driver_sql(f"SET GLOBAL {setting} = {values[0]}")
        try:
            found = examined(airavata)
        finally:
            connection.exec_driver_sql(f"SET GLOBAL {setting} = {values[1]}")
    assert says in found["mysql settings"]["text"]
    assert set(found) == {"mysql settings"}


def test_a_schema_that_has_left_this_release_behind(airavata: Airavata, root_of: Engine) -> None:
    made_whole(airavata)
    with root_of.connect() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0900_r9_0'")
    assert "install the release" in examined(airavata)["schema"]["fix"]
    assert airavata("admin", "migrate").returncode == 78


def test_a_clock_that_is_off(airavata: Airavata, root_of: Engine, empty_database: str) -> None:
    """`init_connect` gives every ordinary account a clock ten seconds behind."""
    made_whole(airavata)
    account = f"late_{os.getpid()}"
    with root_of.connect() as connection:
        connection.exec_driver_sql(f"CREATE USER {account}@'%%' IDENTIFIED BY 'late'")
        connection.exec_driver_sql(f"GRANT ALL ON {make_url(empty_database).database}.* TO {account}@'%%'")
        connection.exec_driver_sql("SET GLOBAL init_connect = 'SET timestamp = UNIX_TIMESTAMP() - 10'")
        try:
            late = make_url(empty_database).set(username=account, password="late").render_as_string(hide_password=False)
            found = examined(airavata, MYSQL_URL=late)
        finally:
            connection.exec_driver_sql("SET GLOBAL init_connect = ''")
            connection.exec_driver_sql(f"DROP USER {account}@'%%'")
    assert "s apart" in found["clock"]["text"]
    assert "NTP" in found["clock"]["fix"]


def test_servers_that_are_not_there_or_refuse_us(airavata: Airavata, empty_database: str) -> None:
    made_whole(airavata)
    kafka = examined(airavata, KAFKA="127.0.0.1:9")["kafka"]
    assert "no Kafka broker answers" in kafka["text"]
    refused = make_url(empty_database).set(password="wrong").render_as_string(hide_password=False)
    mysql = examined(airavata, MYSQL_URL=refused)["mysql"]
    assert "1045" in mysql["text"]
    assert "wrong" not in json.dumps(mysql)
    assert airavata("admin", "migrate", MYSQL_URL=refused).returncode == 78
    assert airavata("admin", "migrate", MYSQL_URL="mysql://root:x@127.0.0.1:9/none").returncode == 6
    assert airavata("admin", "relay-state", KAFKA="127.0.0.1:9").returncode == 6


def test_settings_are_shown_without_secrets(airavata: Airavata) -> None:
    told = airavata("doctor", "-o", "json", TOKEN_KEY="very-secret", MASTER_KEY="5ec5e7" * 10)
    assert json.loads(told.stdout)["settings"]["partitions"] == 4
    assert "very-secret" not in told.stdout + told.stderr
    assert "5ec5e7" not in told.stdout + told.stderr


def test_relay_state_is_compared_and_settled_by_a_person_only(airavata: Airavata, root_of: Engine) -> None:
    made_whole(airavata)
    rows = json.loads(airavata("admin", "relay-state", "-o", "json").stdout)["items"]
    assert [(each["shard"], each["verdict"]) for each in rows] == [(0, "CLEAN"), (1, "CLEAN")]
    with root_of.connect() as connection:
        connection.exec_driver_sql("UPDATE relay_shards SET settled = 7, owner = 'relay', until = UTC_TIMESTAMP(6) + INTERVAL 1 HOUR WHERE shard = 1")
    lost = airavata("admin", "relay-state", "-o", "json")
    assert (lost.returncode, json.loads(lost.stdout)["items"][1]["verdict"]) == (78, "KAFKA_LOST_MEMORY")
    held = airavata("admin", "relay-state", "--settle", "1", "--yes")
    assert (held.returncode, "held by a relay" in held.stderr) == (4, True)
    with root_of.connect() as connection:
        connection.exec_driver_sql("UPDATE relay_shards SET until = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND")
    assert airavata("admin", "relay-state", "--settle", "1", "--yes").returncode == 0
    assert json.loads(airavata("admin", "relay-state", "-o", "json").stdout)["items"][1]["verdict"] == "CLEAN"
    assert airavata("admin", "relay-state", "--settle", "1", "--yes").returncode == 4


def test_a_host_is_asked_for_its_key_and_nothing_else(tmp_path: Path) -> None:
    server = SshServer(tmp_path / "host")
    server.start()
    try:
        pinned = " ".join((tmp_path / "host" / "host.pub").read_text().split()[:2])
        other = " ".join((tmp_path / "host" / "other_host.pub").read_text().split()[:2])
        rsa = " ".join((tmp_path / "host" / "host_rsa.pub").read_text().split()[:2])
        document = {"host": "127.0.0.1", "port": server.port, "host_keys": [pinned], "state": "ENABLED"}
        well = doctor.host("laptop", document)
        changed = doctor.host("laptop", {**document, "host_keys": [other]})
        unpinned = doctor.host("laptop", {**document, "host_keys": []})
        several = doctor.host("laptop", {**document, "host_keys": [rsa, pinned]})
        disabled = doctor.host("laptop", {**document, "state": "DISABLED"})
    finally:
        server.stop()
    gone = doctor.host("laptop", document)
    assert well and well.well
    assert several and several.well
    assert changed and "changed: it shows ssh-ed25519 SHA256:" in changed.text
    assert unpinned and "none is pinned" in unpinned.text
    assert disabled is None
    assert gone and "unreachable" in gone.text


def test_bootstrap_shows_a_token_once_and_keeps_its_digest_only(airavata: Airavata, root_of: Engine) -> None:
    made_whole(airavata)
    keyless = airavata("admin", "bootstrap")
    assert (keyless.returncode, "AIRAVATA_TOKEN_KEY" in keyless.stderr) == (78, True)
    made = json.loads(airavata("admin", "bootstrap", "--gateway", "demo", "-o", "json", TOKEN_KEY="k" * 40).stdout)
    refused = airavata("admin", "bootstrap", TOKEN_KEY="k" * 40)
    assert (refused.returncode, refused.stdout, "--another" in refused.stderr) == (4, "", True)
    again = json.loads(airavata("admin", "bootstrap", "--another", "--gateway", "demo", "-o", "json", TOKEN_KEY="k" * 40).stdout)
    assert again["gateway_id"] == made["gateway_id"]
    assert again["gateway_token"] != made["gateway_token"]
    with root_of.connect() as connection:
        roles = connection.exec_driver_sql("SELECT role, gateway_id, digest FROM tokens").all()
        assert Counter((row.role, row.gateway_id) for row in roles) == {("operator", None): 2, ("gateway-admin", made["gateway_id"]): 2}  # Ids of one millisecond have no order.
        assert secrets.token_digest(made["operator_token"], b"k" * 40) in {row.digest for row in roles}
        assert connection.exec_driver_sql("SELECT kind, name FROM catalogue").all() == [("project", "default")]
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM audit").scalar() == 2
