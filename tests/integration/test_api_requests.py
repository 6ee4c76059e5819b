"""What every request suffers before it reaches a resource: limits, tokens, media types, names."""

import gzip
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from app.api import __main__ as server
from app.api import gate
from observability import metrics
from tests.support.rest import Client, Rest, a_shape, fresh, problem, serving, until

pytestmark = pytest.mark.mysql
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Raw:
    """One connection, byte by byte."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname or "", parts.port or 0))
        self.head = f"Host: test\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n".encode()

    def ask(self, *pieces: bytes, seconds: float = 30.0) -> bytes:
        """Sends, then reads until the other side closes, answers nothing more for a moment, or the time is up. `b''`: closed without a word."""
        self.socket.settimeout(seconds)
        try:
            for piece in pieces:
                self.socket.sendall(piece)
        except OSError:
            pass  # The server has answered and closed; what it said is still to be read.
        found = b""
        while piece := self._receive():
            found += piece
        return found

    def _receive(self) -> bytes:
        try:
            return self.socket.recv(65_536)
        except ConnectionError:
            return b""

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def raw(rest: Rest, gateway_id: str) -> Iterator[Raw]:
    connection = Raw(rest.public, rest.token(gateway_id=gateway_id))
    yield connection
    connection.close()


def told(answer: httpx2.Response) -> dict[str, Any]:
    """The answer without what is made for each request."""
    return {**answer.json(), "instance": None, "trace_id": None}


# ---- who may ------------------------------------------------------------------------------------------------------------------------------------------
def test_whatever_is_wrong_with_a_token_the_answer_is_one(rest: Rest, gateway_id: str) -> None:
    good, revoked, expired = rest.token(gateway_id=gateway_id), rest.token(gateway_id=gateway_id), rest.token(gateway_id=gateway_id)
    rest.write("UPDATE tokens SET revoked_at = created_at WHERE lookup = %s", revoked.split("_")[1])
    rest.write("UPDATE tokens SET expires_at = UTC_TIMESTAMP(6) WHERE lookup = %s", expired.split("_")[1])
    assert httpx2.get(f"{rest.public}/v1/me", headers={"Authorization": f"bearer {good}"}).status_code == 200
    changed = good[:-1] + ("0" if good[-1] != "0" else "1")
    jwt = "eyJhbGciOiJub25lIiwia2lkIjoiLi4vLi4vZXRjL3Bhc3N3ZCJ9.eyJzdWIiOiJhbm4ifQ."
    given: list[str | None] = [None, "", f"Basic {good}", f"Bearer {changed}", f"Bearer {revoked}", f"Bearer {expired}", "Bearer", f"Bearer {jwt}", good, f"Bearer {good.upper()}", "Bearer airv_0_0"]
    answers = [httpx2.get(f"{rest.public}/v1/me", headers={} if each is None else {"Authorization": each}) for each in given]
    answers += [httpx2.get(f"{rest.public}/v1/me?access_token={good}"), httpx2.get(f"{rest.public}/v1/me", headers={"Cookie": f"token={good}"})]
    assert [problem(each) for each in answers] == [(401, "unauthenticated")] * len(answers)
    assert {each.headers["www-authenticate"] for each in answers} == {"Bearer"}
    assert all(told(each) == told(answers[0]) for each in answers)


def test_a_token_without_the_scope_is_told_which_one(rest: Rest, gateway_id: str, user: Client) -> None:
    with rest.client(gateway_id, scopes=("catalogue:read",)) as reader:
        answer = reader.send_json("POST", "/v1/application-modules", {"name": "x"})
        assert problem(answer) == (403, "forbidden")
        assert "catalogue:write" in answer.json()["detail"]
    for path, scope in (("/v1/gateways", "gateway:admin"), ("/v1/operator/outbox", "operator:read"), ("/v1/tokens", "gateway:admin")):
        answer = user.send_json("GET", path)
        assert problem(answer) == (403, "forbidden")
        assert scope in answer.json()["detail"]


def test_each_face_knows_its_own_paths_only(rest: Rest, admin: Client, service: Client) -> None:
    for client, path in ((admin, "/internal/v1/positions"), (admin, "/v1/projects/"), (admin, "/v1"), (admin, "/metrics"), (service, "/v1/me"), (service, "/openapi.json"), (admin, "//v1/me")):
        assert problem(client.send_json("GET", path)) == (404, "route_not_found"), path
    with rest.client(rest.gateway(), internal=True) as stranger:
        assert problem(stranger.send_json("POST", "/internal/v1/task-events", {}, key=None)) == (403, "forbidden")


def test_a_deactivated_gateway_reads_and_writes_nothing_new(rest: Rest, operator: Client) -> None:
    gateway_id = rest.gateway()
    with rest.client(gateway_id) as client:
        operator.send_json("PATCH", f"/v1/gateways/{gateway_id}", {"state": "DEACTIVATED"}, headers={"If-Match": "*"})
        assert problem(client.send_json("POST", "/v1/application-modules", {"name": "x"})) == (403, "gateway_inactive")
        assert client.read("/v1/application-modules")["items"] == []


# ---- how much ---------------------------------------------------------------------------------------------------------------------------------------
def test_a_body_beyond_a_mebibyte_is_refused_and_the_line_closed(raw: Raw, rest: Rest, admin: Client) -> None:
    body = b'{"name":"' + b"x" * (1 << 20) + b'"}'
    answer = raw.ask(b"POST /v1/projects HTTP/1.1\r\n" + raw.head + b"Content-Length: %d\r\n\r\n" % len(body), body)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code": "body_too_large"' in answer
    chunk = b"%x\r\n" % 65_536 + b" " * 65_536 + b"\r\n"
    chunked = Raw(rest.public, raw.head.split(b"Bearer ")[1].split(b"\r\n")[0].decode())
    began = time.monotonic()
    answer = chunked.ask(b"POST /v1/projects HTTP/1.1\r\n" + raw.head + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 16, b"1\r\n \r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert time.monotonic() - began < 9.0
    chunked.close()
    exact = json.dumps({"name": "x", "description": ""}).encode()
    padded = exact + b" " * ((1 << 20) - len(exact))
    assert admin.post("/v1/projects", content=padded, headers={"Content-Type": "application/json"}).status_code == 201


def test_what_is_no_plain_json_is_refused_by_its_header(admin: Client) -> None:
    def sent(body: bytes, **headers: str) -> tuple[int, str]:
        return problem(admin.request("POST", "/v1/projects", content=body, headers={name.replace("_", "-"): value for name, value in headers.items()}))

    assert sent(gzip.compress(b"{}"), Content_Type="application/json", Content_Encoding="gzip") == (415, "unsupported_encoding")
    assert sent(b"<x/>", Content_Type="application/xml") == (415, "unsupported_media_type")
    assert sent(b"{}") == (415, "unsupported_media_type")
    assert sent(b"{}", Content_Type="application/json; charset=latin-1") == (415, "unsupported_media_type")
    assert sent(b"{}", Content_Type="application/json", Accept="text/html") == (406, "not_acceptable")
    assert sent(b"{}", Content_Type="application/json", Accept="application/json;q=0") == (406, "not_acceptable")
    assert sent(b"[]", Content_Type="application/json; charset=UTF-8") == (422, "validation_failed")
    assert sent(b'{"name":"a","name":"b"}', Content_Type="application/json") == (400, "malformed_json")
    assert admin.read("/v1/projects")["items"][1:] == []


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /v1/projects HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}", 400),
        (b"GET /v1/me HTTP/1.1\r\n%sX-A: b\r\n folded\r\n\r\n", 400),
        (b"GET /v1/me HTTP/1.1\nHost: x\n\n", 400),
        (b"GET /v1/me HTTP/1.1\r\n%sX-A: " + b"a" * 17_000 + b"\r\n\r\n", 431),
        (b"GET /v1/me?" + b"a" * 9000 + b" HTTP/1.1\r\n%s\r\n", 414),
    ],
    ids=["both lengths", "folded header", "bare LF", "large headers", "long URL"],
)
def test_what_parsers_might_read_differently_or_at_length_is_refused_and_closed(raw: Raw, request_bytes: bytes, status: int) -> None:
    answer = raw.ask(request_bytes.replace(b"%s", raw.head))
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in answer.lower()


def test_a_large_body_in_one_piece_is_no_large_header(rest: Rest, gateway_id: str, raw: Raw) -> None:
    body = json.dumps({"name": fresh("p"), "description": ""}).encode() + b" " * 900_000
    answer = raw.ask(b"POST /v1/projects HTTP/1.1\r\n" + raw.head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert answer.startswith(b"HTTP/1.1 201 ")


def test_slow_senders_are_cut_off_first_request_or_later(rest: Rest, gateway_id: str) -> None:
    token = rest.token(gateway_id=gateway_id)

    def headers_never_end(connection: Raw) -> bytes:
        return connection.ask(b"GET /livez HTTP/1.1\r\nX-A: ", seconds=40)

    def nor_those_of_a_second_request(connection: Raw) -> bytes:
        connection.socket.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.socket.settimeout(5)
        first = b""
        while b'{"status":"alive"}' not in first:
            first += connection.socket.recv(65_536)
        return connection.ask(b"GET /livez HTTP/1.1\r\nX-A: ", seconds=40)

    def a_body_trickles(connection: Raw) -> bytes:
        return connection.ask(b"POST /v1/projects HTTP/1.1\r\n" + connection.head + b"Content-Length: 20\r\n\r\n{", seconds=40)

    def timed(work: Any) -> tuple[bytes, float]:
        connection, began = Raw(rest.public, token), time.monotonic()
        try:
            return work(connection)[:12], time.monotonic() - began
        finally:
            connection.close()

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(timed, [headers_never_end, nor_those_of_a_second_request, a_body_trickles]))
    assert [each[0] for each in found] == [b"", b"", b"HTTP/1.1 408"]
    assert all(9.0 < seconds < 30.0 for _, seconds in found)


def test_endless_headers_are_cut_off_by_their_size(raw: Raw) -> None:
    began = time.monotonic()
    assert raw.ask(b"GET /livez HTTP/1.1\r\n", *[b"X-%d: " % number + b"a" * 8000 + b"\r\n" for number in range(200)]) == b""
    assert time.monotonic() - began < 9.0


def test_bodies_of_whomever_have_a_bound_in_common_and_make_room_when_they_are_answered(shared_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "BODIES_BYTES_MAX", 1_000_000)
    before = metrics.value("airavata_overloads_total", bound="bodies")
    with serving(shared_database) as rest, rest.client(rest.gateway()) as client, closing(Raw(rest.public, "nobody's")) as stranger, closing(Raw(rest.public, "nobody's")) as other:
        body = b'{"name":"a"}' + b" " * 600_000
        stranger.socket.sendall(b"POST /v1/projects HTTP/1.1\r\nConnection: close\r\n" + stranger.head + b"Content-Length: %d\r\n\r\n" % (len(body) + 1) + body)
        until(lambda: rest.faces[0].gate.bodies == len(body))
        answer = other.ask(b"POST /v1/projects HTTP/1.1\r\n" + other.head + b"Content-Length: %d\r\n\r\n" % (len(body) + 1), body)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"code": "overloaded"' in answer
        assert b"retry-after: 1\r\n" in answer.lower()
        assert b"connection: close\r\n" in answer.lower()
        assert client.get("/v1/me").status_code == 200, "what has no body is not turned away"
        assert stranger.ask(b" ").startswith(b"HTTP/1.1 401 ")
        until(lambda: rest.faces[0].gate.bodies == 0)
        for each in (b"b", b"c", b"d"):
            assert client.post("/v1/projects", content=body.replace(b'"a"', b'"%s"' % each), headers={"Content-Type": "application/json"}).status_code == 201
    assert metrics.value("airavata_overloads_total", bound="bodies") == before + 1


def test_a_connection_too_many_is_told_so_and_closed(shared_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 3)
    before = metrics.value("airavata_overloads_total", bound="connections")
    with serving(shared_database) as rest:
        idle = [Raw(rest.public, "") for _ in range(3)]
        with closing(Raw(rest.public, "")) as another:
            refused = another.ask()
        head, _, body = refused.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1" in head
        assert json.loads(body)["code"] == "overloaded"
        assert httpx2.get(f"{rest.internal}/livez").status_code == 200, "the other face has its own"
        for each in idle:
            each.close()
        until(lambda: httpx2.get(f"{rest.public}/livez").status_code == 200)
    assert metrics.value("airavata_overloads_total", bound="connections") > before


def test_a_copy_with_too_much_at_work_says_so_and_is_alive(shared_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "AT_WORK_MAX", 2)
    with serving(shared_database, threads=4) as rest, rest.client(rest.gateway()) as client:
        module = client.made("/v1/application-modules", {"name": "x"})["id"]
        with rest.engine.connect() as rival:
            rival.exec_driver_sql("SELECT id FROM catalogue WHERE id = %s FOR UPDATE", (module,))
            with ThreadPoolExecutor(3) as pool:
                held = [pool.submit(client.send_json, "PATCH", f"/v1/application-modules/{module}", {"description": "y"}, headers={"If-Match": "*"}) for _ in range(2)]
                until(lambda: rest.rows("SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'")[0][0] >= 2, pause=0.15)  # InnoDB renews that table's copy when it was not read for 100 ms.
                busy = client.send_json("GET", "/v1/me")
                assert client.get("/livez").status_code == client.get("/readyz").status_code == 200
                rival.rollback()
                assert [each.result().status_code for each in held] == [200, 200]
        assert problem(busy) == (503, "overloaded")
        assert busy.headers["retry-after"] == "1"


def test_a_wait_holds_no_place_however_it_is_asked_for(shared_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "AT_WORK_MAX", 1)
    with serving(shared_database, threads=4) as rest, rest.client(rest.gateway()) as client, ThreadPoolExecutor(3) as pool:
        made = client.made("/v1/experiments", {"name": "x", "application_interface_id": a_shape(client), "inputs": {"edges": "a"}})["id"]
        path = f"/v1/experiments/{made}/status"
        waits = [("HEAD", "wait_seconds=30"), ("GET", "wait%5Fseconds=30"), ("GET", "wait_seconds=%33%30")]
        held = [pool.submit(client.request, method, f"{path}?{query}") for method, query in waits]
        until(lambda: sum(rest.waiter.per_token.values()) == len(waits))
        assert client.get("/v1/me").status_code == 200
        rest.loop.call_soon_threadsafe(rest.waiter.draining.set)
        assert [each.result(30).status_code for each in held] == [200, 200, 200]


# ---- names and traces -------------------------------------------------------------------------------------------------------------------------------
def test_every_answer_carries_its_request_and_its_place_in_the_trace(admin: Client) -> None:
    answer = admin.get("/v1/me", headers={"X-Request-Id": "abc.1-2_3", "traceparent": TRACE, "tracestate": "x=y"})
    assert answer.headers["x-request-id"] == "abc.1-2_3"
    assert answer.headers["traceparent"].startswith(TRACE[:36])
    assert answer.headers["traceparent"][36:52] != TRACE[36:52]
    assert (answer.headers["x-content-type-options"], answer.headers["cache-control"]) == ("nosniff", "private, no-cache")
    for bad, state in (("00-zz", ""), ("00-" + "0" * 32 + "-00f067aa0ba902b7-01", ""), ("ff" + TRACE[2:], ""), (TRACE + "-more", ""), (TRACE, "x=" + "y" * 10_000)):
        answer = admin.get("/v1/me", headers={"X-Request-Id": "a b%0d%0aSet-Cookie: x", "traceparent": bad, "tracestate": state})
        assert answer.status_code == 200
        assert answer.headers["traceparent"][3:35] not in {TRACE[3:35], "0" * 32}, "a broken context is dropped: the trace is a new one"
        assert answer.headers["x-request-id"].startswith("req_")
        assert "set-cookie" not in answer.headers


def test_head_is_get_without_a_body_and_other_methods_are_named(admin: Client) -> None:
    got, head = admin.get("/v1/me"), admin.head("/v1/me")
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", got.headers["content-length"])
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE"):
        answer = admin.request(method, "/v1/projects")
        assert problem(answer) == (405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, POST, HEAD"


def test_documents_are_served_without_a_token(rest: Rest) -> None:
    document = httpx2.get(f"{rest.public}/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    assert httpx2.get(f"{rest.public}/version").json()["api"] == "v1"
    assert httpx2.get(f"{rest.public}/problems/not_launchable").json()["status"] == 422
    assert problem(httpx2.get(f"{rest.public}/problems/nope")) == (404, "not_found")
    assert problem(httpx2.get(f"{rest.public}/livez?x=1")) == (400, "invalid_parameter")
