"""One launch is one trace: a connected tree by the rules, from the REST call to the event that the API stored, asserted on what a real OTLP receiver got."""

from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

from app.dev.compute_host import SshHost
from app.messages import trace
from observability import SPANS
from tests.observability.conftest import Build
from tests.support import takeover, traces
from tests.support.gateway import fresh_key
from tests.support.otlp_receiver import Receiver, Span
from tests.support.system import WITHOUT_HOSTS, System

PRINTS = """#!/bin/sh
printf %s "$TRACEPARENT" >"$PRINTED"
echo done >result.txt
"""


def settled(system: System, collector: Receiver, experiment: str) -> list[Span]:
    """The trace, once all that is stored of it has its spans."""
    trace_id = system.gateway.get(f"/experiments/{experiment}")["trace_id"]
    system.until(lambda: not missing(system, collector.trace(trace_id), experiment), 30.0, lambda: missing(system, collector.trace(trace_id), experiment))
    return collector.trace(trace_id)


def missing(system: System, spans: list[Span], experiment: str) -> list[str]:
    """Committed rows that have no span."""
    wanted: Counter[str] = Counter({"experiment run": 1})
    for (task_type,) in system.rows("SELECT t.type FROM attempts a JOIN tasks t ON t.id = a.task_id JOIN processes p ON p.id = a.process_id WHERE p.experiment_id = %s", experiment):
        wanted[f"task {task_type}"] += 1
    wanted["job run"] = system.one("SELECT COUNT(*) FROM jobs WHERE experiment_id = %s", experiment)
    for name in ("record task-event", "process event-sink by airavata-event-sink"):
        wanted[name] = system.one("SELECT COUNT(*) FROM events WHERE experiment_id = %s", experiment)
    found = Counter(traces.plain(each.name) for each in spans) + Counter(f"{traces.plain(each.name)} by {each.service}" for each in spans)
    return [f"{count - found[name]} of {count} {name}" for name, count in wanted.items() if found[name] != count]


def test_a_job_on_a_host_is_one_connected_tree_that_the_job_itself_joins(watched: System, shared_collector: Receiver, ssh: SshHost, tmp_path: Path) -> None:
    gateway = watched.gateway
    program, printed = tmp_path / "prints.sh", tmp_path / "printed"
    program.write_text(PRINTS)
    program.chmod(0o755)
    outputs = [{"name": "result", "type": "URI", "required": True, "search_glob": "result.txt"}]
    prints = gateway.application(gateway.host(ssh, tmp_path / "scratch"), executable_path=str(program), inputs=[], outputs=outputs, environment={"PRINTED": str(printed)})
    experiment = gateway.launch(prints, {}, output_storage_id=gateway.storage(tmp_path / "storage"))
    assert gateway.wait(experiment)["outcome"] == "NORMAL_COMPLETION", gateway.told(experiment)
    spans = settled(watched, shared_collector, experiment)
    trace_id = spans[0].trace
    assert traces.faults(shared_collector, trace_id) == []
    (job,) = traces.the(spans, "job run")
    assert trace.parse(printed.read_text()) == (trace_id, job.id, "01"), "the job's own spans would hang on its `job run`"
    remote = {each.name for each in spans if each.name.startswith("ssh ")}
    assert {"ssh connect", "ssh exec submit", "ssh get"} <= remote, remote
    (attempt,) = traces.the(spans, "task JOB_SUBMISSION")
    assert {each.parent for each in traces.the(spans, "ssh exec submit")} == {attempt.id}
    looks = [each for each in shared_collector.spans if each.name == "watch host"]
    assert (trace_id, job.id) in {link for each in looks for link in each.links}
    assert {each.service for each in spans} == {
        "airavata-api", "airavata-relay", "airavata-generator", "airavata-scheduler", "airavata-experiments", "airavata-event-sink", "airavata-executor-environment", "airavata-executor-data",
        "airavata-executor-job",
    }  # fmt: skip


def test_a_task_that_is_tried_again_has_a_span_for_each_attempt_and_for_the_wait_between(watched: System, shared_collector: Receiver) -> None:
    experiment = watched.gateway.launch(watched.gateway.shape(), {"edges": "a>b", "behaviour": "a:fail=1"})
    assert watched.gateway.wait(experiment)["outcome"] == "NORMAL_COMPLETION"
    spans = settled(watched, shared_collector, experiment)
    assert traces.faults(shared_collector, spans[0].trace) == []
    first, second = sorted((each for each in traces.the(spans, "task NOOP") if each.attributes["airavata.task.name"] == "a"), key=lambda each: each.start)
    (wait,) = traces.the(spans, "wait RETRY_WAIT")
    assert (first.error, second.error) == (True, False)
    assert second.links == ((first.trace, first.id),)
    assert first.end <= wait.start < wait.end <= second.start
    (run,) = traces.the(spans, "experiment run")
    assert run.attributes["airavata.keep"] == "retried"


