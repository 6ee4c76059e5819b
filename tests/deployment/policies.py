"""What our manifests must be: each policy is a question to the rendered objects and at least one way to break them that it must notice.

A check yields a line for each fault. A breaker changes the objects of `production-keda`, which has everything, in place.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from app import plugins
from app.errors import Misconfigured
from app.kafka.topics import desired
from app.settings import Settings, read
from tests.deployment.manifests import NAME, PART, Object, containers, environment, labels, name, of, pods, secret_files, selects, unhashed
from tests.deployment.table import DEPLOYMENTS, EVERYBODY, PORTS, WRITERS

Check = Callable[[list[Object]], Iterator[str]]
Breaker = Callable[[list[Object]], Any]


@dataclass(frozen=True)
class Policy:
    sentence: str
    check: Check
    breakers: tuple[Breaker, ...]

    def __str__(self) -> str:
        return self.check.__name__


POLICIES: list[Policy] = []


def policy(sentence: str, *breakers: Breaker) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        POLICIES.append(Policy(sentence, check, breakers))
        return check

    return register


# ---- breaking -----------------------------------------------------------------------------------------------------------------------------------------
def _spec(objects: list[Object], kind: str, who: str) -> Any:
    return of(objects, kind)[who]["spec"]


def _pod(objects: list[Object], who: str = "scheduler") -> Any:
    return pods(objects)[who]["spec"]


def _main(objects: list[Object], who: str = "scheduler") -> Any:
    return _pod(objects, who)["containers"][0]


def _drop(objects: list[Object], kind: str, who: str) -> None:
    objects.remove(of(objects, kind)[who])


# ---- what runs ------------------------------------------------------------------------------------------------------------------------------------------
@policy(
    "Each microservice is a Deployment, with the grace of the table; none is a StatefulSet",
    lambda them: _drop(them, "Deployment", "relay"),
    lambda them: them.append({**of(them, "Deployment")["relay"], "kind": "StatefulSet"}),
    lambda them: _pod(them, "api").update(terminationGracePeriodSeconds=30),
)
def deployments(objects: list[Object]) -> Iterator[str]:
    if set(of(objects, "Deployment")) != set(DEPLOYMENTS):
        yield f"Deployments are {sorted(of(objects, 'Deployment'))}"
    yield from (f"{who} is a StatefulSet" for who in of(objects, "StatefulSet") if who in EVERYBODY)
    for who, pod in pods(objects).items():
        if pod["spec"].get("terminationGracePeriodSeconds") != EVERYBODY[who].grace_seconds:
            yield f"{who}: grace is {pod['spec'].get('terminationGracePeriodSeconds')} s"


@policy(
    "As many replicas as the table says, unless something scales them",
    lambda them: _spec(them, "Deployment", "relay").update(replicas=1),
    lambda them: _spec(them, "Deployment", "scheduler").update(replicas=3),
    lambda them: _spec(them, "HorizontalPodAutoscaler", "api").update(minReplicas=1),
)
def replicas(objects: list[Object]) -> Iterator[str]:
    scaled = {who: each["spec"]["minReplicas"] for who, each in of(objects, "HorizontalPodAutoscaler").items()}
    scaled |= {who: each["spec"]["minReplicaCount"] for who, each in of(objects, "ScaledObject").items()}
    for who, each in of(objects, "Deployment").items():
        given = each["spec"].get("replicas")
        if (given is None) != (who in scaled):
            yield f"{who}: either a number or a scaler decides, not both and not none"
        if scaled.get(who, given) != DEPLOYMENTS[who].replicas:
            yield f"{who}: {scaled.get(who, given)} replicas"


@policy(
    "The API follows its CPU (70 %), one pod a minute less; nothing else does, the relay least of all",
    lambda them: _drop(them, "HorizontalPodAutoscaler", "api"),
    lambda them: _spec(them, "HorizontalPodAutoscaler", "api")["metrics"][0]["resource"]["target"].update(averageUtilization=90),
    lambda them: _spec(them, "HorizontalPodAutoscaler", "api").pop("behavior"),
    lambda them: them.append({**of(them, "HorizontalPodAutoscaler")["api"], "metadata": {"name": "relay"}}),
)
def api_scales_on_cpu(objects: list[Object]) -> Iterator[str]:
    found = of(objects, "HorizontalPodAutoscaler")
    if set(found) != {"api"}:
        yield f"CPU scales {sorted(found)}"
    for each in found.values():
        if each["spec"]["metrics"] != [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}]:
            yield "not by 70 % CPU"
        if not _one_a_minute(each["spec"].get("behavior", {})):
            yield "not one pod a minute less"


def _one_a_minute(behavior: Object) -> bool:
    return bool(behavior.get("scaleDown", {}).get("policies") == [{"type": "Pods", "value": 1, "periodSeconds": 60}])


@policy(
    "KEDA scales consumers by the backlog of their own group and topics, never beyond the partitions that are busy",
    lambda them: _drop(them, "ScaledObject", "scheduler"),
    lambda them: _spec(them, "ScaledObject", "scheduler").update(maxReplicaCount=17),
    lambda them: _spec(them, "ScaledObject", "scheduler")["triggers"].pop(),
    lambda them: _spec(them, "ScaledObject", "scheduler")["triggers"][0]["metadata"].update(consumerGroup="task-scheduler"),
    lambda them: _spec(them, "ScaledObject", "executor-data")["triggers"][0]["metadata"].update(topic="ingress-task"),
    lambda them: _spec(them, "ScaledObject", "scheduler")["triggers"][0]["metadata"].update(bootstrapServers="kafka:9092"),
    lambda them: _spec(them, "ScaledObject", "scheduler")["advanced"]["horizontalPodAutoscalerConfig"].pop("behavior"),
    lambda them: _spec(them, "ScaledObject", "scheduler")["scaleTargetRef"].update(name="relay"),
)
def keda_scales_consumers(objects: list[Object]) -> Iterator[str]:
    found = of(objects, "ScaledObject")
    if not found:
        return
    if set(found) != {who for who, row in DEPLOYMENTS.items() if row.scaled}:
        yield f"KEDA scales {sorted(found)}"
    for who, each in found.items():
        spec, settings = each["spec"], _settings(objects, who)
        if spec["scaleTargetRef"]["name"] != who:
            yield f"{who}: scales {spec['scaleTargetRef']['name']}"
        if spec["maxReplicaCount"] > settings.placement_width:
            yield f"{who}: {spec['maxReplicaCount']} replicas for {settings.placement_width} busy partitions"
        if not _one_a_minute(spec["advanced"]["horizontalPodAutoscalerConfig"].get("behavior", {})):
            yield f"{who}: not one pod a minute less"
        asked = {(each["metadata"]["consumerGroup"], each["metadata"]["topic"]) for each in spec["triggers"]}
        if asked != _reads(settings, who):
            yield f"{who}: asks for {sorted(asked)}, reads {sorted(_reads(settings, who))}"
        if {each["metadata"]["bootstrapServers"] for each in spec["triggers"]} != {settings.kafka}:
            yield f"{who}: another Kafka"


def _reads(settings: Settings, who: str) -> set[tuple[str, str]]:
    """(group, topic) of a component, as the code declares them; the group of a Deployment ends with its name."""
    declared = desired(
        settings.topics, environment=settings.environment, partitions=settings.partitions, shards=settings.relay_shards, task_types=plugins.task_types()
    )
    return {(group, each.name) for each in declared for group in each.groups if group.endswith((f".{who}", f"-{who}"))}


@policy(
    "The migrations Job does its steps in order and is given up after three failures",
    lambda them: _pod(them, "migrations")["initContainers"].reverse(),
    lambda them: _spec(them, "Job", "migrations").update(backoffLimit=6),
    lambda them: _pod(them, "migrations").update(restartPolicy="OnFailure"),
)
def migrations_first(objects: list[Object]) -> Iterator[str]:
    job = of(objects, "Job")["migrations"]["spec"]
    if [each["args"] for each in containers(job["template"])] != [["migrate"], ["topics", "--apply"], ["service-token"]]:
        yield f"its steps are {[each['args'] for each in containers(job['template'])]}"
    if job["backoffLimit"] != 3 or job["template"]["spec"]["restartPolicy"] != "Never":
        yield "it is tried again in another way"


@policy(
    "A roll adds before it takes away, one pod at a time",
    lambda them: _spec(them, "Deployment", "relay")["strategy"]["rollingUpdate"].update(maxUnavailable=1),
    lambda them: _spec(them, "Deployment", "relay").update(minReadySeconds=0),
    lambda them: _spec(them, "Deployment", "relay").update(strategy={"type": "Recreate"}),
)
def rollout(objects: list[Object]) -> Iterator[str]:
    for who, each in of(objects, "Deployment").items():
        if (
            each["spec"]["strategy"] != {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
            or each["spec"].get("minReadySeconds") != 10
        ):
            yield f"{who} rolls otherwise"


@policy(
    "Each Deployment has a disruption budget of one, which lets a sick pod go",
    lambda them: _drop(them, "PodDisruptionBudget", "relay"),
    lambda them: _spec(them, "PodDisruptionBudget", "relay").update(maxUnavailable=2),
    lambda them: _spec(them, "PodDisruptionBudget", "relay").pop("unhealthyPodEvictionPolicy"),
    lambda them: _spec(them, "PodDisruptionBudget", "relay")["selector"]["matchLabels"].update({NAME: "api"}),
)
def disruption(objects: list[Object]) -> Iterator[str]:
    budgets = of(objects, "PodDisruptionBudget")
    for who, each in of(objects, "Deployment").items():
        spec = budgets[who]["spec"] if who in budgets else {}
        if (spec.get("maxUnavailable"), spec.get("unhealthyPodEvictionPolicy")) != (1, "AlwaysAllow") or not selects(
            spec["selector"], labels(each["spec"]["template"])
        ):
            yield f"{who}: {spec or 'no budget'}"


@policy(
    "Pods of one revision spread over zones and nodes",
    lambda them: _pod(them).pop("topologySpreadConstraints"),
    lambda them: _pod(them)["topologySpreadConstraints"].pop(),
    lambda them: _pod(them)["topologySpreadConstraints"][0].pop("matchLabelKeys"),
    lambda them: _pod(them)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"].update({NAME: "relay"}),
)
def spread(objects: list[Object]) -> Iterator[str]:
    for who in of(objects, "Deployment"):
        pod = pods(objects)[who]
        told = pod["spec"].get("topologySpreadConstraints", [])
        if {each["topologyKey"] for each in told} != {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}:
            yield f"{who}: not over zones and nodes"
        if any(each.get("matchLabelKeys") != ["pod-template-hash"] or not selects(each["labelSelector"], labels(pod)) for each in told):
            yield f"{who}: not among its own"


# ---- how it is -----------------------------------------------------------------------------------------------------------------------------------------
PROBES = {"startupProbe": ("/startupz", 60), "livenessProbe": ("/livez", 30), "readinessProbe": ("/readyz", 4)}


@policy(
    "Probes ask the admin port, and no store: liveness asks after the loop and nothing else, a start has 60 s",
    lambda them: _main(them).pop("livenessProbe"),
    lambda them: _main(them)["livenessProbe"]["httpGet"].update(path="/readyz"),
    lambda them: _main(them).update(livenessProbe={"exec": {"command": ["mysqladmin", "ping"]}}),
    lambda them: _main(them)["readinessProbe"]["httpGet"].update(port=8080),
    lambda them: _main(them)["startupProbe"].update(failureThreshold=10),
)
def probes(objects: list[Object]) -> Iterator[str]:
    for who in of(objects, "Deployment"):
        for kind, (path, seconds) in PROBES.items():
            told = _main(objects, who).get(kind, {})
            if told.get("httpGet") != {"path": path, "port": "admin"}:
                yield f"{who}: {kind} is {told}"
            elif told["periodSeconds"] * told["failureThreshold"] != seconds:
                yield f"{who}: {kind} gives {told['periodSeconds'] * told['failureThreshold']} s"


@policy(
    "Ports are the table's, and settings and image agree with them",
    lambda them: _main(them, "api")["ports"].pop(),
    lambda them: _main(them, "api")["ports"][0].update(containerPort=8000),
)
def ports(objects: list[Object]) -> Iterator[str]:
    for who in of(objects, "Deployment"):
        told = {each["name"]: each["containerPort"] for each in _main(objects, who)["ports"]}
        if told != {each: PORTS[each] for each in DEPLOYMENTS[who].ports}:
            yield f"{who}: {told}"


@policy(
    "Every admin port is scraped",
    lambda them: pods(them)["relay"]["metadata"]["annotations"].update({"prometheus.io/port": "9090"}),
    lambda them: pods(them)["relay"]["metadata"].pop("annotations"),
)
def scraped(objects: list[Object]) -> Iterator[str]:
    for who in of(objects, "Deployment"):
        told = pods(objects)[who]["metadata"].get("annotations", {})
        if {f"prometheus.io/{key}": value for key, value in (("scrape", "true"), ("port", str(PORTS["admin"])), ("path", "/metrics"))}.items() - told.items():
            yield f"{who}: {told}"


@policy(
    "CPU and memory are asked for, memory is limited, CPU is not: a throttled consumer loses its partitions",
    lambda them: _main(them)["resources"]["limits"].update(cpu="1"),
    lambda them: _main(them)["resources"].pop("limits"),
    lambda them: _main(them)["resources"]["requests"].pop("cpu"),
)
def resources(objects: list[Object]) -> Iterator[str]:
    for who, pod in pods(objects).items():
        for each in containers(pod):
            told = each.get("resources", {})
            if set(told.get("requests", {})) != {"cpu", "memory"} or set(told.get("limits", {})) != {"memory"}:
                yield f"{who}: {told}"


# ---- what it may ----------------------------------------------------------------------------------------------------------------------------------------
CONFINED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
POD = {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001, "seccompProfile": {"type": "RuntimeDefault"}}


@policy(
    "The namespace enforces the restricted profile, and every pod is more than that: user 10001, read-only root, nothing of the host",
    lambda them: of(them, "Namespace")["airavata"]["metadata"]["labels"].update({"pod-security.kubernetes.io/enforce": "baseline"}),
    lambda them: _pod(them)["securityContext"].update(runAsUser=0),
    lambda them: _pod(them)["securityContext"].pop("seccompProfile"),
    lambda them: _pod(them).update(hostNetwork=True),
    lambda them: _pod(them)["volumes"].append({"name": "h", "hostPath": {"path": "/"}}),
    lambda them: _main(them)["securityContext"].update(readOnlyRootFilesystem=False),
    lambda them: _main(them)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
    lambda them: _pod(them, "migrations")["initContainers"][0].pop("securityContext"),
    lambda them: of(them, "Service")["api"]["metadata"].update(namespace="default"),
)
def restricted(objects: list[Object]) -> Iterator[str]:
    given = [each["metadata"].get("labels", {}) for each in of(objects, "Namespace").values()]
    if [each.get("pod-security.kubernetes.io/enforce") for each in given] != ["restricted"]:
        yield "the namespace enforces less"
    yield from (
        f"{each['kind']} {name(each)} is elsewhere" for each in objects if each["kind"] != "Namespace" and each["metadata"].get("namespace") != "airavata"
    )
    for who, pod in pods(objects).items():
        spec = pod["spec"]
        if any(spec.get("securityContext", {}).get(key) != value for key, value in POD.items()):
            yield f"{who}: {spec.get('securityContext')}"
        yield from (f"{who}: {key}" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key))
        yield from (f"{who}: volume {each['name']} is of the host" for each in spec["volumes"] if "hostPath" in each)
        yield from (f"{who}: {each['name']} is {each.get('securityContext')}" for each in containers(pod) if each.get("securityContext") != CONFINED)


@policy(
    "No pod has a token of the cluster's, nor variables of its making",
    lambda them: _pod(them).pop("automountServiceAccountToken"),
    lambda them: _pod(them).pop("enableServiceLinks"),
    lambda them: _pod(them).update(serviceAccountName="admin"),
)
def no_account(objects: list[Object]) -> Iterator[str]:
    for who, pod in pods(objects).items():
        spec = pod["spec"]
        if spec.get("automountServiceAccountToken") is not False or spec.get("enableServiceLinks") is not False or "serviceAccountName" in spec:
            yield f"{who} speaks with the cluster"


@policy(
    "What is written to is one small volume in memory's place, with a size",
    lambda them: _pod(them)["volumes"][0 if "emptyDir" in _pod(them)["volumes"][0] else 1].update(emptyDir={}),
    lambda them: _pod(them)["volumes"].append({"name": "data", "emptyDir": {"sizeLimit": "1Gi"}}),
    lambda them: _main(them).update(volumeMounts=[each for each in _main(them)["volumeMounts"] if each["mountPath"] != "/tmp"]),
)
def scratch(objects: list[Object]) -> Iterator[str]:
    for who, pod in pods(objects).items():
        empty = {each["name"]: each["emptyDir"] for each in pod["spec"]["volumes"] if "emptyDir" in each}
        if set(empty) != {"tmp"} or not empty["tmp"].get("sizeLimit"):
            yield f"{who}: {empty}"
        yield from (f"{who}: no /tmp" for each in containers(pod) if {"name": "tmp", "mountPath": "/tmp"} not in each["volumeMounts"])


@policy(
    "Images are of the component, and in production by digest",
    lambda them: _main(them).update(image="airavata-workflow/scheduler:latest"),
    lambda them: _main(them).update(image="airavata-workflow/scheduler"),
    lambda them: _main(them).update(image="registry.example.org/airavata-workflow/scheduler:1.0"),
    lambda them: _main(them).update(image=_main(them, "relay")["image"]),
)
def images(objects: list[Object]) -> Iterator[str]:
    for who, pod in pods(objects).items():
        production = _settings(objects, who).environment == "production"
        form = rf"\S+/airavata-workflow/{who}@sha256:[0-9a-f]{{64}}" if production else rf"(\S+/)?airavata-workflow/{who}:(?!latest)[\w.-]+"
        yield from (f"{who}: {each['image']}" for each in containers(pod) if not re.fullmatch(form, each["image"]))


# ---- whom it speaks with ------------------------------------------------------------------------------------------------------------------------------
def _policies(objects: list[Object], pod: Object, direction: str) -> Iterator[Object]:
    """The rules of one direction that hold for a pod."""
    for each in of(objects, "NetworkPolicy").values():
        if selects(each["spec"]["podSelector"], labels(pod)):
            yield from each["spec"].get(direction, [])


def _reached(rule: Object) -> set[str]:
    """What an egress rule opens, in the table's words; anything else as itself."""
    numbers = {each["port"] for each in rule.get("ports", [])}
    names = {value for each in rule.get("to", []) for key, value in each.get("podSelector", {}).get("matchLabels", {}).items() if key in {NAME, "k8s-app"}}
    if names:
        wanted = {"relay": {9465}, "api": {8081}, "mysql": {3306}, "kafka": {9092}, "kube-dns": {53}}
        return {each if wanted.get(each) == numbers else f"{each} at {sorted(numbers)}" for each in names}
    blocks = all("ipBlock" in each for each in rule.get("to", [{}]))
    found = {frozenset({3306}): "mysql", frozenset({9092}): "kafka", frozenset({22, 443}): "hosts"}.get(frozenset(numbers)) if blocks else None
    return {found or str(rule)}


