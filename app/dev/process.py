"""A server or component as a process of its own: own process group, pid file, log file. Stopped by that pid, recognised by pid *and* start time."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


class NotStarted(RuntimeError):
    """It ended or did not answer in time; the text names the log."""


def start_time(pid: int) -> str | None:
    """Clock ticks since boot at which this pid began; None for a process that is gone or a zombie."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return None
    return None if words[0] in "ZX" else words[19]


def wait_until(condition: Callable[[], bool], seconds: float, every: float = 0.02) -> bool:
    """Polls; False when the time is up."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def keep_private(path: Path, text: str) -> None:
    """For its owner's eyes only, from the first moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


@dataclass
class Daemon:
    """`directory` keeps `<name>.pid` and `<name>.log`; `answers` is a real request that tells that it serves."""

    name: str
    directory: Path
    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    answers: Callable[[], bool] = lambda: True
    stop_seconds: float = 30.0
    start_seconds: float = 60.0
    directory_of_work: Path | None = None
    stale: Sequence[Path] = ()  # Locks that outlive a SIGKILL and name its pid, which a stranger or an unreaped zombie may bear: removed before a start.
    child: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    @property
    def pid_file(self) -> Path:
        return self.directory / f"{self.name}.pid"

    @property
    def pid(self) -> int | None:
        """Of the living process that we started; a pid given anew to a stranger is none of ours."""
        try:
            text, began = self.pid_file.read_text().split()
        except (OSError, ValueError):
            return None
        return int(text) if int(text) > 1 and start_time(int(text)) == began else None

    def start(self) -> None:
        """Without waiting. Does nothing if it runs."""
        if self.pid is not None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        for each in self.stale:
            each.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=self.directory_of_work, env={**os.environ, **self.environment}  # noqa: TID251  A child inherits.
            )
        self.pid_file.write_text(f"{self.child.pid} {start_time(self.child.pid)}")

    def wait(self) -> None:
        """Until it answers. Raises NotStarted."""
        ready = wait_until(lambda: self.pid is None or self.answers(), self.start_seconds)
        if not ready or self.pid is None:
            raise NotStarted(f"{self.name} {'ended' if self.pid is None else f'did not answer within {self.start_seconds:.0f} s'}: see {self.log}\n{self.tail()}")

    def signal(self, number: int, *, group: bool = False) -> None:
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(pid, number)

    def stop(self) -> bool:
        """SIGTERM, and SIGKILL when its time is up; False if it had to be killed."""
        self.signal(signal.SIGTERM)
        clean = wait_until(lambda: self.pid is None, self.stop_seconds)
        if not clean:
            self.kill()
        self._reap()
        self.pid_file.unlink(missing_ok=True)
        return clean

    def kill(self) -> None:
        """SIGKILL to the whole group, and wait for the process to be gone."""
        self.signal(signal.SIGKILL, group=True)
        wait_until(lambda: self.pid is None, 10.0)
        self._reap()

    def _reap(self) -> None:
        if self.child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(5.0)

    def tail(self, lines: int = 8) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""
