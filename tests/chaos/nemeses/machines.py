"""Faults of the machine: too little processor, memory or descriptors; a full disk. Control groups and mounts need root; where they are missing the fault is Undecided."""

import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.dev.process import wait_until
from tests.chaos.nemeses.databases import ApiMustRefuse, the_daemon
from tests.chaos.nemeses.nemesis import Nemesis, Proof, Random, Tail, Undecided, daemon_name, proven, split
from tests.chaos.rig import Rig
from tests.support.system import COMPONENTS, state_of

CGROUPS = Path("/sys/fs/cgroup")
MEMORY_BYTES = 24 << 20
MET_SECONDS = 60.0


class Group:
    """A control group for one process; version 1 or 2, whichever the machine has. `controller`: cpu or memory."""

    def __init__(self, controller: str, pid: int) -> None:
        self.unified = (CGROUPS / "cgroup.controllers").exists()
        self.pid, self.controller = pid, controller
        parent = CGROUPS if self.unified else CGROUPS / controller
        self.path, self.home = parent / f"airavata-nemesis-{pid}", parent / self._now()
        try:
            if self.unified:
                (CGROUPS / "cgroup.subtree_control").write_text(f"+{controller}")
            self.path.mkdir(exist_ok=True)
        except OSError as fault:
            raise Undecided(f"no control group can be made: {fault}") from fault

    def _now(self) -> str:
        for line in Path(f"/proc/{self.pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if (self.unified and not controllers) or self.controller in controllers.split(","):
                return path.lstrip("/")
        return ""

    def set(self, name: str, unified_name: str, value: str) -> None:
        try:
            (self.path / (unified_name if self.unified else name)).write_text(value)
        except OSError as fault:
            raise Undecided(f"{name} cannot be set: {fault}") from fault

    def enter(self) -> None:
        (self.path / "cgroup.procs").write_text(str(self.pid))

    def stat(self, file: str, key: str) -> int:
        with suppress(OSError):
            return int(dict(line.split() for line in (self.path / file).read_text().splitlines()).get(key, 0))
        return 0

    def leave(self) -> None:
        """Back where it came from, and the group is gone."""
        with suppress(OSError):
            for pid in (self.path / "cgroup.procs").read_text().split():
                (self.home / "cgroup.procs").write_text(pid)
        wait_until(self._removed, 10.0)

    def _removed(self) -> bool:
        with suppress(OSError):
            self.path.rmdir()
        return not self.path.exists()


class Starved(Nemesis):
    """N24. Variants: cpu (5 %), stutter (stopped every other 0.1 s), memory (a limit it cannot live with), descriptors (not one more than it has)."""

    name, title, weight = "N24", "starved", 3
    components, variants = COMPONENTS, ("cpu", "stutter", "memory", "descriptors")

    def strike(self, rig: Rig, rng: Random) -> Proof:
        self.pid = rig.pid_of(*split(self.target))
        self.stop = threading.Event()
        proof: Proof = getattr(self, f"_{self.variant}")(rig)
        return proof

    def _cpu(self, rig: Rig) -> Proof:
        self.group = Group("cpu", self.pid)
        struck = time.monotonic()
        try:
            self.group.set("cpu.cfs_quota_us", "cpu.max", "5000 100000" if self.group.unified else "5000")
            self.group.enter()
            proven(lambda: self.group.stat("cpu.stat", "nr_throttled") > 0, MET_SECONDS, "it was never throttled")
        except Undecided:
            self.group.leave()
            raise
        return Proof(struck, {"throttled": self.group.stat("cpu.stat", "nr_throttled"), "share": 0.05})

    def _stutter(self, rig: Rig) -> Proof:
        self.stops, struck = 0, time.monotonic()
        self.thread = threading.Thread(target=self._stuttering, name="stutter", daemon=True)
        self.thread.start()
        proven(lambda: self.stops >= 10, 30.0, "it was not seen stopped ten times")
        return Proof(struck, {"seen_stopped": self.stops})

    def _stuttering(self) -> None:
        with suppress(ProcessLookupError):
            while not self.stop.is_set():
                os.kill(self.pid, signal.SIGSTOP)
                self.stop.wait(0.1)
                self.stops += state_of(self.pid) == "T"
                os.kill(self.pid, signal.SIGCONT)
                self.stop.wait(0.1)

    def _memory(self, rig: Rig) -> Proof:
        """Killed, and its next life begins under a limit it cannot start in: what a process has is not moved into a group with it."""
        name = daemon_name(self.target)
        rig.strike(name)
        rig.revive(*split(self.target), wait=False)
        self.group = Group("memory", rig.pid_of(*split(self.target)))
        struck = time.monotonic()
        try:
            self.group.set("memory.limit_in_bytes", "memory.max", str(MEMORY_BYTES))
            self.group.enter()
            proven(lambda: not rig.alive(rig.daemons[name]), MET_SECONDS, f"{self.target} lives in {MEMORY_BYTES >> 20} MiB")
            killed = self.group.stat("memory.events" if self.group.unified else "memory.oom_control", "oom_kill")
            code = rig.await_end(name)
        except Undecided:
            rig.down.discard(name)
            raise
        finally:
            self.group.leave()
        if code != -signal.SIGKILL:
            rig.restart(name)
            raise Undecided(f"it ended with {code}, not by the kernel's hand")
        return Proof(struck, {"status": 128 + signal.SIGKILL, "oom_kill": killed})

    def _descriptors(self, rig: Rig) -> Proof:
        """As many as it has open; its connections are reset, so that it wants new ones while others hold theirs."""
        self.kept = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        has = len(list(Path(f"/proc/{self.pid}/fd").iterdir()))
        log, struck = Tail(rig.daemons[daemon_name(self.target)].log), time.monotonic()
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (max(8, has // 2), self.kept[1]))
        for each in rig.links.proxy.of(f"{daemon_name(self.target)}>"):
            each.reset()
        try:
            proven(lambda: log.count("Too many open files", "EMFILE", "Errno 24"), MET_SECONDS, f"{self.target} never ran out of descriptors")
        except Undecided:
            self._give_back()
            raise
        return Proof(struck, {"descriptors": max(8, has // 2), "had": has, "EMFILE": log.count("Too many open files", "EMFILE", "Errno 24")})

    def _give_back(self) -> None:
        with suppress(ProcessLookupError):
            resource.prlimit(self.pid, resource.RLIMIT_NOFILE, self.kept)

    def heal(self, rig: Rig) -> None:
        self.stop.set()
        if self.variant == "cpu":
            self.after["throttled"] = self.group.stat("cpu.stat", "nr_throttled")
            self.group.leave()
        elif self.variant == "stutter":
            self.thread.join(10.0)
            self.after["seen_stopped"] = self.stops
        elif self.variant == "memory":
            rig.restart(daemon_name(self.target))
        else:
            self._give_back()


@contextmanager
def disk_of_its_own(directory: Path, megabytes: int) -> Iterator[Path]:
    """A small ext4 on a loop device, mounted at `directory`. Raises Undecided where it cannot be had."""
    if os.geteuid() != 0:
        raise Undecided("a loop device needs root")
    directory.mkdir(parents=True)
    image = directory.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    for argv in (["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], ["mount", "-o", "loop", str(image), str(directory)]):
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise Undecided(f"{argv[0]}: {done.stderr.strip()[:200]}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True, timeout=60)
        image.unlink()


class DiskFull(ApiMustRefuse):
    """N21. A balloon file takes all the room of the database's disk. Only where that disk is one of its own (`disk_of_its_own`)."""

    name, title, weight = "N21", "disk full", 0  # Not drawn: the database must have been put on such a disk before.

    def strike(self, rig: Rig, rng: Random) -> Proof:
        daemon = the_daemon(rig)
        data = daemon.directory
        if data.stat().st_dev == rig.run.stat().st_dev:
            raise Undecided("the database has no disk of its own")
        self.remember(rig)
        self.balloon, self.log = data / "balloon", Tail(daemon.log)
        struck = time.monotonic()
        self._inflate()
        try:
            proven(lambda: self._inflate() or self.log.count("Disk is full", "disk is full", "No space left", "error 28", "errno: 28"), MET_SECONDS, "the database met no full disk")
        except Undecided:
            self.balloon.unlink(missing_ok=True)
            raise
        self.look(rig)
        return Proof(struck, {"ENOSPC_lines": self.log.count("full", "No space left", "28"), "balloon_bytes": self.balloon.stat().st_size})

    def _inflate(self) -> None:
        with self.balloon.open("ab") as file, suppress(OSError):
            while True:
                file.write(b"\0" * (1 << 20))
                file.flush()

    def heal(self, rig: Rig) -> None:
        self.balloon.unlink(missing_ok=True)
        daemon = the_daemon(rig)
        if daemon.pid is None:
            self.after["database_had_ended"] = True
            daemon.start()
        daemon.wait()
        self.nothing_set_aside(rig)
