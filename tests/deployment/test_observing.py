"""What is provisioned belongs together: compose file, Grafana, Prometheus, collector, and what the processes really say."""

import re
from pathlib import Path
from typing import Any

import yaml

from app.dev.servers import ROOT
from observability.catalogue import CATALOGUE
from tests.deployment.table import DEPLOYMENTS

OBSERVING = ROOT / "observability"
PRODUCT = "\n".join(path.read_text() for folder in ("app", "components", "outbox_relay", "observability") for path in (ROOT / folder).rglob("*.py"))


def read(name: str) -> Any:
    return yaml.safe_load((OBSERVING / name).read_text())


def services() -> Any:
    return yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def mounts(service: str) -> dict[str, str]:
    """Path inside → file of the repository."""
    return {inside: outside for outside, inside, _ in (each.split(":") for each in services()[service]["volumes"])}


def test_grafana_finds_its_dashboards_and_its_sources() -> None:
    (provider,) = read("grafana/dashboards.yaml")["providers"]
    assert Path(mounts("grafana")[provider["options"]["path"]]) == Path("observability/grafana/dashboards")
    sources = {each["uid"]: each for each in read("grafana/datasources.yaml")["datasources"]}
    for each in sources.values():
        assert re.match(r"http://(\w+):", each["url"])[1] in services()
    (destination,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert destination["datasourceUid"] in sources
    assert "trace_id" in PRODUCT


def test_prometheus_scrapes_every_microservice_and_says_which_it_is() -> None:
    (job,) = read("prometheus.yaml")["scrape_configs"]
    assert job["file_sd_configs"][0]["files"] == ["targets/*.yaml"]
    told = {each["labels"]["component"]: each["targets"] for each in read("targets/compose.yaml")}
    assert told == {name: [f"{name}:9464"] for name in DEPLOYMENTS}
    assert {*mounts("prometheus").values()} >= {"./observability/prometheus.yaml", "./observability/alerts", "./observability/targets"}
    assert not [name for name, metric in CATALOGUE.items() if {"component", "instance"} & set(metric.labels)], "put on by scraping, not by code"


def test_the_collector_keeps_by_attributes_that_spans_carry() -> None:
    told = read("collector.yaml")
    policies = told["processors"]["tail_sampling"]["policies"]
    for each in policies:
        assert each["type"] in each, "a policy without its settings"
        if each["type"] == "string_attribute":
            assert f'"{each["string_attribute"]["key"]}"' in PRODUCT
    assert policies[-1]["type"] == "probabilistic", "whatever nothing else keeps"
    pipeline = told["service"]["pipelines"]["traces"]
    assert set(pipeline["processors"]) <= set(told["processors"])
    assert pipeline["processors"][0] == "memory_limiter", "before anything that remembers"
    assert re.match(r"http://(\w+):", told["exporters"]["otlphttp"]["endpoint"])[1] in services()
    assert "collector:4318" in (ROOT / "compose.yaml").read_text()
