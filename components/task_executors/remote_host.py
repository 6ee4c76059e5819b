"""The port to a compute host: run a command, read and write files by range, put a finished file in its place. Workers own one; plug-ins never see it.

Everything is a POSIX command with a quoted argv (no SFTP subsystem, no login shell's dialect): `RemoteHost` says the verbs once over one primitive, `open`, which the SSH
door (ssh.py) and the tests' double provide. What goes wrong is OperationFailed (plugin.py); its `certain` says that surely nothing happened.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from components.task_executors.plugin import OperationFailed, Ran

OUTPUT_BYTES_MAX = 1 << 20  # Kept of stdout and of stderr; the rest is read and dropped.
CHUNK_BYTES = 256 << 10
_UNSAFE, _ABSENT, _OTHER_SIZE = 97, 98, 95


@dataclass(frozen=True)
class HostAddress:
    """Where a host is, who it must prove to be (`host_keys`: "type base64" lines, pinned), and as whom we come. The private key is in no repr."""

    host: str
    port: int
    login: str
    host_keys: tuple[str, ...]
    private_key: bytes = field(repr=False)

    @property
    def slot(self) -> str:
        """Whose connection budget it counts for."""
        return f"{self.host}:{self.port}"


class Stream(Protocol):
    """A running command. One thread, one user, who must `close` it; every call ends by the deadline given to `open` or raises SSH_TIMEOUT, `certain=False`."""

    def send(self, data: bytes) -> None:
        """To its stdin. A command that has stopped reading is no fault here: its exit status will tell."""

    def end_input(self) -> None: ...

    def receive(self) -> bytes:
        """The next piece of stdout; empty at its end. stderr is collected meanwhile."""

    def finish(self) -> tuple[int, bytes]:
        """Exit status (128 + n for a signal) and stderr, after stdout's end. Raises SSH_LOST if nobody can tell."""

    def close(self) -> None:
        """Let go, also in the middle. May be called twice."""


