"""What a science gateway does over REST, for tests: a client with idempotency keys over one or several API servers, and the few resources a launch needs.

A call that got no answer, or a retriable one, is sent again under the same key to the next server; anything else is raised as Refused with its problem.
"""

import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2

from app.dev.compute_host import SshHost

EFFECT = """#!/bin/sh
# The application of the tests: says in the ledger that it starts, does as it is told, says that it ends. It knows nothing of our service.
printf '%s start\\n' "$AIRAVATA_TOKEN" >>"$LEDGER"
sleep "$1"
echo "said by $AIRAVATA_TOKEN"
echo "complained by $AIRAVATA_TOKEN" >&2
printf 'made by %s\\n' "$AIRAVATA_TOKEN" >result.txt
printf '%s end\\n' "$AIRAVATA_TOKEN" >>"$LEDGER"
exit "$2"
"""
TRY_SECONDS = 60.0
_serial = itertools.count()


class Refused(AssertionError):
    """The API's answer, with its problem document."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{status}: {problem}")
        self.status, self.problem = status, problem


def fresh_key() -> str:
    return f"key-{os.getpid()}-{next(_serial)}-{os.urandom(4).hex()}"


class Gateway:
    """Safe for several threads. `besides`: what else is to be told of an experiment that does not end."""

    def __init__(self, urls: Sequence[str], token: str, *, besides: Callable[[], str] = str) -> None:
        self.urls = list(urls)
        self.token, self.besides = token, besides
        self._local, self._opened = threading.local(), list[httpx2.Client]()

    @property
    def _http(self) -> httpx2.Client:
        if not hasattr(self._local, "http"):
            self._local.http = httpx2.Client(headers={"Authorization": f"Bearer {self.token}"}, timeout=httpx2.Timeout(75.0, connect=5.0), verify=False)  # HTTP on loopback: no authorities are loaded, 65 ms a thread.
            self._opened.append(self._local.http)
        return self._local.http

    def close(self) -> None:
        for each in self._opened:
            each.close()

    def send(self, method: str, url: str, **request: Any) -> httpx2.Response:
        """One request, one answer. Raises httpx2.TransportError where none came."""
        return self._http.request(method, url, **request)

    def ask(self, method: str, path: str, *, body: Any = None, key: str | None = None, first: int = 0, headers: Mapping[str, str] | None = None, **query: Any) -> httpx2.Response:
        sent = {**(headers or {}), **({"Idempotency-Key": key} if key else {})}
        deadline = time.monotonic() + TRY_SECONDS
        for number in itertools.count(first):
            try:
                answer = self.send(method, f"{self.urls[number % len(self.urls)]}/v1{path}", json=body, headers=sent, params=query or None)
                if answer.status_code < 400:
                    return answer
                fault: Exception = Refused(answer.status_code, answer.json())
                if not answer.json().get("retriable"):
                    raise fault
            except httpx2.TransportError as broken:
                fault = broken
            if time.monotonic() > deadline:
                raise fault
            time.sleep(0.05)
        raise AssertionError("unreachable")

    def get(self, path: str, **query: Any) -> Any:
        return self.ask("GET", path, **query).json()

    def post(self, path: str, body: Any, key: str | None = None, *, first: int = 0) -> Any:
        return self.ask("POST", path, body=body, key=key or fresh_key(), first=first).json()

    def patch(self, path: str, body: Any) -> Any:
        return self.ask("PATCH", path, body=body, key=fresh_key(), headers={"If-Match": "*"}).json()

    # ---- what a launch needs ------------------------------------------------------------------------------------------------------------------------
    def a_name(self, kind: str) -> str:
        return f"{kind}-{os.getpid()}-{next(_serial)}"

    def host(self, ssh: SshHost, scratch: Path, *, authorized: bool = True, **more: Any) -> str:
        """A compute resource with a key of its own, let in by the host unless told otherwise."""
        scratch.mkdir(parents=True, exist_ok=True)
        credential = self.post("/credentials", {"name": self.a_name("key"), "kind": "SSH_KEY", "source": "GENERATE"})
        if authorized:
            ssh.authorize(credential["public_key"])
        body = {
            "name": self.a_name("host"), "host": ssh.address, "port": ssh.port, "host_keys": [ssh.host_key], "job_manager": {"type": "FORK"},
            "access": {"credential_id": credential["id"], "login": ssh.login}, "file_systems": {"SCRATCH": str(scratch)},
            "queues": [{"name": "debug", "max_wall_time_seconds": 600, "is_default": True}], "limits": {"connections": 8, "connections_per_minute": 600}, **more,
        }  # fmt: skip
        return str(self.post("/compute-resources", body)["id"])

    def storage(self, root: Path) -> str:
        """A POSIX storage; the gateway's default from now on is left alone."""
        root.mkdir(parents=True, exist_ok=True)
        return str(self.post("/storage-resources", {"name": self.a_name("storage"), "kind": "POSIX", "root": str(root)})["id"])

    def application(self, host: str, *, executable_path: str, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]], **deployment: Any) -> str:
        """Module, interface and one deployment; the interface's id."""
        name = self.a_name("app")
        module = self.post("/application-modules", {"name": name, "module_version": "1"})["id"]
        interface = self.post("/application-interfaces", {"name": name, "module_ids": [module], "inputs": list(inputs), "outputs": list(outputs)})["id"]
        self.post("/application-deployments", {"module_id": module, "compute_resource_id": host, "executable_path": executable_path, **deployment})
        return str(interface)

    def effect(self, host: str, directory: Path) -> tuple[str, Path]:
        """The ledger program as an application (inputs `seconds`, `status`; outputs `result`, `said`, `complained`), and its ledger."""
        directory.mkdir(parents=True, exist_ok=True)
        program, ledger = directory / "effect.sh", directory / "ledger"
        program.write_text(EFFECT)
        program.chmod(0o755)
        inputs = [{"name": "seconds", "type": "FLOAT", "order": 1, "on_command_line": True, "default": 0}, {"name": "status", "type": "INTEGER", "order": 2, "on_command_line": True, "default": 0}]
        outputs = [
            {"name": "result", "type": "URI", "required": True, "search_glob": "result.txt"},
            {"name": "said", "type": "STDOUT", "required": True},
            {"name": "complained", "type": "STDERR", "required": True},
        ]
        return self.application(host, executable_path=str(program), inputs=inputs, outputs=outputs, environment={"LEDGER": str(ledger)}), ledger

    def shape(self) -> str:
        """The interface of the planner `shape`: any graph of no-ops."""
        inputs = [{"name": "edges", "type": "STRING", "required": True}, {"name": "behaviour", "type": "STRING"}]
        return str(self.post("/application-interfaces", {"name": self.a_name("shape"), "planner": "shape", "inputs": inputs})["id"])

    # ---- experiments --------------------------------------------------------------------------------------------------------------------------------
    def launch(self, interface: str, inputs: Mapping[str, Any], *, key: str | None = None, first: int = 0, **more: Any) -> str:
        body = {"name": more.pop("name", "a test"), "application_interface_id": interface, "inputs": dict(inputs), "launch": True, **more}
        return str(self.post("/experiments", body, key, first=first)["id"])

    def wait(self, experiment: str, seconds: float = 120.0) -> dict[str, Any]:
        """The experiment at its end."""
        deadline = time.monotonic() + seconds
        while not self.get(f"/experiments/{experiment}/status", until="terminal", wait_seconds=max(1, min(20, int(deadline - time.monotonic()))))["terminal"]:
            assert time.monotonic() < deadline, f"{experiment} did not end within {seconds:.0f} s: {self.told(experiment)}\n{self.besides()}"
        return dict(self.get(f"/experiments/{experiment}"))

    def told(self, experiment: str) -> str:
        """Everything a person would ask for, in one line a task."""
        found = self.get(f"/experiments/{experiment}")
        lines = [f"{found['state']} {found['outcome']} {found['conditions']} {found['errors']}"]
        return "\n".join(lines + [f"{each['name']} {each['state']} attempt {each['attempt']} {each.get('reason')}" for each in self.tasks(found)])

    def tasks(self, experiment: Mapping[str, Any]) -> list[dict[str, Any]]:
        return list(self.get(f"/processes/{experiment['process_id']}/tasks")["items"])

    def output(self, experiment: str, name: str) -> bytes:
        return self.ask("GET", f"/experiments/{experiment}/outputs/{name}/content", headers={"Accept": "*/*"}).content

    def events(self, experiment: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while page := self.get(f"/experiments/{experiment}/events", after=found[-1]["seq"] if found else 0, limit=200)["items"]:
            found += page
        return found
