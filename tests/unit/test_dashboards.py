"""The committed dashboards are those the code makes, they ask only for what is measured, and every panel says what it is for."""

import json
import re
from pathlib import Path

import pytest

from observability.catalogue import CATALOGUE
from observability.dashboards.__main__ import BOARDS, DIRECTORY, expressions, texts
from observability.dashboards.panels import VARIABLES, Board, Panel

OF_PROMETHEUS = {"ALERTS": {"alertname", "alertstate", "severity"}, "up": set[str]()}
BY_SCRAPING = {"component", "instance", "le"}
SELECTED = re.compile(r"\b([a-zA-Z_]\w*)(?:\{([^}]*)\}|(?=\)|\[| \)))")
WORDS = {"by", "without", "or", "vector", "sum", "max", "min", "count", "rate", "increase", "changes", "histogram_quantile", "label_replace"}
ROOT = Path(__file__).parents[2]


def measured(name: str) -> str | None:
    """The metric that a series belongs to; None for what nobody emits, or a histogram asked for as if it were a number."""
    if name in CATALOGUE and CATALOGUE[name].kind != "histogram":
        return name
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    return base if base != name and base in CATALOGUE and CATALOGUE[base].kind == "histogram" else None


def asked(expression: str) -> list[tuple[str, set[str]]]:
    """(series, labels it is selected by)."""
    bare = re.sub(r"\b(?:by|without) \([^)]*\)", "", re.sub(r'"[^"]*"', '""', expression))
    return [(found[1], set(re.findall(r"(\w+)(?==)", found[2] or ""))) for found in SELECTED.finditer(bare) if found[1] not in WORDS]


@pytest.mark.parametrize("name", texts())
def test_the_committed_dashboard_is_the_generated_one(name: str) -> None:
    assert (DIRECTORY / name).read_text() == texts()[name], "run: python -m observability.dashboards"


def test_no_other_dashboard_is_committed() -> None:
    assert {path.name for path in DIRECTORY.glob("*")} == set(texts())
    assert len(texts()) == 7


@pytest.mark.parametrize(("board", "panel", "expression"), list(expressions()), ids=[f"{board} · {panel} · {n}" for n, (board, panel, _) in enumerate(expressions())])
def test_an_expression_asks_only_for_what_is_measured(board: str, panel: str, expression: str) -> None:
    found = asked(expression)
    assert found, "it asks for nothing"
    for name, selected in found:
        labels = OF_PROMETHEUS.get(name)
        if labels is None:
            base = measured(name)
            assert base is not None, f"{name} is measured by nobody"
            labels = set(CATALOGUE[base].labels)
        grouped = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(",") if label.strip()}
        assert selected <= labels | BY_SCRAPING
        if len(found) == 1:
            assert grouped <= labels | BY_SCRAPING
    assert "$" not in expression
    assert expression.count("(") == expression.count(")")


def test_a_limit_asked_for_is_the_bound_of_a_bucket() -> None:
    for _, _, expression in expressions():
        for name, limit in re.findall(r'(\w+)_bucket\{[^}]*le="([\d.]+)"', expression):
            assert float(limit) in CATALOGUE[name].buckets


@pytest.mark.parametrize("board", BOARDS, ids=lambda each: each.title)
def test_every_panel_has_what_the_sdk_leaves_open(board: Board) -> None:
    made = json.loads(texts()[f"{board.uid}.json"])
    assert {each["name"] for each in made["templating"]["list"]} == {"datasource", *VARIABLES}
    panels = made["panels"]
    assert [each["id"] for each in panels] == list(range(1, len(panels) + 1))
    for each in panels:
        assert each["datasource"]["uid"] == "${datasource}"
        told = re.fullmatch(r"[^\n]+[?.]\n\nRunbook: (docs/runbooks/[\w-]+\.md)", each["description"])
        assert told is not None
        assert (ROOT / told[1]).is_file(), "a runbook that is not there helps nobody"
        assert each["fieldConfig"]["defaults"].get("unit") or each["type"] == "state-timeline"
        assert [target["refId"] for target in each["targets"]] == [chr(ord("A") + n) for n in range(len(each["targets"]))]
        assert all(target["expr"] and target["datasource"]["uid"] == "${datasource}" for target in each["targets"])
    places = [(x, y) for each in panels for x in range(each["gridPos"]["x"], each["gridPos"]["x"] + each["gridPos"]["w"]) for y in range(each["gridPos"]["y"], each["gridPos"]["y"] + each["gridPos"]["h"])]
    assert len(places) == len(set(places)), "panels overlap"
    assert max(x for x, _ in places) < 24


def test_what_must_be_0_is_on_the_first_page_or_the_sixth() -> None:
    zero = {name for name, metric in CATALOGUE.items() if metric.zero}
    shown = {name for _, _, expression in expressions() for name, _ in asked(expression)}
    assert zero <= shown


def test_a_panel_that_asks_for_what_nobody_measures_is_seen() -> None:
    assert measured("airavata_nonsense_total") is None
    assert measured("airavata_task_hop_seconds") is None, "a histogram is no number"
    assert asked('sum by (x) (rate(airavata_nonsense_total{a="b",c=~".*"}[1m])) / max(up)') == [("airavata_nonsense_total", {"a", "c"}), ("up", set())]
    assert Panel("stat", "t", "q?", "r", []).width == 8
