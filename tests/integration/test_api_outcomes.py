"""One request, one effect: keys sent again, copies sent at once, and a store that is away, hangs, or loses the answer to COMMIT."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from sqlalchemy.engine import make_url

from app.api import application
from app.api.__main__ import Readiness
from app.api.access import REMEMBERED_SECONDS
from app.mysql import idempotency
from tests.support.line import Line, line_to
from tests.support.rest import Client, Rest, fresh, problem, serving, until

pytestmark = pytest.mark.mysql


# ---- keys -------------------------------------------------------------------------------------------------------------------------------------------
def test_one_request_sent_100_times_to_two_copies_has_one_effect(rest: Rest, admin: Client, gateway_id: str, shared_database: str) -> None:
    """Tokens have no unique name: nothing but the key keeps them single."""
    body, key = {"name": "robot", "user": "robot", "role": "user"}, fresh("key")
    with serving(shared_database) as second, second.client(gateway_id) as other, ThreadPoolExecutor(32) as pool:
        clients: Sequence[Client] = (admin, other)
        answers = list(pool.map(lambda number: clients[number % 2].send_json("POST", "/v1/tokens", body, key=key), range(100)))
    made = [each for each in answers if each.status_code == 201]
    assert {problem(each) for each in answers if each.status_code != 201} <= {(409, "idempotency_in_flight")}
    assert len({each.json()["id"] for each in made}) == 1
    assert [bool(each.json()["secret"]) for each in made if "idempotency-replayed" not in each.headers] == [True]
    assert {each.json()["secret"] for each in made if "idempotency-replayed" in each.headers} == {None}
    assert rest.rows("SELECT COUNT(*) FROM tokens WHERE gateway_id = %s AND name = 'robot'", gateway_id) == [(1,)]
    assert rest.rows("SELECT COUNT(*) FROM audit WHERE gateway_id = %s AND action = 'create_tokens'", gateway_id) == [(1,)]


def test_a_replay_is_the_first_answer_and_another_body_is_refused(rest: Rest, admin: Client, user: Client, gateway_id: str) -> None:
    key, body = fresh("key"), {"name": fresh("p")}
    first, again = admin.send_json("POST", "/v1/projects", body, key=key), admin.send_json("POST", "/v1/projects", body, key=f'"{key}"')
    assert first.json() == again.json()
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    assert {name: again.headers[name] for name in ("location", "etag")} == {name: first.headers[name] for name in ("location", "etag")}
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert problem(admin.send_json("POST", "/v1/projects", {"name": fresh("p")}, key=key)) == (422, "idempotency_key_reused")
    assert problem(user.send_json("POST", "/v1/projects", body, key=key)) == (409, "name_taken")
    with rest.client(rest.gateway()) as other:
        assert other.made("/v1/projects", body, key=key)["id"] != first.json()["id"]
    patched = [admin.send_json("PATCH", first.headers["location"], {"description": "d"}, key=key, headers={"If-Match": '"1"'}) for _ in range(2)]
    assert [(each.status_code, each.json()["version"]) for each in patched] == [(200, 2), (200, 2)]


def test_a_refused_request_is_mended_under_its_key(admin: Client) -> None:
    key, name = fresh("key"), fresh("p")
    assert problem(admin.send_json("POST", "/v1/projects", {"name": "No"}, key=key)) == (422, "validation_failed")
    assert admin.send_json("POST", "/v1/projects", {"name": name}, key=key).status_code == 201


@pytest.mark.parametrize("key", ["x" * 256, "a b", "é", ""])
def test_a_key_is_short_and_visible(admin: Client, key: str) -> None:
    answer = admin.request("POST", "/v1/projects", json={"name": "x"}, headers=[(b"Idempotency-Key", key.encode("latin-1"))])
    assert problem(answer) == (400, "invalid_header")


def test_a_key_whose_first_request_still_runs_waits_and_then_says_so(rest: Rest, admin: Client, gateway_id: str) -> None:
    body, key = {"name": fresh("p")}, fresh("key")
    scope = hashlib.sha256(f"{gateway_id}\0ann\0POST\0/v1/projects\0{key}".encode()).digest()
    with rest.engine.connect() as first:
        assert idempotency.begin(first, scope, b"f" * 32) is None
        began = time.monotonic()
        second = admin.send_json("POST", "/v1/projects", body, key=key)
        assert 1.0 < time.monotonic() - began < 9.0
        first.rollback()
    assert problem(second) == (409, "idempotency_in_flight")
    assert (second.json()["retriable"], second.headers["retry-after"]) == (True, "1")
    assert admin.send_json("POST", "/v1/projects", body, key=key).status_code == 201


# ---- a store that fails -----------------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def behind_a_line(shared_database: str) -> Iterator[tuple[Line, Client]]:
    """A server whose database is reached over a line of the test's."""
    url = make_url(shared_database)
    with line_to(url.host or "", url.port or 0) as line:
        near = url.set(host="127.0.0.1", port=line.port, query={"ssl_disabled": "true"}).render_as_string(hide_password=False)
        with serving(near, threads=4) as rest, rest.client(rest.gateway()) as client:
            rest.services.ready = Readiness(rest.unit)
            yield line, client
            line.mend()
            line.thaw()


