"""A private OpenSSH server as compute host, on one loopback address: own host key, and an authorized_keys file that a gateway's public key is put into."""

import getpass
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from app.dev.process import Daemon


@dataclass(frozen=True)
class SshHost:
    address: str
    port: int
    login: str
    host_key: str
    authorized_keys: Path

    def authorize(self, public_key: str) -> None:
        """Let this key in; once."""
        known = self.authorized_keys.read_text()
        if public_key.split()[1] not in known:
            self.authorized_keys.write_text(f"{known}{public_key.strip()}\n")


def sshd(base: Path, address: str, port: int) -> tuple[Daemon, SshHost]:
    """`address`: 127.0.1.N. StrictModes off: keys may lie below a world-writable directory."""
    base.mkdir(parents=True, exist_ok=True)
    base.chmod(0o700)
    if not (base / "host_key").exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "compute-host", "-f", str(base / "host_key")], check=True)
    authorized = base / "authorized_keys"
    authorized.touch(mode=0o600)
    configuration = base / "sshd_config"
    configuration.write_text(
        f"ListenAddress {address}:{port}\nHostKey {base}/host_key\nPidFile none\nAuthorizedKeysFile {authorized}\nPermitRootLogin prohibit-password\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\nStrictModes no\nUseDNS no\nPrintMotd no\nMaxStartups 100:30:200\nMaxSessions 50\n"
        # SHLVL=1: Debian's bash else reads ~/.bashrc for every command run over ssh.
        "ClientAliveInterval 15\nSetEnv SHLVL=1\n"
    )
    Path("/run/sshd").mkdir(parents=True, exist_ok=True)
    host_key = " ".join((base / "host_key.pub").read_text().split()[:2])
    daemon = Daemon("sshd", base, ["/usr/sbin/sshd", "-D", "-e", "-f", str(configuration)], answers=lambda: answers(address, port))
    return daemon, SshHost(address, port, getpass.getuser(), host_key, authorized)


def answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), 1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
