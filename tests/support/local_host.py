"""The double of a compute host: this machine, without SSH. It passes the conformance suite of the SSH door (tests/conformance/test_remote_host.py)."""

import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from components.task_executors.plugin import OperationFailed
from components.task_executors.remote_host import CHUNK_BYTES, OUTPUT_BYTES_MAX, RemoteHost, Stream


class LocalHost(RemoteHost):
    """`root` is its home."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, argv: Sequence[str], timeout_seconds: float) -> Stream:
        return _LocalStream(argv, self.root, time.monotonic() + timeout_seconds)


class _LocalStream:
    def __init__(self, argv: Sequence[str], root: Path, deadline: float) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            ["sh", "-c", shlex.join(argv)], stdin=pipe, stdout=pipe, stderr=pipe, cwd=root, env={"HOME": str(root), "PATH": os.defpath}, start_new_session=True
        )
        self.deadline, self.stderr = deadline, bytearray()
        assert self.process.stdin is not None and self.process.stdout is not None and self.process.stderr is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        os.set_blocking(self.stdin.fileno(), False)
        self.selector = selectors.DefaultSelector()
        for stream in (self.stdout, self.process.stderr):
            self.selector.register(stream, selectors.EVENT_READ)

    def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._in_time()
            try:
                rest = rest[os.write(self.stdin.fileno(), rest) :]
            except BlockingIOError:
                time.sleep(0.002)
            except BrokenPipeError:
                return

    def end_input(self) -> None:
        self.stdin.close()

    def receive(self) -> bytes:
        while self.selector.get_map():
            self._in_time()
            for key, _ in self.selector.select(0.1):
                piece = os.read(key.fd, CHUNK_BYTES)
                if not piece:
                    self.selector.unregister(key.fileobj)
                elif key.fileobj is self.stdout:
                    return piece
                else:
                    self.stderr += piece[: OUTPUT_BYTES_MAX - len(self.stderr)]
        return b""

    def finish(self) -> tuple[int, bytes]:
        status = self.process.wait(max(0.1, self.deadline - time.monotonic()))
        return (status if status >= 0 else 128 - status), bytes(self.stderr)

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.selector.close()
        for stream in (self.stdin, self.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def _in_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise OperationFailed("SSH_TIMEOUT", "The compute host did not answer in time.", certain=False)