@policy(
    "By default nobody speaks with anybody, in either direction",
    lambda them: _drop(them, "NetworkPolicy", "default-deny"),
    lambda them: _spec(them, "NetworkPolicy", "default-deny").update(policyTypes=["Ingress"]),
    lambda them: _spec(them, "NetworkPolicy", "default-deny").update(egress=[{}]),
)
def default_deny(objects: list[Object]) -> Iterator[str]:
    if {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} not in [each["spec"] for each in of(objects, "NetworkPolicy").values()]:
        yield "there is no policy that denies"


@policy(
    "A component reaches what the table says it may talk to, and DNS; executors alone reach compute hosts",
    lambda them: _spec(them, "NetworkPolicy", "to-mysql")["podSelector"]["matchExpressions"][0]["values"].append("event-sink"),
    lambda them: _spec(them, "NetworkPolicy", "to-compute-hosts")["podSelector"]["matchExpressions"][0]["values"].append("scheduler"),
    lambda them: _spec(them, "NetworkPolicy", "to-kafka")["egress"].append({}),
    lambda them: _spec(them, "NetworkPolicy", "sink-to-api")["egress"][0]["ports"][0].update(port=8080),
    lambda them: _drop(them, "NetworkPolicy", "writers-to-relay"),
    lambda them: _drop(them, "NetworkPolicy", "all-to-dns"),
)
def egress(objects: list[Object]) -> Iterator[str]:
    for who, pod in pods(objects).items():
        found = {each for rule in _policies(objects, pod, "egress") for each in _reached(rule)}
        if found != EVERYBODY[who].to | {"kube-dns"}:
            yield f"{who} reaches {sorted(found)}"


