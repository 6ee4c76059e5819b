"""Containers, asked by this lane's engine what tests/conformance asks of every provider; and what is left when a run was killed."""

import os
from collections.abc import Iterator

import pytest

from app.dev.process import start_time
from tests.conformance.test_servers import *  # noqa: F403  Its tests are ours.
from tests.deployment import images
from tests.deployment.engine import KINDS, RUN, Engine
from tests.support.containers import Containers
from tests.support.servers import Servers


@pytest.fixture(scope="module")  # type: ignore[no-redef]  # This lane has its own.
def provider(docker: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    found = Containers(tmp_path_factory.mktemp("servers"), docker)
    yield found
    found.close()


def test_what_a_killed_run_left_goes_and_what_a_living_one_has_stays(docker: Engine) -> None:
    def left() -> set[str]:
        return {line for kind in KINDS for line in docker.run(kind, "ls", *["--all"] * (kind == "container"), "--format", f'{{{{.Label "{RUN}"}}}} {kind}').splitlines()}

    gone, lives = f"{os.getpid()}-1", f"{os.getppid()}-{start_time(os.getppid())}"  # A process that got a number anew is another one.
    for run in (gone, lives):
        labelled = ["--label", f"{RUN}={run}"]
        docker.run("container", "create", *labelled, f"{images.NAMES}/migrations:local")
        docker.run("network", "create", *labelled, f"left-{run}")
        docker.run("volume", "create", *labelled)
    both = {f"{run} {kind}" for run in (gone, lives) for kind in KINDS}
    assert left() >= both
    docker.end()
    assert left() & both == {f"{lives} {kind}" for kind in KINDS}
    docker.end(lives)
    assert left() & both == set()
