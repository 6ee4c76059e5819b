"""Chaos runs on MySQL alone, with the shipped settings: sessions of 1 s, dynamic membership, 100 partitions, placement width 16."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import a_schema
from tests.support.evidence import history_is_whole, none_twice
from tests.support.servers import InOrder
from tests.support.system import System

Build = Callable[..., System]


@pytest.fixture
def build(servers: InOrder, tmp_path: Path, topic_prefix: str) -> Iterator[Build]:
    """`build(counts, **settings)` → a running system, ended with the test."""
    with ExitStack() as stack:

        def make(counts: dict[str, int], **settings: Any) -> System:
            schemas = a_schema(servers.database("mysql"))
            url = next(schemas)
            stack.callback(lambda: next(schemas, None))
            given = {"partitions": 100, "placement_width": 16, **settings}
            prefix = f"chaos{os.getpid()}-{topic_prefix}"
            return stack.enter_context(System(servers, tmp_path / "system", database_url=url, kafka=servers.kafka(), topic_prefix=prefix, counts=counts, **given))

        yield make


def burst(system: System, count: int = 10) -> list[str]:
    """So many diamonds at once."""
    shape = system.gateway.shape()
    return [system.gateway.launch(shape, {"edges": "a>b a>c b>d c>d", "behaviour": "b:sleep_ms=200"}) for _ in range(count)]


def struck(system: System, component: str) -> None:
    """It has killed itself at its fail point; started again without."""
    victim = system.daemons[f"{component}-0"].child
    assert victim is not None
    assert victim.wait(60.0) == -9, victim.returncode
    system.revive(component)


def all_went_well(system: System, launched: list[str]) -> None:
    assert {system.gateway.wait(each)["outcome"] for each in launched} == {"NORMAL_COMPLETION"}
    system.quiet()
    assert none_twice(system, ["NOOP"])["rescues"] == 0
    history_is_whole(system)
