"""Every overlay renders, is what three versions of Kubernetes know, and keeps each policy of docs/operators.md §2; and each policy notices a manifest that breaks it."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.deployment import schemas
from tests.deployment.kustomize import OVERLAYS, objects
from tests.deployment.manifests import Object, of
from tests.deployment.policies import POLICIES, Policy

KUBERNETES = ("1.35", "1.36", "1.37")
KEDA = json.loads((Path(__file__).parent / "keda.json").read_text())
SITES_OWN = {"replicas", "keda_scales_consumers"}  # Overlays that are no production say how many of each themselves.


def faults(item: Object, version: str) -> list[str]:
    """What a strict API server of this version would say."""
    return _faults(json.dumps(item, sort_keys=True), version)


@cache
def _faults(text: str, version: str) -> list[str]:
    """Once for each object: overlays have most of theirs in common."""
    item, kubernetes = json.loads(text), schemas.validator()
    try:
        if item["apiVersion"].startswith("keda.sh/"):
            jsonschema.validate(item, KEDA)
        else:
            kubernetes.validate(item, version, strict=True)
    except (jsonschema.ValidationError, kubernetes.ValidationError, kubernetes.SchemaNotFoundError) as fault:
        return [f"{item['kind']} {item['metadata']['name']}: {fault}"]
    return []


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_what_kubernetes_knows(overlay: str, version: str) -> None:
    assert [fault for each in objects(overlay) for fault in faults(each, version)] == []


def misspelt(them: list[Object]) -> Any:
    of(them, "Deployment")["relay"]["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}


def of_no_kind(them: list[Object]) -> Any:
    them[0]["kind"] = "Namspace"


def of_no_type(them: list[Object]) -> Any:
    of(them, "ScaledObject")["scheduler"]["spec"]["maxReplicaCount"] = "16"


def unknown_to_keda(them: list[Object]) -> Any:
    of(them, "ScaledObject")["scheduler"]["spec"]["triggers"][0]["meta"] = {}


@pytest.mark.parametrize("break_it", [misspelt, of_no_kind, of_no_type, unknown_to_keda])
def test_what_kubernetes_does_not_know_is_noticed(break_it: Callable[[list[Object]], Any]) -> None:
    broken = objects("production-keda")
    break_it(broken)
    assert [fault for each in broken for fault in faults(each, KUBERNETES[0])]


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_an_overlay_keeps_a_policy(policy: Policy, overlay: str) -> None:
    if str(policy) in SITES_OWN and overlay in {"dev", "ci"}:
        return
    assert list(policy.check(objects(overlay))) == [], policy.sentence


@pytest.mark.parametrize(("policy", "number"), [pytest.param(each, number, id=f"{each}-{number}") for each in POLICIES for number in range(len(each.breakers))])
def test_a_policy_notices_a_manifest_that_breaks_it(policy: Policy, number: int) -> None:
    broken = objects("production-keda")
    policy.breakers[number](broken)
    assert list(policy.check(broken)), f"not noticed: {policy.sentence}"


def test_each_policy_has_a_way_to_break_it() -> None:
    assert [str(each) for each in POLICIES if not each.breakers] == []
