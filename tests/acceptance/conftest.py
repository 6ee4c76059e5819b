"""One whole system per database for all acceptance tests that do not break it: two API servers, one of every other component."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.dev.compute_host import SshHost
from app.dev.databases import DatabaseAddress
from tests.conftest import a_schema
from tests.support.servers import InOrder
from tests.support.system import COMPONENTS, System


@pytest.fixture(scope="session")
def system(servers: InOrder, database_server: DatabaseAddress, kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    directory = tmp_path_factory.mktemp("system")
    counts = {**dict.fromkeys(COMPONENTS, 1), "api": 2}
    for url in a_schema(database_server):
        prefix = f"a{os.getpid()}-{database_server.kind}."
        with System(servers, directory, database_url=url, kafka=kafka_bootstrap, topic_prefix=prefix, counts=counts) as running:
            yield running


@pytest.fixture
def ssh(servers: InOrder) -> SshHost:
    return servers.ssh_host()


@pytest.fixture
def storage(system: System, tmp_path: Path) -> str:
    """A POSIX storage below tmp_path / "storage"."""
    return system.gateway.storage(tmp_path / "storage")
