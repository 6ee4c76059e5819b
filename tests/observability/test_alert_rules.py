"""Every alert is complete, asks for metrics that exist, has been seen to fire, to stay quiet and to resolve, and has a page that says what to do."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.dev.servers import ROOT
from observability.catalogue import CATALOGUE

FILES = sorted((ROOT / "observability" / "alerts").glob("*.yml"))
RULES = [rule for file in FILES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})
PAGES = ROOT / "docs" / "runbooks"
SEEN = [case for file in FILES for case in yaml.safe_load((file.parent / "tests" / file.name).read_text())["tests"]]
SUFFIXES = ("_bucket", "_sum", "_count", "")
MUST_BE_ZERO = {name for name, metric in CATALOGUE.items() if metric.zero}


def promtool(*arguments: str | Path) -> None:
    run = subprocess.run(["/usr/bin/promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def names(text: str) -> set[str]:
    """Ours and those of the conventions; labels in braces and what grouping names are no metrics."""
    plain = re.sub(r"\{[^}]*\}", "", re.sub(r'"[^"]*"', '""', text))
    return set(re.findall(r"\b(?:airavata|db_client|http_server|messaging|process)_\w+\b", plain))


@pytest.mark.parametrize("file", FILES, ids=lambda each: each.stem)
def test_prometheus_reads_the_rules_and_has_seen_each_fire_and_resolve(file: Path) -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", file)
    promtool("test", "rules", file.parent / "tests" / file.name)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda each: f"{each['alert']}-{each['labels']['severity']}")
def test_an_alert_says_whom_it_wakes_what_they_notice_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert re.fullmatch(r"\d+[smh]", str(rule["for"]))
    assert set(rule["annotations"]) == {"summary", "runbook_url"}
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
    fired = [case for case in SEEN if any(f'"{rule["alert"]}", severity="{rule["labels"]["severity"]}"' in each["expr"] for each in case["promql_expr_test"])]
    assert any([len(each["exp_samples"]) for each in case["promql_expr_test"]] == [0, 1, 0] for case in fired), "quiet, firing, resolved"


@pytest.mark.parametrize("rule", RULES, ids=lambda each: each.get("alert") or each["record"])
def test_a_rule_asks_for_what_the_catalogue_knows(rule: dict[str, Any]) -> None:
    for name in names(rule["expr"]):
        assert any(name.removesuffix(suffix) in CATALOGUE for suffix in SUFFIXES), name
        assert not next(CATALOGUE[name.removesuffix(suffix)] for suffix in SUFFIXES if name.removesuffix(suffix) in CATALOGUE).later, name


def test_whatever_must_be_zero_has_an_alert() -> None:
    assert {name for rule in ALERTS for name in names(rule["expr"])} >= MUST_BE_ZERO


def test_what_only_the_sampler_shows_is_guarded_by_its_absence() -> None:
    """One series of each of its parts, which stand or fall together."""
    (guard,) = [rule for rule in ALERTS if rule["alert"] == "TelemetryLosing"]
    absent = set(re.findall(r"absent\((\w+)\)", guard["expr"]))
    assert absent >= {"airavata_outbox_oldest_age_seconds", "airavata_tasks_ready", "airavata_stuck", "airavata_schema_revision_match", "airavata_sink_heartbeat_age_seconds"}
    assert all(CATALOGUE[name].sampled for name in absent)


# ---- runbooks ------------------------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("alert", NAMES)
def test_every_alert_has_a_page_that_says_what_to_do_and_what_not_to(alert: str) -> None:
    text = (PAGES / f"{alert}.md").read_text()
    assert re.findall(r"(?m)^\*([A-Z][\w ]+)\.\*", text) == ["What users notice", "What it means", "Look", "Do", "Do not", "Confirm"]
    assert names(text) <= {f"{name}{suffix}" for name in CATALOGUE for suffix in SUFFIXES}
    for link in re.findall(r"\]\(([\w-]+\.md)\)", text):
        assert (PAGES / link).exists()


def test_every_page_named_like_an_alert_belongs_to_one() -> None:
    assert {page.stem for page in PAGES.glob("[A-Z]*.md")} == set(NAMES)
