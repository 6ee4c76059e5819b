"""A private OpenSSH server as compute host: own keys, own port on loopback, own scratch directory. One process tree, ended by the fixture that started it."""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from app.dev.process import keep_private
from app.dev.servers import free_port
from components.task_executors.remote_host import HostAddress

SSHD = "/usr/sbin/sshd"


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait for a condition, never for a time."""
    ends_at = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > ends_at:
            raise AssertionError(f"not within {seconds} s: {condition}")
        time.sleep(0.02)
    return found


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@cache
def key_pairs() -> dict[str, tuple[str, str]]:
    """(private, public) by name. The same for every server of a run: a key of RSA takes a second of CPU."""
    made = {}
    with tempfile.TemporaryDirectory() as directory:
        for name in ("client", "stranger", "host", "host_rsa", "other_host"):
            path, kind = Path(directory) / name, "rsa" if name.endswith("rsa") else "ed25519"
            subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(path)], check=True)
            made[name] = (path.read_text(), path.with_suffix(".pub").read_text())
    return made


class SshServer:
    def __init__(self, base: Path) -> None:
        self.base, self.scratch = base, base / "scratch"
        self.scratch.mkdir(parents=True)
        base.chmod(0o700)
        for name, (private, public) in key_pairs().items():
            keep_private(base / name, private)
            (base / f"{name}.pub").write_text(public)
        self.port = 0
        (base / "authorized_keys").write_text((base / "client.pub").read_text())
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, host_keys: tuple[str, ...] = ("host",)) -> None:
        """Listening when it returns. The first start finds a port; a port that somebody else took meanwhile is not insisted on."""
        for _ in range(5):
            port = self.port or free_port()
            self._launch(port, host_keys)
            assert self.process is not None
            until(lambda port=port: listens(port) or self.process.poll() is not None)
            if self.process.poll() is None and f"Server listening on 127.0.0.1 port {port}" in self.log:
                self.port = port
                return
            self.stop()
        raise AssertionError(self.log)

    def _launch(self, port: int, host_keys: tuple[str, ...]) -> None:
        Path("/run/sshd").mkdir(parents=True, exist_ok=True)
        lines = [f"ListenAddress 127.0.0.1:{port}", *(f"HostKey {self.base / each}" for each in host_keys), f"AuthorizedKeysFile {self.base}/authorized_keys"]
        lines += ["PasswordAuthentication no", "KbdInteractiveAuthentication no", "UsePAM no", "StrictModes no", "UseDNS no", "PidFile none", "PrintMotd no"]
        lines += ["PermitRootLogin prohibit-password", "MaxStartups 100:30:200", "LogLevel VERBOSE", "SetEnv SHLVL=1"]
        (self.base / "sshd_config").write_text("\n".join(lines) + "\n")
        with (self.base / "log").open("ab") as log:
            self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(self.base / "sshd_config")], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def tree(self) -> list[int]:
        """The listener and its sessions, not the jobs, which are sessions of their own."""
        assert self.process is not None
        found = [self.process.pid]
        for pid in found:
            with suppress(OSError):  # It may end while it is asked.
                found += [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return found

    def signal(self, number: int) -> None:
        for pid in self.tree():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def stop(self) -> None:
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    @property
    def connections(self) -> int:
        """Open, as our side's kernel counts them: exact also for a process that has just been killed."""
        end = f":{self.port:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines() if end in line]
        return sum(state == "01" and remote.endswith(end) for _, _, remote, state, *_ in rows)

    @property
    def log(self) -> str:
        return (self.base / "log").read_text(errors="replace")

    def address(self, *, key: str = "client", host_key: str = "host", port: int | None = None) -> HostAddress:
        pin = " ".join((self.base / f"{host_key}.pub").read_text().split()[:2])
        login = os.environ.get("USER") or "root"
        return HostAddress("127.0.0.1", port or self.port, login, (pin,), (self.base / key).read_bytes())
