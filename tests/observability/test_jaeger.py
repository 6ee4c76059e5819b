"""What people search for in Jaeger finds exactly the launch they mean: the real program, real components that export to it, its query API."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.dev.servers import ROOT
from tests.observability.conftest import builder
from tests.observability.jaeger import PROGRAM, VERSION, Jaeger, jaeger
from tests.support.servers import InOrder
from tests.support.system import System

SKELETONS = "airavata-experiments"
built = pytest.mark.skipif(not PROGRAM.exists(), reason=f"there is no {PROGRAM.relative_to(ROOT)}: `make jaeger` builds it, in five to eleven minutes")


@dataclass
class Story:
    """A job on a host that went well, a graph that failed, another that went well, and one that goes on: experiment → trace id, of all but the last spans have arrived."""

    jaeger: Jaeger
    system: System
    job: str
    failed: str
    other: str
    running: str

    def trace(self, experiment: str) -> str:
        return str(self.system.gateway.get(f"/experiments/{experiment}")["trace_id"])

    def ids(self, column: str, table: str, experiment: str) -> list[str]:
        return [str(row[0]) for row in self.system.rows(f"SELECT {column} FROM {table} WHERE experiment_id = %s", experiment)]


@pytest.fixture(scope="module")
def story(servers: InOrder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    directory = tmp_path_factory.mktemp("jaeger")
    with jaeger(directory / "jaeger") as real, ExitStack() as stack:
        system = builder(servers, directory / "system", "jaeger.", stack)(otlp_endpoint=real.endpoint, trace_delay_ms=200)
        gateway = system.gateway
        effect, _ = gateway.effect(gateway.host(servers.ssh_host(), directory / "scratch"), directory / "effect")
        shape = gateway.shape()
        job = gateway.launch(effect, {}, output_storage_id=gateway.storage(directory / "storage"))
        failed, other = (gateway.launch(shape, {"edges": "a>b", "behaviour": how}) for how in ("a:fail_for_good=1", "a:fail=1"))
        running = gateway.launch(shape, {"edges": "a>b", "behaviour": "b:sleep_ms=600000"})
        assert [gateway.wait(each)["state"] for each in (job, failed, other)] == ["COMPLETED", "FAILED", "COMPLETED"]
        told = Story(real, system, job, failed, other, running)
        system.until(lambda: all(real.search(SKELETONS, experiment_id=each) for each in (job, failed, other)), 30.0)
        yield told


@built
@pytest.mark.parametrize("which", ["job", "failed", "other"])
def test_an_experiment_that_has_ended_is_found_by_its_id_its_processs_and_each_of_its_tasks(story: Story, which: str) -> None:
    experiment = getattr(story, which)
    expected = [story.trace(experiment)]
    assert story.jaeger.search(SKELETONS, experiment_id=experiment) == expected
    (process,) = story.ids("id", "processes", experiment)
    assert story.jaeger.search(SKELETONS, process_id=process) == expected
    tried = [row[0] for row in story.system.rows("SELECT DISTINCT task_id FROM attempts WHERE process_id = %s", process)]
    assert tried
    assert [story.jaeger.search(SKELETONS, task_id=each) for each in tried] == [expected] * len(tried)


@built
@pytest.mark.parametrize(("tag", "column"), [("job_id", "scheduler_job_id"), ("job_token", "attempt_id"), ("host_id", "compute_resource_id")])
def test_a_job_is_found_by_its_schedulers_number_its_token_and_its_host(story: Story, tag: str, column: str) -> None:
    (value,) = story.ids(column, "jobs", story.job)
    assert story.jaeger.search(SKELETONS, **{tag: value}) == [story.trace(story.job)]
    assert story.jaeger.search(SKELETONS, **{tag: value}, task_type="JOB_SUBMISSION") == [story.trace(story.job)], "all tags of a search stand on one span"


@built
def test_what_failed_is_found_by_its_gateway_and_what_became_of_it(story: Story) -> None:
    gateway_id = story.system.gateway.get("/me")["gateway_id"]
    assert story.jaeger.search(SKELETONS, failed="true", gateway_id=gateway_id) == [story.trace(story.failed)]
    assert sorted(story.jaeger.search(SKELETONS, outcome="NORMAL_COMPLETION", failed="false")) == sorted(story.trace(each) for each in (story.job, story.other))


@built
def test_one_that_runs_is_found_by_the_same_ids_in_the_services_that_work_on_it(story: Story) -> None:
    assert story.jaeger.search(SKELETONS, experiment_id=story.running) == [], "its skeleton comes when it has ended"
    (process,) = story.ids("id", "processes", story.running)
    for service in ("airavata-relay", "airavata-generator", "airavata-scheduler", "airavata-executor-noop"):
        tags: dict[str, Any] = {"experiment_id": story.running, "process_id": process}
        story.system.until(lambda service=service, tags=tags: story.jaeger.search(service, **tags), 15.0)
        assert story.jaeger.search(service, **tags) == [story.trace(story.running)]


@built
def test_the_trace_that_is_found_holds_the_whole_way(story: Story) -> None:
    way = {"api", "relay", "generator", "scheduler", "experiments", "event-sink", "executor-environment", "executor-data", "executor-job"}
    story.system.until(lambda: story.jaeger.services(story.trace(story.job)) == {f"airavata-{each}" for each in way}, 15.0, lambda: story.jaeger.services(story.trace(story.job)))


def test_it_is_the_jaeger_that_compose_starts() -> None:
    image = yaml.safe_load(Path(ROOT / "compose.yaml").read_text())["services"]["jaeger"]["image"]
    assert image.partition("@")[0] == f"jaegertracing/all-in-one:{VERSION.removeprefix('v')}"
