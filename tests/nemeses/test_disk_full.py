"""N21 on a database whose disk is a small ext4 on a loop device: full, and empty again."""

from contextlib import closing
from pathlib import Path

import pytest

from app.dev.servers import ROOT, Native
from tests.chaos.nemeses.catalogue import NEMESES
from tests.chaos.nemeses.machines import disk_of_its_own
from tests.chaos.nemeses.nemesis import Undecided
from tests.chaos.rig import Rig
from tests.nemeses.ground import alone

DISK_MEGABYTES = 1024


def test_a_full_disk_is_refused_in_time_and_when_there_is_room_again_everything_ends(tmp_path: Path) -> None:
    base = tmp_path / "servers"
    try:
        with disk_of_its_own(base / "mysql", DISK_MEGABYTES), closing(Native(base, library=ROOT / ".dev" / "lib")) as native:
            native.together("mysql", "kafka", "sshd")
            with Rig(tmp_path / "run", native, {}, linked=True, partitions=12, placement_width=4, lease_seconds=4) as rig:
                alone(rig, NEMESES["N21"]())
    except Undecided as why:
        pytest.skip(f"N21 UNDECIDED: {why}")
