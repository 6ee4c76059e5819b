"""Faults of compute hosts: dead in the middle of a job, and back as the same boot or a new one; an sshd that refuses, stalls, or is not the one it was."""

import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.dev.compute_host import SshHost
from app.dev.process import Daemon
from tests.chaos.nemeses.nemesis import Nemesis, Proof, Random, Tail, Undecided, patiently, proven
from tests.chaos.nemeses.processes import children_of
from tests.chaos.rig import Rig
from tests.support.system import state_of

MET_SECONDS = 60.0
BOOT_ID = "/proc/sys/kernel/random/boot_id"


class OneHost(Nemesis):
    """`target`: fork-1, fork-2."""

    def aim(self, rig: Rig, rng: Random) -> None:
        self.target = self.target or rng.choice([f"fork-{number}" for number in sorted(rig.places["hosts"])])
        super().aim(rig, rng)

    @property
    def number(self) -> int:
        return int(self.target.rpartition("-")[2])

    def sshd(self, rig: Rig) -> Daemon:
        found = rig.native.daemons.get(f"sshd-{self.number}")
        if found is None:
            raise Undecided(f"{self.target} is none of our own processes")
        return found

    def ssh_host(self, rig: Rig) -> SshHost:
        return rig.native.ssh_host(self.number)


