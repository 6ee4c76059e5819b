"""One file between storage and host, for real files: cut at any byte, two epochs, resumed, checked, never half visible."""

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.storage.posix import PosixStorage
from components.task_executors.plugin import OperationFailed, Transfer, Transferred
from components.task_executors.staging.transfer import transfer
from tests.support.local_host import LocalHost

CONTENT = os.urandom(700_001)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def place(tmp_path: Path):
    (tmp_path / "storage" / "in").mkdir(parents=True)
    (tmp_path / "storage" / "in" / "a.bin").write_bytes(CONTENT)
    (tmp_path / "host").mkdir()
    return tmp_path


def storages(place: Path):
    return {"sto_1": ({"kind": "POSIX", "root": str(place / "storage")}, None)}


def bring(place: Path, *, host=None, epoch=1, sha256=None):
    return transfer(Transfer("storage://sto_1/in/a.bin", f"host:{place}/host/a.bin", sha256), host or LocalHost(place), storages(place), "att_1", epoch)


def fetch(place: Path, *, host=None, epoch=1):
    return transfer(Transfer(f"host:{place}/host/a.bin", "storage://sto_1/out/a.bin"), host or LocalHost(place), storages(place), "att_1", epoch)


class Cut(LocalHost):
    """A host whose link breaks after so many bytes."""

    def __init__(self, root: Path, left: int) -> None:
        super().__init__(root)
        self.left = left

    def open(self, argv, timeout_seconds):
        stream = super().open(argv, timeout_seconds)
        send, receive = stream.send, stream.receive

        def cut_send(data):
            self.left -= len(data)
            if self.left < 0:
                send(data[: len(data) + self.left])
                raise OperationFailed("SSH_LOST", "The link broke.", certain=False)
            send(data)

        def cut_receive():
            piece = receive()
            self.left -= len(piece)
            if self.left < 0:
                raise OperationFailed("SSH_LOST", "The link broke.", certain=False)
            return piece

        stream.send, stream.receive = cut_send, cut_receive
        return stream


def test_a_file_arrives_whole_and_a_retry_reuses_it(place: Path):
    assert bring(place, sha256=DIGEST) == Transferred(len(CONTENT), DIGEST)
    assert (place / "host" / "a.bin").read_bytes() == CONTENT
    assert bring(place, epoch=2).reused
    assert [each.name for each in (place / "host").iterdir()] == ["a.bin"]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=st.integers(0, len(CONTENT) + 2000))
def test_cut_at_any_byte_nothing_half_is_visible_and_the_next_epoch_goes_on(place: Path, left: int):
    for each in (place / "host").iterdir():
        each.unlink()
    try:
        bring(place, host=Cut(place, left))
    except OperationFailed:
        assert not (place / "host" / "a.bin").exists() or (place / "host" / "a.bin").read_bytes() == CONTENT
    assert bring(place, epoch=2).sha256 == DIGEST
    assert (place / "host" / "a.bin").read_bytes() == CONTENT
    assert not list((place / "host").glob("*.part.*"))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=st.integers(0, len(CONTENT) + 2000))
def test_fetched_from_the_host_nothing_half_is_visible_in_the_storage(place: Path, left: int):
    (place / "host" / "a.bin").write_bytes(CONTENT)
    out = place / "storage" / "out" / "a.bin"
    out.unlink(missing_ok=True)
    try:
        fetch(place, host=Cut(place, left))
    except OperationFailed:
        assert not out.exists()
    assert fetch(place, epoch=2).sha256 == DIGEST
    assert out.read_bytes() == CONTENT
    assert [each.name for each in out.parent.iterdir()] == ["a.bin"]


def test_a_predecessors_spoilt_part_is_not_trusted(place: Path):
    (place / "host" / "a.bin.part.att_1.1").write_bytes(b"x" * 500_000)
    assert bring(place, epoch=2).sha256 == DIGEST
    assert (place / "host" / "a.bin").read_bytes() == CONTENT


def test_another_content_than_declared_is_refused_for_good(place: Path):
    with pytest.raises(OperationFailed) as fault:
        bring(place, sha256="0" * 64)
    assert fault.value.code == "DECLARED_CHECKSUM"
    assert not list((place / "host").iterdir())


@pytest.mark.parametrize(("path", "code"), [("storage://sto_1/in/none", "NOT_FOUND"), ("storage://sto_1/../x", "NOT_SAFE"), ("storage://sto_2/a", "NOT_FOUND"), ("storage://sto_1/link/secret", "NOT_SAFE")])
def test_what_is_not_there_or_leads_out_is_named(place: Path, path: str, code: str):
    (place / "outside").mkdir()
    (place / "outside" / "secret").write_text("secret")
    (place / "storage" / "link").symlink_to(place / "outside")
    with pytest.raises(OperationFailed) as fault:
        transfer(Transfer(path, f"host:{place}/host/a.bin"), LocalHost(place), storages(place), "att_1", 1)
    assert fault.value.code == code


def test_a_full_storage_is_named(place: Path):
    storage = PosixStorage(str(place / "storage"))

    def pieces():
        yield b"some"
        raise OSError(28, "No space left on device")

    from app.storage import Full

    with pytest.raises(Full):
        storage.write("out/b", pieces(), part="p")
    assert not list((place / "storage" / "out").iterdir())
