"""DOOR to where inputs come from and outputs go to: a mounted POSIX root, S3, or a `data:` URI. Faults of each become a small closed set."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

CHUNK_BYTES = 256 << 10
NAME_BYTES_MAX = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # Surrogates: what was no UTF-8.


class StorageFault(Exception):
    """Root; the text is a sentence for a scientist."""


class NotFound(StorageFault):
    """There is no such file."""


class Unsafe(StorageFault):
    """The path would leave the storage, or is no plain file."""


class Unavailable(StorageFault):
    """No answer, or one that may be another next time."""


class AccessDenied(StorageFault):
    """The storage refuses our credential."""


class Full(StorageFault):
    """No room."""


class Storage(Protocol):
    """Files by relative path. Raises Unsafe for one that `names` refuses. Blocking, one thread at a time; nothing half is ever visible under a path."""

    def size(self, path: str) -> int:
        """Bytes. Raises NotFound."""

    def open_read(self, path: str, offset: int = 0) -> Iterator[bytes]:
        """The bytes from `offset`, in pieces of at most 256 KiB. Raises NotFound before the first piece."""

    def write(self, path: str, pieces: Iterable[bytes], *, part: str) -> int:
        """Replaces the file, whole or not at all; how many bytes. `part` names this attempt and epoch, so that two writers never share a half-written file.

        If `pieces` raises, nothing becomes visible and the exception passes through.
        """


def names(path: str) -> list[str]:
    """The path's components. Raises Unsafe where one leads elsewhere or cannot be the name of a file."""
    found = path.split("/")
    for each in found:
        if each in {"", ".", ".."} or _CONTROL.search(each) or len(each.encode()) > NAME_BYTES_MAX:
            raise Unsafe(f"{path.encode('ascii', 'backslashreplace')[:200]!r} leaves its storage, or holds a name that is empty, beyond {NAME_BYTES_MAX} bytes, or of characters that names must not have.")
    return found


def open_storage(description: Mapping[str, Any], secret: bytes | None = None) -> Storage:
    """From a StorageResource document. `secret`: `<access key id>:<secret access key>` for S3."""
    if description["kind"] == "POSIX":
        from app.storage.posix import PosixStorage

        return PosixStorage(description["root"])
    from app.storage.s3 import S3Storage

    return S3Storage(description["endpoint"], description["bucket"], description.get("prefix") or "", secret)


def parse(uri: str) -> tuple[str, str]:
    """`storage://<id>/<path>` → (id, path). Raises Unsafe for anything else."""
    storage_id, slash, path = uri.removeprefix("storage://").partition("/")
    if not uri.startswith("storage://") or not slash or any(each in {"", ".", ".."} for each in path.split("/")):
        raise Unsafe(f"{uri[:200]} does not name a file in a storage.")
    return storage_id, path