@policy(
    "In come: the ingress controller to the API, the sink to its internal face, the nudge from whoever writes, monitoring to every admin port; nothing else",
    lambda them: _drop(them, "NetworkPolicy", "api-from-ingress"),
    lambda them: _spec(them, "NetworkPolicy", "api-from-sink").update(ingress=[{"ports": [{"port": 8081, "protocol": "TCP"}]}]),
    lambda them: _spec(them, "NetworkPolicy", "api-from-ingress")["ingress"][0]["ports"].append({"port": 8081}),
    lambda them: _spec(them, "NetworkPolicy", "relay-from-writers")["ingress"][0]["from"][0]["podSelector"]["matchExpressions"][0]["values"].pop(),
    lambda them: _spec(them, "NetworkPolicy", "admin-from-monitoring")["podSelector"]["matchLabels"].update({NAME: "api"}),
)
def ingress(objects: list[Object]) -> Iterator[str]:
    own = {"api": {(8080, "ingress-nginx"), (8081, "event-sink")}, "relay": {(9465, each) for each in WRITERS}}
    for who, pod in pods(objects).items():
        found = {
            (port["port"], source) for rule in _policies(objects, pod, "ingress") for port in rule.get("ports", [{"port": 0}]) for source in _sources(rule)
        }
        if found != own.get(who, set()) | {(PORTS["admin"], "monitoring")}:
            yield f"{who} lets in {sorted(found)}"


