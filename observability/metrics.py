"""Metrics: one registry per process, which takes what stands in the catalogue and nothing else.

    metrics.count("airavata_messages_total", 3, topic=full_name, verdict="applied")
    metrics.observe("airavata_sink_post_seconds", 0.012, outcome="applied")
    metrics.watch(loop.gauges)          # gauges are read when scraped: the hot path pays nothing for them

Invariant: measuring never stops the work. A name or a label value that the catalogue does not know is logged once and dropped (in tests, `strict`, it raises); open labels
are bounded each, and all of them by SERIES_MAX, then their value is `other`. A scrape asks no store.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from itertools import product
from typing import Any, ParamSpec, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, Exemplar, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from observability import logs
from observability.catalogue import CATALOGUE, Metric, Open

SERIES_MAX = 3000
TEXT = "text/plain; version=0.0.4; charset=utf-8"
P = ParamSpec("P")
Reading: TypeAlias = tuple[str, float, Mapping[str, str]]  # A gauge: name, value, labels.
strict = False  # Tests set it.


class Histogram:
    """Counts per bucket (not cumulated), their sum, and the last sampled trace of each bucket."""

    __slots__ = ("counts", "exemplars", "sum")

    def __init__(self, buckets: tuple[float, ...]) -> None:
        self.counts, self.sum = [0] * (len(buckets) + 1), 0.0
        self.exemplars: list[Exemplar | None] = [None] * (len(buckets) + 1)


class Registry(Collector):
    """The series of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.begin("")

    def begin(self, component: str, *, topic_prefix: str = "") -> None:
        """This process is that component: what it may count exists from now on, at 0. Empty, as in commands and tests: it may count everything."""
        self.component = "executor" if component.startswith("executor-") else component
        self.topic_prefix, self.refused = topic_prefix, set[str]()
        self.cells: dict[str, dict[tuple[str, ...], Any]] = {}
        self.bound: dict[tuple[Any, ...], Any] = {}  # Words of a call → its cell.
        self.seen: dict[tuple[str, str], set[str]] = {}
        self.series = self.gauged = 0  # How many there are: kept ones, and gauges of this scrape.
        self.watched: list[Callable[[], Iterable[Reading]]] = []
        for metric in CATALOGUE.values():
            closed = not any(isinstance(values, Open) for values in metric.labels.values())
            if closed and self.component in metric.who and metric.kind != "gauge" and not metric.later:
                self._fill(metric, {})

    # ---- what is told -----------------------------------------------------------------------------------------------------------------------------
    def count(self, name: str, by: float = 1, /, **labels: str) -> None:
        found = self._cell(name, "counter", labels)
        if found is not None:
            with self.lock:
                found[0] += by

    def observe(self, name: str, value: float, /, *, times: int = 1, traceparent: str = "", **labels: str) -> None:
        """`times`: that many of a batch took this long. `traceparent`: becomes an exemplar if it is sampled."""
        found = self._cell(name, "histogram", labels)
        if found is not None:
            place = bisect_left(CATALOGUE[name].buckets, value)
            with self.lock:
                found.counts[place] += times
                found.sum += value * times
                if len(traceparent) == 55 and traceparent[54] in "13579bdf":  # The flag `sampled` is a bit.
                    found.exemplars[place] = Exemplar({"trace_id": traceparent[3:35]}, value, time.time())  # noqa: TID251  OpenMetrics wants the wall clock here.

    def expect(self, name: str, /, **labels: str) -> None:
        """This combination will come, and exists from now on."""
        metric = self._known(name, CATALOGUE[name].kind)
        if metric is not None:
            self._fill(metric, labels)

    def known(self, label: str, values: Iterable[str]) -> None:
        """Values of an open label, in all counters and histograms of this component that have it and no other open one."""
        values = list(values)
        for metric in CATALOGUE.values():
            others = any(isinstance(each, Open) for name, each in metric.labels.items() if name != label)
            if label in metric.labels and not others and metric.kind != "gauge" and not metric.later and (not self.component or self.component in metric.who):
                for value in values:
                    self._fill(metric, {label: self._bounded(metric, label, value)})

    def watch(self, read: Callable[[], Iterable[Reading]]) -> None:
        """Numbers that somebody keeps anyway, read at each scrape. It must not block."""
        self.watched.append(read)

    # ---- which series ---------------------------------------------------------------------------------------------------------------------------------
    def _cell(self, name: str, kind: str, labels: Mapping[str, str]) -> Any:
        """None: it was refused. What was found once is found by one look: a cell is never taken away."""
        asked = (kind, name, *labels.items())
        if asked in self.bound:
            return self.bound[asked]
        metric = self._known(name, kind)
        if metric is None or (key := self._key(metric, labels)) is None:
            return None
        found = self.cells.get(name, {}).get(key)
        if found is None:
            new = dict(zip(metric.labels, key, strict=True))
            self._fill(metric, new if kind == "histogram" else {each: new[each] for each, values in metric.labels.items() if isinstance(values, Open)})
            found = self.cells[name].get(key)
        if "other" not in key:  # Of those there may be any number.
            self.bound[asked] = found
        return found

    def _known(self, name: str, kind: str) -> Metric | None:
        metric = CATALOGUE.get(name)
        if metric is None or metric.kind != kind or metric.later or (self.component and self.component not in metric.who):
            self.refuse(f"{name} is no {kind} of {self.component or 'this system'}")
            return None
        return metric

    def _key(self, metric: Metric, labels: Mapping[str, str]) -> tuple[str, ...] | None:
        found = []
        for label, values in metric.labels.items():
            value = labels.get(label) if label in labels else labels.get(f"{label}_")  # `class` and `from` are no names of arguments.
            if value is None or len(labels) != len(metric.labels) or (not isinstance(values, Open) and value not in values):
                self.refuse(f"{metric.name}: {label}={value!r} of {sorted(labels)} is not in the catalogue")
                return None
            found.append(value if not isinstance(values, Open) else self._bounded(metric, label, value))
        key = tuple(found)
        if key not in self.cells.get(metric.name, {}) and self.series + self.gauged >= SERIES_MAX:
            return tuple("other" if isinstance(values, Open) else value for value, values in zip(key, metric.labels.values(), strict=True))
        return key

    def _bounded(self, metric: Metric, label: str, value: str) -> str:
        value = value.removeprefix(self.topic_prefix) if label == "topic" else value
        seen, values = self.seen.setdefault((metric.name, label), set()), metric.labels[label]
        if value not in seen:
            if isinstance(values, Open) and len(seen) >= values.most:
                return "other"
            seen.add(value)
        return value

    def _fill(self, metric: Metric, given: Mapping[str, str]) -> None:
        """All combinations of the closed labels, with the values given for the others, begin at 0."""
        sets: list[tuple[str, ...]] = [(given[label],) if label in given else tuple(map(str, values)) for label, values in metric.labels.items()]
        with self.lock:
            cells = self.cells.setdefault(metric.name, {})
            for key in product(*sets):
                if key not in cells:
                    cells[key] = Histogram(metric.buckets) if metric.kind == "histogram" else [0.0]
                    self.series += len(metric.buckets) + 3 if metric.kind == "histogram" else 1

    def refuse(self, why: str) -> None:
        if strict:
            raise ValueError(why)
        if why not in self.refused and len(self.refused) < 100:
            self.refused.add(why)
            logs.logger("metrics").error("metric refused", why=why)

    # ---- what is scraped --------------------------------------------------------------------------------------------------------------------------------
    def collect(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily | GaugeMetricFamily]:
        with self.lock:
            told = {name: [(key, _frozen(CATALOGUE[name], cell)) for key, cell in cells.items()] for name, cells in self.cells.items()}
        for name, cells in told.items():
            metric = CATALOGUE[name]
            family: Any = (HistogramMetricFamily if metric.kind == "histogram" else CounterMetricFamily)(name, metric.question, labels=tuple(metric.labels))
            for key, values in cells:
                family.add_metric(key, *values)
            yield family
        yield from self._gauges()

    def _gauges(self) -> Iterator[GaugeMetricFamily]:
        """Equal readings of several watchers add up. A watcher that raises is left out. What was read before is forgotten: who has gone makes room."""
        found: dict[str, dict[tuple[str, ...], float]] = {}
        self.gauged, self.seen = 0, {key: seen for key, seen in list(self.seen.items()) if CATALOGUE[key[0]].kind != "gauge"}
        for read in self.watched:
            try:
                readings = list(read())
            except Exception as fault:
                self.refuse(f"a watcher raised {type(fault).__name__}: {fault}"[:200])
                continue
            for name, value, labels in readings:
                metric = self._known(name, "gauge")
                key = self._key(metric, labels) if metric is not None else None
                if key is not None:
                    cells = found.setdefault(name, {})
                    self.gauged += key not in cells
                    cells[key] = cells.get(key, 0.0) + value
        for name, cells in found.items():
            family = GaugeMetricFamily(name, CATALOGUE[name].question, labels=tuple(CATALOGUE[name].labels))
            for key, value in cells.items():
                family.add_metric(key, value)
            yield family