def test_the_trace_goes_on_from_the_gateways_own_span(watched: System, shared_collector: Receiver) -> None:
    above = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03"
    body = {"name": "below", "application_interface_id": watched.gateway.shape(), "inputs": {"edges": "a"}, "launch": True}
    experiment = watched.gateway.ask("POST", "/experiments", body=body, key=fresh_key(), headers={"traceparent": above}).json()["id"]
    watched.gateway.wait(experiment)
    spans = settled(watched, shared_collector, experiment)
    assert spans[0].trace == above[3:35]
    assert traces.faults(shared_collector, spans[0].trace, outside={above[36:52]}) == []


def test_a_launch_repeated_under_its_key_has_a_small_trace_of_its_own_linked_to_the_first(watched: System, shared_collector: Receiver) -> None:
    gateway, key, shape = watched.gateway, fresh_key(), watched.gateway.shape()
    experiment = gateway.launch(shape, {"edges": "a"}, key=key)
    assert gateway.launch(shape, {"edges": "a"}, key=key) == experiment
    gateway.wait(experiment)
    spans = settled(watched, shared_collector, experiment)
    (run,) = traces.the(spans, "experiment run")

    def repeats() -> list[Span]:
        return [each for each in list(shared_collector.spans) if (run.trace, run.id) in each.links and each.kind == "SERVER"]

    watched.until(repeats, 10.0)
    (repeat,) = repeats()
    assert repeat.attributes["airavata.idempotency"] == "replayed"
    assert repeat.trace != run.trace


def test_a_launch_whose_scheduler_was_killed_in_the_middle_is_one_connected_tree(build: Build, collector: Receiver) -> None:
    system = build({**WITHOUT_HOSTS, "scheduler": 2}, otlp_endpoint=collector.url, trace_delay_ms=200)
    takeover.both_hold(system)
    launched = takeover.launch(system, system.gateway.shape(), 4)
    takeover.mid_graph(system, at_least=2)
    victim, parts, _ = takeover.victim_of(system)
    assert parts, "the victim holds no partition of a running graph"
    system.kill("scheduler", victim)
    assert {system.gateway.wait(each)["outcome"] for each in launched} == {"NORMAL_COMPLETION"}
    for experiment in launched:
        spans = settled(system, collector, experiment)
        assert traces.faults(collector, spans[0].trace, lost=True) == []
    schedulers = {each.instance for each in collector.spans if each.service == "airavata-scheduler"}
    assert len(schedulers) == 2, "both schedulers told spans: the trees go on beyond the kill"


# ---- whether it is told at all ------------------------------------------------------------------------------------------------------------------------
def test_what_went_wrong_is_told_at_any_ratio_and_what_went_well_is_not(build: Build, collector: Receiver) -> None:
    """Late promotion: made from rows, so it is complete; its root has no parent, for the request was not sampled."""
    system = build(WITHOUT_HOSTS, otlp_endpoint=collector.url, trace_delay_ms=200, trace_ratio=0)
    shape = system.gateway.shape()
    well, retried, failed = (system.gateway.launch(shape, {"edges": "a>b", "behaviour": each}) for each in ("", "a:fail=1", "a:fail_for_good=1"))
    assert [system.gateway.wait(each)["state"] for each in (well, retried, failed)] == ["COMPLETED", "COMPLETED", "FAILED"]
    ids = {each: system.gateway.get(f"/experiments/{each}")["trace_id"] for each in (well, retried, failed)}
    system.until(lambda: system.one("SELECT COUNT(*) FROM skeletons") == 0 and all(collector.trace(ids[each]) for each in (retried, failed)), 30.0, lambda: collector.spans)
    for experiment, keep, names in ((retried, "retried", {"experiment run", "task NOOP", "wait RETRY_WAIT"}), (failed, "failed", {"experiment run", "task NOOP"})):
        spans = collector.trace(ids[experiment])
        assert {each.name for each in spans} == names
        assert traces.faults(collector, ids[experiment]) == []
        (run,) = traces.the(spans, "experiment run")
        assert (run.parent, run.attributes["airavata.keep"]) == ("", keep)
    assert collector.trace(ids[well]) == []


def test_a_skeleton_waits_for_a_collector_that_is_away(build: Build, collector: Receiver) -> None:
    collector.answer = 503
    system = build(WITHOUT_HOSTS, otlp_endpoint=collector.url, trace_delay_ms=200)
    experiment = system.gateway.launch(system.gateway.shape(), {"edges": "a"})
    system.gateway.wait(experiment)
    system.until(lambda: system.one("SELECT MAX(tries) FROM skeletons"), 30.0)
    assert collector.spans == []
    collector.answer = 200
    trace_id = system.gateway.get(f"/experiments/{experiment}")["trace_id"]
    system.until(lambda: traces.the(collector.trace(trace_id), "experiment run"), 30.0)
    system.until(lambda: system.one("SELECT COUNT(*) FROM skeletons") == 0, 10.0)


def test_every_span_that_was_told_stands_in_the_table(watched: System, shared_collector: Receiver) -> None:
    experiment = watched.gateway.launch(watched.gateway.shape(), {"edges": "a"})
    watched.gateway.wait(experiment)
    settled(watched, shared_collector, experiment)
    names = {traces.plain(each.name) for each in shared_collector.spans}
    assert sorted(each for each in names if not any(fnmatchcase(each, pattern) for pattern in SPANS)) == []