def _sources(rule: Object) -> Iterator[str]:
    for each in rule.get("from", [{}]):
        selector = each.get("podSelector") or each.get("namespaceSelector") or {}
        yield from selector.get("matchLabels", {}).values()
        yield from (value for expression in selector.get("matchExpressions", []) for value in expression["values"])
        if not selector:
            yield "anybody"


@policy(
    "Services lead to pods that listen there; the nudge's is headless, so that one name is every relay",
    lambda them: _spec(them, "Service", "relay").pop("clusterIP"),
    lambda them: _spec(them, "Service", "api")["selector"].update({NAME: "apis"}),
    lambda them: _spec(them, "Service", "api-internal")["ports"][0].update(targetPort="inside"),
    lambda them: _spec(them, "Service", "api").update(type="LoadBalancer"),
)
def services(objects: list[Object]) -> Iterator[str]:
    for who, each in of(objects, "Service").items():
        spec, listening = each["spec"], pods(objects).get(each["spec"]["selector"][NAME])
        if who in {"mysql", "kafka"}:
            continue
        if listening is None or {port["targetPort"] for port in spec["ports"]} - {port["name"] for port in listening["spec"]["containers"][0]["ports"]}:
            yield f"{who} leads nowhere"
        if spec.get("type", "ClusterIP") != "ClusterIP" or (spec.get("clusterIP") == "None") != (who == "relay"):
            yield f"{who} is of another kind"


