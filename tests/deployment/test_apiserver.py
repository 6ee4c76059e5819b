"""What a real API server would admit: every object of every overlay, and every pod, in a dry run. It alone knows what no schema says: numbers that cannot be, a selector without its labels,
a pod that its namespace forbids.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.deployment import apiserver
from tests.deployment.apiserver import BUILT, Cluster
from tests.deployment.kustomize import OVERLAYS, objects
from tests.deployment.manifests import Object, of, pods

pytestmark = pytest.mark.skipif(not BUILT.exists(), reason=apiserver.told())
SCALED_OBJECT = {  # What KEDA's own fields may say, keda.json judges.
    "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "scaledobjects.keda.sh"},
    "spec": {
        "group": "keda.sh", "scope": "Namespaced", "names": {"plural": "scaledobjects", "singular": "scaledobject", "kind": "ScaledObject", "listKind": "ScaledObjectList"},
        "versions": [{"name": "v1alpha1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}],
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """With the namespace and KEDA's kind, which other objects need."""
    with apiserver.cluster(tmp_path_factory.mktemp("apiserver")) as made:
        for each in (*of(objects("production"), "Namespace").values(), SCALED_OBJECT):
            assert made.applied(each, dry=False).refused == ""
        for _ in range(1000):
            if not made.applied(of(objects("production-keda"), "ScaledObject")["scheduler"]).refused:  # Served a moment after it is there.
                break
        yield made


def faults(cluster: Cluster, them: list[Object]) -> list[str]:
    """What is refused or warned of: the objects, and the pods that controllers would make of them."""
    verdicts = {f"{each['kind']} {each['metadata']['name']}": cluster.applied(each) for each in them}
    for who, pod in pods(them).items():
        verdicts[f"Pod of {who}"] = cluster.created({"apiVersion": "v1", "kind": "Pod", "metadata": {**pod["metadata"], "name": who, "namespace": "airavata"}, "spec": pod["spec"]})
    return [f"{name}: {verdict.refused or verdict.warnings}" for name, verdict in verdicts.items() if verdict.refused or verdict.warnings]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_cluster_admits_an_overlay_whole_and_without_a_warning(cluster: Cluster, overlay: str) -> None:
    assert faults(cluster, objects(overlay)) == []


def _scheduler(them: list[Object]) -> Any:
    return of(them, "Deployment")["scheduler"]["spec"]


def _main(them: list[Object]) -> Any:
    return _scheduler(them)["template"]["spec"]["containers"][0]


BROKEN: dict[str, tuple[Callable[[list[Object]], Any], str]] = {
    "an unknown field": (lambda them: _main(them).update(readinesProbe={}), "readinesProbe"),
    "a selector without its labels": (lambda them: _scheduler(them)["selector"]["matchLabels"].update(app="other"), "selector"),
    "fewer than no copies": (lambda them: _scheduler(them).update(replicas=-1), "must be greater than or equal to 0"),
    "a limit below the request": (lambda them: _main(them)["resources"].update(limits={"memory": "1Mi"}), "must be less than or equal to memory limit"),
    "a volume that is not there": (lambda them: _main(them)["volumeMounts"].append({"name": "none", "mountPath": "/none"}), "Not found"),
    "neither surge nor leave": (lambda them: _scheduler(them)["strategy"].update(rollingUpdate={"maxSurge": 0, "maxUnavailable": 0}), "may not be 0"),
    "a budget of both kinds": (lambda them: of(them, "PodDisruptionBudget")["scheduler"]["spec"].update(minAvailable=1), "cannot be both set"),
    "a pod that may be root": (lambda them: _scheduler(them)["template"]["spec"]["securityContext"].update(runAsNonRoot=False), "violates PodSecurity"),
    "a kind that nobody knows": (lambda them: them[0].update(kind="Namspace"), "no kind"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_a_cluster_would_refuse_is_refused(cluster: Cluster, name: str) -> None:
    broken = objects("production")
    break_it, says = BROKEN[name]
    break_it(broken)
    assert [each for each in faults(cluster, broken) if says in each]
