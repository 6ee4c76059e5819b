"""What a launch may come to whose host died under its job, and what no launch may."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos.expectations import unmet

LAUNCH = {"name": "n", "shape": "planned", "host": 1, "expect": {"state": "COMPLETED", "outcome": "OK", "outputs": {"result": "ab"}}}


def rig(row: tuple[Any, ...], *, died: set[int]) -> Any:
    return SimpleNamespace(rows=lambda *_: [("exp_1", *row)], hosts_died=died)


def test_a_job_is_lost_with_its_host() -> None:
    assert not unmet(rig(("FAILED", "LOST_JOB", None), died={1}), {"exp_1": LAUNCH})


@pytest.mark.parametrize(("row", "died"), [(("FAILED", "LOST_JOB", None), {2}), (("FAILED", "INTERNAL", None), {1}), (("COMPLETED", "OK", "result=cd"), {1}), (("COMPLETED", "OK", None), {1})])
def test_nothing_else_excuses_a_launch(row: tuple[Any, ...], died: set[int]) -> None:
    assert unmet(rig(row, died=died), {"exp_1": LAUNCH})