@policy(
    "Whom a component is told to speak with is a Service here, at a port it has",
    lambda them: _drop(them, "Service", "api-internal"),
    lambda them: _spec(them, "Service", "relay")["ports"][0].update(port=9466),
)
def addresses(objects: list[Object]) -> Iterator[str]:
    there = {f"{who}:{port['port']}" for who, each in of(objects, "Service").items() for port in each["spec"]["ports"]}
    for who in of(objects, "Deployment"):
        settings = _settings(objects, who)
        yield from (
            f"{who}: nobody is at {told}"
            for told in (settings.nudge_to, settings.internal_url.removeprefix("http://"))
            if told not in there and "127.0.0.1" not in told
        )


# ---- what it is told ----------------------------------------------------------------------------------------------------------------------------------
SECRETS = {key: f"AIRAVATA_{key.upper().replace('-', '_')}" for key in ("mysql-url", "token-key", "master-key", "internal-token", "kafka-client")}


def _settings(objects: list[Object], who: str) -> Settings:
    """As the component would read them. Raises Misconfigured."""
    told = environment(objects, containers(pods(objects)[who])[-1])
    return read({key: value for key, value in told.items() if not key.endswith("_FILE")}, database=False)


@policy(
    "Each component is told by two ConfigMaps, the shared and its own, whose hashed names make a change roll; and could start with what they say",
    lambda them: of(them, "ConfigMap")[_named(them, "relay")]["data"].update(AIRAVATA_COLOUR="blue"),
    lambda them: of(them, "ConfigMap")[_named(them, "shared")]["data"].update(AIRAVATA_RELAY_SHARDS="3"),
    lambda them: _main(them)["envFrom"].pop(),
    lambda them: _main(them)["envFrom"][0]["configMapRef"].update(name="gone"),
    lambda them: of(them, "ConfigMap")[_named(them, "relay")]["metadata"].update(name="relay"),
)
def configuration(objects: list[Object]) -> Iterator[str]:
    there = set(of(objects, "ConfigMap"))
    yield from (f"ConfigMap {each} has no hash" for each in there if unhashed(each) == each)
    for who, pod in pods(objects).items():
        for container in containers(pod):
            told = [each["configMapRef"]["name"] for each in container["envFrom"]]
            if [unhashed(each) for each in told] != ["shared", who] or set(told) - there:
                yield f"{who} is told by {told}"
                return
        try:
            _settings(objects, who)
        except Misconfigured as fault:
            yield f"{who}: {fault}"


