"""What Debian has: packages for this machine, or one of another suite unpacked beside it; from the mirror that this machine installs from."""

import os
import shutil
import subprocess
from pathlib import Path

from app.dev.servers import Unavailable

SECONDS = 600


def mirror() -> str | None:
    """The one this machine installs from."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    lines = [line for each in files if each.exists() for line in each.read_text().splitlines() if line.startswith(("deb ", "URIs:"))]
    return next((word for line in lines for word in line.split() if "://" in word), None)


def install(*packages: str) -> None:
    """Into this machine. Raises Unavailable, where that is not ours to do."""
    if os.geteuid() or not shutil.which("apt-get"):
        raise Unavailable(f"missing here; as root: apt-get install {' '.join(packages)}")
    print(f"installing {' '.join(packages)}", flush=True)
    for words in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *packages]):
        subprocess.run(["apt-get", *words], check=True, stdout=subprocess.DEVNULL, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def unpack(package: str, suite: str, into: Path) -> None:
    """A package of that suite into a directory, without what it depends on; the machine's own lists stay as they are. Raises Unavailable."""
    if not (found := mirror()):
        raise Unavailable(f"{package} is taken from Debian ({suite}), and this machine has no mirror")
    apt, new = into.with_name(f"{into.name}.apt"), into.with_name(f"{into.name}.new")
    for each in (apt, new):
        shutil.rmtree(each, ignore_errors=True)
    for each in ("lists/partial", "cache/archives/partial"):
        (apt / each).mkdir(parents=True)
    (apt / "sources.list").write_text(f"deb {found} {suite} main\n")
    (apt / "status").touch()
    told = {
        "Dir::Etc::sourcelist": apt / "sources.list", "Dir::Etc::sourceparts": "/dev/null", "Dir::State::Lists": apt / "lists", "Dir::Cache": apt / "cache",
        "Dir::State::status": apt / "status", "APT::Sandbox::User": "root", "Debug::NoLocking": "true",
    }  # fmt: skip
    words = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in told.items())]
    for more in (["update"], ["download", package]):
        done = subprocess.run([*words, *more], cwd=apt, check=False, capture_output=True, text=True, timeout=SECONDS)
        if done.returncode:
            raise Unavailable(f"{package} of Debian {suite} cannot be had: {done.stderr[-1000:]}")
    subprocess.run(["dpkg", "-x", *apt.glob("*.deb"), new], check=True)
    shutil.rmtree(apt)
    new.rename(into)
