"""What a scientist sees when a host or a storage is at fault: the state and code of docs/domain.md, a sentence that says what to do, and work that goes on once it is mended."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.dev.compute_host import SshHost, sshd
from app.dev.process import Daemon
from app.dev.servers import free_port
from tests.support.gateway import Gateway
from tests.support.system import System, ledger

HELD_SECONDS = 120.0  # Connect time-outs and the first answer of a host that has none.
RESUMED_SECONDS = 180.0  # A blocked task looks again after 7.5 to 22.5 s.


class OwnHost:
    """An sshd of this test's own, to be stopped, given another key, and left without ours."""

    def __init__(self, base: Path) -> None:
        self.base, self.port = base, free_port("127.0.1.77")
        self.daemon: Daemon
        self.start()

    def start(self) -> SshHost:
        self.daemon, self.ssh = sshd(self.base, "127.0.1.77", self.port)
        self.daemon.start()
        self.daemon.wait()
        return self.ssh

    def with_another_key(self) -> SshHost:
        self.daemon.kill()
        for name in ("host_key", "host_key.pub"):
            (self.base / name).unlink()
        return self.start()

    @property
    def log(self) -> str:
        return self.daemon.log.read_text(errors="replace")


@pytest.fixture
def own_host(tmp_path: Path) -> Iterator[OwnHost]:
    host = OwnHost(tmp_path / "sshd")
    yield host
    host.daemon.kill()


def held(system: System, experiment: str, code: str) -> dict[str, Any]:
    """The experiment once it says by this condition what holds it."""
    gateway = system.gateway

    def conditions() -> list[dict[str, Any]]:
        return [each for each in gateway.get(f"/experiments/{experiment}")["conditions"] if each["code"] == code]

    system.until(conditions, HELD_SECONDS, lambda: gateway.told(experiment))
    (found,) = conditions()
    return found


def is_a_sentence(text: str) -> bool:
    return len(text.split()) >= 4 and text.rstrip()[-1] in ".!?" and "Traceback" not in text and "Errno" not in text


def blocked_task(gateway: Gateway, experiment: str) -> dict[str, Any]:
    (found,) = (each for each in gateway.tasks(gateway.get(f"/experiments/{experiment}")) if each["state"] == "BLOCKED")
    return found


def test_an_unreachable_host_holds_the_work_and_lets_it_go_on(system: System, own_host: OwnHost, storage: str, tmp_path: Path) -> None:
    gateway = system.gateway
    effect, book = gateway.effect(gateway.host(own_host.ssh, tmp_path / "scratch"), tmp_path / "effect")
    own_host.daemon.kill()
    launched = gateway.launch(effect, {}, output_storage_id=storage)
    told = held(system, launched, "HOST_CIRCUIT_OPEN")
    assert is_a_sentence(told["detail"].partition(": ")[2] or told["detail"]), told
    assert gateway.get(f"/experiments/{launched}")["state"] == "EXECUTING"
    assert blocked_task(gateway, launched)["type"] == "ENV_SETUP"
    own_host.start()
    ended = gateway.wait(launched, RESUMED_SECONDS)
    assert (ended["state"], ended["conditions"], len(ledger(book))) == ("COMPLETED", [], 1)


def test_a_changed_host_key_suspends_the_host_and_no_credential_is_sent(system: System, own_host: OwnHost, storage: str, tmp_path: Path) -> None:
    gateway = system.gateway
    host = gateway.host(own_host.ssh, tmp_path / "scratch")
    effect, book = gateway.effect(host, tmp_path / "effect")
    changed = own_host.with_another_key()
    seen = len(own_host.log)
    launched = gateway.launch(effect, {}, output_storage_id=storage)
    told = held(system, launched, "HOST_KEY_CHANGED")
    assert is_a_sentence(told["detail"].partition(": ")[2] or told["detail"]), told
    system.until(lambda: gateway.get(f"/compute-resources/{host}")["state"] == "SUSPENDED", 60.0, lambda: gateway.get(f"/compute-resources/{host}"))
    assert "Accepted publickey" not in own_host.log[seen:]
    gateway.patch(f"/compute-resources/{host}", {"host_keys": [changed.host_key]})
    assert gateway.get(f"/compute-resources/{host}")["state"] == "ENABLED"
    ended = gateway.wait(launched, RESUMED_SECONDS)
    assert (ended["state"], len(ledger(book))) == ("COMPLETED", 1)


