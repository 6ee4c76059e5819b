"""A mounted root directory. Paths are resolved below it, component by component without following links, so nothing leads out of it."""

import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from app.storage import CHUNK_BYTES, AccessDenied, Full, NotFound, Unavailable, Unsafe, names

_FULL = {28, 122}  # ENOSPC, EDQUOT
_DENIED = {1, 13, 30}  # EPERM, EACCES, EROFS


class PosixStorage:
    def __init__(self, root: str) -> None:
        self.root = root

    def size(self, path: str) -> int:
        with self._translated(path), self._opened(path) as descriptor:
            return os.fstat(descriptor).st_size

    def open_read(self, path: str, offset: int = 0) -> Iterator[bytes]:
        with self._translated(path), self._opened(path) as descriptor:
            os.lseek(descriptor, offset, os.SEEK_SET)
            while piece := os.read(descriptor, CHUNK_BYTES):
                yield piece

    def write(self, path: str, pieces: Iterable[bytes], *, part: str) -> int:
        *parents, name = names(path)
        total = 0
        with self._translated(path), self._directory(parents, make=True) as directory:
            hidden = f".{zlib.crc32(name.encode()):08x}.part.{part}"  # The name itself may be as long as names can be.
            descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o640, dir_fd=directory)
            try:
                for piece in pieces:
                    rest = memoryview(piece)
                    while rest:
                        rest = rest[os.write(descriptor, rest) :]
                    total += len(piece)
                os.fsync(descriptor)
                os.rename(hidden, name, src_dir_fd=directory, dst_dir_fd=directory)
                os.fsync(directory)
            except BaseException:
                with suppress(FileNotFoundError):  # It has its name, and only what follows failed.
                    os.unlink(hidden, dir_fd=directory)
                raise
            finally:
                os.close(descriptor)
        return total

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        *parents, name = names(path)
        with self._directory(parents) as directory:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise Unsafe(f"{path} in the storage is no plain file.")
                yield descriptor
            finally:
                os.close(descriptor)

    @contextmanager
    def _directory(self, parents: list[str], *, make: bool = False) -> Iterator[int]:
        """Each component opened below the one before, never through a link."""
        flags = os.O_RDONLY | os.O_DIRECTORY
        descriptor = os.open(self.root, flags)
        try:
            for each in parents:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(each, 0o750, dir_fd=descriptor)
                below = os.open(each, flags | os.O_NOFOLLOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as fault:
            raise NotFound(f"There is no file {path} in the storage.") from fault
        except OSError as fault:
            if fault.errno in {20, 40}:  # ENOTDIR, ELOOP: a link where a directory or file must be.
                raise Unsafe(f"{path} in the storage leads through a link or a file.") from fault
            if fault.errno in _FULL:
                raise Full("The storage has no room left.") from fault
            if fault.errno in _DENIED:
                raise AccessDenied(f"The storage may not be used: {os.strerror(fault.errno)}.") from fault
            raise Unavailable(f"The storage does not answer: {fault.strerror}.") from fault
