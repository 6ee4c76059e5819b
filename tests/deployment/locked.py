"""What this layer alone needs, by its locked hashes: Kubernetes' schemas (17,000 files) and a Go toolchain. No virtual environment carries them: they are had once, into `.dev/lib`."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.deployment.lock"
INSTALL_SECONDS, BUILD_SECONDS = 600, 7200


class NotHad(RuntimeError):
    """There is no way to it; the text says what failed."""


@cache
def packages() -> Path:
    """The directory they lie in. Raises NotHad."""
    there = ROOT / ".dev" / "lib" / "deployment" / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    if not there.exists():
        new = there.with_name(f"{there.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        words = ["pip", "install", "-q", "--python", sys.executable, "--target", str(new), "--require-hashes", "-r", str(LOCK)]
        done = subprocess.run([str(Path(sys.executable).with_name("uv")), *words], check=False, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        if done.returncode:
            raise NotHad(f"what the deployment layer needs cannot be had: {done.stderr[-1000:]}")
        new.rename(there)
    return there


def built(module: str, version: str, into: Path) -> None:
    """A program from its Go module. Raises NotHad."""
    print(f"building {module} {version}", file=sys.stderr, flush=True)
    go("install", f"{module}@{version}", GOBIN=str(into))


def go(*words: str, cwd: Path = ROOT, **more: str) -> str:
    """One command of the locked toolchain, and what it prints; checksums are those of the public database. Raises NotHad."""
    environment: Mapping[str, str] = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-trimpath -buildvcs=false", "GOTOOLCHAIN": "local", **more}
    done = subprocess.run([str(packages() / "go" / "bin" / "go"), *words], cwd=cwd, env=environment, check=False, capture_output=True, text=True, timeout=BUILD_SECONDS)
    if done.returncode:
        raise NotHad(f"`go {' '.join(words)}` failed:\n{done.stderr[-2000:]}")
    return done.stdout