def processes_below(directory: Path) -> list[int]:
    """Everything whose working directory lies below: jobs and their wrappers, whoever is their parent by now."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if str((entry / "cwd").readlink()).startswith(f"{directory}/"):
                    found.append(int(entry.name))
    return found


def stopped(found: Callable[[], set[int]]) -> set[int]:
    """All of them stand still, and those that were just being made: as when the power fails, none sees another end and tells of it."""
    seen: set[int] = set()
    while fresh := found() - seen:
        signalled(fresh, signal.SIGSTOP)
        seen |= fresh
    return seen


def signalled(pids: set[int], number: int) -> None:
    for each in pids:
        with suppress(ProcessLookupError):
            os.kill(each, number)


class HostDies(OneHost):
    """N25. Variants: it comes back as the same boot, or as a new one (a file bound over boot_id in its own mount namespace)."""

    name, title, weight = "N25", "compute host dies mid-job", 2
    variants = ("same boot", "new boot")

    def strike(self, rig: Rig, rng: Random) -> Proof:
        daemon, scratch, book = self.sshd(rig), rig.host_directory(self.number) / "scratch", rig.host_directory(self.number) / "ledger"
        if self.variant == "new boot":
            self._namespace(daemon)
        proven(lambda: running(book) and processes_below(scratch), MET_SECONDS, f"no job ran on {self.target}")
        struck, pid = time.monotonic(), daemon.pid
        rig.hosts_died.add(self.number)
        victims = stopped(lambda: {*([pid, *children_of(pid)] if pid else []), *processes_below(scratch)})
        daemon.kill()
        signalled(victims, signal.SIGKILL)
        try:
            proven(lambda: not processes_below(scratch) and all(state_of(each) in {"", "Z"} for each in victims), 10.0, "processes of the host live on")
            left = running(book)
            if not left:
                raise Undecided("every job had ended before the host died")
        except Undecided:
            self.heal(rig)
            raise
        return Proof(struck, {"processes_gone": len(victims), "started_and_not_ended": sorted(left), "boot": self.variant})

    def _namespace(self, daemon: Daemon) -> None:
        """From its next start on the host has a mount namespace and a boot id of its own."""
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            raise Undecided("a mount namespace of its own needs root and `unshare`")
        boot = str(uuid.uuid4())
        made = daemon.directory / f"boot_id.{boot}"  # A file of its own each time: what still runs in the boot before must not see its id change.
        made.write_text(f"{boot}\n")
        script = f'mount --bind {made} {BOOT_ID} && exec "$@"'
        tried = subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", "cat", BOOT_ID], capture_output=True, text=True, check=False, timeout=20)
        if tried.stdout.strip() != made.read_text().strip():
            raise Undecided(f"boot_id cannot be bound over: {tried.stderr.strip()[:200]}")
        words = list(daemon.argv)
        daemon.argv = ["unshare", "-m", "sh", "-c", script, "sh", *words[words.index("/usr/sbin/sshd") :]]

    def heal(self, rig: Rig) -> None:
        daemon = self.sshd(rig)
        daemon.start()
        daemon.wait()


def running(book: Path) -> set[str]:
    """Tokens that the ledger saw start and not end."""
    if not book.exists():
        return set()
    found: dict[str, set[str]] = {"start": set(), "end": set()}
    for kind, token in re.findall(r'"kind":"(start|end)","token":"([^"]+)"', book.read_text()):
        found[kind].add(token)
    return found["start"] - found["end"]


class SshdRefuses(OneHost):
    """N26. Variants: stopped, frozen, max_startups, max_sessions, a new host key, the key withdrawn. Its log, or the refusal itself, is the proof."""

    name, title, weight = "N26", "sshd refuses or stalls", 3
    variants = ("stopped", "frozen", "max_startups", "max_sessions", "host_key", "key")
    says = {"max_startups": ("MaxStartups", "drop connection"), "max_sessions": ("no more sessions", "open failed"), "key": ("[preauth]", "Failed publickey"), "host_key": ("[preauth]", "Connection closed")}

    def strike(self, rig: Rig, rng: Random) -> Proof:
        daemon = self.sshd(rig)
        self.configuration = daemon.directory / "sshd_config"
        self.kept, self.log = self.configuration.read_text(), Tail(daemon.log)
        struck = time.monotonic()
        evidence = getattr(self, f"_{self.variant}", self._configured)(rig, daemon)
        return Proof(struck, {"host": self.target, "variant": self.variant, **evidence})

    def _stopped(self, rig: Rig, daemon: Daemon) -> dict[str, object]:
        child = daemon.child
        daemon.kill()
        return {"wait_status": child.returncode if child else None, "listens": daemon.answers()}

    def _frozen(self, rig: Rig, daemon: Daemon) -> dict[str, object]:
        pid = daemon.pid or 0
        daemon.signal(signal.SIGSTOP, group=True)
        proven(lambda: state_of(pid) == "T", 5.0, "sshd is not stopped")
        return {"state": "T"}

    def _configured(self, rig: Rig, daemon: Daemon) -> dict[str, object]:
        changed = {
            "max_startups": re.sub("MaxStartups .*", "MaxStartups 1:100:1", self.kept), "max_sessions": re.sub("MaxSessions .*", "MaxSessions 1", self.kept),
            "host_key": self.kept.replace(f"HostKey {daemon.directory}/host_key", f"HostKey {self._new_key(daemon)}"), "key": self.kept,
        }[self.variant]  # fmt: skip
        self.configuration.write_text(changed)
        self.authorized = self.ssh_host(rig).authorized_keys.read_text()
        if self.variant == "key":
            self.ssh_host(rig).authorized_keys.write_text("")
        self._anew(rig, daemon)
        try:
            proven(lambda: self.log.count(*self.says[self.variant]), MET_SECONDS, f"sshd's log tells of no {self.variant}")
        except Undecided:
            self.heal(rig)
            raise
        return {"log_lines": self.log.count(*self.says[self.variant])}

    def _new_key(self, daemon: Daemon) -> Path:
        made = daemon.directory / "new_host_key"
        if self.variant == "host_key" and not made.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "compute-host", "-f", str(made)], check=True)
        return made

    def _anew(self, rig: Rig, daemon: Daemon) -> None:
        """With its sessions gone, so that everybody has to come again; jobs, which are sessions of their own, go on."""
        for each in children_of(daemon.pid or 0) if daemon.pid else ():
            if b"sshd" in _command(each):
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
        daemon.kill()
        daemon.start()
        daemon.wait()

    def heal(self, rig: Rig) -> None:
        daemon = self.sshd(rig)
        self.after["blocked_tasks"] = patiently(lambda: rig.one("SELECT COUNT(*) FROM tasks WHERE state = 'BLOCKED'"))
        if self.variant == "frozen":
            daemon.signal(signal.SIGCONT, group=True)
            return
        if self.variant == "stopped":
            daemon.start()
            daemon.wait()
            return
        self.configuration.write_text(self.kept)
        self.ssh_host(rig).authorized_keys.write_text(self.authorized)
        self._anew(rig, daemon)
        if self.variant in {"key", "host_key"}:
            self._operator(rig)

    def _operator(self, rig: Rig) -> None:
        """The host's owner says that the key is right again: a suspended host is left by giving it keys that differ, then the right one."""
        host, key = rig.places["hosts"][self.number], self.ssh_host(rig).host_key
        stranger = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
        for keys in ([key, stranger], [key]):
            rig.gateway.patch(f"/compute-resources/{host}", {"host_keys": keys})


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""

