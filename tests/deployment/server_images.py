"""Images of the servers in compose.yaml: the one it names where that is there or can be pulled, else a stand-in with its face, of what `make bootstrap` has and Debian's packages.

A stand-in bears a name of ours: nobody takes it for the real one. The compute host is ours anyway, by the recipe in compose.yaml.
"""

from pathlib import Path

from app.dev.servers import ROOT, Unavailable
from tests.deployment import compose, engine, images
from tests.deployment.engine import Engine

RECIPES, LIBRARY = Path(__file__).parent / "stand_ins", ROOT / ".dev" / "lib"
COMPUTE_HOST = "compute-host"
PARTS = {"mysql": ["mysql/usr/sbin/mysqld", "mysql/usr/bin/mysql", "mysql/usr/lib", "mysql/usr/lib64", "mysql/usr/share/mysql"], "kafka": ["kafka"]}  # Of the library.


def image(docker: Engine, service: str) -> str:
    """Of a service of compose.yaml; built if need be, which a second time is quick. Raises Unavailable."""
    described = compose.file()["services"][service]
    if service == COMPUTE_HOST:
        _, _, recipe = described["build"]["dockerfile_inline"].partition("\n")
        return _built(docker, described["image"], ["printf", "%s", f"ARG BASE\nFROM $BASE\n{recipe}"])
    if engine.had(docker, described["image"]):
        return str(described["image"])
    if missing := [each for each in PARTS[service] if not (LIBRARY / each).exists()]:
        raise Unavailable(f"{described['image']} cannot be pulled, and for its stand-in there is no {missing[0]}: run `make bootstrap`")
    print(f"{described['image']} cannot be pulled: a stand-in is made of {', '.join(PARTS[service])}", flush=True)
    return _built(docker, f"{images.NAMES}/stand-in-{service}:local", ["tar", "-C", str(RECIPES / service), "-c", ".", "-C", str(LIBRARY), *PARTS[service]])


def _built(docker: Engine, name: str, context: list[str]) -> str:
    base = engine.base_image(docker, images.python_image((ROOT / "Dockerfile").read_text()))
    docker.fed(context, "build", "--network", "host", "--build-arg", f"BASE={base}", "-t", name, "-")
    return name
