"""Gateways, tokens and credentials over HTTP: who may make what, and that secrets go in and never out."""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from app import secrets
from tests.support.rest import HOST_KEY, MASTER, Client, Rest, fresh

pytestmark = pytest.mark.mysql
NONE = serialization.NoEncryption()


def faults(answer: Any) -> set[tuple[str, str]]:
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed"), answer.text
    return {(each["pointer"], each["code"]) for each in answer.json()["errors"]}


def later(**ahead: float) -> str:
    return (datetime.now(UTC) + timedelta(**ahead)).isoformat()


def pem(key: Any, passphrase: str | None = None) -> str:
    sealed = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else NONE
    return str(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, sealed).decode())


# ---- me and gateways --------------------------------------------------------------------------------------------------------------------------------
def test_who_am_i(admin: Client, user: Client, operator: Client, gateway_id: str) -> None:
    assert {name: admin.read("/v1/me")[name] for name in ("gateway_id", "user", "role")} == {"gateway_id": gateway_id, "user": "ann", "role": "gateway-admin"}
    assert user.read("/v1/me")["scopes"] == ["catalogue:read", "credentials:write", "experiments:read", "experiments:write"]
    assert operator.read("/v1/me")["gateway_id"] is None


def test_operators_make_gateways_and_each_starts_with_a_project(rest: Rest, admin: Client, operator: Client) -> None:
    name = fresh("gw")
    answer = operator.send_json("POST", "/v1/gateways", {"name": name, "display_name": "Über", "limits": {"live_experiments": 7}})
    assert (answer.status_code, answer.headers["etag"]) == (201, '"1"')
    made = answer.json()
    assert answer.headers["location"] == f"/v1/gateways/{made['id']}"
    assert (made["state"], made["limits"], made["default_storage_id"], made["paused"]) == ("ACTIVE", {"live_experiments": 7}, None, False)
    assert operator.read(f"/v1/gateways/{made['id']}") == made
    assert [each["id"] for each in operator.read("/v1/gateways", name=name)["items"]] == [made["id"]]
    with rest.client(made["id"]) as inside:
        assert [each["name"] for each in inside.read("/v1/projects")["items"]] == ["default"]
        assert [each["id"] for each in inside.read("/v1/gateways")["items"]] == [made["id"]]
    again = operator.send_json("POST", "/v1/gateways", {"name": name})
    assert (again.status_code, again.json()["code"]) == (409, "name_taken")
    assert admin.send_json("POST", "/v1/gateways", {"name": fresh("gw")}).status_code == 403
    assert admin.send_json("GET", f"/v1/gateways/{made['id']}").status_code == 404
    assert faults(operator.send_json("POST", "/v1/gateways", {"name": "X", "state": "ACTIVE", "id": "gw_1"})) >= {("/name", "bad_format"), ("/id", "unknown_field")}
    assert faults(operator.send_json("POST", "/v1/gateways", {"name": fresh("gw"), "state": "ACTIVE"})) == {("/state", "unknown_field")}


def test_a_gateways_admin_changes_what_is_its_own(admin: Client, operator: Client, gateway_id: str, rest: Rest, tmp_path: Any) -> None:
    path = f"/v1/gateways/{gateway_id}"
    assert admin.send_json("PATCH", path, {"paused": True}).json()["code"] == "precondition_required"
    assert faults(admin.send_json("PATCH", path, {"state": "DEACTIVATED", "limits": {"live_experiments": 1}}, headers={"If-Match": "*"})) == {("/limits", "not_allowed"), ("/state", "not_allowed")}
    storage = admin.made("/v1/storage-resources", {"name": "s", "kind": "POSIX", "root": str(tmp_path)})["id"]
    changed = admin.send_json("PATCH", path, {"paused": True, "default_storage_id": storage}, headers={"If-Match": '"1"'}).json()
    assert (changed["paused"], changed["default_storage_id"], changed["version"]) == (True, storage, 2)
    with rest.client(rest.gateway()) as other:
        assert other.send_json("PATCH", path, {"paused": False}, headers={"If-Match": "*"}).status_code == 404
        theirs = other.read("/v1/gateways")["items"][0]
        assert faults(other.send_json("PATCH", f"/v1/gateways/{theirs['id']}", {"default_storage_id": storage}, headers={"If-Match": "*"})) == {("/default_storage_id", "unknown_reference")}
        assert operator.send_json("PATCH", path, {"name": theirs["name"]}, headers={"If-Match": "*"}).json()["code"] == "name_taken"
    assert operator.send_json("PATCH", path, {"state": "DEACTIVATED"}, headers={"If-Match": '"1"'}).status_code == 412


