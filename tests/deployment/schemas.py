"""Kubernetes' own schemas, strict, of several versions. They are 17,000 files that only this layer reads, so no virtual environment carries them: they are had once,
by their locked hashes, into `.dev/lib`.
"""

import hashlib
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from tests.deployment.kustomize import ROOT, NotHad

LOCK = ROOT / "requirements.deployment.lock"


@cache
def validator() -> ModuleType:
    """The module kubernetes_validate. Raises NotHad."""
    there = ROOT / ".dev" / "lib" / "kubernetes-validate" / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    if not there.exists():
        _have(there)
    sys.path.append(str(there))  # Behind ours: what we have of its dependencies, it uses.
    import kubernetes_validate

    return kubernetes_validate


def _have(there: Path) -> None:
    new = there.with_name(f"{there.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    words = ["pip", "install", "-q", "--python", sys.executable, "--target", str(new), "--require-hashes", "-r", str(LOCK)]
    done = subprocess.run([str(Path(sys.executable).with_name("uv")), *words], check=False, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise NotHad(f"no manifest was held against Kubernetes' schemas: they cannot be had: {done.stderr[-1000:]}")
    new.rename(there)
