"""The whole system as `docker compose up` brings it: HMMER's table comes back from a compute host, a container of each kind is killed in the middle of 20 experiments, all drain when asked.

One system for all of these, in this order.
"""

from collections.abc import Iterator

import pytest

from app.dev import hmmer
from app.dev.compute_host import SshHost
from tests.deployment.engine import Engine
from tests.deployment.server_images import COMPUTE_HOST
from tests.deployment.table import DEPLOYMENTS, PORTS
from tests.images.system import ONCE, SERVERS, Composed
from tests.support.evidence import history_is_whole, none_twice
from tests.support.system import ledger

KINDS = (*DEPLOYMENTS, *SERVERS)
AT_EACH_KILL = 2
TASK_TYPES = ["ENV_SETUP", "INGRESS_STAGING", "JOB_SUBMISSION", "EGRESS_STAGING"]


@pytest.fixture(scope="module")
def system(docker: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    with Composed(docker, tmp_path_factory.mktemp("composed")) as running:
        yield running


@pytest.fixture(scope="module")
def host(system: Composed) -> str:
    """The compute resource: its key is let in, and its own is pinned."""
    key = system.compose("exec", "-T", COMPUTE_HOST, "cat", "/etc/ssh/ssh_host_ed25519_key.pub")
    there = SshHost(COMPUTE_HOST, 22, "science", " ".join(key.split()[:2]), system.directory / "ssh" / "authorized_keys")
    return system.gateway.host(there, system.directory / "scratch")


@pytest.fixture(scope="module")
def storage(system: Composed) -> str:
    """With HMMER's two files, put there by whom the volume belongs to."""
    made = system.gateway.post("/storage-resources", {"name": "files", "kind": "POSIX", "root": "/data/files"})
    for name in (hmmer.ALIGNMENT, hmmer.SEQUENCES):
        put = f"mkdir -p /data/files/globins && cat >/data/files/globins/{name}"
        system.compose("exec", "-T", "executor-data", "sh", "-c", put, stdin=(hmmer.EXAMPLES / name).read_bytes())
    return str(made["id"])


def test_every_service_is_up_and_what_runs_once_has_ended_well(system: Composed) -> None:
    assert {each: system.inspect(each, ".State.Health.Status") for each in (*SERVERS, COMPUTE_HOST)} == dict.fromkeys((*SERVERS, COMPUTE_HOST), "healthy")
    assert {each: system.inspect(each, ".State.Status") for each in DEPLOYMENTS} == dict.fromkeys(DEPLOYMENTS, "running")
    assert {each: system.inspect(each, ".State.ExitCode") for each in ONCE} == dict.fromkeys(ONCE, "0")
    print(f"servers: {system.images}")


def test_a_container_listens_at_the_ports_of_the_table_and_no_door_more(system: Composed) -> None:
    assert {each: system.listening(each) for each in DEPLOYMENTS} == {each: {PORTS[port] for port in row.ports} for each, row in DEPLOYMENTS.items()}


def test_the_table_comes_back(system: Composed, host: str, storage: str) -> None:
    gateway = system.gateway
    interface = gateway.application(host, inputs=hmmer.INTERFACE["inputs"], outputs=hmmer.INTERFACE["outputs"], **hmmer.DEPLOYMENT)
    given = {"alignment": f"storage://{storage}/globins/{hmmer.ALIGNMENT}", "sequences": f"storage://{storage}/globins/{hmmer.SEQUENCES}"}
    launched = gateway.launch(interface, given, output_storage_id=storage)
    ended = gateway.wait(launched, 240.0)
    assert (ended["state"], ended["outcome"]) == ("COMPLETED", "NORMAL_COMPLETION"), gateway.told(launched)
    assert sum(not line.startswith(b"#") for line in gateway.output(launched, "hits").splitlines()) > 40


def test_a_container_of_each_kind_is_killed_in_the_middle_of_20_experiments(system: Composed, host: str, storage: str) -> None:
    gateway = system.gateway
    effect, book = gateway.effect(host, system.directory / "effect")
    launched = []
    for kind in KINDS:
        launched += [gateway.launch(effect, {"seconds": 1.0}, output_storage_id=storage) for _ in range(AT_EACH_KILL)]
        system.kill(kind)
        system.revive(kind)
    ended = [gateway.wait(each, 240.0) for each in launched]
    assert {each["outcome"] for each in ended} == {"NORMAL_COMPLETION"}, [gateway.told(each["id"]) for each in ended if each["state"] != "COMPLETED"]
    starts = ledger(book)
    assert len(starts) == len(set(starts)) == len(launched) == 20
    system.quiet()
    counted = none_twice(system, TASK_TYPES)
    history_is_whole(system)
    print(f"{len(KINDS)} containers killed, {len(ended)} experiments: {counted}")


def test_every_microservice_drains_when_asked(system: Composed) -> None:
    system.compose("stop", *DEPLOYMENTS)
    assert {each: system.inspect(each, ".State.ExitCode") for each in DEPLOYMENTS} == dict.fromkeys(DEPLOYMENTS, "0"), system.compose("logs", "--tail", "5")