def _frozen(metric: Metric, cell: Any) -> tuple[Any, ...]:
    """What `add_metric` is given: cumulated buckets with their exemplars and the sum, or the count."""
    if metric.kind != "histogram":
        return (cell[0],)
    buckets, total = [], 0
    for bound, many, exemplar in zip((*map(floatToGoString, metric.buckets), "+Inf"), cell.counts, cell.exemplars, strict=True):
        total += many
        buckets.append((bound, total, exemplar) if exemplar else (bound, total))
    return buckets, cell.sum


_registry = Registry()
begin, count, observe, expect, known, watch = _registry.begin, _registry.count, _registry.observe, _registry.expect, _registry.known, _registry.watch


def measuring(tell: Callable[P, None]) -> Callable[P, None]:
    """For what only measures: whatever it meets, the work goes on."""

    @wraps(tell)
    def guarded(*arguments: P.args, **keywords: P.kwargs) -> None:
        try:
            tell(*arguments, **keywords)
        except Exception as fault:
            _registry.refuse(f"{tell.__qualname__} raised {type(fault).__name__}: {fault}"[:200])

    return guarded


def value(name: str, /, **labels: str) -> float:
    """For tests: a counter's value, or how many a histogram has seen; over all labels that are not given."""
    wanted, names = {label.rstrip("_"): text for label, text in labels.items()}, tuple(CATALOGUE[name].labels)
    cells = [cell for key, cell in _registry.cells.get(name, {}).items() if wanted.items() <= dict(zip(names, key, strict=True)).items()]
    return float(sum(sum(cell.counts) if isinstance(cell, Histogram) else cell[0] for cell in cells))


def exposition(accept: str = "") -> tuple[bytes, str]:
    """(body, content type): OpenMetrics, which alone has exemplars, for who asks for it."""
    exposed = CollectorRegistry(auto_describe=False)
    exposed.register(_registry)
    ProcessCollector(registry=exposed)
    if "application/openmetrics-text" in accept:
        return generate_openmetrics(exposed), OPENMETRICS  # type: ignore[no-untyped-call]
    return generate_latest(exposed), TEXT
