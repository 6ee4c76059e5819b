"""Settings: whole or not at all, every fault named; and secrets that come as files."""

from pathlib import Path

import pytest

from app.errors import Misconfigured
from app.settings import read

URL = "mysql://scheduler:pw@db.example:3306/airavata"


def a_secret(directory: Path, text: str, mode: int) -> str:
    path = directory / "secret"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600])
def test_a_secret_comes_from_a_file_that_only_owner_and_group_read(tmp_path: Path, mode: int) -> None:
    assert read({"AIRAVATA_MYSQL_URL_FILE": a_secret(tmp_path, f"{URL}\n", mode)}).mysql_url == URL


@pytest.mark.parametrize("mode", [0o444, 0o404, 0o420, 0o460, 0o660, 0o644])
def test_a_secret_that_others_may_read_or_the_group_may_change_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(Misconfigured) as fault:
        read({"AIRAVATA_MYSQL_URL": URL, "AIRAVATA_TOKEN_KEY_FILE": a_secret(tmp_path, "k" * 40, mode)})
    assert str(fault.value) == f"AIRAVATA_TOKEN_KEY_FILE: mode {mode:04o} is too wide for a secret, 0400 is wanted: {tmp_path}/secret"


def test_what_is_no_secret_may_be_read_by_all(tmp_path: Path) -> None:
    assert read({"AIRAVATA_MYSQL_URL": URL, "AIRAVATA_KAFKA_FILE": a_secret(tmp_path, "kafka:9092", 0o444)}).kafka == "kafka:9092"


