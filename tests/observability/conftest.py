"""The operators' view is tested on whole systems of real processes, on MySQL alone: what telemetry reads is the same on both databases, and migrations are tried on each elsewhere."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.dev.compute_host import SshHost
from tests.conftest import a_schema
from tests.support.otlp_receiver import Receiver, receiver
from tests.support.servers import InOrder
from tests.support.system import System

Build = Callable[..., System]


def builder(servers: InOrder, directory: Path, prefix: str, stack: ExitStack) -> Build:
    """`build(counts, **settings)` → a running system, ended with the stack."""

    def make(counts: dict[str, int] | None = None, **settings: Any) -> System:
        schemas = a_schema(servers.database("mysql"))
        url = next(schemas)
        stack.callback(lambda: next(schemas, None))
        return stack.enter_context(System(servers, directory, database_url=url, kafka=servers.kafka(), topic_prefix=f"o{os.getpid()}-{prefix}", counts=counts, **settings))

    return make


@pytest.fixture
def build(servers: InOrder, tmp_path: Path, topic_prefix: str) -> Iterator[Build]:
    """A system for one test."""
    with ExitStack() as stack:
        yield builder(servers, tmp_path / "system", topic_prefix, stack)


@pytest.fixture(scope="session")
def shared_collector() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture(scope="session")
def watched(servers: InOrder, shared_collector: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One whole system for all tests that do not break it; its spans go to `shared_collector`."""
    with ExitStack() as stack:
        yield builder(servers, tmp_path_factory.mktemp("watched"), "watched.", stack)(otlp_endpoint=shared_collector.url, trace_delay_ms=200)


@pytest.fixture
def ssh(servers: InOrder) -> SshHost:
    return servers.ssh_host()


@pytest.fixture
def collector() -> Iterator[Receiver]:
    """An OTLP receiver for `otlp_endpoint=collector.url`."""
    with receiver() as made:
        yield made
