"""The Storage port's contract, over a POSIX root and a real S3 server (rclone, with its own keys)."""

import errno
import os
import shutil
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.dev.process import Daemon
from app.dev.servers import free_port
from app.storage import AccessDenied, NotFound, Storage, Unavailable, Unsafe, open_storage
from app.storage.inline import InlineStorage

KEYS = b"lab:lablablab"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    base = tmp_path_factory.mktemp("s3")
    (base / "data" / "bucket").mkdir(parents=True)
    rclone, port = shutil.which("rclone") or str(Path(sys.executable).with_name("rclone")), free_port()

    def answers() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return False
        return True

    argv = [rclone, "serve", "s3", "--config", "/dev/null", "--addr", f"127.0.0.1:{port}", "--auth-key", KEYS.decode().replace(":", ","), "--cache-dir", str(base / "cache"), str(base / "data")]
    daemon = Daemon("rclone", base, argv, answers=answers)
    daemon.start()
    daemon.wait()
    yield f"http://127.0.0.1:{port}"
    daemon.stop()


def s3_description(endpoint: str) -> dict[str, str]:
    return {"kind": "S3", "endpoint": endpoint, "bucket": "bucket", "prefix": "some/prefix"}


@pytest.fixture(params=["posix", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "posix":
        return open_storage({"kind": "POSIX", "root": str(tmp_path)})
    return open_storage(s3_description(request.getfixturevalue("s3")), KEYS)


@pytest.mark.parametrize("size", [0, 1, 300_000, 9 << 20])
def test_what_was_written_is_read_whole_and_from_any_offset(storage: Storage, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    content = content[:size]
    pieces = (content[start : start + 100_000] for start in range(0, size, 100_000))
    assert storage.write("a/b.bin", pieces, part="att_1.1") == size
    assert storage.size("a/b.bin") == size
    assert b"".join(storage.open_read("a/b.bin")) == content
    assert b"".join(storage.open_read("a/b.bin", size // 2)) == content[size // 2 :]


def test_a_write_replaces_whole_or_not_at_all(storage: Storage) -> None:
    storage.write("x", iter([b"old"]), part="1")

    def broken() -> Iterator[bytes]:
        yield b"n" * (9 << 20)
        raise ConnectionResetError

    with pytest.raises(Exception):  # noqa: B017  What breaks passes through, or as the door's own fault.
        storage.write("x", broken(), part="2")
    assert b"".join(storage.open_read("x")) == b"old"


def test_a_file_that_has_its_name_but_whose_directory_cannot_be_synced_is_told_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as a file that is not there, which would be for good."""
    storage, sync = open_storage({"kind": "POSIX", "root": str(tmp_path)}), os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "input/output error")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(Unavailable):
        storage.write("x", iter([b"new"]), part="1")


def test_a_large_object_has_no_more_parts_than_an_upload_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server: 10,000 parts of the first size would be all, and the piece behind them would be refused."""
    monkeypatch.setattr("app.storage.s3.PART_BYTES", 1)
    storage: Any = open_storage(s3_description("http://127.0.0.1:9"), KEYS)
    sent: list[int] = []

    class Client:
        def __getattr__(self, name: str) -> Any:
            return lambda **told: sent.append(len(told["Body"])) or {"ETag": "e"} if name == "upload_part" else {"UploadId": "u"}

    storage.client = Client()
    assert storage.write("x", (b"x" for _ in range(20_000)), part="1") == 20_000 == sum(sent)
    assert len(sent) < 10_000


def test_what_is_not_there_is_not_found(storage: Storage) -> None:
    with pytest.raises(NotFound):
        storage.size("none")
    with pytest.raises(NotFound):
        next(iter(storage.open_read("none")))


@pytest.mark.parametrize("path", ["", "..", "../x", "a/../x", "a/..", "/etc/passwd", "a//b", "a/", "./x", "a\0b", "a\nb", "a/\x1b[2J", "n" * 256, "é" * 128, f"{'n' * 256}/x", "\udcff", "a/\ud800"])
def test_what_is_no_name_below_the_storage_is_unsafe_and_touches_nothing(storage: Storage, tmp_path: Path, path: str) -> None:
    for act in (lambda: storage.size(path), lambda: next(iter(storage.open_read(path))), lambda: storage.write(path, iter([b"x"]), part="att_1.1")):
        with pytest.raises(Unsafe) as caught:
            act()
        assert str(caught.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "mit Leerzeichen", "-rf", "a%2F..%2Fb", ".hidden", "..."])
def test_odd_names_are_names(storage: Storage, name: str) -> None:
    assert storage.write(f"odd/{name}", iter([b"x"]), part=f"att_{'0' * 26}.1") == 1
    assert b"".join(storage.open_read(f"odd/{name}")) == b"x"


def test_a_wrong_key_is_refused(s3: str) -> None:
    with pytest.raises(AccessDenied):
        open_storage(s3_description(s3), b"lab:wrong").size("x")


def test_a_data_uri_is_a_file() -> None:
    storage = InlineStorage("data:text/plain;base64,aGVsbG8=")
    assert storage.size("") == 5
    assert b"".join(storage.open_read("", 1)) == b"ello"