def test_every_fault_is_one_line_unknown_names_and_missing_files_included(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as fault:
        read({"AIRAVATA_COLOUR": "blue", "AIRAVATA_PARTITIONS": "many", "AIRAVATA_MASTER_KEY_FILE": str(tmp_path / "none")})
    assert str(fault.value).splitlines() == [
        "AIRAVATA_COLOUR: unknown setting",
        f"AIRAVATA_MASTER_KEY_FILE: No such file or directory: {tmp_path}/none",
        "AIRAVATA_PARTITIONS: expected a whole number from 1 to 1000, got 'many'",
        "AIRAVATA_MYSQL_URL: required, a URL mysql://user:password@host:port/database",
    ]


def test_a_secrets_value_is_never_in_its_fault(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as fault:
        read({"AIRAVATA_MYSQL_URL_FILE": a_secret(tmp_path, "hunter2", 0o400)})
    assert "hunter2" not in str(fault.value)


def test_the_sink_needs_no_database() -> None:
    assert read({}, database=False).mysql_url == ""


@pytest.mark.parametrize("endpoint", ["", "http://127.0.0.1:4318/v1/traces", "https://collector.example.org:443/otlp/v1/traces", "http://[::1]:4318/v1/traces"])
def test_spans_go_to_a_whole_url_or_nowhere(endpoint: str) -> None:
    assert read({"AIRAVATA_MYSQL_URL": URL, "AIRAVATA_OTLP_ENDPOINT": endpoint}).otlp_endpoint == endpoint


@pytest.mark.parametrize("endpoint", ["collector:4318", "collector:4318/v1/traces", "http://collector/v1/traces", "http://collector:4318", "http://collector:4318/", "http://:4318/v1/traces", "http://collector:90000/v1/traces", "http://collector:http/v1/traces", "grpc://collector:4317/v1/traces"])
def test_an_endpoint_that_no_span_would_ever_reach_is_refused_at_the_start(endpoint: str) -> None:
    with pytest.raises(Misconfigured) as fault:
        read({"AIRAVATA_MYSQL_URL": URL, "AIRAVATA_OTLP_ENDPOINT": endpoint})
    assert str(fault.value) == f"AIRAVATA_OTLP_ENDPOINT: expected A URL http://host:port/path or https://host:port/path, or nothing, got '{endpoint}'"


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("INTERNAL_URL", "api-internal:8081", "A URL http://host:port or https://host:port"),
        ("INTERNAL_URL", "http://:8081", "A URL http://host:port or https://host:port"),
        ("INTERNAL_URL", "http://api:0", "A URL http://host:port or https://host:port"),
        ("INTERNAL_URL", "http://api:80811", "A URL http://host:port or https://host:port"),
        ("INTERNAL_URL", "http://api:8081?x=1", "A URL http://host:port or https://host:port"),
        ("INTERNAL_URL", "http://a\npi:8081", "A URL http://host:port or https://host:port"),
        ("INTERNAL_URL", "http://api..internal:8081", "A URL http://host:port or https://host:port"),
        ("KAFKA", "", "Host names and ports separated by commas, host:port,host:port"),
        ("KAFKA", "kafka", "Host names and ports separated by commas, host:port,host:port"),
        ("KAFKA", "kafka:9092,,other:9092", "Host names and ports separated by commas, host:port,host:port"),
        ("KAFKA", "PLAINTEXT://kafka:9092", "Host names and ports separated by commas, host:port,host:port"),
        ("NUDGE_TO", ":9465", "A host name and port, host:port"),
        ("NUDGE_TO", "relay:0", "A host name and port, host:port"),
        ("NUDGE_TO", f"{'r' * 64}:9465", "A host name and port, host:port"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_at_the_start_on_one_line(name: str, text: str, wanted: str) -> None:
    with pytest.raises(Misconfigured) as fault:
        read({"AIRAVATA_MYSQL_URL": URL, f"AIRAVATA_{name}": text})
    assert str(fault.value) == f"AIRAVATA_{name}: expected {wanted}, got {text!r}"


@pytest.mark.parametrize("url", ["mysql://db.example:3306/airavata", "mysql://u:hunter2@/airavata", "mysql://u:hunter2@db.example:99999/airavata", "mysql://u:hunter2@db.example", "mysql://u:hunter2@db.example/", "mysql://u:hunter2@db.example/a/b", "postgresql://u:hunter2@db.example/a"])
def test_a_database_that_cannot_be_one_is_refused_and_its_password_not_shown(url: str) -> None:
    with pytest.raises(Misconfigured) as fault:
        read({"AIRAVATA_MYSQL_URL": url})
    assert str(fault.value) == "AIRAVATA_MYSQL_URL: expected A URL mysql://user:password@host:port/database, got ***"


@pytest.mark.parametrize(("name", "text"), [("INTERNAL_URL", "http://u:hunter2@api:8081"), ("OTLP_ENDPOINT", "grpc://u:hunter2@collector:4317/v1/traces"), ("KAFKA", "u:hunter2@kafka:9092")])
def test_a_password_in_an_address_is_not_shown_either(name: str, text: str) -> None:
    with pytest.raises(Misconfigured) as fault:
        read({"AIRAVATA_MYSQL_URL": URL, f"AIRAVATA_{name}": text})
    assert str(fault.value).endswith("got ***")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("INTERNAL_URL", "https://api.example.org/airavata"),
        ("INTERNAL_URL", "http://[::1]:8081"),
        ("KAFKA", "a.example:9092, b.example:9092,[::1]:9092"),
        ("NUDGE_TO", "outbox_relay.example.org:9465"),
        ("MYSQL_URL", "mysql+pymysql://root@127.0.0.1:1/t1_0?ssl_disabled=1"),
        ("MYSQL_URL", "mysql://u:p%40w%2F@[::1]:3306/airavata"),
    ],
)
def test_addresses_as_they_are_used_are_taken(name: str, text: str) -> None:
    assert getattr(read({"AIRAVATA_MYSQL_URL": URL, f"AIRAVATA_{name}": text}), name.lower()) == text.replace(" ", "")


def test_how_brokers_are_spoken_to_comes_from_a_file_as_kafkas_own_programs_have_it(tmp_path: Path) -> None:
    text = "# the relay's\nsecurity.protocol = SASL_SSL\n\nsasl.username=relay\nsasl.password=a=b#c\n"
    told = read({"AIRAVATA_MYSQL_URL": URL, "AIRAVATA_KAFKA": "k:1", "AIRAVATA_KAFKA_CLIENT_FILE": a_secret(tmp_path, text, 0o400)})
    assert told.brokers == {"bootstrap.servers": "k:1", "security.protocol": "SASL_SSL", "sasl.username": "relay", "sasl.password": "a=b#c"}
    assert "a=b#c" not in str(told.redacted())
    assert read({"AIRAVATA_MYSQL_URL": URL, "AIRAVATA_KAFKA": "k:1"}).brokers == {"bootstrap.servers": "k:1"}


@pytest.mark.parametrize("line", ["acks=0", "isolation.level=read_uncommitted", "bootstrap.servers=elsewhere:9092", "enable.ssl.certificate.verification=false", "security.protocol", "sasl.password="])
def test_what_the_protocol_says_of_clients_no_file_may_say_otherwise(tmp_path: Path, line: str) -> None:
    with pytest.raises(Misconfigured) as fault:
        read({"AIRAVATA_MYSQL_URL": URL, "AIRAVATA_KAFKA_CLIENT_FILE": a_secret(tmp_path, f"security.protocol=SSL\n{line}\n", 0o400)})
    assert str(fault.value) == "AIRAVATA_KAFKA_CLIENT_FILE: expected Lines name=value of security.protocol, ssl.* and sasl.*, named as librdkafka names them, got ***"
