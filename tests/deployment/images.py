"""`make images`: every target of the Dockerfile, tagged `airavata-workflow/<target>:<version>` and `:local`; wheel, SBOM and licence list in `.dev/reports/images`.

An engine is found or started, a base image pulled or made (engine.py); it says which. `docker build` alone does the same where a registry answers.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator

from app import VERSION
from app.dev.process import NotStarted
from app.dev.servers import ROOT, Unavailable
from tests.deployment import engine
from tests.deployment.engine import Engine

REPORTS = ROOT / ".dev" / "reports" / "images"
NAMES = "airavata-workflow"


def python_image(dockerfile: str) -> str:
    """The base that the Dockerfile names."""
    return next(line.partition("=")[2] for line in dockerfile.splitlines() if line.startswith("ARG PYTHON_IMAGE="))


def build(docker: Engine) -> Iterator[str]:
    """A line for each image: its name and size."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    base = engine.base_image(docker, python_image(dockerfile))
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    told = ["--network", "host", "--build-arg", f"PYTHON_IMAGE={base}", "--build-arg", f"VERSION={VERSION}", "--build-arg", f"REVISION={revision}"]
    docker.run("build", *told, "--target", "outputs", "-t", f"{NAMES}/outputs:local", str(ROOT))
    _take_out(docker)
    for target in engine.targets(dockerfile):
        docker.run("build", *told, "--target", target, "-t", f"{NAMES}/{target}:{VERSION}", "-t", f"{NAMES}/{target}:local", str(ROOT))
        size = int(docker.run("image", "inspect", "--format", "{{.Size}}", f"{NAMES}/{target}:local"))
        yield f"{NAMES}/{target}:{VERSION}  {size / 1e6:.0f} MB"


def _take_out(docker: Engine) -> None:
    """The build's files, out of an image that holds nothing else."""
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    container = docker.run("create", f"{NAMES}/outputs:local", "none")
    try:
        docker.run("cp", f"{container}:/out/.", str(REPORTS))
    finally:
        docker.run("rm", container)
    print("\n".join(str(each.relative_to(ROOT)) for each in sorted(REPORTS.iterdir())), flush=True)


def main() -> None:
    try:
        docker, started = engine.find()
    except (Unavailable, NotStarted) as fault:
        sys.exit(str(fault))
    try:
        for line in build(docker):
            print(line, flush=True)
    except Unavailable as fault:
        sys.exit(str(fault))
    finally:
        if started is not None:
            started.stop()


if __name__ == "__main__":
    main()
