"""The registry takes what the catalogue knows and nothing else, is bounded, and never stops the work."""

from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as classic

from components.task_executors.plugin import CONDITIONS
from observability import catalogue, metrics
from observability.catalogue import CATALOGUE, Open

SAMPLED, UNSAMPLED = (f"00-{'ab' * 16}-{'cd' * 8}-{flags}" for flags in ("03", "02"))


def series(accept: str = "") -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = metrics.exposition(accept)[0].decode()
    families = openmetrics(text) if accept else classic(text)
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples if not each.name.startswith("process_")}


def test_the_conditions_that_may_hold_a_task_are_those_of_its_plug_ins() -> None:
    assert set(catalogue.CONDITIONS) == {*CONDITIONS.values(), "HOST_DISABLED"}


def test_every_combination_of_a_closed_set_is_there_before_the_first_fault() -> None:
    metrics.begin("relay")
    found = series()
    for outcome in ("committed", "aborted", "unknown", "fenced"):
        assert found["airavata_relay_transaction_seconds_count", frozenset({("outcome", outcome)})] == 0
    assert found["airavata_fenced_total", frozenset({("what", "relay")})] == 0
    assert not [name for name, _ in found if name.endswith("_created")]
    assert not [name for name, _ in found if name.startswith("airavata_ssh")], "another component's"


def test_values_of_an_open_label_that_are_known_exist_from_then_on() -> None:
    metrics.begin("scheduler", topic_prefix="x.")
    metrics.known("topic", ["x.event-sink"])
    assert series()["airavata_messages_total", frozenset({("topic", "event-sink"), ("verdict", "dead_letter")})] == 0


@pytest.mark.parametrize(
    "told",
    [
        lambda: metrics.count("airavata_nobody_knows_total"), lambda: metrics.count("airavata_fenced_total", what="me"), lambda: metrics.count("airavata_fenced_total"),
        lambda: metrics.count("airavata_fenced_total", what="relay", shard="1"), lambda: metrics.count("airavata_relay_init_seconds"), lambda: metrics.count("airavata_webhook_deliveries_total", outcome="failed"),
        lambda: (metrics.begin("relay"), metrics.count("airavata_rescued_total", kind="task")),
    ],
)  # fmt: skip
def test_what_the_catalogue_does_not_know_is_an_error_in_tests_and_dropped_elsewhere(told: object) -> None:
    assert callable(told)
    with pytest.raises(ValueError, match="airavata_"):
        told()
    metrics.strict = False
    told()
    assert not [value for (name, _), value in series().items() if value and not name.startswith("airavata_build")]


def test_a_watcher_that_raises_costs_its_own_figures_only() -> None:
    def broken() -> Iterator[metrics.Reading]:
        raise RuntimeError("the loop is being built")

    metrics.strict = False
    metrics.watch(broken)
    metrics.watch(lambda: [("airavata_ready", 1.0, {})])
    assert series()["airavata_ready", frozenset()] == 1.0


def test_a_batch_is_observed_at_once_and_its_bound_belongs_to_the_bucket() -> None:
    metrics.observe("airavata_task_hop_seconds", 0.08, times=3, task_type="NOOP")
    metrics.observe("airavata_task_hop_seconds", 31.0, task_type="NOOP")
    found = {dict(labels)["le"]: value for (name, labels), value in series().items() if name.endswith("_bucket")}
    assert (found["0.06"], found["0.08"], found["30.0"], found["+Inf"]) == (0, 3, 3, 4)
    assert series()["airavata_task_hop_seconds_sum", frozenset({("task_type", "NOOP")})] == pytest.approx(31.24)


def test_exemplars_name_sampled_traces_only_and_only_where_openmetrics_is_asked_for() -> None:
    metrics.observe("airavata_task_hop_seconds", 0.01, task_type="NOOP", traceparent=SAMPLED)
    metrics.observe("airavata_task_hop_seconds", 0.5, task_type="NOOP", traceparent=UNSAMPLED)
    metrics.observe("airavata_task_hop_seconds", 3.0, task_type="NOOP", traceparent="00-broken-0")
    body, kind = metrics.exposition("application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert kind.startswith("application/openmetrics-text")
    told = [each.exemplar for family in openmetrics(body.decode()) for each in family.samples if each.exemplar]
    assert [(each.labels, each.value) for each in told] == [({"trace_id": "ab" * 16}, 0.01)]
    assert b"trace_id" not in metrics.exposition()[0]


MANY = {"gateway": 300, "host": 500, "topic": 15, "route": 70, "statement": 25, "name": 12, "code": 12}  # Others: eight.


def everything(metric: catalogue.Metric, n: int) -> dict[str, str]:
    return {name: f"{name}-{n % MANY.get(name, 8)}" if isinstance(values, Open) else values[n % len(values)] for name, values in metric.labels.items()}


@pytest.mark.parametrize("component", ["api", "relay", "generator", "scheduler", "executor-job", "event-sink"])
def test_three_hundred_gateways_and_five_hundred_hosts_stay_within_the_budget(component: str) -> None:
    """10,000 times everything that a component may say, with every value it can have."""
    metrics.begin(component)
    mine = [each for each in CATALOGUE.values() if component.removesuffix("-job") in each.who and not each.later and not each.name.startswith("process_")]
    for n in range(10_000):
        for metric in mine:
            if metric.kind == "counter":
                metrics.count(metric.name, **everything(metric, n))
            elif metric.kind == "histogram" and n < 600:
                metrics.observe(metric.name, 1.0, **everything(metric, n))
    metrics.watch(lambda: [(each.name, 1.0, everything(each, n)) for each in mine if each.kind == "gauge" for n in range(5000)])
    found = series()
    assert len(found) < 1.05 * metrics.SERIES_MAX
    if component == "scheduler":
        whose = {dict(labels)["gateway"]: value for (name, labels), value in found.items() if name == "airavata_gateway_experiments_total"}
        assert len(whose) == 201
        assert "other" in whose
        assert sum(value for (name, _), value in found.items() if name == "airavata_gateway_experiments_total") == 10_000, "nothing is lost by it"
