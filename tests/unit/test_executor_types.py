"""Which task types an executor may be told to serve."""

import pytest

from app.errors import Misconfigured
from components.task_executors.__main__ import types_of


def test_an_executor_serves_all_types_of_its_group_in_any_order() -> None:
    assert set(types_of(["INGRESS_STAGING", "EGRESS_STAGING"])) == {"INGRESS_STAGING", "EGRESS_STAGING"}


@pytest.mark.parametrize("names", [["INGRESS_STAGING"], ["EGRESS_STAGING", "INGRESS_STAGING", "NOOP"]])
def test_an_executor_that_would_not_read_what_the_others_of_its_group_read_does_not_start(names: list[str]) -> None:
    with pytest.raises(Misconfigured, match="executor-data serves EGRESS_STAGING,INGRESS_STAGING"):
        types_of(names)