def test_while_mysql_is_away_it_lives_is_not_ready_and_asks_to_come_again(behind_a_line: tuple[Line, Client]) -> None:
    line, client = behind_a_line
    assert client.get("/readyz").json() == {"status": "ready"}
    assert client.get("/v1/projects").status_code == 200
    line.cut()
    assert [client.get(path).status_code for path in ("/livez", "/version", "/openapi.json", "/problems/internal")] == [200] * 4
    until(lambda: client.get("/readyz").status_code == 503)
    assert client.get("/readyz").json()["detail"].startswith("mysql: ")
    for answer in (client.get("/v1/projects"), client.send_json("POST", "/v1/projects", {"name": "x"}), client.get("/v1/me", headers={"Authorization": "Bearer airv_" + "0" * 12 + "_" + "0" * 52})):
        assert problem(answer) == (503, "unavailable")
        assert (answer.headers["retry-after"], answer.json()["retriable"]) == ("1", True)
        assert "pymysql" not in answer.text.lower()
    line.mend()
    until(lambda: client.get("/readyz").status_code == 200)
    assert client.send_json("POST", "/v1/projects", {"name": "x"}).status_code == 201


def test_while_mysql_hangs_it_lives_and_no_request_waits_beyond_its_deadline(behind_a_line: tuple[Line, Client], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "DEADLINE_SECONDS", 2.0)
    line, client = behind_a_line
    assert [client.get(path).status_code for path in ("/readyz", "/v1/me")] == [200, 200]
    line.freeze()
    with ThreadPoolExecutor(8) as pool:
        stuck = [pool.submit(client.send_json, "POST", "/v1/projects", {"name": "y"}) for _ in range(6)]
        until(lambda: client.get("/readyz").json().get("detail") == "mysql: no answer within 1 s")
        began = time.monotonic()
        assert client.get("/livez").status_code == 200
        assert time.monotonic() - began < application.DEADLINE_SECONDS
        assert problem(client.get("/v1/projects")) == (503, "unavailable")
        assert [problem(each.result()) for each in stuck] == [(503, "outcome_unknown")] * 6
        line.thaw()
    until(lambda: [each["name"] for each in client.read("/v1/projects", name="y")["items"]] == ["y"])  # One of them was done after all.


def test_a_lost_answer_to_commit_is_looked_up_and_never_done_twice(behind_a_line: tuple[Line, Client]) -> None:
    line, client = behind_a_line
    client.get("/v1/me")
    line.lose_the_answer_to(b"\x03COMMIT")
    answer = client.send_json("POST", "/v1/tokens", {"name": "lost", "user": "u"}, key="k-lost")
    assert line.swallowed == 1
    assert answer.status_code == 201, answer.text
    assert answer.headers["idempotency-replayed"] == "true"
    assert [each["name"] for each in client.read("/v1/tokens")["items"] if each["name"] == "lost"] == ["lost"]
    line.lose_the_answer_to(b"\x03COMMIT")
    keyless = client.send_json("POST", "/v1/tokens", {"name": "keyless", "user": "u"}, key=None)
    assert problem(keyless) == (503, "outcome_unknown")
    assert line.swallowed == 2
    assert [each["name"] for each in client.read("/v1/tokens")["items"] if each["name"] == "keyless"] == ["keyless"]


def test_a_revoked_token_is_out_on_every_copy_when_it_is_forgotten(shared_database: str, rest: Rest, gateway_id: str, admin: Client) -> None:
    assert REMEMBERED_SECONDS <= 5.0
    made = admin.made("/v1/tokens", {"name": "r", "user": "u", "role": "user"})
    headers = {"Authorization": f"Bearer {made['secret']}"}
    with serving(shared_database, threads=4) as second:
        copies = (rest.public, second.public)
        assert [httpx2.get(f"{each}/v1/me", headers=headers).status_code for each in copies] == [200, 200]
        assert admin.send_json("DELETE", f"/v1/tokens/{made['id']}").status_code == 204
        until(lambda: [httpx2.get(f"{each}/v1/me", headers=headers).status_code for each in copies] == [401, 401])
