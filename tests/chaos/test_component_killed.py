"""One component killed at its worst moment: an executor while its job runs on the host, generator and sink in the middle of a burst, at a named step of theirs."""

from pathlib import Path

import pytest

from tests.chaos.conftest import Build, all_went_well, burst, struck
from tests.support.evidence import history_is_whole, none_twice
from tests.support.servers import InOrder
from tests.support.system import COMPONENTS, WITHOUT_HOSTS, System, ledger

HOSTED = {**dict.fromkeys(COMPONENTS, 1), "executor-noop": 0}
SMALL = {"partitions": 12, "placement_width": 4, "lease_seconds": 4}
PLANNED = ["ENV_SETUP", "INGRESS_STAGING", "JOB_SUBMISSION", "EGRESS_STAGING"]


def a_running_job(system: System, servers: InOrder, tmp_path: Path, seconds: float) -> tuple[str, Path]:
    gateway = system.gateway
    effect, book = gateway.effect(gateway.host(servers.ssh_host(), tmp_path / "scratch"), tmp_path / "effect")
    launched = gateway.launch(effect, {"seconds": seconds}, output_storage_id=gateway.storage(tmp_path / "storage"))
    system.until(lambda: ledger(book), 60.0, lambda: gateway.told(launched))
    return launched, book


def started_once(system: System, launched: str, book: Path) -> None:
    gateway = system.gateway
    ended = gateway.wait(launched)
    assert ended["outcome"] == "NORMAL_COMPLETION", gateway.told(launched)
    assert len(ledger(book)) == 1
    (job,) = gateway.get(f"/experiments/{launched}/jobs")["items"]
    assert (job["name"], job["state"]) == (ledger(book)[0], "COMPLETED")
    assert gateway.output(launched, "result").decode().split()[-1] == job["name"]
    system.quiet()
    none_twice(system, PLANNED)
    history_is_whole(system)


def test_an_executor_killed_while_its_job_runs_leaves_it_running_and_the_next_one_adopts_it(build: Build, servers: InOrder, tmp_path: Path) -> None:
    system = build(HOSTED, **SMALL)
    launched, book = a_running_job(system, servers, tmp_path, 20.0)
    system.kill("executor-job")
    system.until(lambda: system.orphans() == [], 60.0, system.orphans)
    assert not [line for line in book.read_text().splitlines() if line.endswith(" end")], "the job had ended before: nothing was shown"
    system.revive("executor-job")
    started_once(system, launched, book)


def test_with_a_second_executor_alive_the_job_is_adopted_without_a_restart(build: Build, servers: InOrder, tmp_path: Path) -> None:
    system = build({**HOSTED, "executor-job": 2}, **SMALL)
    launched, book = a_running_job(system, servers, tmp_path, 6.0)
    watched = "SELECT owner FROM host_watches WHERE owner IS NOT NULL"
    system.until(lambda: system.rows(watched), 60.0)
    watcher = system.one(watched)
    victim = next(copy for copy in (0, 1) if f"-{system.pid_of('executor-job', copy)}-" in watcher)
    system.kill("executor-job", victim)
    started_once(system, launched, book)


SUBMISSION = {
    "submit.intent_commit.before": "step 1, nothing stored",
    "submit.intent_commit.after": "step 1, the intent stored",
    "submit.id_commit.before": "step 3, the receipt not stored",
    "submit.id_commit.after": "step 3, the job's id stored",
}


def test_an_executor_killed_at_each_commit_of_a_submission_starts_the_job_once(build: Build, servers: InOrder, tmp_path: Path) -> None:
    system = build(HOSTED, **SMALL)
    gateway = system.gateway
    effect, book = gateway.effect(gateway.host(servers.ssh_host(), tmp_path / "scratch"), tmp_path / "effect")
    storage, launched = gateway.storage(tmp_path / "storage"), []
    for point, step in SUBMISSION.items():
        system.kill("executor-job")
        system.revive("executor-job", failpoints=f"{point}=crash")
        launched.append(gateway.launch(effect, {"seconds": 0.5}, output_storage_id=storage))
        struck(system, "executor-job")
        assert gateway.wait(launched[-1])["outcome"] == "NORMAL_COMPLETION", (step, gateway.told(launched[-1]))
    assert len(ledger(book)) == len(set(ledger(book))) == len(SUBMISSION)
    system.quiet()
    none_twice(system, PLANNED)
    history_is_whole(system)


def test_a_generator_killed_at_each_step_of_its_own_plans_everything_once(build: Build) -> None:
    system, launched = build(WITHOUT_HOSTS, **SMALL), []
    for point in ("generator.claim.after", "generator.poll.after", "generator.position.after", "generator.graph.after", "generator.commit.before", "generator.commit.after"):
        system.kill("generator")
        system.revive("generator", wait=False, failpoints=f"{point}=crash")
        launched += burst(system, 5)
        struck(system, "generator")
    all_went_well(system, launched)


def test_each_component_told_to_stop_in_a_burst_ends_with_0_in_its_time_and_loses_nothing(build: Build) -> None:
    """SIGTERM; a second one changes nothing. In its time: before Kubernetes would kill it."""
    system = build(WITHOUT_HOSTS, **SMALL)
    launched = burst(system, 20)
    for component in WITHOUT_HOSTS:
        system.asked_to_stop(component, 40.0 if component == "api" or component.startswith("executor") else 20.0)
        if component != "event-sink":  # It has no database of its own to leave.
            assert system.rows("SELECT id FROM instances WHERE id LIKE %s", f"{component}-%") == []
        system.revive(component)
        launched += burst(system, 5)
    all_went_well(system, launched)


@pytest.mark.parametrize("component", ["event-sink", "api"])
def test_a_sink_or_the_server_it_speaks_to_killed_in_a_burst_leaves_no_hole_in_the_history(build: Build, component: str) -> None:
    system = build(WITHOUT_HOSTS, **SMALL)
    launched = burst(system, 20)
    for _ in range(3):
        stored = system.one("SELECT COUNT(*) FROM events")
        system.kill(component)
        system.revive(component)
        launched += burst(system, 5)
        system.until(lambda stored=stored: system.one("SELECT COUNT(*) FROM events") > stored, 30.0)
    all_went_well(system, launched)