# ---- tokens -----------------------------------------------------------------------------------------------------------------------------------------
def test_a_tokens_secret_is_shown_once_and_revoking_may_be_repeated(rest: Rest, admin: Client, gateway_id: str) -> None:
    answer = admin.send_json("POST", "/v1/tokens", {"name": "ci", "user": "robot", "role": "user", "scopes": ["experiments:read"], "expires_at": later(days=30)})
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = answer.json()
    assert made["secret"].startswith("airv_")
    headers = {"Authorization": f"Bearer {made['secret']}"}
    me = httpx2.get(f"{rest.public}/v1/me", headers=headers).json()
    assert (me["user"], me["role"], me["scopes"], me["gateway_id"]) == ("robot", "user", ["experiments:read"], gateway_id)
    read = admin.read(f"/v1/tokens/{made['id']}")
    assert (read["secret"], read["revoked_at"]) == (None, None)
    assert all(each["secret"] is None for each in admin.read("/v1/tokens")["items"])
    with rest.client(rest.gateway()) as other:
        assert other.send_json("DELETE", f"/v1/tokens/{made['id']}").status_code == 404
    assert [admin.send_json("DELETE", f"/v1/tokens/{made['id']}").status_code for _ in range(2)] == [204, 204]
    assert admin.read(f"/v1/tokens/{made['id']}")["revoked_at"] is not None
    assert made["secret"].split("_")[2] not in str(rest.rows("SELECT * FROM tokens WHERE gateway_id = %s", gateway_id))
    assert [row[0] for row in rest.rows("SELECT action FROM audit WHERE subject = %s ORDER BY id", made["id"])] == ["create_tokens", "delete_tokens", "delete_tokens"]


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"role": "operator"}, ("/role", "not_allowed")),
        ({"role": "service"}, ("/role", "not_allowed")),
        ({"role": "root"}, ("/role", "not_allowed")),
        ({"scopes": ["experiments:read", "operator:read"]}, ("/scopes/1", "not_allowed")),
        ({"role": "user", "scopes": ["catalogue:write"]}, ("/scopes/0", "not_allowed")),
        ({"expires_at": "2001-01-01T00:00:00Z"}, ("/expires_at", "out_of_range")),
        ({"expires_at": later(days=366)}, ("/expires_at", "out_of_range")),
        ({"expires_at": "tomorrow"}, ("/expires_at", "bad_format")),
        ({"expires_at": "2030-01-01T00:00:00"}, ("/expires_at", "bad_format")),
        ({"gateway_id": f"gw_{'0' * 26}"}, ("/gateway_id", "unknown_reference")),
        ({"user": ""}, ("/user", "bad_format")),
        ({"name": "Bad"}, ("/name", "bad_format")),
    ],
)
def test_no_token_has_more_than_its_maker(rest: Rest, admin: Client, gateway_id: str, said: dict[str, Any], fault: tuple[str, str]) -> None:
    before = rest.rows("SELECT COUNT(*) FROM tokens WHERE gateway_id = %s", gateway_id)
    assert fault in faults(admin.send_json("POST", "/v1/tokens", {"name": "t", "user": "u", **said}))
    assert rest.rows("SELECT COUNT(*) FROM tokens WHERE gateway_id = %s", gateway_id) == before


def test_an_admin_with_few_scopes_passes_on_no_more(rest: Rest, gateway_id: str) -> None:
    with rest.client(gateway_id, scopes=("gateway:admin", "catalogue:read")) as few:
        assert faults(few.send_json("POST", "/v1/tokens", {"name": "t", "user": "u", "role": "gateway-admin"})) >= {("/scopes/0", "not_allowed")}
        assert few.made("/v1/tokens", {"name": "t", "user": "u", "scopes": ["catalogue:read"]})["scopes"] == ["catalogue:read"]


