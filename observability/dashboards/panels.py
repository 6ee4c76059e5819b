"""What a dashboard of ours is made of. The SDK leaves open what every panel must have: ids, places, reference ids, the data source variable, unit, a question and its runbook; this sets them.

A panel's description is the question it answers and the runbook that says what to do, so a panel without either cannot be written.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
ROW_HEIGHT, WIDTH = 8, 24
VARIABLES = {  # Name → the metric whose label it offers.
    "component": "airavata_ready", "gateway": "airavata_gateway_experiments_total", "host": "airavata_jobs", "topic": "airavata_messages_total",
}  # fmt: skip
Query: TypeAlias = tuple[str, str]  # Legend and expression.


@dataclass(frozen=True)
class Panel:
    """`width` of 24. `zero`: anything but 0 is a fault, and is red."""

    kind: str
    title: str
    question: str
    runbook: str
    queries: Sequence[Query]
    unit: str = "short"
    width: int = 8
    zero: bool = False


@dataclass(frozen=True)
class Board:
    uid: str
    title: str
    question: str
    rows: Sequence[Sequence[Panel]]
    annotations: Sequence[str] = ()  # Tags of annotations to show.

    @property
    def panels(self) -> Iterator[Panel]:
        for row in self.rows:
            yield from row


def one(title: str, question: str, runbook: str, *queries: Query, unit: str = "short", width: int = 4, zero: bool = False) -> Panel:
    return Panel("stat", title, question, runbook, queries, unit, width, zero)


def lines(title: str, question: str, runbook: str, *queries: Query, unit: str = "short", width: int = 8, zero: bool = False) -> Panel:
    return Panel("lines", title, question, runbook, queries, unit, width, zero)


def heat(title: str, question: str, runbook: str, query: str, *, unit: str = "s", width: int = 8) -> Panel:
    return Panel("heat", title, question, runbook, [("{{le}}", query)], unit, width)


def timeline(title: str, question: str, runbook: str, *queries: Query, width: int = 12) -> Panel:
    return Panel("timeline", title, question, runbook, queries, "short", width)


# ---- expressions ----------------------------------------------------------------------------------------------------------------------------------------
def rate(name: str, by: str = "", where: str = "") -> str:
    return f"sum by ({by}) (rate({name}{{{where}}}[$__rate_interval]))"


def increase(name: str, by: str = "", where: str = "", over: str = "1h") -> str:
    return f"sum by ({by}) (increase({name}{{{where}}}[{over}]))"


def total(name: str, by: str = "", where: str = "", of: str = "sum") -> str:
    return f"{of} by ({by}) ({name}{{{where}}})"


def quantile(q: float, name: str, by: str = "", where: str = "", over: str = "$__rate_interval") -> str:
    return f"histogram_quantile({q}, sum by ({', '.join(filter(None, ['le', by]))}) (rate({name}_bucket{{{where}}}[{over}])))"


def quantiles(name: str, by: str = "", where: str = "") -> tuple[Query, Query]:
    legend = f" {{{{{by}}}}}" if by else ""
    return (f"p50{legend}", quantile(0.5, name, by, where)), (f"p99{legend}", quantile(0.99, name, by, where))


def buckets(name: str, where: str = "") -> str:
    return f"sum by (le) (rate({name}_bucket{{{where}}}[$__rate_interval]))"


def mean(name: str, by: str = "", where: str = "") -> str:
    return f"{rate(f'{name}_sum', by, where)} / {rate(f'{name}_count', by, where)}"


# ---- building -------------------------------------------------------------------------------------------------------------------------------------------
def described(panel: Panel) -> str:
    return f"{panel.question}\n\nRunbook: docs/runbooks/{panel.runbook}.md"


def _thresholds(panel: Panel) -> grafana.ThresholdsConfig:
    steps = [models.Threshold(color="green", value=None), *([models.Threshold(color="red", value=0.000001)] if panel.zero else [])]
    return grafana.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _stat(panel: Panel) -> stat.Panel:
    latest = ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    return stat.Panel().unit(panel.unit).thresholds(_thresholds(panel)).color_mode(common.BigValueColorMode.BACKGROUND if panel.zero else common.BigValueColorMode.VALUE).reduce_options(latest)


def _lines(panel: Panel) -> timeseries.Panel:
    legend = VizLegendOptions().show_legend(True).display_mode(common.LegendDisplayMode.LIST).placement(common.LegendPlacement.BOTTOM)
    return timeseries.Panel().unit(panel.unit).min(0).fill_opacity(8).thresholds(_thresholds(panel)).legend(legend)


_KINDS: dict[str, Callable[[Panel], Any]] = {
    "stat": _stat, "lines": _lines, "heat": lambda panel: heatmap.Panel().unit(panel.unit), "timeline": lambda panel: statetimeline.Panel().thresholds(_thresholds(replace(panel, zero=True))),
}  # fmt: skip


def _query(panel: Panel, number: int) -> prometheus.Dataquery:
    legend, expression = panel.queries[number]
    shape = PromQueryFormat.HEATMAP if panel.kind == "heat" else PromQueryFormat.TIME_SERIES
    made = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + number)).datasource(SOURCE).format(shape).exemplar("_bucket" in expression)
    return made.instant() if panel.kind == "stat" else made.range()


def _placed(board: Board) -> Iterator[tuple[Panel, int, models.GridPos]]:
    number = 0
    for row, panels in enumerate(board.rows):
        assert sum(each.width for each in panels) <= WIDTH, f"{board.title}: row {row} is wider than {WIDTH}"
        across = 0
        for panel in panels:
            number += 1
            yield panel, number, models.GridPos(h=ROW_HEIGHT, w=panel.width, x=across, y=row * ROW_HEIGHT)
            across += panel.width


def _variables() -> Iterator[Any]:
    yield grafana.DatasourceVariable("datasource").label("data source").type("prometheus")
    for name, metric in VARIABLES.items():
        query = grafana.QueryVariable(name).datasource(SOURCE).query(f"label_values({metric}, {name})").refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        yield query.include_all(True).all_value(".*").multi(True).current(models.VariableOption(selected=True, text="All", value="$__all"))


def built(board: Board) -> dict[str, Any]:
    """As Grafana imports it."""
    made = grafana.Dashboard(board.title).uid(board.uid).description(board.question).tags(["airavata"]).refresh("10s").time("now-1h", "now").timezone("utc").readonly()
    for variable in _variables():
        made = made.with_variable(variable)
    for tag in board.annotations:
        own = models.DataSourceRef(type_val="grafana", uid="-- Grafana --")
        target = grafana.AnnotationTarget().limit(200).match_any(False).tags([tag]).type("tags")
        made = made.annotation(grafana.AnnotationQuery().name(tag).datasource(own).enable(True).icon_color("red").target(target))
    for panel, number, place in _placed(board):
        shown = _KINDS[panel.kind](panel).id(number).title(panel.title).description(described(panel)).datasource(SOURCE).grid_pos(place)
        for each in range(len(panel.queries)):
            shown = shown.with_target(_query(panel, each))
        made = made.with_panel(shown)
    found: dict[str, Any] = json.loads(json.dumps(made.build(), cls=JSONEncoder, sort_keys=True))
    return found
