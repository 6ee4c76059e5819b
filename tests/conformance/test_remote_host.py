"""Every RemoteHost behaves alike: the local double and the SSH door."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.task_executors.plugin import OperationFailed, Ran
from components.task_executors.remote_host import OUTPUT_BYTES_MAX, RemoteHost
from components.task_executors.ssh import SshHost
from tests.support.local_host import LocalHost
from tests.support.ssh_host import SshServer

AWKWARD = "it's \"a\" $HOME `x` \\ \n* ünï\t-f"


@pytest.fixture(params=["local", "ssh"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RemoteHost]:
    if request.param == "local":
        yield LocalHost(tmp_path)
        return
    server = SshServer(tmp_path / "host")
    server.start()
    found = SshHost(server.address())
    yield found
    found.close()
    server.stop()


def write(host: RemoteHost, path: Path, data: bytes, offset: int = 0) -> None:
    with host.open_write(str(path), offset) as file:
        for start in range(0, len(data), 100_000):
            file.send(data[start : start + 100_000])


def fault_of(act: object) -> OperationFailed:
    with pytest.raises(OperationFailed) as raised:
        act()
    return raised.value


def test_runs_a_command_with_stdin_and_tells_status_stdout_and_stderr(host: RemoteHost) -> None:
    assert host.run(("sh", "-c", "cat; echo bad >&2; exit 3"), b"in") == Ran(3, b"in", b"bad\n")


def test_arguments_arrive_byte_for_byte(host: RemoteHost) -> None:
    assert host.run(("printf", "%s|", AWKWARD, "", "~")).stdout.decode() == f"{AWKWARD}||~|"


def test_a_command_that_reads_no_stdin_is_no_fault(host: RemoteHost) -> None:
    assert host.run(("sh", "-c", "exit 96"), b"x" * 3_000_000).exit_status == 96


def test_output_is_bounded(host: RemoteHost) -> None:
    ran = host.run(("sh", "-c", "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 5"))
    assert (ran.exit_status, len(ran.stdout), len(ran.stderr)) == (5, OUTPUT_BYTES_MAX, OUTPUT_BYTES_MAX)


def test_a_command_ended_by_a_signal_is_no_success(host: RemoteHost) -> None:
    try:
        assert host.run(("sh", "-c", "kill -9 $$")).exit_status == 137
    except OperationFailed as fault:
        assert (fault.code, fault.certain) == ("SSH_LOST", False)


def test_a_command_that_takes_too_long_is_given_up_with_unknown_outcome(host: RemoteHost) -> None:
    began = time.monotonic()
    fault = fault_of(lambda: host.run(("sleep", "60"), timeout_seconds=0.5))
    assert (fault.code, fault.certain) == ("SSH_TIMEOUT", False)
    assert time.monotonic() - began < 40
    assert host.run(("echo", "on")).stdout == b"on\n"


def test_many_commands_leave_no_descriptor_open(host: RemoteHost) -> None:
    host.run(("true",))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        host.run(("true",))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3


def test_a_file_is_written_in_ranges_read_in_ranges_and_put_in_place(host: RemoteHost, tmp_path: Path) -> None:
    part, target, data = tmp_path / "part -1'", tmp_path / "file", os.urandom(1_500_000)
    write(host, part, data[:700_001])
    assert host.size(str(part)) == 700_001
    write(host, part, data[700_001:], 700_001)
    assert host.digest(str(part))[0] == len(data)
    host.publish(str(part), str(target))
    host.publish(str(part), str(target))
    assert (target.read_bytes(), part.exists()) == (data, False)
    assert b"".join(host.open_read(str(target), 1_400_000)) == data[1_400_000:]
    assert b"".join(host.open_read(str(target))) == data


def test_an_empty_file_is_a_file(host: RemoteHost, tmp_path: Path) -> None:
    write(host, tmp_path / "empty", b"")
    assert host.size(str(tmp_path / "empty")) == 0
    assert host.digest(str(tmp_path / "empty")) == (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    assert list(host.open_read(str(tmp_path / "empty"))) == []


def test_what_is_missing_is_named(host: RemoteHost, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    assert host.size(missing) is None
    for act in (lambda: host.digest(missing), lambda: list(host.open_read(missing)), lambda: host.publish(missing, missing + "2")):
        assert fault_of(act).code == "NOT_FOUND"


def test_links_and_directories_are_left_alone(host: RemoteHost, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    link = str(tmp_path / "link")
    for act in (lambda: host.size(link), lambda: host.digest(link), lambda: list(host.open_read(link)), lambda: write(host, tmp_path / "link", b"x"), lambda: host.size(str(tmp_path))):
        assert fault_of(act).code == "NOT_SAFE"
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_a_part_of_another_length_is_not_continued(host: RemoteHost, tmp_path: Path) -> None:
    write(host, tmp_path / "part", b"12345")
    assert fault_of(lambda: write(host, tmp_path / "part", b"6", 4)).code == "PART_CHANGED"
    assert (tmp_path / "part").read_bytes() == b"12345"


def test_a_full_disk_is_named(host: RemoteHost, tmp_path: Path) -> None:
    assert fault_of(lambda: write(host, Path("/dev/full"), b"x")).code in {"HOST_DISK_FULL", "HOST_COMMAND"}


def test_a_directory_that_is_not_there_is_a_fault_of_the_host(host: RemoteHost, tmp_path: Path) -> None:
    assert fault_of(lambda: write(host, tmp_path / "no" / "file", b"x")).code == "HOST_COMMAND"
