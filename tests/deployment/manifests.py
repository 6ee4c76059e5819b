"""Rendered objects, asked as a reader of them would ask: of which kind, whose pod, what it mounts, whom it may speak to."""

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]
NAME = "app.kubernetes.io/name"
PART = {"app.kubernetes.io/part-of": "airavata-workflow"}


def name(item: Object) -> str:
    return str(item["metadata"]["name"])


def of(objects: list[Object], kind: str) -> dict[str, Object]:
    """By name."""
    return {name(each): each for each in objects if each["kind"] == kind}


def pods(objects: list[Object]) -> dict[str, Object]:
    """Component → pod template, of our Deployments and Jobs."""
    return {who: each["spec"]["template"] for kind in ("Deployment", "Job") for who, each in of(objects, kind).items()}


def containers(pod: Object) -> list[Object]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def labels(pod: Object) -> dict[str, str]:
    return dict(pod["metadata"].get("labels", {}))


def selects(selector: Object, given: dict[str, str]) -> bool:
    """A label selector, as Kubernetes reads it; only what we use."""
    wanted = selector.get("matchLabels", {}).items() <= given.items()
    return wanted and all(each["operator"] == "In" and given.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", []))


def secret_files(pod: Object, *, optional: bool = False) -> Iterator[tuple[str, str, str]]:
    """(Secret, key, path) of every file that is mounted; or of those that may be missing."""
    mounts = {mount["name"]: mount["mountPath"] for each in containers(pod) for mount in each["volumeMounts"]}
    for volume in pod["spec"].get("volumes", []):
        for source in volume.get("projected", {}).get("sources", []):
            secret = source.get("secret", {})
            for item in secret.get("items", []) if secret.get("optional", False) == optional else []:
                yield secret["name"], item["key"], f"{mounts[volume['name']]}/{item['path']}"


def unhashed(given: str) -> str:
    """A generated name without its hash."""
    stem, _, end = given.rpartition("-")
    return stem if len(end) == 10 and end.isalnum() and not end.isalpha() else given


def environment(objects: list[Object], container: Object) -> dict[str, str]:
    """Every variable, as the kubelet would make it; what comes from a Secret as its reference."""
    maps, told = of(objects, "ConfigMap"), {}
    for source in container.get("envFrom", []):
        told.update(maps[source["configMapRef"]["name"]]["data"] if "configMapRef" in source else {"": str(source)})
    return told | {each["name"]: each.get("value", str(each.get("valueFrom"))) for each in container.get("env", [])}
