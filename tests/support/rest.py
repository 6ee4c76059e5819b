"""The two faces of an API server inside the test's process, over real HTTP and a real database: nothing of ours is replaced, only the process is spared."""

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2
from sqlalchemy import Engine

from app import instance, plugins, secrets
from app.api import resources
from app.api.__main__ import _server
from app.api.access import Tokens
from app.api.application import Face, Services
from app.api.operations import Cursors
from app.api.waiting import Waiter
from app.messages.placement import Placement
from app.messages.topics import Topics
from app.mysql import access, engine
from app.mysql.unit_of_work import UnitOfWork, now, unit_of_work

KEY = b"k" * 32
MASTER = b"m" * 32
_serial = itertools.count()


def fresh(word: str) -> str:
    return f"{word}-{os.getpid()}-{next(_serial)}"


class Client(httpx2.Client):
    """Speaks with one token. POST carries a key unless told otherwise (`key=None`)."""

    def send_json(self, method: str, path: str, body: Any = None, *, key: str | None = "fresh", headers: Mapping[str, str] | None = None, **query: Any) -> httpx2.Response:
        sent = dict(headers or {})
        if key is not None and method in {"POST", "PATCH"}:
            sent["Idempotency-Key"] = fresh("key") if key == "fresh" else key
        return self.request(method, path, json=body, headers=sent, params=query or None)

    def made(self, path: str, body: Any, **more: Any) -> Any:
        answer = self.send_json("POST", path, body, **more)
        assert answer.status_code in {200, 201, 202}, answer.text
        return answer.json()

    def read(self, path: str, **query: Any) -> Any:
        answer = self.send_json("GET", path, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()


class Rest:
    """A running server; `services` may be turned by a test that has one to itself."""

    def __init__(self, database: Engine, unit: UnitOfWork, services: Services, found: Mapping[str, Any]) -> None:
        self.engine, self.unit, self.services = database, unit, services
        self.waiter: Waiter = found["waiter"]
        self.faces: list[Face] = found["faces"]
        self.loop: asyncio.AbstractEventLoop = found["loop"]
        self.public, self.internal = (f"http://127.0.0.1:{port}" for port in found["ports"])

    def token(self, *, gateway_id: str | None = None, user: str = "ann", role: str = "gateway-admin", scopes: tuple[str, ...] | None = None) -> str:
        text, lookup = secrets.new_token()
        with self.unit("test.token") as tx:
            at = now(tx)
            access.create_token(tx, {
                "id": instance.fresh_id("tok"), "gateway_id": gateway_id, "lookup": lookup, "digest": secrets.token_digest(text, KEY), "key_id": "1", "name": "t", "user": user, "role": role,
                "scopes": scopes or access.ROLES[role], "expires_at": at.replace(year=at.year + 1), "now": at,
            })  # fmt: skip
        return text

    def gateway(self, name: str | None = None) -> str:
        """A gateway with its `default` project."""
        gateway_id = instance.fresh_id("gw")
        document = {"display_name": "", "domain": "", "contact_email": "", "default_storage_id": None, "paused": False, "limits": {"live_experiments": None}}
        with self.unit("test.gateway") as tx:
            access.create_gateway(tx, gateway_id, name or fresh("gateway"), document, project_id=instance.fresh_id("prj"), now=now(tx))
        return gateway_id

    @contextmanager
    def client(self, gateway_id: str | None = None, *, internal: bool = False, **token: Any) -> Iterator[Client]:
        headers = {"Authorization": f"Bearer {self.token(gateway_id=gateway_id, **token)}"}
        with Client(base_url=self.internal if internal else self.public, headers=headers, timeout=httpx2.Timeout(75.0, connect=5.0)) as found:
            yield found

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.unit("test.rows") as tx:
            return [tuple(row) for row in tx.exec_driver_sql(sql, values).all()]

    def write(self, sql: str, *values: Any) -> None:
        with self.unit("test.write") as tx:
            tx.exec_driver_sql(sql, values)


@contextmanager
def serving(url: str, *, live_experiments_max: int = 0, threads: int = 16) -> Iterator[Rest]:
    """Both faces on free ports, in a thread with a loop of its own."""
    database = engine.connect(url, size=threads + 4, idle_seconds=30, lock_wait_seconds=2)
    unit = unit_of_work(database)
    services = Services(
        unit_of_work=unit, tokens=Tokens(unit, KEY), cursors=Cursors(KEY), placement=Placement(12, 4, 2), topics=Topics(), planners=plugins.planners(["batch-application", "shape"]),
        master_key=MASTER, token_key=KEY, live_experiments_max=live_experiments_max,
    )  # fmt: skip
    ready, loop = threading.Event(), asyncio.new_event_loop()
    found: dict[str, Any] = {"loop": loop}

    async def work() -> None:
        found["waiter"] = services.waiter = Waiter(unit, resources.WAITS)
        found["faces"] = [Face(services, operations, threads=threads) for operations in (resources.PUBLIC, resources.INTERNAL)]
        servers = [_server(each, ("127.0.0.1", 0)) for each in found["faces"]]
        tasks = [asyncio.create_task(each.serve()) for each in servers]
        found["stop"] = asyncio.Event()
        while not all(each.started for each in servers):  # noqa: ASYNC110  uvicorn tells by a flag.
            await asyncio.sleep(0.01)
        found["ports"] = tuple(each.servers[0].sockets[0].getsockname()[1] for each in servers)
        ready.set()
        await found["stop"].wait()
        for each in servers:
            each.should_exit = True
        await asyncio.wait(tasks, timeout=10)

    thread = threading.Thread(target=lambda: loop.run_until_complete(work()), daemon=True)
    thread.start()
    assert ready.wait(60.0)
    try:
        yield Rest(database, unit, services, found)
    finally:
        loop.call_soon_threadsafe(found["stop"].set)
        thread.join(15.0)
        loop.close()
        database.dispose()



def problem(answer: httpx2.Response) -> tuple[int, str]:
    """Status and code of a refusal that is a whole problem document."""
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == answer.status_code
    assert document["type"] == f"/problems/{document['code']}"
    assert document["instance"] == answer.headers["x-request-id"]
    assert document["trace_id"] == answer.headers["traceparent"][3:35]
    return answer.status_code, document["code"]


def until(true: Callable[[], bool], seconds: float = 60.0, pause: float = 0.02) -> None:
    deadline, nothing = time.monotonic() + seconds, threading.Event()
    while not true():
        assert time.monotonic() < deadline, "not within its time"
        nothing.wait(pause)


# ---- what a launch needs ------------------------------------------------------------------------------------------------------------------------------
SHAPE = {"planner": "shape", "inputs": [{"name": "edges", "type": "STRING", "required": True}, {"name": "behaviour", "type": "STRING"}], "outputs": []}
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIP7IQLJjMvGuPBLcUaDNJOxwuUqlSlMlXlqgsNjPwYyV"


def a_shape(client: Client) -> str:
    """An interface of the planner `shape`: needs no host."""
    return str(client.made("/v1/application-interfaces", {"name": fresh("shape"), **SHAPE})["id"])


def a_place(client: Client, root: str, **host: Any) -> dict[str, str]:
    """Everything that a batch application needs: credential, host, storage, module, interface with an input of each type, deployment."""
    name = fresh("app")
    credential = client.made("/v1/credentials", {"name": name, "kind": "SSH_KEY", "source": "GENERATE"})["id"]
    queues = [{"name": "debug", "max_wall_time_seconds": 600, "max_cpus": 8, "is_default": True}]
    body = {"name": name, "host": "localhost", "host_keys": [HOST_KEY], "access": {"credential_id": credential, "login": "demo"}, "file_systems": {"SCRATCH": "/scratch"}, "queues": queues, **host}
    compute = client.made("/v1/compute-resources", body)["id"]
    storage = client.made("/v1/storage-resources", {"name": name, "kind": "POSIX", "root": root})["id"]
    module = client.made("/v1/application-modules", {"name": name})["id"]
    inputs = [
        {"name": "text", "type": "URI", "required": True}, {"name": "files", "type": "URI_COLLECTION"}, {"name": "n", "type": "INTEGER", "default": 3, "minimum": 1, "maximum": 10},
        {"name": "x", "type": "FLOAT"}, {"name": "mode", "type": "STRING", "choices": ["fast", "slow"]}, {"name": "fixed", "type": "STRING", "default": "f", "read_only": True},
    ]  # fmt: skip
    outputs = [{"name": "count", "type": "STDOUT", "required": True}, {"name": "table", "type": "URI", "search_glob": "*.tbl"}]
    interface = client.made("/v1/application-interfaces", {"name": name, "module_ids": [module], "inputs": inputs, "outputs": outputs})["id"]
    deployment = client.made("/v1/application-deployments", {"module_id": module, "compute_resource_id": compute, "executable_path": "/usr/bin/wc", "defaults": {"cpu_count": 2}})["id"]
    return {"credential": credential, "compute": compute, "storage": storage, "module": module, "interface": interface, "deployment": deployment}
