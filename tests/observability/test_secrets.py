"""Planted secrets appear in no log line, metric, span or error body of a whole system, also while things go wrong; and every line that was logged is one of ours."""

import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy.engine import make_url

from app.dev.compute_host import SshHost
from observability import logs
from tests.observability.conftest import Build
from tests.support.gateway import Gateway
from tests.support.otlp_receiver import Receiver
from tests.support.system import System

SECONDS = 120.0


def a_canary(kind: str) -> str:
    return f"canary{kind}{os.urandom(12).hex()}"


class Planted:
    """Secret by secret, by where it was put; `bodies`: answers to requests that went wrong."""

    def __init__(self, system: System) -> None:
        self.system, self.gateway = system, system.gateway
        self.secrets = {
            "gateway's token": system.gateway.token, "internal token": (system.directory / "internal-token").read_text(), "token key": (system.directory / "token-key").read_text(),
            "master key": (system.directory / "master-key").read_text(), "database password": f":{make_url(system.database_url).password}@",
            **{kind: a_canary(kind.split()[0]) for kind in ("script text", "environment value", "input content", "s3 secret", "url password", "wrong token", "broken key", "odd field")},
        }  # fmt: skip
        key = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
        self.key = key
        self.secrets["credential's key"] = key.splitlines()[3][:40]
        self.bodies: list[str] = []

    def host(self, ssh: SshHost, scratch: Path, *, authorized: bool) -> str:
        """With the planted key."""
        credential = self.gateway.post("/credentials", {"name": self.gateway.a_name("key"), "kind": "SSH_KEY", "source": "IMPORT", "private_key": self.key})
        if authorized:
            ssh.authorize(credential["public_key"])
        scratch.mkdir(parents=True, exist_ok=True)
        body = {
            "name": self.gateway.a_name("host"), "host": ssh.address, "port": ssh.port, "host_keys": [ssh.host_key], "job_manager": {"type": "FORK"},
            "access": {"credential_id": credential["id"], "login": ssh.login}, "file_systems": {"SCRATCH": str(scratch)}, "queues": [{"name": "debug", "max_wall_time_seconds": 600, "is_default": True}],
        }  # fmt: skip
        return str(self.gateway.post("/compute-resources", body)["id"])

    def application(self, host: str) -> str:
        inputs = [{"name": "text", "type": "URI", "required": True, "standard_input": True}]
        return str(self.gateway.application(
            host, executable_path="/usr/bin/wc", inputs=inputs, outputs=[{"name": "count", "type": "STDOUT"}], environment={"PLANTED": self.secrets["environment value"]},
            pre_job_commands=[f": {self.secrets['script text']}"],
        ))  # fmt: skip

    def launch(self, interface: str, storage: str, text: str = "") -> str:
        return str(self.gateway.launch(interface, {"text": text or f"data:,{self.secrets['input content']}"}, output_storage_id=storage))

    def refused(self, method: str, path: str, *, token: str = "", **request: Any) -> int:
        """A request that must go wrong; its answer is kept."""
        headers = {"Authorization": f"Bearer {token or self.gateway.token}", "Content-Type": "application/json", "Idempotency-Key": a_canary("key")}
        answer = httpx2.request(method, f"{self.system.url}/v1{path}", headers=headers, timeout=30.0, **request)
        assert answer.status_code >= 400, answer.text
        self.bodies.append(answer.text)
        return answer.status_code

    def found_in(self, text: str) -> list[str]:
        return [kind for kind, secret in self.secrets.items() if secret in text]


@pytest.fixture
def planted(build: Build, collector: Receiver) -> Iterator[Planted]:
    yield Planted(build(otlp_endpoint=collector.url, trace_delay_ms=200, log_level="debug"))


def lines(system: System) -> dict[str, list[str]]:
    return {name: each.log.read_text(errors="replace").splitlines() for name, each in system.daemons.items()}