@policy(
    "No storage of a gateway can lie where the pod's own files and secrets are",
    lambda them: of(them, "ConfigMap")[_named(them, "shared")]["data"].update(AIRAVATA_POSIX_ROOTS="/"),
    lambda them: of(them, "ConfigMap")[_named(them, "shared")]["data"].update(AIRAVATA_POSIX_ROOTS="/run"),
    lambda them: of(them, "ConfigMap")[_named(them, "shared")]["data"].pop("AIRAVATA_POSIX_ROOTS"),
)
def storages(objects: list[Object]) -> Iterator[str]:
    for who in of(objects, "Deployment"):
        yield from (f"{who}: a storage may lie at {root}" for root in _settings(objects, who).posix_roots if not root.startswith("/data/{gateway}"))


def _named(objects: list[Object], stem: str) -> str:
    return next(each for each in of(objects, "ConfigMap") if unhashed(each) == stem)


@policy(
    "Secrets are files of mode 0400, never variables; and only whom the table names has them",
    lambda them: _main(them)["env"].append({"name": "AIRAVATA_TOKEN_KEY", "valueFrom": {"secretKeyRef": {"name": "airavata-token-key", "key": "key"}}}),
    lambda them: _main(them)["envFrom"].append({"secretRef": {"name": "airavata-token-key"}}),
    lambda them: of(them, "ConfigMap")[_named(them, "shared")]["data"].update(AIRAVATA_MYSQL_URL="mysql://a:b@c:1/d"),
    lambda them: _projected(them, "scheduler").update(defaultMode=0o444),
    lambda them: _projected(them, "scheduler")["sources"].append({"secret": {"name": "airavata-master-key", "items": [{"key": "key", "path": "master-key"}]}}),
    lambda them: _projected(them, "executor-job")["sources"].pop(0),
    lambda them: _pod(them)["volumes"].append({"name": "more", "secret": {"secretName": "airavata-token-key"}}),
)
def secrets(objects: list[Object]) -> Iterator[str]:
    for who, pod in pods(objects).items():
        given = {path.rpartition("/")[2] for _, _, path in secret_files(pod)}
        if given != EVERYBODY[who].mounted:
            yield f"{who} has {sorted(given)}"
        modes = [each["projected"].get("defaultMode") for each in pod["spec"]["volumes"] if "projected" in each]
        if modes != [0o400] or any("secret" in each for each in pod["spec"]["volumes"]):
            yield f"{who}: modes {modes}, or another volume of secrets"
        for container in containers(pod):
            told = environment(objects, container) if all("configMapRef" in each for each in container["envFrom"]) else {"AIRAVATA_MYSQL_URL": "from a Secret"}
            yield from (f"{who}: {each} is a variable" for each in told if each in SECRETS.values() or "secretKeyRef" in told[each])
            if {key: value for key, value in told.items() if key.endswith("_FILE")} != {
                f"{SECRETS[each]}_FILE": f"/run/secrets/airavata/{each}" for each in given
            }:
                yield f"{who}: what is mounted is not what it is told"


