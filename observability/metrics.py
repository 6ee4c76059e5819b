"""Metrics: one registry per process, with closed label sets; the full catalogue belongs to the operators' view.

Gauges that a loop knows are read when scraped (`watch`), so the hot path pays nothing for them.
"""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()

RESCUES = Counter("airavata_sweeper_rescues", "Processes the sweeper had to push on. Must stay 0.", registry=REGISTRY)
INVARIANTS = Counter("airavata_invariant_violations", "What the protocol excludes was seen. Must stay 0.", ["kind"], registry=REGISTRY)
DECISIONS = Counter("airavata_scheduler_decisions", "Messages decided upon.", ["verdict"], registry=REGISTRY)
OUTCOMES = Counter("airavata_attempt_outcomes", "Attempts ended, by task type and outcome.", ["task_type", "outcome"], registry=REGISTRY)


class _Facts(Collector):
    def __init__(self, read: Callable[[], Mapping[str, float]]) -> None:
        self.read = read

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for name, value in self.read().items():
            yield GaugeMetricFamily(f"airavata_{name}", f"{name} as this process sees it.", value=value)


def watch(read: Callable[[], Mapping[str, float]]) -> None:
    """Numbers a loop keeps anyway, exported as gauges under their names."""
    REGISTRY.register(_Facts(read))


def exposition() -> bytes:
    return generate_latest(REGISTRY)


def count(name: str, by: float = 1, /, **labels: str) -> None:
    """Until the catalogue is here."""
