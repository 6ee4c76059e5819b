"""Renders an overlay as a cluster would be given it. `python -m tests.deployment.kustomize [OVERLAY …]` writes `.dev/reports/manifests/<overlay>.yaml` (`make manifests`).

The program is the one that is there (`kustomize`, else the one inside `kubectl`); where there is none, a pinned version is built from its Go module into `.dev/lib`
(two to three minutes, once).
"""

import copy
import shutil
import subprocess
import sys
from functools import cache
from typing import Any

import yaml

from tests.deployment import locked
from tests.deployment.locked import ROOT

OVERLAYS = ("dev", "ci", "production", "production-keda")
VERSION = "v5.8.2"
BUILT = ROOT / ".dev" / "lib" / "kustomize" / VERSION
Object = dict[str, Any]


@cache
def program() -> tuple[str, ...]:
    """Raises NotHad."""
    for words in (("kustomize", "build"), ("kubectl", "kustomize")):
        if shutil.which(words[0]):
            return words
    built = BUILT / "kustomize"
    if not built.exists():
        locked.built("sigs.k8s.io/kustomize/kustomize/v5", VERSION, BUILT)
    return (str(built), "build")


def told() -> str:
    """A line for the end of a run."""
    return f"rendered by `{' '.join(program())}`"


@cache
def text(overlay: str) -> str:
    done = subprocess.run([*program(), str(ROOT / "k8s" / "overlays" / overlay)], check=False, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{overlay} does not render: {done.stderr}")
    return done.stdout


@cache
def _parsed(overlay: str) -> list[Object]:
    return [each for each in yaml.load_all(text(overlay), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if each]


def objects(overlay: str) -> list[Object]:
    """The caller's own copy, to break if it likes."""
    return copy.deepcopy(_parsed(overlay))


def main() -> None:
    out = ROOT / ".dev" / "reports" / "manifests"
    out.mkdir(parents=True, exist_ok=True)
    for overlay in sys.argv[1:] or OVERLAYS:
        (out / f"{overlay}.yaml").write_text(text(overlay))
        print(f"{out.relative_to(ROOT)}/{overlay}.yaml: {len(_parsed(overlay))} objects")


if __name__ == "__main__":
    try:
        main()
    except locked.NotHad as fault:
        sys.exit(str(fault))