def _projected(objects: list[Object], who: str) -> Any:
    return next(each["projected"] for each in _pod(objects, who)["volumes"] if "projected" in each)


@policy(
    "Each component has accounts of its own at MySQL and at Kafka",
    lambda them: _projected(them, "scheduler")["sources"][0]["secret"].update(name="airavata-mysql-relay"),
    lambda them: _projected(them, "scheduler")["sources"][1]["secret"].update(name="airavata-kafka-relay"),
)
def accounts(objects: list[Object]) -> Iterator[str]:
    own = {"mysql-url": "airavata-mysql-{}", "kafka-client": "airavata-kafka-{}"}
    for who, pod in pods(objects).items():
        for secret, _, path in secret_files(pod):
            kind = path.rpartition("/")[2]
            if kind in own and unhashed(secret) != own[kind].format(who):
                yield f"{who} uses {secret}"


@policy(
    "Every pod finds the authorities of MySQL and Kafka, where a site has given them",
    lambda them: _projected(them, "scheduler")["sources"].pop(),
    lambda them: _projected(them, "scheduler")["sources"][-1]["secret"].pop("optional"),
)
def authorities(objects: list[Object]) -> Iterator[str]:
    for who, pod in pods(objects).items():
        if list(secret_files(pod, optional=True)) != [("airavata-ca", "ca.pem", "/run/secrets/airavata/ca.pem")]:
            yield f"{who} may not be given them, or must be"


