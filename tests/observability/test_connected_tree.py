"""One launch is one trace: a connected tree by the rules, from the REST call to the event that the API stored, asserted on what a real OTLP receiver got."""

from tests.observability.conftest import Build
from tests.support import traces
from tests.support.otlp_receiver import Receiver
from tests.support.system import WITHOUT_HOSTS, System


def settled(system: System, collector: Receiver, experiment: str) -> list[str]:
    """Waits until its skeleton came and nothing more does; the trace's faults."""
    trace_id = system.gateway.get(f"/experiments/{experiment}")["trace_id"]
    system.until(lambda: traces.the(collector.trace(trace_id), "experiment run"), 30.0, lambda: [f"{each.service} {each.name}" for each in collector.trace(trace_id)])
    return traces.faults(collector, trace_id)


def test_a_launch_of_no_ops_is_one_connected_tree(build: Build, collector: Receiver) -> None:
    system = build(WITHOUT_HOSTS, otlp_endpoint=collector.url, trace_delay_ms=200)
    experiment = system.gateway.launch(system.gateway.shape(), {"edges": "a>b"})
    assert system.gateway.wait(experiment)["outcome"] == "NORMAL_COMPLETION"
    assert settled(system, collector, experiment) == []
