"""The demonstration's real science code: HMMER builds a profile from aligned globins and searches 45 sequences with it. What a gateway's administrator would set up, over REST."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2

from app.dev.compute_host import SshHost
from app.instance import fresh_id

EXAMPLES = Path("/usr/share/doc/hmmer/examples/tutorial")
ALIGNMENT, SEQUENCES, PROFILE, HITS = "globins4.sto", "globins45.fa", "globins4.hmm", "hits.tbl"
INTERFACE = {
    "name": "hmmsearch", "display_name": "HMMER search", "description": "Build a profile from an alignment and search sequences with it.",
    "inputs": [
        {"name": "alignment", "type": "URI", "required": True, "order": 1, "override_filename": ALIGNMENT, "description": "aligned sequences (Stockholm)"},
        {"name": "profile", "type": "STRING", "order": 2, "on_command_line": True, "default": PROFILE, "read_only": True},
        {"name": "sequences", "type": "URI", "required": True, "order": 3, "on_command_line": True, "override_filename": SEQUENCES, "description": "sequences to search (FASTA)"},
    ],
    "outputs": [
        {"name": "hits", "type": "URI", "required": True, "on_command_line": True, "argument": "--tblout", "search_glob": HITS},
        {"name": "report", "type": "STDOUT", "required": True},
        {"name": "messages", "type": "STDERR"},
    ],
}  # fmt: skip
DEPLOYMENT = {
    "executable_path": "/usr/bin/hmmsearch",
    "pre_job_commands": [f"hmmbuild --seed 42 {PROFILE} {ALIGNMENT} >&2"],
    "defaults": {"queue": "debug", "cpu_count": 1, "wall_time_seconds": 300},
}


class Gateway:
    """A gateway's administrator at the REST API. Everything is found by name before it is made, so a second run changes nothing."""

    def __init__(self, url: str, token: str) -> None:
        self.http = httpx2.Client(base_url=f"{url}/v1", headers={"Authorization": f"Bearer {token}"}, timeout=70.0)

    def get(self, path: str, **parameters: Any) -> Any:
        return _good(self.http.get(path, params=parameters)).json()

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return _good(self.http.post(path, json=body, headers={"Idempotency-Key": fresh_id("req")})).json()

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        etag = _good(self.http.get(path)).headers["etag"]
        return _good(self.http.patch(path, json=body, headers={"If-Match": etag})).json()

    def ensure(self, path: str, body: Mapping[str, Any]) -> Any:
        """The entry of this name, made if there is none."""
        found = self.get(path, name=body["name"])["items"]
        return found[0] if found else self.post(path, body)

    def bytes_of(self, path: str) -> bytes:
        return bytes(_good(self.http.get(path)).content)

    def wait(self, experiment_id: str) -> Any:
        """The status once it is terminal, or after a minute."""
        return self.get(f"/experiments/{experiment_id}/status", until="terminal", wait_seconds=60)


def _good(answer: httpx2.Response) -> httpx2.Response:
    if answer.status_code >= 400:
        raise RuntimeError(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:2000]}")
    return answer


def a_host(gateway: Gateway, host: SshHost, scratch: Path) -> Any:
    """Credential (generated; its public key let in), host (key pinned)."""
    credential = gateway.ensure("/credentials", {"name": "laptop-key", "kind": "SSH_KEY", "source": "GENERATE"})
    host.authorize(credential["public_key"])
    body = {
        "name": "laptop", "host": host.address, "port": host.port, "host_keys": [host.host_key], "job_manager": {"type": "FORK"},
        "access": {"credential_id": credential["id"], "login": host.login}, "file_systems": {"SCRATCH": str(scratch)},
        "queues": [{"name": "debug", "max_wall_time_seconds": 600, "is_default": True}],
    }  # fmt: skip
    found = gateway.ensure("/compute-resources", body)
    if found["port"] != host.port or found["host_keys"] != [host.host_key]:  # The private server was made anew since.
        found = gateway.patch(f"/compute-resources/{found['id']}", {"port": host.port, "host_keys": [host.host_key]})
    return found


def a_storage(gateway: Gateway, root: Path) -> Any:
    """With the two tutorial files in it."""
    put_inputs(root)
    return gateway.ensure("/storage-resources", {"name": "files", "kind": "POSIX", "root": str(root)})


def an_application(gateway: Gateway, host: Mapping[str, Any]) -> Any:
    """Module, interface and one deployment on the host; the interface."""
    module = gateway.ensure("/application-modules", {"name": "hmmsearch-module", "module_version": "1"})
    made = gateway.ensure("/application-interfaces", {**INTERFACE, "module_ids": [module["id"]]})
    there = gateway.get("/application-deployments", limit=200)["items"]
    if not any(each["module_id"] == module["id"] and each["compute_resource_id"] == host["id"] for each in there):
        gateway.post("/application-deployments", {"module_id": module["id"], "compute_resource_id": host["id"], **DEPLOYMENT})
    return made


def put_inputs(root: Path) -> None:
    """The two tutorial files into the storage."""
    (root / "globins").mkdir(parents=True, exist_ok=True)
    for name in (ALIGNMENT, SEQUENCES):
        (root / "globins" / name).write_bytes((EXAMPLES / name).read_bytes())


def an_experiment(interface: Mapping[str, Any], host: Mapping[str, Any], storage: Mapping[str, Any]) -> dict[str, Any]:
    inputs = {"alignment": f"storage://{storage['id']}/globins/{ALIGNMENT}", "sequences": f"storage://{storage['id']}/globins/{SEQUENCES}"}
    return {
        "name": "globin search", "application_interface_id": interface["id"], "compute_resource_id": host["id"], "inputs": inputs, "output_storage_id": storage["id"], "launch": True,
    }  # fmt: skip