@policy(
    "Every key that is mounted exists where the overlay makes its Secrets",
    lambda them: them.append({"kind": "Secret", "metadata": {"name": "airavata-token-key", "namespace": "airavata"}, "data": {"other": ""}}),
)
def keys_exist(objects: list[Object]) -> Iterator[str]:
    """Production's are made with kubectl: tests/deployment/test_documents.py holds the commands to it."""
    made = {who: set(each.get("data", {})) for who, each in of(objects, "Secret").items()}
    if made:
        yield from (
            f"{who}: {secret} has no {key}" for who, pod in pods(objects).items() for secret, key, _ in secret_files(pod) if key not in made.get(secret, ())
        )


@policy(
    "Everything of ours carries the label by which it is found",
    lambda them: of(them, "Deployment")["relay"]["metadata"].pop("labels"),
    lambda them: pods(them)["relay"]["metadata"].update(labels={NAME: "relay"}),
)
def labelled(objects: list[Object]) -> Iterator[str]:
    for who, each in {**of(objects, "Deployment"), **of(objects, "Job")}.items():
        if PART.items() - each["metadata"].get("labels", {}).items() or {**PART, NAME: who}.items() - labels(each["spec"]["template"]).items():
            yield f"{who} is not labelled"
        if each["kind"] == "Deployment" and not selects(each["spec"]["selector"], labels(each["spec"]["template"])):
            yield f"{who} does not select its pods"
