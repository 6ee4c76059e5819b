"""A Kubernetes API server with its etcd, private and empty, to be asked in a dry run what it would admit. `python -m tests.deployment.apiserver` (`make kubernetes`) builds both from their
Go modules into `.dev/lib`: about a quarter of an hour on two quiet cores with nothing cached, and 3 GiB of memory, so once, and never by a test.
"""

import json
import os
import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from app.dev.process import Daemon, keep_private
from app.dev.servers import free_port
from tests.deployment import locked
from tests.deployment.locked import ROOT

MODULE, VERSION = "k8s.io/kubernetes", "v1.36.3"
PROGRAMS = {"etcd": "go.etcd.io/etcd/server/v3", "kube-apiserver": f"{MODULE}/cmd/kube-apiserver"}  # The etcd is the one that this Kubernetes is tested with.
BUILT = ROOT / ".dev" / "lib" / "kubernetes" / VERSION
Object = dict[str, Any]


def told() -> str:
    """A line for the end of a run."""
    return f"asked of a real API server {VERSION}" if BUILT.exists() else f"NOT MADE, there is no {BUILT.relative_to(ROOT)}: `make kubernetes` builds it, in a quarter of an hour"


@dataclass
class Verdict:
    """`refused` is empty for what is admitted; `warnings` come with it."""

    refused: str = ""
    warnings: list[str] = field(default_factory=list)


@dataclass
class Cluster:
    """Its address, and who asks: an administrator."""

    url: str
    token: str

    def _ask(self, method: str, path: str, body: Object | None = None, kind: str = "application/json") -> tuple[Object, list[str]]:
        request = urllib.request.Request(f"{self.url}{path}", method=method, headers={"Authorization": f"Bearer {self.token}", "Content-Type": kind})
        unverified = ssl._create_unverified_context()  # On loopback; its certificate is made anew with each start.
        with urllib.request.urlopen(request, None if body is None else json.dumps(body).encode(), timeout=60, context=unverified) as answer:
            return json.load(answer) if "json" in answer.headers["Content-Type"] else {}, answer.headers.get_all("Warning", [])

    def answers(self) -> bool:
        try:
            self._ask("GET", "/readyz")
        except OSError:
            return False
        return True

    def _path(self, item: Object) -> str:
        """Of the objects of its kind. Raises KeyError for a kind that the server does not know."""
        version = item["apiVersion"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        (known,) = [each for each in self._ask("GET", root)[0]["resources"] if each["kind"] == item["kind"] and "/" not in each["name"]] or [None]
        if known is None:
            raise KeyError(item["kind"])
        within = f"/namespaces/{item['metadata']['namespace']}" if known["namespaced"] else ""
        return f"{root}{within}/{known['name']}"

    def applied(self, item: Object, *, dry: bool = True) -> Verdict:
        """As `kubectl apply --server-side --dry-run=server --validate=strict`."""
        query = f"fieldManager=tests&fieldValidation=Strict&force=true{'&dryRun=All' if dry else ''}"
        return self._judged("PATCH", item, f"/{item['metadata']['name']}?{query}", "application/apply-patch+yaml")

    def created(self, item: Object) -> Verdict:
        """As `kubectl create --dry-run=server`."""
        return self._judged("POST", item, "?fieldValidation=Strict&dryRun=All", "application/json")

    def _judged(self, method: str, item: Object, rest: str, kind: str) -> Verdict:
        try:
            _, warnings = self._ask(method, self._path(item) + rest, item, kind)
        except urllib.error.HTTPError as fault:
            said = fault.read().decode()
            return Verdict(json.loads(said)["message"] if said.startswith("{") else said)  # A group that it does not know is no page of its.
        except KeyError as fault:
            return Verdict(f"no kind {fault} in {item['apiVersion']}")
        return Verdict(warnings=warnings)


@contextmanager
def cluster(base: Path) -> Iterator[Cluster]:
    """On loopback, ended with the block. No controller runs, so nothing that is admitted is carried out; service accounts, which no pod of ours uses, are left out."""
    port, store, peers = free_port(), free_port(), free_port()
    made = Cluster(f"https://127.0.0.1:{port}", os.urandom(24).hex())
    keep_private(base / "tokens.csv", f'{made.token},tests,tests,"system:masters"\n')
    signing = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    keep_private(base / "sa.key", signing.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()).decode())
    told = {
        "etcd": {
            "data-dir": base / "etcd", "listen-client-urls": f"http://127.0.0.1:{store}", "advertise-client-urls": f"http://127.0.0.1:{store}", "listen-peer-urls": f"http://127.0.0.1:{peers}",
            "initial-advertise-peer-urls": f"http://127.0.0.1:{peers}", "initial-cluster": f"default=http://127.0.0.1:{peers}", "unsafe-no-fsync": "true",
        },
        "kube-apiserver": {
            "etcd-servers": f"http://127.0.0.1:{store}", "bind-address": "127.0.0.1", "secure-port": port, "cert-dir": base / "pki", "token-auth-file": base / "tokens.csv", "authorization-mode": "RBAC",
            "service-account-issuer": "https://tests", "service-account-key-file": base / "sa.key", "service-account-signing-key-file": base / "sa.key", "service-cluster-ip-range": "10.96.0.0/16",
            "disable-admission-plugins": "ServiceAccount",
        },
    }  # fmt: skip
    ready = {"etcd": lambda: _healthy(store), "kube-apiserver": made.answers}
    with ExitStack() as stack:
        for name, flags in told.items():
            daemon = Daemon(name, base, [str(BUILT / name), *(f"--{flag}={value}" for flag, value in flags.items())], answers=ready[name], start_seconds=300.0)
            daemon.start()
            stack.callback(daemon.stop)
            daemon.wait()
        yield made


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
            return True
    except OSError:
        return False


def build() -> None:
    """Kubernetes' own go.mod replaces its parts by folders of its repository; a module of ours that wants it replaces them by what was published.

    `-mod=mod` takes the versions that this Kubernetes names; `go get` would take the newest, of Kubernetes as well. Raises NotHad.
    """
    module = BUILT.with_name(f"{VERSION}.build")  # Kept when a build is cut off: what is compiled by then is cached.
    module.mkdir(parents=True, exist_ok=True)
    theirs = Path(json.loads(locked.go("mod", "download", "-json", f"{MODULE}@{VERSION}", cwd=module))["GoMod"]).read_text()
    parts = sorted(set(re.findall(r"(k8s\.io/[a-z-]+) => \./staging", theirs)) - {"k8s.io/sample-cli-plugin"})
    published = "".join(f"\t{each} => {each} v0.{VERSION.removeprefix('v1.')}\n" for each in parts)
    wanted = re.search(r"^go .*$", theirs, re.MULTILINE)
    (module / "go.mod").write_text(f"module kubernetes.test\n{wanted and wanted[0]}\nrequire {MODULE} {VERSION}\nreplace (\n{published})\n")
    told = "k8s.io/component-base/version"
    own = f"-s -w -X {told}.gitVersion={VERSION} -X {told}.gitMajor=1 -X {told}.gitMinor={VERSION.split('.')[1]}"
    for name, package in PROGRAMS.items():
        locked.go("build", "-mod=mod", f"-ldflags={own}", "-o", name, package, cwd=module)
    module.rename(BUILT)


if __name__ == "__main__":
    if not BUILT.exists():
        print(f"building {MODULE} {VERSION} and its etcd", file=sys.stderr, flush=True)
        try:
            build()
        except locked.NotHad as fault:
            sys.exit(str(fault))
    print(BUILT.relative_to(ROOT))
