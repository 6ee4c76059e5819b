"""The SSH door against hosts that misbehave: every fault has a code, says whether anything happened, and ends in time."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from components.task_executors.plugin import OperationFailed
from components.task_executors.ssh import SshHost
from tests.support.ssh_host import SshServer, until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    found = SshServer(tmp_path / "host")
    found.start()
    yield found
    found.stop()


@pytest.fixture
def host(server: SshServer) -> Iterator[SshHost]:
    found = SshHost(server.address())
    yield found
    found.close()


def fault_of(host: SshHost, *argv: str, seconds: float = 30.0) -> OperationFailed:
    with pytest.raises(OperationFailed) as raised:
        host.run(argv or ("true",), timeout_seconds=seconds)
    host.close()
    return raised.value


def test_a_host_that_dies_under_a_command_leaves_its_outcome_unknown(server: SshServer, host: SshHost, tmp_path: Path) -> None:
    host.run(("true",))
    killer = threading.Thread(target=lambda: (until((tmp_path / "began").exists), server.stop()))
    killer.start()
    fault = fault_of(host, "sh", "-c", f"touch {tmp_path}/began; sleep 20")
    killer.join()
    assert (fault.code, fault.certain) == ("SSH_LOST", False)
    assert fault_of(host).code == "SSH_CONNECT"
    server.start()
    assert host.run(("echo", "back")).stdout == b"back\n"


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_older_kinds_of_client_keys_are_accepted(server: SshServer, kind: str) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(server.base / kind)], check=True)
    with (server.base / "authorized_keys").open("a") as keys:
        keys.write((server.base / f"{kind}.pub").read_text())
    found = SshHost(replace(server.address(), private_key=(server.base / kind).read_bytes()))
    assert found.run(("true",)).exit_status == 0
    found.close()


def test_a_host_that_says_nothing_is_unreachable_in_time(server: SshServer) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        fault = fault_of(SshHost(server.address(port=silent.getsockname()[1])))
    assert (fault.code, fault.certain) == ("SSH_CONNECT", True)
    assert time.monotonic() - began < 45


def hang_up(listener: socket.socket) -> None:
    listener.accept()[0].close()


def test_a_host_that_hangs_up_is_unreachable(server: SshServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rude:
        threading.Thread(target=hang_up, args=(rude,)).start()
        fault = fault_of(SshHost(server.address(port=rude.getsockname()[1])))
    assert (fault.code, fault.certain) == ("SSH_CONNECT", True)


def test_a_name_that_leads_nowhere_is_unreachable(server: SshServer) -> None:
    assert fault_of(SshHost(replace(server.address(), host="no-such-host.invalid"))).code == "SSH_CONNECT"


def test_no_terminal_and_no_agent_are_offered(host: SshHost) -> None:
    ran = host.run(("sh", "-c", 'tty; echo "${SSH_TTY-none} ${SSH_AUTH_SOCK-none}"'))
    assert ran.stdout == b"not a tty\nnone none\n"


def test_a_background_child_that_keeps_stdout_open_does_not_hold_the_command(host: SshHost) -> None:
    began = time.monotonic()
    assert host.run(("sh", "-c", "sleep 30 & echo done")).stdout == b"done\n"
    assert time.monotonic() - began < 25


def test_a_connection_sends_at_once(host: SshHost) -> None:
    """Nagle's algorithm would wait for the host's delayed acknowledgement: 40 ms for each command."""
    host.run(("true",))
    assert host._transport is not None
    assert host._transport.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
