"""The API server as a process: two faces and an admin port, an exit code that tells why it does not start, and a drain that loses nothing it has begun."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from sqlalchemy import create_engine

from app.dev.servers import free_port
from tests.support.rest import KEY, MASTER, Rest, until

pytestmark = pytest.mark.mysql


class Api:
    """`python -m app.api` on free ports, away from development's shortened drain."""

    def __init__(self, database: str, **settings: str) -> None:
        self.public, self.internal, self.admin = (f"127.0.0.1:{free_port()}" for _ in range(3))
        told = {
            "ENVIRONMENT": "staging", "MYSQL_URL": database, "TOKEN_KEY": KEY.decode(), "MASTER_KEY": MASTER.hex(), "PUBLIC_LISTEN": self.public, "INTERNAL_LISTEN": self.internal,
            "ADMIN_LISTEN": self.admin, "ENABLED_PLANNERS": "batch-application,shape", **settings,
        }  # fmt: skip
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRAVATA_")}
        self.child = subprocess.Popen(
            [sys.executable, "-m", "app.api"], env={**inherited, **{f"AIRAVATA_{name}": value for name, value in told.items()}}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def status(self, address: str, path: str) -> int:
        """0: nobody listens."""
        try:
            return httpx2.get(f"http://{address}{path}", timeout=5).status_code
        except httpx2.TransportError:
            return 0

    def end(self) -> str:
        """What it printed."""
        if self.child.poll() is None:
            self.child.kill()
        return self.child.communicate(timeout=60)[0]


@pytest.fixture
def api(shared_database: str) -> Iterator[Api]:
    running = Api(shared_database)
    until(lambda: running.status(running.public, "/readyz") == 200)
    yield running
    running.end()


def test_each_port_serves_its_own(api: Api) -> None:
    found = {(port, path): api.status(getattr(api, port), path) for port in ("public", "internal", "admin") for path in ("/livez", "/readyz", "/v1/me", "/metrics", "/internal/v1/positions")}
    assert found == {
        ("public", "/livez"): 200, ("public", "/readyz"): 200, ("public", "/v1/me"): 401, ("public", "/metrics"): 404, ("public", "/internal/v1/positions"): 404,
        ("internal", "/livez"): 200, ("internal", "/readyz"): 200, ("internal", "/v1/me"): 404, ("internal", "/metrics"): 404, ("internal", "/internal/v1/positions"): 405,
        ("admin", "/livez"): 200, ("admin", "/readyz"): 200, ("admin", "/v1/me"): 404, ("admin", "/metrics"): 200, ("admin", "/internal/v1/positions"): 404,
    }  # fmt: skip


def test_a_drain_answers_waits_ends_what_it_has_begun_and_takes_nothing_new(rest: Rest, api: Api, shared_database: str) -> None:
    headers = {"Authorization": f"Bearer {rest.token(gateway_id=rest.gateway())}"}
    with httpx2.Client(base_url=rest.public, headers=headers) as client:
        shape = client.post("/v1/application-interfaces", json={"name": "s", "planner": "shape", "inputs": [{"name": "edges", "type": "STRING"}]}).json()["id"]
        experiment = client.post("/v1/experiments", json={"name": "x", "application_interface_id": shape, "inputs": {"edges": "a"}}).json()["id"]
    base = f"http://{api.public}/v1"
    with create_engine(shared_database).connect() as rival, ThreadPoolExecutor(2) as pool:
        rival.exec_driver_sql("SELECT id FROM catalogue WHERE id = %s FOR UPDATE", (shape,))
        waiting = pool.submit(httpx2.get, f"{base}/experiments/{experiment}/status?until=terminal&wait_seconds=60", headers=headers, timeout=70)
        begun = pool.submit(httpx2.patch, f"{base}/application-interfaces/{shape}", json={"description": "d"}, headers=headers | {"If-Match": "*"}, timeout=30)
        until(lambda: rest.rows("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT %%catalogue%%FOR UPDATE'")[0][0] >= 1)
        api.child.send_signal(signal.SIGTERM)
        began = time.monotonic()
        answer = waiting.result()
        assert (answer.status_code, answer.json()["terminal"]) == (200, False)
        assert time.monotonic() - began < 30.0
        assert [api.status(port, "/readyz") for port in (api.public, api.admin)] == [503, 503]
        assert api.status(api.public, "/livez") == 200
        api.child.send_signal(signal.SIGTERM)
        until(lambda: _refused(api.public))
        assert time.monotonic() - began >= 4.5
        rival.rollback()
        assert begun.result().json()["version"] == 2
    assert api.child.wait(30.0 - (time.monotonic() - began)) == 0


@pytest.mark.parametrize(("settings", "said"), [({"TOKEN_KEY": "short"}, "AIRAVATA_TOKEN_KEY"), ({"MASTER_KEY": "no hex"}, "AIRAVATA_MASTER_KEY"), ({"ENABLED_PLANNERS": "quantum"}, "quantum"), ({"PUBLIC_LISTEN": "taken"}, "PUBLIC_LISTEN"), ({"ENVIRONMENT": "production"}, "AIRAVATA_POSIX_ROOTS")])
def test_what_waiting_cannot_mend_ends_it_with_78_and_one_line(shared_database: str, settings: dict[str, str], said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        api = Api(shared_database, **{name: f"127.0.0.1:{taken.getsockname()[1]}" if value == "taken" else value for name, value in settings.items()})
        code = api.child.wait(120)
    printed = api.end()
    assert code == 78, printed
    assert said in printed
    assert "Traceback" not in printed
    assert "no hex" not in printed
    assert KEY.decode() not in printed


def _refused(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return True
    return False
