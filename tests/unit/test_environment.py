"""ENV_SETUP and ENV_CLEANUP, purely: nothing leaves for a directory that is not the process's own."""

import pytest

from app.workflow.execution import Failed, Outcome, Succeeded
from components.task_executors.environment.steps import below, clean_up, set_up
from components.task_executors.plugin import Exec, Ran
from tests.support.remote_orders import a_snapshot, an_order


def outcome_of(steps: object, order: object, ran: Ran | None) -> Outcome:
    generator = steps(order)
    try:
        operation = next(generator)
        assert isinstance(operation, Exec)
        assert ran is not None, "nothing may leave"
        generator.send(ran)
    except StopIteration as end:
        return end.value
    raise AssertionError


@pytest.mark.parametrize(
    "directory",
    [
        "/",
        "",
        "/scratch",
        "/scratch/airavata",
        "/scratch/airavata/",
        "/scratch/airavata/..",
        "/scratch/airavata/a/b",
        "/scratchy/airavata/a",
        "/scratch/airavata/.",
    ],
)
@pytest.mark.parametrize("steps", [set_up, clean_up])
def test_no_other_directory_is_made_or_removed(steps: object, directory: str) -> None:
    assert not below("/scratch", directory)
    assert isinstance(outcome_of(steps, an_order(snapshot={**a_snapshot(), "work_dir": directory}), None), Failed)


def test_a_relative_scratch_is_refused() -> None:
    assert not below("scratch", "scratch/airavata/a")


def test_a_full_disk_is_a_condition_and_a_refusal_is_for_good() -> None:
    full = outcome_of(set_up, an_order(), Ran(1, b"", b"mkdir: cannot create directory: No space left on device"))
    denied = outcome_of(set_up, an_order(), Ran(1, b"", b"mkdir: cannot create directory: Permission denied"))
    assert isinstance(full, Failed)
    assert isinstance(denied, Failed)
    assert (full.condition, denied.condition, denied.transient) == ("QUOTA", None, False)


def test_cleaning_only_after_failure_leaves_a_success_alone() -> None:
    kept = an_order("ENV_CLEANUP", model={"strategy": "ONLY_FAILED"})
    assert outcome_of(clean_up, kept, None) == Succeeded({"removed": False})
    removed = an_order("ENV_CLEANUP", model={"strategy": "ONLY_FAILED", "failed": True})
    assert outcome_of(clean_up, removed, Ran(0, b"", b"")) == Succeeded({"removed": True})