def test_an_operator_with_few_scopes_makes_no_operator_with_more(rest: Rest, gateway_id: str) -> None:
    with rest.client(role="operator", scopes=("gateway:admin", "operator:read")) as few:
        body = {"name": "t", "user": "u", "role": "operator"}
        assert faults(few.send_json("POST", "/v1/tokens", body)) == {("/scopes/1", "not_allowed")}
        assert few.made("/v1/tokens", body | {"scopes": ["operator:read"]})["scopes"] == ["operator:read"]
        assert few.made("/v1/tokens", {"name": "t", "user": "u", "role": "user", "gateway_id": gateway_id})["role"] == "user"


def test_operators_say_for_which_gateway(operator: Client, gateway_id: str) -> None:
    assert faults(operator.send_json("POST", "/v1/tokens", {"name": "t", "user": "u", "role": "gateway-admin"})) == {("/gateway_id", "required")}
    assert faults(operator.send_json("POST", "/v1/tokens", {"name": "t", "user": "u", "role": "service", "gateway_id": gateway_id})) == {("/gateway_id", "not_allowed")}
    assert operator.made("/v1/tokens", {"name": "t", "user": "u", "role": "gateway-admin", "gateway_id": gateway_id})["gateway_id"] == gateway_id
    assert operator.made("/v1/tokens", {"name": "sink", "user": "sink", "role": "service"})["scopes"] == ["internal:events"]


# ---- credentials ------------------------------------------------------------------------------------------------------------------------------------
def test_a_generated_key_shows_its_public_half_only(rest: Rest, admin: Client, user: Client, gateway_id: str) -> None:
    answer = admin.send_json("POST", "/v1/credentials", {"name": "k", "kind": "SSH_KEY", "source": "GENERATE"})
    made = answer.json()
    assert answer.status_code == 201
    assert made["public_key"].startswith("ssh-ed25519 ")
    assert made["fingerprint"].startswith("SHA256:")
    assert admin.read(f"/v1/credentials/{made['id']}") == made
    gateway, sealed, _ = rest.rows("SELECT gateway_id, sealed, name FROM credentials WHERE id = %s", made["id"])[0]
    opened = secrets.open_sealed(sealed, master=MASTER, gateway_id=gateway, credential_id=made["id"])
    assert b"OPENSSH PRIVATE KEY" in opened
    assert b"OPENSSH" not in sealed
    assert user.send_json("GET", f"/v1/credentials/{made['id']}").status_code == 404
    assert user.send_json("DELETE", f"/v1/credentials/{made['id']}", headers={"If-Match": "*"}).status_code == 404
    assert user.read("/v1/credentials")["items"] == []
    own = user.made("/v1/credentials", {"name": "bobs", "source": "GENERATE"})["id"]
    assert {each["id"] for each in admin.read("/v1/credentials")["items"]} == {made["id"], own}
    assert admin.send_json("POST", "/v1/credentials", {"name": "k", "source": "GENERATE"}).json()["code"] == "name_taken"


def test_keys_of_every_good_kind_come_in(admin: Client) -> None:
    for name, key in (("rsa", rsa.generate_private_key(65537, 4096)), ("ecdsa", ec.generate_private_key(ec.SECP256R1()))):
        made = admin.made("/v1/credentials", {"name": name, "source": "IMPORT", "private_key": pem(key, "pass word"), "passphrase": "pass word"})
        assert made["public_key"].startswith({"rsa": "ssh-rsa ", "ecdsa": "ecdsa-sha2-nistp256 "}[name])


SEALED = pem(ec.generate_private_key(ec.SECP256R1()), "right")
PUBLIC = HOST_KEY
RSA_1024 = pem(rsa.generate_private_key(65537, 1024))  # Too short on purpose.


@cache  # Seconds of CPU, which collecting these tests must not cost.
def rsa_4160() -> str:
    return pem(rsa.generate_private_key(65537, 4160))


