"""The whole path from the images: HMMER's table comes back, a container of each kind is killed in the middle of 20 experiments, and all drain when asked."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.dev import hmmer
from tests.conftest import a_schema
from tests.deployment.engine import Engine
from tests.deployment.table import DEPLOYMENTS
from tests.images.system import USER, Images
from tests.support.evidence import history_is_whole, none_twice
from tests.support.servers import InOrder
from tests.support.system import ledger

EXPERIMENTS = 20
TASK_TYPES = ["ENV_SETUP", "INGRESS_STAGING", "JOB_SUBMISSION", "EGRESS_STAGING"]


@pytest.fixture
def system(docker: Engine, servers: InOrder, tmp_path: Path, topic_prefix: str) -> Iterator[Images]:
    for url in a_schema(servers.database("mysql")):
        with Images(docker, servers, tmp_path, database_url=url, kafka=servers.kafka(), topic_prefix=f"images{topic_prefix}", lease_seconds=4) as running:
            yield running


def owned(directory: Path) -> Path:
    """A storage that the containers' user may write to."""
    directory.mkdir(parents=True, exist_ok=True)
    for each in (directory, *directory.rglob("*")):
        shutil.chown(each, USER, USER)
    return directory


def test_the_table_comes_back_and_every_container_drains(system: Images, servers: InOrder, tmp_path: Path) -> None:
    gateway = system.gateway
    assert {name: system.listening(name) for name in system.daemons} == {name: system.told(name) for name in system.daemons}, (
        "ports of the table, and no door more"
    )
    hmmer.put_inputs(tmp_path / "storage")
    storage = gateway.storage(owned(tmp_path / "storage"))
    interface = gateway.application(
        gateway.host(servers.ssh_host(), tmp_path / "scratch"), inputs=hmmer.INTERFACE["inputs"], outputs=hmmer.INTERFACE["outputs"], **hmmer.DEPLOYMENT
    )
    given = {"alignment": f"storage://{storage}/globins/{hmmer.ALIGNMENT}", "sequences": f"storage://{storage}/globins/{hmmer.SEQUENCES}"}
    launched = gateway.launch(interface, given, output_storage_id=storage)
    ended = gateway.wait(launched, 240.0)
    assert (ended["state"], ended["outcome"]) == ("COMPLETED", "NORMAL_COMPLETION"), gateway.told(launched)
    assert sum(not line.startswith(b"#") for line in gateway.output(launched, "hits").splitlines()) > 40
    for each in system.daemons.values():
        system.docker.run("stop", "--time", str(DEPLOYMENTS[each.name.rpartition("-")[0]].grace_seconds), system.names[each.name])
        assert each.child is not None
        assert each.child.wait(60.0) == os.EX_OK, each.tail()


def test_a_container_of_each_kind_is_killed_in_the_middle_of_20_experiments(system: Images, servers: InOrder, tmp_path: Path) -> None:
    gateway = system.gateway
    host, storage = gateway.host(servers.ssh_host(), tmp_path / "scratch"), gateway.storage(owned(tmp_path / "storage"))
    effect, book = gateway.effect(host, tmp_path / "effect")
    launched = [gateway.launch(effect, {"seconds": 1.0}, output_storage_id=storage) for _ in range(EXPERIMENTS)]
    for component in DEPLOYMENTS:
        system.kill(component)
        system.revive(component)
    ended = [gateway.wait(each, 240.0) for each in launched]
    assert {each["outcome"] for each in ended} == {"NORMAL_COMPLETION"}, [gateway.told(each["id"]) for each in ended if each["state"] != "COMPLETED"]
    starts = ledger(book)
    assert len(starts) == len(set(starts)) == EXPERIMENTS
    system.quiet()
    counted = none_twice(system, TASK_TYPES)
    history_is_whole(system)
    print(f"{len(DEPLOYMENTS)} containers killed, {len(ended)} experiments: {counted}")