def test_a_refused_key_holds_the_work_burns_no_attempt_and_is_tried_again_once_it_is_let_in(system: System, own_host: OwnHost, storage: str, tmp_path: Path) -> None:
    gateway = system.gateway
    host = gateway.host(own_host.ssh, tmp_path / "scratch", authorized=False)
    effect, book = gateway.effect(host, tmp_path / "effect")
    launched = gateway.launch(effect, {}, output_storage_id=storage)
    told = held(system, launched, "AUTH_REQUIRED")
    assert is_a_sentence(told["detail"].partition(": ")[2] or told["detail"]), told
    credential = gateway.get(f"/compute-resources/{host}")["access"]["credential_id"]
    own_host.ssh.authorize(gateway.get(f"/credentials/{credential}")["public_key"])
    gateway.patch(f"/compute-resources/{host}", {"limits": {"jobs": 99}})  # The host was looked after: its circuit is tried anew.
    ended = gateway.wait(launched, RESUMED_SECONDS)
    assert (ended["state"], len(ledger(book))) == ("COMPLETED", 1)
    setup = next(each for each in gateway.tasks(ended) if each["type"] == "ENV_SETUP")
    assert system.one("SELECT burned FROM tasks WHERE id = %s", setup["id"]) == 0


def failed(system: System, experiment: str, seconds: float = 120.0) -> dict[str, Any]:
    ended = system.gateway.wait(experiment, seconds)
    assert ended["state"] == "FAILED"
    assert is_a_sentence(ended["errors"][0]["message"]), ended["errors"]
    return ended


def an_application_with_a_file(gateway: Gateway, host: str) -> str:
    inputs = [{"name": "text", "type": "URI", "required": True, "standard_input": True}]
    return gateway.application(host, executable_path="/usr/bin/wc", inputs=inputs, outputs=[{"name": "count", "type": "STDOUT", "required": True}])


def test_a_file_that_is_missing_in_the_storage_fails_the_staging_and_names_the_file(system: System, ssh: SshHost, storage: str, tmp_path: Path) -> None:
    gateway = system.gateway
    wc = an_application_with_a_file(gateway, gateway.host(ssh, tmp_path / "scratch"))
    ended = failed(system, gateway.launch(wc, {"text": f"storage://{storage}/not/there.txt"}, output_storage_id=storage))
    assert ended["outcome"] == "STAGING_IN_FAILED"
    assert "there.txt" in ended["errors"][0]["message"]
    tasks = {each["type"]: each["state"] for each in gateway.tasks(ended)}
    assert (tasks["INGRESS_STAGING"], tasks["JOB_SUBMISSION"], tasks["EGRESS_STAGING"]) == ("FAILED", "SKIPPED", "SKIPPED")


def test_a_file_with_another_checksum_than_promised_fails_the_staging_and_nothing_is_started(system: System, ssh: SshHost, storage: str, tmp_path: Path) -> None:
    gateway = system.gateway
    wc = an_application_with_a_file(gateway, gateway.host(ssh, tmp_path / "scratch"))
    (tmp_path / "storage" / "text.txt").write_text("to be or not to be\n")
    given = {"uri": f"storage://{storage}/text.txt", "sha256": "ab" * 32}
    ended = failed(system, gateway.launch(wc, {"text": given}, output_storage_id=storage), 180.0)
    assert ended["outcome"] == "STAGING_IN_FAILED"
    assert "checksum" in ended["errors"][0]["message"].lower() or "sha" in ended["errors"][0]["message"].lower()
    assert gateway.get(f"/experiments/{ended['id']}/jobs")["items"] == []
    assert not list((tmp_path / "scratch").rglob("text.txt"))


def test_a_required_output_that_was_not_made_fails_the_staging_out(system: System, ssh: SshHost, storage: str, tmp_path: Path) -> None:
    gateway = system.gateway
    outputs = [{"name": "table", "type": "URI", "required": True, "search_glob": "never-made.tbl"}, {"name": "said", "type": "STDOUT"}]
    true = gateway.application(gateway.host(ssh, tmp_path / "scratch"), executable_path="/bin/true", inputs=[], outputs=outputs)
    ended = failed(system, gateway.launch(true, {}, output_storage_id=storage))
    assert ended["outcome"] == "STAGING_OUT_FAILED"
    assert {each["name"]: each["state"] for each in ended["outputs"]} == {"table": "MISSING", "said": "STAGED"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, full but for nothing; only root can mount one."""
    where = tmp_path / "small"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", where], check=True)
    try:
        with (where / "ballast").open("wb") as ballast:
            ballast.write(b"x" * ((1 << 20) - (96 << 10)))
        yield where
    finally:
        subprocess.run(["umount", "-l", where], check=True)


if os.geteuid() == 0:

    def test_a_full_disk_on_the_host_holds_the_work_until_there_is_room(system: System, ssh: SshHost, storage: str, small_disk: Path, tmp_path: Path) -> None:
        gateway = system.gateway
        wc = an_application_with_a_file(gateway, gateway.host(ssh, small_disk))
        (tmp_path / "storage" / "big.txt").write_text("word\n" * 60_000)
        launched = gateway.launch(wc, {"text": f"storage://{storage}/big.txt"}, output_storage_id=storage)
        told = held(system, launched, "QUOTA")
        assert is_a_sentence(told["detail"].partition(": ")[2] or told["detail"]), told
        (small_disk / "ballast").unlink()
        ended = gateway.wait(launched, RESUMED_SECONDS)
        assert ended["state"] == "COMPLETED"
        assert gateway.output(launched, "count").split() == [b"60000", b"60000", b"300000"]
