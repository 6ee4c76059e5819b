"""The operators' view is tested on whole systems of real processes, on MySQL alone: what telemetry reads is the same on both databases, and migrations are tried on each elsewhere."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.dev.compute_host import SshHost
from app.dev.servers import InOrder
from tests.conftest import a_schema
from tests.support.otlp_receiver import Receiver, receiver
from tests.support.system import System

Build = Callable[..., System]


@pytest.fixture
def build(servers: InOrder, tmp_path: Path, topic_prefix: str) -> Iterator[Build]:
    """`build(counts, **settings)` → a running system, ended with the test."""
    with ExitStack() as stack:

        def make(counts: dict[str, int] | None = None, **settings: Any) -> System:
            schemas = a_schema(servers.database("mysql"))
            url = next(schemas)
            stack.callback(lambda: next(schemas, None))
            prefix = f"o{os.getpid()}-{topic_prefix}"
            return stack.enter_context(System(servers, tmp_path / "system", database_url=url, kafka=servers.kafka(), topic_prefix=prefix, counts=counts, **settings))

        yield make


@pytest.fixture
def ssh(servers: InOrder) -> SshHost:
    return servers.ssh_host()


@pytest.fixture
def collector() -> Iterator[Receiver]:
    """An OTLP receiver for `otlp_endpoint=collector.url`."""
    with receiver() as made:
        yield made
