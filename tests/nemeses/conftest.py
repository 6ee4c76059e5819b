"""One whole system for all nemeses of a session, every connection through the fault proxy; made anew after a failure, so that one finding does not colour the next."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.rig import TWO, Rig, private_servers

SMALL = {"partitions": 12, "placement_width": 4, "lease_seconds": 4}


class Ground:
    """`rig()` gives the running system, or a new one."""

    def __init__(self, base: Path) -> None:
        self.base, self.count, self.stack = base, 0, contextlib.ExitStack()
        self.running: Rig | None = None

    def rig(self) -> Rig:
        if self.running is None:
            self.count += 1
            native = self.stack.enter_context(private_servers())
            self.running = self.stack.enter_context(Rig(self.base / f"run-{self.count}", native, {}, counts=TWO, linked=True, **SMALL))
        return self.running

    def abandon(self) -> None:
        self.stack.close()
        self.running = None


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Ground]:
    """Its directories stay if anything failed."""
    made = Ground(tmp_path_factory.mktemp("nemeses"))
    yield made
    made.abandon()
    if not request.session.testsfailed:
        shutil.rmtree(made.base, ignore_errors=True)


@pytest.fixture
def rig(ground: Ground, request: pytest.FixtureRequest) -> Iterator[Rig]:
    before = request.session.testsfailed
    yield ground.rig()
    if request.session.testsfailed > before:
        ground.abandon()


