"""A real Prometheus scrapes all real processes through load and faults: every metric of the catalogue is there and none beyond it, alerts fire for real and resolve after the repair."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from confluent_kafka import Producer

from app.dev.process import wait_until
from app.dev.servers import ROOT
from observability.catalogue import CATALOGUE
from tests.conftest import a_schema
from tests.support.gateway import Gateway, fresh_key
from tests.support.otlp_receiver import receiver
from tests.support.scraping import Scraper, scraping
from tests.support.servers import InOrder
from tests.support.system import COMPONENTS, System

ALERTS = ("RelayShardUnheld", "TargetDown", "HostCircuitOpen", "DeadLettersWaiting", "InDoubtTooLong", "SchemaMismatch")
SUFFIX = re.compile(r"_(?:bucket|sum|count)$")


@dataclass
class Story:
    """A system that has been through it, still running and scraped. `fired`: alert → seconds from the fault."""

    system: System
    scraper: Scraper
    directory: Path
    storage: str = ""
    fired: dict[str, float] = field(default_factory=dict)

    @property
    def gateway(self) -> Gateway:
        found: Gateway = self.system.gateway
        return found

    def effect(self, ssh: Any, name: str, **host: Any) -> tuple[str, str]:
        """(application, host)."""
        made = self.gateway.host(ssh, self.directory / f"scratch-{name}", **host)
        return self.gateway.effect(made, self.directory / f"effect-{name}")[0], made

    # ---- load ---------------------------------------------------------------------------------------------------------------------------------------
    def load(self, ssh: Any) -> None:
        """What users do: graphs that succeed, are tried again and fail; jobs with files; repeats, conflicts, faults of their own, too much at once."""
        shape, key = self.gateway.shape(), fresh_key()
        first = self.gateway.launch(shape, {"edges": "a>b b>c"}, key=key)
        assert self.gateway.launch(shape, {"edges": "a>b b>c"}, key=key) == first
        body = {"name": "another", "application_interface_id": shape, "inputs": {"edges": "a"}, "launch": True}
        assert self.raw("POST", "/experiments", body, key).status_code == 422
        assert self.raw("POST", "/experiments", {**body, "inputs": {}}, fresh_key()).status_code == 422
        others = [self.gateway.launch(shape, {"edges": "a>b", "behaviour": how}) for how in ("a:fail=1", "a:fail_for_good=1", "a:sleep_ms=300")]
        (self.directory / "storage" / "given").mkdir(parents=True)
        (self.directory / "storage" / "given" / "text").write_text("one two\n")
        inputs = [{"name": "text", "type": "URI", "required": True, "standard_input": True}]
        host = self.gateway.host(ssh, self.directory / "scratch-load")
        counts = self.gateway.application(host, executable_path="/usr/bin/wc", inputs=inputs, outputs=[{"name": "count", "type": "STDOUT", "required": True}])
        others.append(self.gateway.launch(counts, {"text": f"storage://{self.storage}/given/text"}, output_storage_id=self.storage))
        others.append(self.gateway.launch(self.effect(ssh, "load")[0], {"seconds": 8}, output_storage_id=self.storage))
        for each in (first, *others):
            self.gateway.wait(each)

    def raw(self, method: str, path: str, body: Any, key: str) -> httpx2.Response:
        return self.gateway.send(method, f"{self.gateway.urls[0]}/v1{path}", json=body, headers={"Idempotency-Key": key})

    def too_much_at_once(self) -> None:
        """A gateway that may have one live experiment is turned away with its second."""
        gateway_id = self.gateway.get("/me")["gateway_id"]
        self.limit(gateway_id, 1)
        shape = self.gateway.shape()
        body = {"name": "another", "application_interface_id": shape, "inputs": {"edges": "a", "behaviour": "a:sleep_ms=5000"}, "launch": True}
        self.system.until(lambda: self.raw("POST", "/experiments", body, fresh_key()).status_code == 429, 60.0)
        self.limit(gateway_id, None)
        self.system.until(lambda: self.scraper.query("count_over_time(airavata_rate_limited_total[1m]) > 2"), 60.0)

    def limit(self, gateway_id: str, live: int | None) -> None:
        operator = {"Authorization": f"Bearer {self.system.tokens['operator_token']}", "If-Match": "*", "Idempotency-Key": fresh_key()}
        answer = httpx2.patch(f"{self.gateway.urls[0]}/v1/gateways/{gateway_id}", headers=operator, json={"limits": {"live_experiments": live}})
        assert answer.status_code == 200, answer.text

    # ---- faults -----------------------------------------------------------------------------------------------------------------------------------------
    def a_job_vanishes(self, ssh: Any) -> str:
        """Wrapper and program are killed on their host, so nobody leaves an exit status. It is lost after a minute."""
        launched = self.gateway.launch(self.effect(ssh, "lost")[0], {"seconds": 600}, output_storage_id=self.storage)
        query = "SELECT scheduler_job_id FROM jobs WHERE state = 'ACTIVE' AND experiment_id = %s"
        self.system.until(lambda: self.system.rows(query, launched), 90.0, lambda: self.gateway.told(launched))
        pid = int(self.system.one(query, launched).partition("@")[0])
        assert pid > 1
        assert str(self.directory) in Path(f"/proc/{pid}/cmdline").read_text(), "ours, and no other"
        os.killpg(os.getpgid(pid), signal.SIGKILL)
        return launched

    def the_relay_is_stopped(self) -> None:
        self.system.kill("relay")
        shape = self.gateway.shape()
        launched = [self.gateway.launch(shape, {"edges": f"a{n}>b"}) for n in range(6)]
        self.fired["RelayShardUnheld"] = self.scraper.fires("RelayShardUnheld")
        self.system.revive("relay")
        for each in launched:
            self.gateway.wait(each)
        self.scraper.resolves("RelayShardUnheld")

    def an_executor_and_the_scheduler_are_killed(self) -> None:
        """In the middle of a graph; the other scheduler takes over, and the tasks are sent again."""
        launched = [self.gateway.launch(self.gateway.shape(), {"edges": "a>b b>c", "behaviour": "a:sleep_ms=4000"}) for _ in range(6)]
        self.system.until(lambda: self.system.one("SELECT COUNT(*) FROM attempts WHERE state = 'RUNNING'") >= 6, 60.0)
        self.system.kill("executor-noop")
        self.system.kill("scheduler")
        self.fired["TargetDown"] = self.scraper.fires("TargetDown")
        self.system.revive("executor-noop")
        self.system.revive("scheduler")
        for each in launched:
            self.gateway.wait(each)
        self.scraper.resolves("TargetDown")

    def the_api_server_is_away(self) -> None:
        """The sink warns again and again; what it repeats within a second is held back."""
        self.system.kill("api")
        self.system.until(lambda: self.scraper.query('airavata_sink_post_seconds_count{outcome="failed"} > 3'), 60.0)
        self.system.revive("api")

    def a_host_refuses_our_key(self, ssh: Any) -> None:
        application, host = self.effect(ssh, "refused", authorized=False)
        launched = self.gateway.launch(application, {}, output_storage_id=self.storage)
        self.fired["HostCircuitOpen"] = self.scraper.fires("HostCircuitOpen")
        credential = self.gateway.get(f"/compute-resources/{host}")["access"]["credential_id"]
        ssh.authorize(self.gateway.get(f"/credentials/{credential}")["public_key"])
        self.gateway.patch(f"/compute-resources/{host}", {"limits": {"jobs": 99}})
        assert self.gateway.wait(launched)["state"] == "COMPLETED"
        self.scraper.resolves("HostCircuitOpen")

    def a_message_cannot_be_read(self) -> None:
        producer = Producer({"bootstrap.servers": self.system.kafka})
        producer.produce(read_topics(self.system).launch, b"no message of ours", partition=0)
        assert producer.flush(30.0) == 0
        self.fired["DeadLettersWaiting"] = self.scraper.fires("DeadLettersWaiting")
        operator = {"Authorization": f"Bearer {self.system.tokens['operator_token']}", "Idempotency-Key": fresh_key()}
        (letter,) = httpx2.get(f"{self.gateway.urls[0]}/v1/operator/dead-letters", headers=operator).json()["items"]
        answer = httpx2.post(f"{self.gateway.urls[0]}/v1/operator/dead-letters/{letter['id']}/drops", headers=operator, json={"reason": "a test"})
        assert answer.status_code == 202, answer.text
        self.scraper.resolves("DeadLettersWaiting")

    def a_submission_is_in_doubt(self, ssh: Any) -> None:
        application, _ = self.effect(ssh, "doubt")
        self.system.kill("executor-job")
        self.system.revive("executor-job", failpoints="ssh.exec.after=raise:unknown@*")
        launched = self.gateway.launch(application, {}, output_storage_id=self.storage)
        self.system.until(lambda: self.system.one("SELECT COUNT(*) FROM jobs WHERE state = 'IN_DOUBT'"), 60.0, lambda: self.gateway.told(launched))
        self.fired["InDoubtTooLong"] = self.scraper.fires("InDoubtTooLong")
        self.system.kill("executor-job")
        self.system.revive("executor-job")
        assert self.gateway.wait(launched, 150.0)["state"] == "COMPLETED"
        self.scraper.resolves("InDoubtTooLong")

    def the_schema_is_another(self) -> None:
        revision = self.system.one("SELECT version_num FROM alembic_version")
        with self.system.connection() as connection, connection.cursor() as cursor:
            cursor.execute("UPDATE alembic_version SET version_num = '0001_r0_1'")
            self.fired["SchemaMismatch"] = self.scraper.fires("SchemaMismatch")
            cursor.execute("UPDATE alembic_version SET version_num = %s", (revision,))
        self.scraper.resolves("SchemaMismatch")


def read_topics(system: System) -> Any:
    from app.settings import read

    return read(system.environment).topics


@pytest.fixture(scope="module")
def story(servers: InOrder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    directory, ssh = tmp_path_factory.mktemp("story"), servers.ssh_host()
    counts = {**dict.fromkeys(COMPONENTS, 1), "scheduler": 2}
    for url in a_schema(servers.database("mysql")):
        with (
            receiver() as collector,
            System(servers, directory / "system", database_url=url, kafka=servers.kafka(), topic_prefix=f"p{os.getpid()}.", counts=counts, lease_seconds=3, otlp_endpoint=collector.url) as system,
            scraping(directory / "prometheus", system) as scraper,
        ):
            told = Story(system, scraper, directory, system.gateway.storage(directory / "storage"))
            told.load(ssh)
            lost = told.a_job_vanishes(ssh)
            told.the_relay_is_stopped()
            told.an_executor_and_the_scheduler_are_killed()
            told.a_host_refuses_our_key(ssh)
            told.a_message_cannot_be_read()
            told.a_submission_is_in_doubt(ssh)
            told.the_schema_is_another()
            told.the_api_server_is_away()
            assert told.gateway.wait(lost)["outcome"] == "LOST_JOB"
            told.too_much_at_once()
            yield told


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_fires_for_real_within_its_time_and_resolves_after_the_repair(story: Story, alert: str) -> None:
    assert story.fired[alert] <= story.scraper.pause(alert) + 30.0


EMITTED = sorted(name for name, metric in CATALOGUE.items() if not metric.later)


@pytest.mark.parametrize("name", EMITTED)
def test_a_metric_of_the_catalogue_is_emitted_by_its_components(story: Story, name: str) -> None:
    metric = CATALOGUE[name]
    series = story.scraper.query(f"group by (component) (last_over_time({name}{'_count' if metric.kind == 'histogram' else ''}[1h]))")
    assert series, f"{name} was never scraped"
    assert {"executor" if labels["component"].startswith("executor") else labels["component"] for labels, _ in series} <= metric.who


def test_no_metric_is_emitted_beyond_the_catalogue_and_no_label_either(story: Story) -> None:
    found = {name if name in CATALOGUE else SUFFIX.sub("", name) for name in story.scraper.names()}
    assert found - CATALOGUE.keys() == set()
    for name in found:
        for labels, _ in story.scraper.query(f'{{__name__=~"{name}(_bucket|_sum|_count)?"}}'):
            assert labels.keys() - {"__name__", "job", "instance", "component", "le"} <= CATALOGUE[name].labels.keys(), name


def test_nothing_was_refused_by_the_registry_of_any_process(story: Story) -> None:
    logs = {path.name: path.read_text() for path in (story.directory / "system" / "processes").glob("*.log")}
    assert not [(name, line) for name, text in logs.items() for line in text.splitlines() if "metric refused" in line]


@pytest.mark.parametrize("component", ["api", "relay", "generator", "scheduler", "executor-noop", "executor-job", "event-sink"])
def test_a_process_stays_within_its_budget_of_series(story: Story, component: str) -> None:
    ((_, series),) = story.scraper.query(f'max(scrape_samples_scraped{{component="{component}"}})')
    assert 20 < series < 3000


def test_every_rule_is_evaluated_without_an_error(story: Story) -> None:
    rules = story.scraper.rules()
    assert rules
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []


def asked() -> list[tuple[str, str]]:
    """(dashboard and panel, expression as Grafana sends it with every variable at All)."""
    found = []
    for file in sorted((ROOT / "observability" / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", ()):
                expression = re.sub(r"\$(?:component|gateway|host|topic)\b", ".*", target["expr"].replace("$__rate_interval", "1m"))
                found.append((f"{file.stem}: {panel['title']} {target['refId']}", expression.replace("[28d]", "[1h]")))
    return found


@pytest.mark.parametrize(("panel", "expression"), asked(), ids=lambda each: each if ": " in each else "")
def test_a_panel_shows_something_of_the_story(story: Story, panel: str, expression: str) -> None:
    asked_for = f"last_over_time(({expression})[20m:2s])"
    shown = wait_until(lambda: bool(story.scraper.query(asked_for)), 30.0)
    scraped = {name: story.scraper.query(f"count_over_time({name}[20m])") for name in set(re.findall(r"airavata_\w+", expression))} if not shown else {}
    assert shown, f"{panel}: {expression}; samples there are: {scraped}"


def test_exemplars_lead_from_a_histogram_to_a_trace(story: Story) -> None:
    known = {row[0] for row in story.system.rows("SELECT trace_id FROM experiments")}
    for name in ("messaging_process_duration_seconds_bucket", "airavata_relay_publish_delay_seconds_bucket", "airavata_task_hop_seconds_bucket"):
        assert known & set(story.scraper.exemplars(name)), name


MOVED = {  # What must be 0 → the test that makes it move.
    "airavata_invariant_violations_total": "tests/integration/test_consumer_loop.py", "airavata_rescued_total": "tests/integration/test_sweeper.py",
    "airavata_partition_halted": "tests/integration/test_consumer_loop.py", "airavata_stuck": "tests/integration/test_sampler.py", "airavata_ssh_host_key_changed": "tests/integration/test_sampler.py",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(name for name, metric in CATALOGUE.items() if metric.zero))
def test_what_must_be_zero_is_seen_to_move_by_a_test(name: str) -> None:
    assert f'"{name}"' in (ROOT / MOVED[name]).read_text()


def test_the_same_scrape_configuration_serves_compose() -> None:
    run = subprocess.run(["/usr/bin/promtool", "check", "config", str(ROOT / "observability" / "prometheus.yaml")], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
