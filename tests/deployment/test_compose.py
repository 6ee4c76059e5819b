"""compose.yaml is a valid file, starts things in the order they need, and confines what is ours; each rule notices a file that breaks it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.dev import broker, databases
from app.settings import read
from tests.deployment import compose
from tests.deployment.compose import PROFILES, file
from tests.deployment.locked import ROOT
from tests.deployment.manifests import of
from tests.deployment.table import DEPLOYMENTS

ONCE = {"secrets", "migrate", "service-token", "topics"}
Services = dict[str, Any]


# ---- the format ----------------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("profiles", [*((each,) for each in PROFILES), PROFILES], ids="-".join)
def test_the_file_is_valid_with_each_profile_alone_and_with_all(profiles: tuple[str, ...]) -> None:
    done = compose.asked("compose.yaml", *profiles)
    assert done.returncode == 0, done.stderr
    assert set(yaml.safe_load(done.stdout)["services"]) == {name for name, each in file()["services"].items() if set(each["profiles"]) & set(profiles)}


@pytest.mark.parametrize(
    "text",
    [
        "services: {api: {image: x, healthchek: {}}}",
        "services: {api: {image: x, depends_on: {mysql: {condition: healthy}}}}",
        "services: {api: {image: x, read_only: perhaps}}",
    ],
)
def test_a_file_that_is_not_valid_is_noticed(text: str, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text(text)
    assert compose.asked(str(tmp_path / "compose.yaml")).returncode != 0


# ---- our rules -----------------------------------------------------------------------------------------------------------------------------------------
def each_has_a_profile(services: Services) -> Iterator[str]:
    yield from (
        f"{name}: profiles {each.get('profiles')}"
        for name, each in services.items()
        if len(each.get("profiles", [])) != 1 or each["profiles"][0] not in PROFILES
    )


def every_microservice_is_in_core(services: Services) -> Iterator[str]:
    if {name for name, each in services.items() if each["profiles"] == ["core"]} != {*DEPLOYMENTS, *ONCE, "mysql", "kafka"}:
        yield "core is not what it must be"
    for name, row in DEPLOYMENTS.items():
        given = services.get(name, {})
        told = (given.get("image"), given.get("build"), given.get("stop_grace_period"))
        if told != (f"airavata-workflow/{name}:local", {"context": ".", "target": name}, f"{row.grace_seconds}s"):
            yield f"{name}: {told}"


def nobody_waits_for_a_time(services: Services) -> Iterator[str]:
    """What is waited for has a health check, or ends; and it is in the same profile, or may be missing."""
    for name, each in services.items():
        if re.search(r"\bsleep\b|wait-for", str([each.get("command"), each.get("entrypoint"), each.get("healthcheck")])):
            yield f"{name} sleeps"
        for other, how in each.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other in ONCE else "service_healthy"
            if other not in services or how["condition"] != wanted:
                yield f"{name} waits for {other}: {how}"
            elif wanted == "service_healthy" and "healthcheck" not in services[other] and other not in DEPLOYMENTS:
                yield f"{name} waits for {other}, which has no health check"
            elif services[other]["profiles"] != each["profiles"] and how.get("required", True):
                yield f"{name} waits for {other}, which another profile brings"


def servers_tell_how_they_are(services: Services) -> Iterator[str]:
    yield from (f"{name} has no health check" for name, each in services.items() if "airavata-workflow/" not in each["image"] and "healthcheck" not in each)


def ours_are_confined(services: Services) -> Iterator[str]:
    for name in {*DEPLOYMENTS, *ONCE}:
        each = services[name]
        told = {key: each.get(key) for key in ("read_only", "cap_drop", "security_opt", "user")}
        if told != {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"], "user": "0:0" if name == "secrets" else "10001:10001"}:
            yield f"{name}: {told}"
        if "privileged" in each or each.get("cap_add", []) != (["CHOWN", "DAC_OVERRIDE"] if name == "secrets" else []):
            yield f"{name} may more"


def images_are_of_a_version(services: Services) -> Iterator[str]:
    yield from (f"{name}: {each['image']}" for name, each in services.items() if not re.fullmatch(r"[\w./-]+:(?!latest)[\w.]+", each["image"]))


def ports_are_for_this_machine_alone(services: Services) -> Iterator[str]:
    yield from (f"{name}: {port}" for name, each in services.items() for port in each.get("ports", []) if not port.startswith("127.0.0.1:"))


def what_is_told_can_be_read(services: Services) -> Iterator[str]:
    """By the component itself; secrets are files, and each has those of the table."""
    for name, row in DEPLOYMENTS.items():
        told = services[name]["environment"]
        read({key: value for key, value in told.items() if not key.endswith("_FILE")}, database=False)
        given = {value.rpartition("/")[2] for key, value in told.items() if key.endswith("_FILE")}
        if given != row.secrets or any(
            f"AIRAVATA_{each.upper().replace('-', '_')}" in told for each in ("mysql-url", "token-key", "master-key", "internal-token")
        ):
            yield f"{name}: {sorted(given)}"


def files_that_are_mounted_exist(services: Services) -> Iterator[str]:
    for name, each in services.items():
        yield from (f"{name}: {volume}" for volume in each.get("volumes", []) if volume.startswith(".") and not (ROOT / volume.split(":")[0]).exists())


def change(name: str, **what: Any) -> Callable[[Services], Any]:
    return lambda services: services[name].update(what)


RULES: dict[Callable[[Services], Iterator[str]], list[Callable[[Services], Any]]] = {
    each_has_a_profile: [change("relay", profiles=[]), change("relay", profiles=["more"])],
    every_microservice_is_in_core: [
        lambda them: them.pop("relay"),
        change("relay", stop_grace_period="10s"),
        change("relay", image="airavata-workflow/api:local"),
    ],
    nobody_waits_for_a_time: [
        change("migrate", command=["sh", "-c", "sleep 10 && airavata admin migrate"]),
        change("migrate", depends_on={"mysql": {"condition": "service_started"}}),
        change("relay", depends_on={"prometheus": {"condition": "service_healthy"}}),
        lambda them: them["mysql"].pop("healthcheck"),
        lambda them: them["topics"]["depends_on"].update({"kafka-1": {"condition": "service_healthy"}}),
    ],
    servers_tell_how_they_are: [lambda them: them["jaeger"].pop("healthcheck")],
    ours_are_confined: [
        change("relay", read_only=False),
        change("relay", user="0:0"),
        change("relay", cap_add=["NET_ADMIN"]),
        change("secrets", privileged=True),
    ],
    images_are_of_a_version: [change("jaeger", image="jaegertracing/all-in-one:latest"), change("jaeger", image="jaegertracing/all-in-one")],
    ports_are_for_this_machine_alone: [change("api", ports=["8080:8080"])],
    what_is_told_can_be_read: [
        lambda them: them["event-sink"]["environment"].update(AIRAVATA_MYSQL_URL_FILE="/run/secrets/airavata/mysql-url"),
        lambda them: them["relay"]["environment"].update(AIRAVATA_TOKEN_KEY="in the open"),
    ],
    files_that_are_mounted_exist: [change("prometheus", volumes=["./observability/gone.yaml:/x:ro"])],
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_file_keeps_a_rule(rule: Callable[[Services], Iterator[str]]) -> None:
    assert list(rule(file()["services"])) == []


@pytest.mark.parametrize(
    ("rule", "number"), [pytest.param(rule, number, id=f"{rule.__name__}-{number}") for rule, breakers in RULES.items() for number in range(len(breakers))]
)
def test_a_rule_notices_a_file_that_breaks_it(rule: Callable[[Services], Iterator[str]], number: int) -> None:
    broken = file()["services"]
    RULES[rule][number](broken)
    assert list(rule(broken))


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_brings_something(profile: str) -> None:
    assert [name for name, each in file()["services"].items() if each["profiles"] == [profile]]


def test_compose_up_alone_brings_the_core() -> None:
    assert "COMPOSE_PROFILES=core" in (ROOT / ".env").read_text().splitlines()


def test_chaos_leads_every_way_through_the_proxy() -> None:
    told = file(AIRAVATA_KAFKA="proxy:19091,proxy:19092,proxy:19093", AIRAVATA_MYSQL="proxy:13306", AIRAVATA_REPLICATION="3")
    listens = set(re.findall(r'"listen": "0\.0\.0\.0:(\d+)"', told["configs"]["proxies"]["content"]))
    brokers = [each["environment"]["KAFKA_ADVERTISED_LISTENERS"] for name, each in told["services"].items() if name.startswith("kafka-")]
    assert {each.rpartition(":")[2] for each in brokers} | {"13306"} == listens
    assert told["services"]["relay"]["environment"]["AIRAVATA_KAFKA"].split(",") == [each.removeprefix("PLAINTEXT://") for each in brokers]
    assert told["services"]["secrets"]["environment"]["MYSQL"] == "proxy:13306"


# ---- one description of the servers ------------------------------------------------------------------------------------------------------------------
def native_mysql() -> dict[str, str]:
    """What the native database is started with (app/dev), which the product's own start-up check accepts."""
    return {name.replace("_", "-"): value for name, _, value in (line.partition("=") for line in databases.COMMON.splitlines())}


