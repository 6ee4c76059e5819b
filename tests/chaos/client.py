"""A gateway's user under chaos: every request is told before it is sent and after it is answered (client.jsonl), retried under the same key until the answer is definite.

A time-out is `unknown`, never `failed`. What an answer should be is told only where the plan says so.
"""

import hashlib
import itertools
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import httpx2

from tests.chaos.lines import Lines
from tests.support.gateway import Gateway, Refused, fresh_key

Document = dict[str, Any]
REFUSED_SECONDS, AGAIN_SECONDS, NOT_NOW_SECONDS = 120.0, 0.5, 120.0
ANSWER_CHARACTERS = 8192  # Of an answer kept for the checker.
SHOWS_A_SECRET = frozenset({"POST tokens"})  # To whom it belongs, once.
ROADS = (("GET", ""), ("GET", "/events"), ("GET", "/explain"), ("POST", "/launches"))  # To an experiment.
_ops = itertools.count(1)


class Client(Gateway):
    """One session. `tenant`: the gateway's id."""

    def __init__(self, urls: list[str], token: str, *, tenant: str, lines: Lines, session: str = "c0") -> None:
        super().__init__(urls, token)
        self.tenant, self.lines, self.session = tenant, lines, session

    def send(self, method: str, url: str, **request: Any) -> httpx2.Response:
        return self._told(_operation(method, url, request.get("json")), method, url, None, request)

    def _told(self, operation: str, method: str, url: str, expect: Any, request: Document) -> httpx2.Response:
        op, key = f"{self.session}-{next(_ops)}", (request.get("headers") or {}).get("Idempotency-Key")
        body = request.get("content") or json.dumps(request.get("json"), sort_keys=True).encode()
        more: Document = {} if expect is None else {"expect": expect}
        path = _path(url)
        named = {"experiment": path[1]} if path[0] == "experiments" and len(path) > 1 else {}
        self.lines.write("op.invoke", op=op, operation=operation, tenant=self.tenant, session=self.session, key=key, body_sha256=hashlib.sha256(body).hexdigest(), **named, **more)
        try:
            answer = self._http.request(method, url, **request)
        except httpx2.TransportError as broken:
            self.lines.write("op.return", op=op, outcome="unknown", why=type(broken).__name__)
            raise
        told = _answered(operation, answer) | named | ({} if operation in SHOWS_A_SECRET else {"answer_text": answer.text[:ANSWER_CHARACTERS]})
        outcome = "ok" if answer.status_code < 400 else "unknown" if answer.status_code == 500 or told["code"] == "outcome_unknown" else "refused"
        self.lines.write("op.return", op=op, outcome=outcome, status=answer.status_code, **told)
        return answer

    def carry_out(self, launch: Mapping[str, Any], body: Document) -> str:
        """The launch and its repeats; the experiment's id, the same each time."""
        first = int(hashlib.sha256(launch["key"].encode()).hexdigest()[:8], 16)  # Which API server is asked first.
        deadline = time.monotonic() + NOT_NOW_SECONDS
        while True:
            try:
                found = self.post("/experiments", body, launch["key"], first=first)["id"]
                break
            except Refused as fault:  # Its host is off until somebody has seen to its new key, say: a user comes again.
                if fault.problem.get("code") != "not_launchable" or time.monotonic() > deadline:
                    raise
            time.sleep(AGAIN_SECONDS)
        for n, wait in enumerate(launch["repeat_after"], 1):
            time.sleep(wait)
            again = self.post("/experiments", body, launch["key"], first=first + n)["id"]
            assert again == found, f"key {launch['key']} gave {found}, then {again}"
        return str(found)

    def misbehave(self, bad: Mapping[str, Any], good: Document, marker: str) -> None:
        """A request that must be refused, and how (docs/api.md). `marker`: its name, which must be found nowhere afterwards."""
        body = json.dumps({**good, "name": marker, **bad.get("body", {})}).encode() if "raw" not in bad else str(bad["raw"]).encode()
        headers = {"Content-Type": "application/json"} | ({} if "key" in bad else {"Idempotency-Key": f"bad-{marker}"})
        expect = {"status": [bad["status"]], "code": bad["code"], "marker": marker}
        deadline = time.monotonic() + REFUSED_SECONDS
        for url in itertools.cycle(self.urls):  # A server, or its store, that is away is not the request's fault.
            with suppress(httpx2.TransportError):
                answer = self._told("refused", "POST", f"{url}/v1/experiments", expect, {"content": body, "headers": headers})
                if answer.status_code not in {500, 503}:
                    return
            assert time.monotonic() < deadline, f"{marker} was not answered"
            time.sleep(AGAIN_SECONDS)

    def look(self, experiment: str = "") -> Document | None:
        """The experiment as answered now, for P23, or the list of the newest; None while nobody answers."""
        try:
            return dict(self.get(f"/experiments/{experiment}" if experiment else "/experiments"))
        except (httpx2.TransportError, Refused):
            return None

    def trespass(self, experiment: str, *roads: tuple[str, str], in_trouble: bool = False) -> None:
        """Asks for what is another tenant's: it must be as unknown as an id that never was (docs/api.md). `in_trouble`: the server may have to say that it cannot tell."""
        expect = {"status": [404, 503]} if in_trouble else {"status": [404], "code": "not_found"}
        for number, (method, road) in enumerate(roads or ROADS):
            url = f"{self.urls[number % len(self.urls)]}/v1/experiments/{experiment}{road}"
            with suppress(httpx2.TransportError):
                self._told("trespass", method, url, expect, {} if method == "GET" else {"json": {}, "headers": {"Idempotency-Key": fresh_key()}})


def _path(url: str) -> list[str]:
    return url.split("/v1", 1)[-1].split("?")[0].strip("/").split("/")


def _operation(method: str, url: str, body: Any) -> str:
    path = _path(url)
    if method == "POST" and path == ["experiments"]:
        return "launch" if isinstance(body, dict) and body.get("launch") else "create"
    if method == "POST" and path[0] == "experiments" and path[-1] == "launches":
        return "launch"
    return "read" if method == "GET" and path[0] == "experiments" and len(path) == 2 else f"{method} {path[0]}"


def _answered(operation: str, answer: httpx2.Response) -> Document:
    told: Document = {}
    if answer.status_code >= 400:
        told["code"] = answer.json().get("code") if answer.headers.get("content-type", "").startswith("application/problem") else None
        told["retry_after"] = answer.headers.get("retry-after")
    elif operation in {"launch", "create", "read"}:
        body = answer.json()
        told |= {"experiment": body.get("id"), "process": body.get("process_id"), "version": body.get("version")}
    return told
