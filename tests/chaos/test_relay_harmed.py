"""The relay killed at its steps, and two relays on one shard of which one is frozen at its worst moments and continued: no row is lost, none is visible twice."""

import pytest

from tests.chaos.conftest import Build, all_went_well, burst, struck
from tests.support.system import WITHOUT_HOSTS, System

SMALL = {"partitions": 12, "placement_width": 4, "relay_shards": 1}
KILLED_AT = {
    "relay.init.after": "R1",
    "relay.read_state.after": "R2",
    "relay.settle.after": "R3",
    "relay.select.after": "R4",
    "relay.produce.after": "R5",
    "relay.record.before": "R5, before the state record",
    "relay.commit.before": "R6",
    "relay.commit.after": "between R6 and R7",
    "relay.delete.before": "R7, before its commit",
    "relay.delete.after": "R7",
}
WITH_A_BATCH = {"relay.select.after": "?shard=0"}  # Not after an empty select.


def test_a_relay_killed_at_each_of_its_steps_loses_nothing_and_doubles_nothing(build: Build) -> None:
    """R0 to R7 in one run: each life ends at the next step, in the middle of a burst."""
    system = build(WITHOUT_HOSTS, **SMALL)
    launched = []
    for point in KILLED_AT:
        system.kill("relay")
        strikes_at = 1 if point.split(".")[1] in {"init", "read_state", "settle"} else 3
        system.revive("relay", wait=False, failpoints=f"{point}=crash@{strikes_at}{WITH_A_BATCH.get(point, '')}")
        launched += burst(system)
        struck(system, "relay")
    all_went_well(system, launched)


def holder(system: System) -> str:
    found: list[str] = []

    def look() -> list[str]:
        found[:] = [row[0] for row in system.rows("SELECT owner FROM relay_shards WHERE owner IS NOT NULL AND until > UTC_TIMESTAMP(6)")]
        return found

    system.until(look, 30.0)
    return found[0]


@pytest.mark.parametrize(("point", "step"), [("relay.select.after", "R4 and R5"), ("relay.commit.after", "R6 and R7")])
def test_of_two_relays_on_one_shard_one_frozen_between_two_steps_and_continued_doubles_nothing(build: Build, point: str, step: str) -> None:
    system = build({**WITHOUT_HOSTS, "relay": 2}, **SMALL)
    launched = []
    for _ in range(2):
        system.kill("relay", 0)
        system.kill("relay", 1)
        system.revive("relay", 0, failpoints=f"{point}=pause@4{WITH_A_BATCH.get(point, '')}")
        system.until(lambda: f"-{system.pid_of('relay', 0)}-" in holder(system), 30.0)
        system.revive("relay", 1)
        launched += burst(system)
        system.until(lambda: system.frozen("relay", 0), 30.0, lambda: f"not frozen between {step}")
        system.until(lambda: f"-{system.pid_of('relay', 1)}-" in holder(system), 30.0)
        launched += burst(system)
        assert {system.gateway.wait(each)["outcome"] for each in launched} == {"NORMAL_COMPLETION"}
        launched += burst(system)
        system.thaw("relay", 0)
        assert {system.gateway.wait(each)["outcome"] for each in launched} == {"NORMAL_COMPLETION"}
    all_went_well(system, launched)