def scraped(system: System) -> dict[str, str]:
    found = {}
    for name in system.daemons:
        request = urllib.request.Request(f"http://{system.admin_address(name)}/metrics", headers={"Accept": "application/openmetrics-text"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            found[name] = answer.read().decode()
    return found


def goes_wrong(planted: Planted) -> None:
    """Requests that carry a secret and are refused, or meet a bug of ours at a statement that carries one."""
    secrets, refused = planted.secrets, planted.refused
    assert refused("GET", "/me", token=secrets["wrong token"]) == 401
    assert refused("GET", "/me", token=f"airv_0123456789ab_{secrets['wrong token']}") == 401
    assert refused("POST", "/credentials", json={"name": "k", "kind": "SSH_KEY", "source": "IMPORT", "private_key": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{secrets['broken key']}\n-----END"}) == 422
    assert refused("POST", "/projects", content=f'{{"name": "x", "description": "{secrets["odd field"]}" ,,}}') == 400
    assert refused("POST", "/projects", json={"name": "x", "password": secrets["odd field"]}) == 422
    url = f"https://me:{secrets['url password']}@example.org/x"
    assert refused("POST", "/experiments", json={"name": "x", "application_interface_id": planted.gateway.shape(), "inputs": {"edges": url}, "launch": True}) in {409, 422}
    planted.system.rows("RENAME TABLE catalogue TO catalogue_away")
    try:
        assert refused("POST", "/application-modules", json={"name": "odd", "description": secrets["script text"]}) in {500, 503}
    finally:
        planted.system.rows("RENAME TABLE catalogue_away TO catalogue")


def test_what_was_planted_is_in_nothing_that_operators_and_strangers_see(planted: Planted, ssh: SshHost, collector: Receiver, tmp_path: Path) -> None:
    system, gateway = planted.system, planted.gateway
    storage = gateway.storage(tmp_path / "storage")
    good = planted.launch(planted.application(planted.host(ssh, tmp_path / "scratch", authorized=True)), storage)
    assert gateway.wait(good, SECONDS)["outcome"] == "NORMAL_COMPLETION", gateway.told(good)
    s3 = gateway.post("/credentials", {"name": gateway.a_name("s3"), "kind": "S3_KEY", "source": "IMPORT", "private_key": f"planted-id:{planted.secrets['s3 secret']}"})["id"]
    away = gateway.post("/storage-resources", {"name": gateway.a_name("s3"), "kind": "S3", "endpoint": "http://127.0.0.1:9", "bucket": "planted", "credential_id": s3})["id"]
    lost = planted.launch(planted.application(planted.host(ssh, tmp_path / "scratch2", authorized=True)), storage, f"storage://{away}/x")
    system.until(lambda: explained(gateway, lost) in {"RETRY_WAIT", "ENDED"}, SECONDS, lambda: gateway.told(lost))
    goes_wrong(planted)
    system.until(lambda: any(each.attributes.get("airavata.experiment.id") == good and each.name == "experiment run" for each in collector.spans), 60.0)
    answers = [*planted.bodies, json.dumps(gateway.get(f"/experiments/{lost}/explain")), json.dumps(gateway.get(f"/experiments/{good}/trace"))]
    kept = planted.found_in(system.one("SELECT snapshot FROM processes WHERE experiment_id = %s", good))
    assert {"script text", "environment value", "input content"} <= set(kept), "the canaries live"
    assert [(planted.found_in(body), body) for body in answers if planted.found_in(body)] == []
    assert [(name, planted.found_in(line), line) for name, said in lines(system).items() for line in said if planted.found_in(line)] == []
    assert [(name, planted.found_in(text)) for name, text in scraped(system).items() if planted.found_in(text)] == []
    assert len(collector.spans) > 20
    assert [(each.name, planted.found_in(repr(each))) for each in list(collector.spans) if planted.found_in(repr(each))] == []
    every_line_is_ours(system)


def explained(gateway: Gateway, experiment: str) -> str:
    told = gateway.get(f"/experiments/{experiment}/explain")
    return str(told["causes"][0]["code"] if told["causes"] else told["verdict"])


def every_line_is_ours(system: System) -> None:
    said = [(name, line) for name, found in lines(system).items() for line in found]
    assert len(said) >= len(system.daemons), "each says that it started"
    for name, line in said:
        told = json.loads(line)
        assert list(told)[:6] == list(logs.FIXED), (name, line)
        assert len(line.encode()) <= logs.LINE_BYTES_MAX
        assert told["event"] == told["event"].lower().replace(" ", "_")
    assert {name.rpartition("-")[0] for name in system.daemons} == {json.loads(line)["component"] for _, line in said}
