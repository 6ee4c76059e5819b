"""20 experiments on a real host through two API servers and two of every component, each component in turn killed with SIGKILL: all complete, every job started once."""

from pathlib import Path

from tests.chaos.conftest import Build
from tests.support.evidence import history_is_whole, none_twice
from tests.support.servers import InOrder
from tests.support.system import COMPONENTS, System, ledger

EXPERIMENTS = 20
TASK_TYPES = ["ENV_SETUP", "INGRESS_STAGING", "JOB_SUBMISSION", "EGRESS_STAGING", "NOOP"]


def test_20_experiments_complete_and_each_job_starts_once_while_each_component_in_turn_is_killed(build: Build, servers: InOrder, tmp_path: Path) -> None:
    system = build(dict.fromkeys(COMPONENTS, 2), partitions=12, placement_width=4, lease_seconds=4)
    gateway = system.gateway
    host = gateway.host(servers.ssh_host(), tmp_path / "scratch")
    storage = gateway.storage(tmp_path / "storage")
    effect, book = gateway.effect(host, tmp_path / "effect")
    shape = gateway.shape()
    graphs = [gateway.launch(shape, {"edges": "a>b a>c b>d c>d d>e e>f", "behaviour": " ".join(f"{each}:sleep_ms=800" for each in "abcdef")}, first=n) for n in range(4)]
    launched = [gateway.launch(effect, {"seconds": 1.0}, output_storage_id=storage, first=number) for number in range(EXPERIMENTS // 2)]
    kills = 0
    for component in COMPONENTS:
        for copy in (0, 1):
            if len(launched) < EXPERIMENTS:
                launched.append(gateway.launch(effect, {"seconds": 1.0}, output_storage_id=storage, first=copy))
            system.kill(component, copy)
            kills += 1
            done = system.one("SELECT COUNT(*) FROM attempts WHERE state = 'SUCCEEDED'")
            system.until(lambda done=done: system.one("SELECT COUNT(*) FROM attempts WHERE state = 'SUCCEEDED'") > done or _all_ended(system, EXPERIMENTS + len(graphs)), 60.0)
            system.revive(component, copy)
    assert kills >= 10
    ended = [gateway.wait(each, 120.0) for each in launched + graphs]
    assert {each["outcome"] for each in ended} == {"NORMAL_COMPLETION"}, [gateway.told(each["id"]) for each in ended if each["state"] != "COMPLETED"]
    starts = ledger(book)
    assert len(starts) == len(set(starts)) == EXPERIMENTS
    tokens = {row[0] for row in system.rows("SELECT a.id FROM attempts a JOIN tasks t ON t.id = a.task_id WHERE t.type = 'JOB_SUBMISSION'")}
    assert set(starts) == tokens
    assert [gateway.output(each, "result").decode().split()[-1] in tokens for each in launched] == [True] * EXPERIMENTS
    system.quiet()
    counted = none_twice(system, TASK_TYPES)
    history_is_whole(system)
    print(f"{kills} kills over {len(COMPONENTS)} components, {len(ended)} experiments: {counted}; rescues by the sweeper: {system.rescues():.0f}")
    system.until(lambda: system.orphans() == [], 20.0, system.orphans)  # What a killed executor forked has noticed.


def _all_ended(system: System, count: int) -> bool:
    return bool(system.one("SELECT COUNT(*) FROM experiments WHERE finished_at IS NOT NULL") >= count)