class RemoteHost(ABC):
    """What transfers and plug-in operations need of a host. Calls block up to `timeout_seconds`. Paths are absolute; a symlink as last component is refused."""

    @abstractmethod
    def open(self, argv: Sequence[str], timeout_seconds: float) -> Stream:
        """Start a command. Raises SSH_CONNECT (certain) and its like."""

    def run(self, argv: Sequence[str], stdin: bytes = b"", *, timeout_seconds: float = 30.0) -> Ran:
        """Run to the end. Any exit status is a result, not a fault."""
        with self._opened(argv, timeout_seconds) as stream:
            stream.send(stdin)
            stream.end_input()
            kept = bytearray()
            while piece := stream.receive():
                kept += piece[: OUTPUT_BYTES_MAX - len(kept)]
            status, stderr = stream.finish()
        return Ran(status, bytes(kept), stderr)

    def size(self, path: str) -> int | None:
        """Bytes of a regular file; None if there is none. NOT_SAFE for anything else."""
        ran = self._script('[ -h "$1" ] && exit 97; [ -e "$1" ] || exit 98; [ -f "$1" ] || exit 97; wc -c <"$1"', path)
        if ran.exit_status == _ABSENT:
            return None
        return int(_good(ran, path).stdout)

    def digest(self, path: str, *, timeout_seconds: float = 600.0) -> tuple[int, str]:
        """(size, SHA-256 in hex) as the host reads them back. NOT_FOUND."""
        script = '[ -h "$1" ] && exit 97; [ -f "$1" ] || exit 98; wc -c <"$1" && sha256sum <"$1"'
        size, sha256, _ = _good(self._script(script, path, timeout_seconds=timeout_seconds), path).stdout.split()
        return int(size), sha256.decode()

    def open_read(self, path: str, offset: int = 0, *, timeout_seconds: float = 3600.0) -> Iterator[bytes]:
        """The file's bytes from `offset`, in pieces. NOT_FOUND; a read that was cut raises, it never ends early in silence."""
        script = '[ -h "$1" ] && exit 97; [ -f "$1" ] || exit 98; exec tail -c "+$2" <"$1"'
        with self._opened(_sh(script, path, str(offset + 1)), timeout_seconds) as stream:
            stream.end_input()
            while piece := stream.receive():
                yield piece
            status, stderr = stream.finish()
        _good(Ran(status, b"", stderr), path)

    @contextmanager
    def open_write(self, path: str, offset: int = 0, *, timeout_seconds: float = 3600.0) -> Iterator[Stream]:
        """`send` from `offset` on: 0 makes the file anew (mode 0600), else it must be exactly that long. Leaving the block confirms that the host took every byte; not yet fsync."""
        script = 'umask 077; [ -h "$1" ] && exit 97; if [ "$2" = 0 ]; then exec cat >"$1"; fi; [ -f "$1" ] || exit 98; [ "$(wc -c <"$1")" -eq "$2" ] || exit 95; exec cat >>"$1"'
        with self._opened(_sh(script, path, str(offset)), timeout_seconds) as stream:
            yield stream
            stream.end_input()
            while stream.receive():
                pass
            status, stderr = stream.finish()
        _good(Ran(status, b"", stderr), path)

    def publish(self, part: str, target: str) -> None:
        """Fsync `part`, rename it to `target` (replacing it), fsync the directory. May be repeated once `target` is there and `part` is gone."""
        script = (
            '[ -d "$2" ] && exit 97; d=${2%/*}; f() { sync "$1" 2>/dev/null || dd if=/dev/null of="$1" conv=fsync,notrunc 2>/dev/null; }; '
            'if [ ! -e "$1" ]; then [ -f "$2" ] && exit 0; exit 98; fi; f "$1" && mv -f "$1" "$2" && { sync "$d" 2>/dev/null || sync; }'
        )
        _good(self._script(script, part, target, timeout_seconds=120.0), target)

    def _script(self, script: str, *parameters: str, timeout_seconds: float = 30.0) -> Ran:
        return self.run(_sh(script, *parameters), timeout_seconds=timeout_seconds)

    @contextmanager
    def _opened(self, argv: Sequence[str], timeout_seconds: float) -> Iterator[Stream]:
        stream = self.open(argv, timeout_seconds)
        try:
            yield stream
        finally:
            stream.close()


def _sh(script: str, *parameters: str) -> tuple[str, ...]:
    return ("sh", "-c", f"LC_ALL=C; export LC_ALL; {script}", "sh", *parameters)


def _good(ran: Ran, path: str) -> Ran:
    if ran.exit_status == 0:
        return ran
    raw = ran.stderr.decode(errors="replace").strip()[-500:]
    name = Path(path).name
    if ran.exit_status == _ABSENT:
        raise OperationFailed("NOT_FOUND", f"There is no file {name} on the compute host.", certain=True, raw=path)
    if ran.exit_status == _UNSAFE:
        raise OperationFailed("NOT_SAFE", f"{name} on the compute host is a link or a directory, not a plain file; it was left alone.", certain=True, raw=path)
    if ran.exit_status == _OTHER_SIZE:
        raise OperationFailed("PART_CHANGED", f"The half-copied file {name} on the compute host is not as long as it was.", certain=True, raw=path)
    raise host_fault(raw, f"The compute host could not read or write {name}.")


def host_fault(raw: str, message: str) -> OperationFailed:
    """A host's complaint (LC_ALL=C) as a fault; a full disk has a name of its own."""
    if "No space left on device" in raw or "Disk quota exceeded" in raw:
        return OperationFailed(
            "HOST_DISK_FULL", "The disk of the compute host is full, or its quota is used up. Free some space there; then it goes on.", certain=False, raw=raw
        )
    if "Permission denied" in raw or "Read-only file system" in raw:
        return OperationFailed("HOST_FORBIDS", f"{message} It said: permission denied.", certain=False, raw=raw)
    return OperationFailed("HOST_COMMAND", message, certain=False, raw=raw)