@cache
def a_dsa_key() -> str:
    return dsa.generate_private_key(2048).private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, NONE).decode()


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"private_key": SEALED, "passphrase": "wrong-secret"}, ("/private_key", "bad_format")),
        ({"private_key": SEALED}, ("/private_key", "bad_format")),
        ({"private_key": PUBLIC}, ("/private_key", "bad_format")),
        ({"private_key": RSA_1024}, ("/private_key", "not_allowed")),
        ({"private_key": rsa_4160}, ("/private_key", "not_allowed")),
        ({"private_key": a_dsa_key}, ("/private_key", "not_allowed")),
        ({"private_key": "-----BEGIN PRIVATE KEY-----\n" + "A" * 900_000}, ("/private_key", "too_long")),
        ({"private_key": "-----BEGIN OPENSSH PRIVATE KEY-----\nsecret-garbage\n-----END OPENSSH PRIVATE KEY-----"}, ("/private_key", "bad_format")),
        ({}, ("/private_key", "required")),
        ({"source": "GENERATE", "private_key": SEALED}, ("/private_key", "conflicts_with")),
        ({"private_key": SEALED, "passphrase": "right", "expires_at": "2001-01-01T00:00:00Z"}, ("/expires_at", "out_of_range")),
        ({"private_key": 7}, ("/private_key", "wrong_type")),
        ({"kind": "PASSWORD"}, ("/kind", "not_allowed")),
        ({"kind": "S3_KEY", "private_key": "nocolon"}, ("/private_key", "bad_format")),
    ],
)
def test_a_bad_key_is_refused_and_repeated_nowhere(admin: Client, capfd: pytest.CaptureFixture[str], said: dict[str, Any], fault: tuple[str, str]) -> None:
    given = {name: value() if callable(value) else value for name, value in said.items()}
    answer = admin.send_json("POST", "/v1/credentials", {"name": "k", "source": "IMPORT", **given})
    assert fault in faults(answer)
    shown = answer.text + "".join(capfd.readouterr())
    assert not [each for each in ("wrong-secret", "secret-garbage", "AAAAAAAA", SEALED[60:90], RSA_1024[60:90]) if each in shown]
    assert admin.read("/v1/credentials")["items"] == []


def test_a_credential_in_use_stays_unless_forced(admin: Client, rest: Rest) -> None:
    made = [admin.made("/v1/credentials", {"name": name, "source": "GENERATE"})["id"] for name in ("host", "store", "idle")]
    admin.made("/v1/compute-resources", {"name": "h", "host": "localhost", "access": {"credential_id": made[0]}})
    admin.made("/v1/storage-resources", {"name": "s", "kind": "POSIX", "root": "/data", "credential_id": made[1]})

    def removed(credential: str, **more: Any) -> tuple[int, str]:
        answer = admin.send_json("DELETE", f"/v1/credentials/{credential}", headers={"If-Match": "*"}, **more)
        return answer.status_code, answer.text and answer.json()["code"]

    assert admin.send_json("DELETE", f"/v1/credentials/{made[2]}").status_code == 428
    assert [removed(each) for each in made] == [(409, "in_use"), (409, "in_use"), (204, "")]
    assert removed(made[0], force="true") == (204, "")
    assert admin.send_json("GET", f"/v1/credentials/{made[0]}").status_code == 404
    assert rest.rows("SELECT sealed FROM credentials WHERE id = %s", made[0]) == [(b"",)]
    assert admin.made("/v1/credentials", {"name": "host", "source": "GENERATE"})["id"] != made[0]
    assert admin.send_json("POST", "/v1/compute-resources", {"name": "h2", "host": "localhost", "access": {"credential_id": made[0]}}).status_code == 422


def test_lists_of_tokens_gateways_and_credentials_page_without_gap_or_repeat(admin: Client, operator: Client, rest: Rest, gateway_id: str) -> None:
    for number in range(5):
        admin.made("/v1/credentials", {"name": f"k{number}", "source": "GENERATE"})
        admin.made("/v1/tokens", {"name": f"t{number}", "user": "u"})
    # As a copy with a clock behind would have made them: ids and times in different orders.
    rest.write("UPDATE credentials SET created_at = '2020-01-01 00:00:00' WHERE gateway_id = %s AND name IN ('k3', 'k4')", gateway_id)
    for client, path, count in ((admin, "/v1/credentials", 5), (admin, "/v1/tokens", 6), (operator, "/v1/gateways", 5)):
        whole = [each["id"] for each in client.read(path, limit=200)["items"]]
        seen: list[str] = []
        answer = client.send_json("GET", path, limit=2)
        while True:
            seen += [each["id"] for each in answer.json()["items"]]
            if "link" not in answer.headers or len(seen) >= 40:
                break
            assert answer.headers["link"].endswith('>; rel="next"')
            answer = client.get(answer.headers["link"][1:].partition(">")[0])
        assert len(whole) >= (count if path != "/v1/gateways" else 1)
        assert seen == whole[: len(seen)]
        assert len(seen) >= min(40, len(whole))
