"""A container engine for the image lane: the one that answers, else a private dockerd (Debian's package) under `.dev/docker`; and a base image without a registry.

Needs root for the private one. It owns its socket and data. The system's engine, if there is one, and this machine's packet filter are not touched: builds are on the network of the
host, and a network of containers is a bridge that leads nowhere else; what is published is handed on by a process. What a run makes bears its label, and goes with it.
"""

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import IO

from app.dev.process import Daemon, NotStarted, start_time
from app.dev.servers import ROOT, Unavailable
from tests.deployment import debian

BASE = ROOT / ".dev" / "docker"
IMPORTED = "airavata-workflow/python:local"
SUITE = "trixie"  # Python 3.13, as in the Dockerfile's own base.
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
PACKAGES = ("docker.io", "iptables", "debootstrap")
PULL_SECONDS, STARTED_SECONDS, SECONDS_MAX, FILES_MAX = 60, 60, 3600, 65_536
RUN = "airavata-workflow.run"  # The label: process and start of the run that made it.
KINDS = {"container": ("{{.ID}}", ["ls", "--all"], ["rm", "--force", "--volumes"]), "network": ("{{.ID}}", ["ls"], ["rm"]), "volume": ("{{.Name}}", ["ls"], ["rm"])}


class Engine:
    """`docker`, told where its daemon listens. Raises subprocess.CalledProcessError with the output on the terminal."""

    def __init__(self, host: str | None = None) -> None:
        self.environment = {**os.environ, **({"DOCKER_HOST": host} if host else {}), "DOCKER_BUILDKIT": os.environ.get("DOCKER_BUILDKIT", "0")}

    def run(self, *words: str, seconds: float = SECONDS_MAX, stdin: IO[bytes] | int = subprocess.DEVNULL) -> str:
        """What it printed; where it fails, what it said goes to the terminal."""
        done = self._run(words, seconds, stdin)
        if done.returncode:
            print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
            done.check_returncode()
        return done.stdout.strip()

    def fed(self, source: Sequence[str], *words: str) -> str:
        """As `run`, reading what the command `source` prints."""
        with subprocess.Popen(source, stdout=subprocess.PIPE) as feeding:
            said = self.run(*words, stdin=feeding.stdout)
        if feeding.returncode:
            raise subprocess.CalledProcessError(feeding.returncode, source)
        return said

    def both(self, *words: str) -> str:
        """Standard output and error of what is expected to succeed, together."""
        done = self._run(words, SECONDS_MAX)
        return (done.stdout + done.stderr).strip()

    def can(self, *words: str, seconds: float = 10) -> bool:
        """Whether it does that, without a word."""
        try:
            return self._run(words, seconds).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False

    def _run(self, words: Sequence[str], seconds: float, stdin: IO[bytes] | int = subprocess.DEVNULL) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["docker", *words], check=False, text=True, stdin=stdin, capture_output=True, env=self.environment, timeout=seconds)

    def answers(self) -> bool:
        return self.can("version", "--format", "{{.Server.Version}}")

    def end(self, run: str | None = None) -> None:
        """Removes what a run made; without its name, what runs made that are no more."""
        for kind, (name, listed, removed) in KINDS.items():
            for line in self.run(kind, *listed, "--filter", f"label={RUN}", "--format", f'{{{{.Label "{RUN}"}}}} {name}').splitlines():
                made_by, _, found = line.partition(" ")
                if made_by == run if run else not _lives(made_by):
                    self.run(kind, *removed, found)


def this_run() -> str:
    """What the label of this run's things says."""
    return f"{os.getpid()}-{start_time(os.getpid())}"


def _lives(run: str) -> bool:
    pid, _, began = run.partition("-")
    return start_time(int(pid)) == began


class Dockerd(Daemon):
    """Leaves nothing mounted: what lies below can be removed."""

    def stop(self) -> bool:
        clean = super().stop()
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for each in reversed([each for each in mounted if Path(each).is_relative_to(self.directory)]):
            subprocess.run(["umount", "--lazy", each], check=True)
        return clean


