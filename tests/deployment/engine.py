"""A container engine for the image lane: the one that answers, else a private dockerd (Debian's package) under `.dev/docker`; and a base image without a registry.

Needs root for the private one. It owns its socket and data; neither the system's engine, if there is one, nor this machine's network is touched:
builds and containers are on the network of the host.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from app.dev.process import Daemon
from app.dev.servers import ROOT, Unavailable

BASE = ROOT / ".dev" / "docker"
IMPORTED = "airavata-workflow/python:local"
SUITE = "trixie"  # Python 3.13, as in the Dockerfile's own base.
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
PACKAGES = ("docker.io", "iptables", "debootstrap")
PULL_SECONDS, SECONDS_MAX = 60, 3600


class Engine:
    """`docker`, told where its daemon listens. Raises subprocess.CalledProcessError with the output on the terminal."""

    def __init__(self, host: str | None = None) -> None:
        self.environment = {**os.environ, **({"DOCKER_HOST": host} if host else {}), "DOCKER_BUILDKIT": os.environ.get("DOCKER_BUILDKIT", "0")}

    def run(self, *words: str, seconds: float = SECONDS_MAX) -> str:
        """What it printed; where it fails, what it said goes to the terminal."""
        done = self._run(words, seconds)
        if done.returncode:
            print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
            done.check_returncode()
        return done.stdout.strip()

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

    def _run(self, words: Sequence[str], seconds: float) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(["docker", *words], check=False, text=True, capture_output=True, env=self.environment, timeout=seconds)

    def answers(self) -> bool:
        return self.can("version", "--format", "{{.Server.Version}}")


def private() -> Daemon:
    """A dockerd as one of our daemons. Limits are ours: an engine may start nothing when its own are above the machine's hard ones."""
    BASE.mkdir(parents=True, exist_ok=True)
    configuration = BASE / "daemon.json"
    told = {
        "data-root": str(BASE / "data"), "exec-root": str(BASE / "exec"), "pidfile": str(BASE / "engine_pid"), "hosts": [f"unix://{BASE}/docker.sock"],
        "bridge": "none", "iptables": False, "ip6tables": False, "ip-forward": False, "ip-masq": False,
        "exec-opts": ["native.cgroupdriver=cgroupfs"], "default-ulimits": {"nofile": {"Name": "nofile", "Soft": 1024, "Hard": 1024}},
    }  # fmt: skip
    configuration.write_text(json.dumps(told))
    engine = Engine(f"unix://{BASE}/docker.sock")
    return Daemon("dockerd", BASE, ["dockerd", "--config-file", str(configuration)], answers=engine.answers, stale=(BASE / "engine_pid",))


def find() -> tuple[Engine, Daemon | None]:
    """An engine that answers, and the daemon that the caller must stop, if this call started one. Raises Unavailable, NotStarted."""
    given = Engine()
    if shutil.which("docker") and given.answers():
        return given, None
    if not shutil.which("dockerd"):
        _install()
    daemon = private()
    ours = daemon.pid is None
    daemon.start()
    daemon.wait()
    return Engine(f"unix://{BASE}/docker.sock"), daemon if ours else None


def _install() -> None:
    if os.geteuid() or not shutil.which("apt-get"):
        raise Unavailable(f"no container engine answers and there is none to start: as root, apt-get install {' '.join(PACKAGES)}")
    print(f"installing {' '.join(PACKAGES)}", flush=True)
    for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        subprocess.run(["apt-get", *words], check=True, stdout=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def base_image(engine: Engine, wanted: str) -> str:
    """`wanted` where it is there or can be pulled; else one made of Debian's packages, imported under a name of ours."""
    if engine.can("image", "inspect", wanted) or engine.can("pull", "-q", wanted, seconds=PULL_SECONDS):
        return wanted
    print(f"{wanted} cannot be pulled: the base is made of Debian's packages ({SUITE}) and imported as {IMPORTED}", flush=True)
    if not engine.can("image", "inspect", IMPORTED):
        _import(engine, _debian(BASE / "root"))
    return IMPORTED


def _debian(root: Path) -> Path:
    """Debian, Python and what makes virtual environments; trusting whom this machine trusts, since the build asks its package index."""
    if not shutil.which("debootstrap"):
        _install()
    if not (root / "usr/bin/python3").exists():
        shutil.rmtree(root, ignore_errors=True)
        mirror = _mirror()
        subprocess.run(
            ["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", SUITE, str(root), *([mirror] if mirror else [])],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        for each in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(root / each, ignore_errors=True)
        shutil.copyfile(f"/{CERTIFICATES}", root / CERTIFICATES)
    return root


def _mirror() -> str | None:
    """The one this machine installs from."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    words = [
        word
        for each in files
        if each.exists()
        for line in each.read_text().splitlines()
        if line.startswith(("deb ", "URIs:"))
        for word in line.split()
        if "://" in word
    ]
    return words[0] if words else None


def _import(engine: Engine, root: Path) -> None:
    with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as packed:
        subprocess.run(["docker", "import", "-", IMPORTED], stdin=packed.stdout, check=True, stdout=subprocess.DEVNULL, env=engine.environment)
    if packed.returncode:
        raise subprocess.CalledProcessError(packed.returncode, "tar")


def targets(dockerfile: str) -> Sequence[str]:
    """The microservices: stages made from `base`."""
    return [line.split()[-1] for line in dockerfile.splitlines() if line.startswith("FROM base AS ")]