def native_kafka(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").touch()  # Formatted already: nothing is started.
    broker.cluster({"kafka": tmp_path}, tmp_path, [(1, 2)])
    lines = (tmp_path / "server.properties").read_text().splitlines()
    return {f"KAFKA_{name.upper().replace('.', '_')}": value for name, _, value in (line.partition("=") for line in lines)}


def of_the_dev_overlay(server: str) -> dict[str, Any]:
    """The container of a server that k8s/overlays/dev brings along."""
    found = of(list(yaml.safe_load_all((ROOT / "k8s/overlays/dev/servers.yaml").read_text())), "StatefulSet")
    container: dict[str, Any] = found[server]["spec"]["template"]["spec"]["containers"][0]
    return container


def mysql_flags() -> Iterator[tuple[str, list[str]]]:
    yield "compose.yaml", file()["services"]["mysql"]["command"]
    yield "k8s/overlays/dev", of_the_dev_overlay("mysql")["args"]


PLACES = {"server-id", "bind-address", "user", "innodb-flush-method", "innodb-buffer-pool-size", "skip-name-resolve", ""}  # Of a process on this machine.
REQUIRED = ("AUTO_CREATE_TOPICS_ENABLE", "UNCLEAN_LEADER_ELECTION_ENABLE", "TRANSACTION_MAX_TIMEOUT_MS", "GROUP_INITIAL_REBALANCE_DELAY_MS")


def test_every_mysql_of_ours_is_set_alike() -> None:
    native = {name: value for name, value in native_mysql().items() if name not in PLACES}
    for where, flags in mysql_flags():
        assert dict(flag.removeprefix("--").split("=") for flag in flags) == native, where


def test_every_kafka_of_ours_is_set_alike(tmp_path: Path) -> None:
    native = native_kafka(tmp_path)
    containers = {"compose.yaml": file()["services"]["kafka"]["environment"], "chaos": file()["services"]["kafka-2"]["environment"]}
    containers["k8s/overlays/dev"] = {each["name"]: each["value"] for each in of_the_dev_overlay("kafka")["env"]}
    for where, told in containers.items():
        assert {f"KAFKA_{name}": told[f"KAFKA_{name}"] for name in REQUIRED} == {f"KAFKA_{name}": native[f"KAFKA_{name}"] for name in REQUIRED}, where
        assert int(told["KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS"]) <= 1000, where


def test_kustomize_and_compose_start_the_same_servers() -> None:
    for server in ("mysql", "kafka"):
        assert of_the_dev_overlay(server)["image"] == file()["services"][server]["image"]