def private() -> Daemon:
    """A dockerd as one of our daemons. Containers have this machine's hard limit of files: with its own, which may be above, an engine starts nothing; a broker needs one for each partition."""
    BASE.mkdir(parents=True, exist_ok=True)
    configuration, files = BASE / "daemon.json", min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], FILES_MAX)
    told = {
        "data-root": str(BASE / "data"), "exec-root": str(BASE / "exec"), "pidfile": str(BASE / "engine_pid"), "hosts": [f"unix://{BASE}/docker.sock"],
        "bridge": "none", "iptables": False, "ip6tables": False, "ip-forward": False, "ip-masq": False,
        "exec-opts": ["native.cgroupdriver=cgroupfs"], "default-ulimits": {"nofile": {"Name": "nofile", "Soft": files, "Hard": files}},
    }  # fmt: skip
    configuration.write_text(json.dumps(told))
    engine = Engine(f"unix://{BASE}/docker.sock")
    return Dockerd("dockerd", BASE, ["dockerd", "--config-file", str(configuration)], answers=engine.answers, stale=(BASE / "engine_pid",))


def find() -> tuple[Engine, Daemon | None]:
    """An engine that answers, and the daemon that the caller must stop, if this call started one. Raises Unavailable, NotStarted."""
    given = Engine()
    if shutil.which("docker") and given.answers():
        return given, None
    for program, packages in (("dockerd", PACKAGES), ("docker", ["docker-cli"])):  # Which the first brings along, or not: Debian has split them.
        if not shutil.which(program):
            debian.install(*packages)
    daemon = private()
    ours = daemon.pid is None
    daemon.start()
    try:
        daemon.wait()
    except NotStarted:
        daemon.stop()
        raise
    return Engine(f"unix://{BASE}/docker.sock"), daemon if ours else None


def had(engine: Engine, image: str) -> bool:
    """Whether it is there, now at least."""
    return engine.can("image", "inspect", image) or engine.can("pull", "-q", image, seconds=PULL_SECONDS)


@cache
def base_image(engine: Engine, wanted: str) -> str:
    """`wanted` where it is there or can be pulled; else one made of Debian's packages, imported under a name of ours. Raises Unavailable where no container of it starts."""
    base = _had_or_made(engine, wanted)
    if not engine.can("run", "--rm", "--network", "none", base, "true", seconds=STARTED_SECONDS):
        raise Unavailable(f"an engine answers, and starts no container here: `docker run --network none {base} true` says why")
    return base


def _had_or_made(engine: Engine, wanted: str) -> str:
    if had(engine, wanted):
        return wanted
    print(f"{wanted} cannot be pulled: the base is made of Debian's packages ({SUITE}) and imported as {IMPORTED}", flush=True)
    if not engine.can("image", "inspect", IMPORTED):
        engine.fed(["tar", "-C", str(_debian(BASE / "root")), "-c", "."], "import", "-", IMPORTED)
    return IMPORTED


def _debian(root: Path) -> Path:
    """Debian, Python and what makes virtual environments; trusting whom this machine trusts, since the build asks its package index."""
    if not shutil.which("debootstrap"):
        debian.install(*PACKAGES)
    if not (root / "usr/bin/python3").exists():
        shutil.rmtree(root, ignore_errors=True)
        mirror = debian.mirror()
        subprocess.run(
            ["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", SUITE, str(root), *([mirror] if mirror else [])],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for each in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(root / each, ignore_errors=True)
        shutil.copyfile(f"/{CERTIFICATES}", root / CERTIFICATES)
    return root


def targets(dockerfile: str) -> Sequence[str]:
    """The microservices: stages made from `base`."""
    return [line.split()[-1] for line in dockerfile.splitlines() if line.startswith("FROM base AS ")]
