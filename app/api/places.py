"""Who may come in and with what: me, gateways, tokens, credentials."""

from datetime import datetime, timedelta
from typing import Any

from app import instance, secrets
from app.api import models, reading
from app.api.catalogue import not_at_birth
from app.api.launching import live_experiments_max
from app.api.operations import PAGED, Answer, Call, Operation, after, choice, matched, page, patched, text, versioned
from app.api.problems import Problem, invalid, or_404
from app.mysql import access, catalogue
from app.workflow.inputs import Fault

TOKEN_DAYS_MAX = 365


def _me(call: Call) -> Answer:
    principal = call.principal
    gateway = access.gateway(call.tx, principal.gateway_id) if principal.gateway_id else None
    limits = {"live_experiments": live_experiments_max(call, gateway or {})}
    told = {name: getattr(principal, name) for name in ("gateway_id", "user", "role", "expires_at")}
    return Answer({**told, "scopes": sorted(principal.scopes), "limits": limits})


# ---- gateways -------------------------------------------------------------------------------------------------------------------------------------------
def _operator(call: Call) -> None:
    if call.principal.role != "operator":
        raise Problem("forbidden", "this needs the role operator")


def _a_gateway(call: Call, *, lock: bool = False) -> dict[str, Any]:
    """Operators see all, a gateway's own people theirs."""
    allowed = call.principal.role == "operator" or call.principal.gateway_id == call.path["id"]
    return or_404(access.gateway(call.tx, call.id("gw"), lock=lock) if allowed else None)


def _create_gateway(call: Call) -> Answer:
    _operator(call)
    not_at_birth(call, "state")
    gateway_id = instance.fresh_id("gw")
    document = call.body.model_dump(mode="json", exclude={"name", "state"})
    if document["default_storage_id"] is not None:
        raise invalid([Fault("/default_storage_id", "unknown_reference", "a new gateway has no storage yet")])
    access.create_gateway(call.tx, gateway_id, call.body.name, document, project_id=instance.fresh_id("prj"), now=call.at)
    call.audit(gateway_id)
    found = access.gateway(call.tx, gateway_id)
    assert found is not None
    return versioned(call, found, 1, location=f"/v1/gateways/{gateway_id}")


def _gateways(call: Call) -> Answer:
    only = None if call.principal.role == "operator" else call.principal.gateway
    rows = access.gateways_page(call.tx, name=call.query["name"], only=only, before=after(call, tuple[str]), limit=call.query["limit"] + 1)
    return page(call, rows, dict, lambda row: [row["id"]])


def _gateway(call: Call) -> Answer:
    found = _a_gateway(call)
    return versioned(call, found, found["version"])


def _change_gateway(call: Call) -> Answer:
    before = _a_gateway(call, lock=True)
    matched(call, before["version"])
    if call.principal.role != "operator" and (given := sorted({"state", "limits", "name"} & set(call.raw))):
        raise invalid([Fault(f"/{name}", "not_allowed", "only operators may change this") for name in given])
    model = patched(call, {name: value for name, value in before.items() if name in models.Gateway.model_fields})
    storage = model.default_storage_id
    if storage is not None and catalogue.get(call.tx, before["id"], catalogue.STORAGE, storage) is None:
        raise invalid([Fault("/default_storage_id", "unknown_reference", "no such storage")])
    access.change_gateway(call.tx, before["id"], name=model.name, state=model.state, document=model.model_dump(mode="json", exclude={"name", "state"}), now=call.at)
    call.audit(before["id"])
    return _gateway(call)


# ---- tokens ---------------------------------------------------------------------------------------------------------------------------------------------
def _token_shown(row: Any) -> dict[str, Any]:
    told = {name: getattr(row, name) for name in ("id", "gateway_id", "name", "user", "role", "expires_at", "revoked_at", "created_at")}
    return {**told, "scopes": row.scopes.split(), "secret": None}


def _create_token(call: Call) -> Answer:
    body, principal = call.body, call.principal
    found: list[Fault] = []
    if body.role in {"operator", "service"} and principal.role != "operator":
        found.append(Fault("/role", "not_allowed", "only an operator makes tokens of this role", ["user", "gateway-admin"]))
    scopes = body.scopes if body.scopes is not None else list(access.ROLES[body.role])
    for index, scope in enumerate(scopes):
        of_a_gateway = principal.role == "operator" and body.role != "operator"  # Which operators have no scopes for, but may let people into.
        if scope not in access.ROLES[body.role] or not (of_a_gateway or scope in principal.scopes):
            found.append(Fault(f"/scopes/{index}", "not_allowed", "more than the role has, or than you have", list(access.ROLES[body.role])))
    expires = reading.naive(body.expires_at) or call.at + timedelta(days=90)
    if not call.at < expires <= call.at + timedelta(days=TOKEN_DAYS_MAX):
        found.append(Fault("/expires_at", "out_of_range", f"in the future, at most {TOKEN_DAYS_MAX} days ahead"))
    gateway_id = _gateway_of_token(call, found)
    if found:
        raise invalid(found)
    token, lookup = secrets.new_token()
    row = {
        "id": instance.fresh_id("tok"), "gateway_id": gateway_id, "lookup": lookup, "digest": secrets.token_digest(token, call.services.token_key), "key_id": "1", "name": body.name,
        "user": body.user, "role": body.role, "scopes": scopes, "expires_at": expires, "now": call.at,
    }  # fmt: skip
    access.create_token(call.tx, row)
    call.audit(row["id"])
    told = _token_shown(access.get_token(call.tx, gateway_id, row["id"]))
    return Answer({**told, "secret": token}, headers={"Location": f"/v1/tokens/{row['id']}", "Cache-Control": "no-store"}, stored=told)


def _gateway_of_token(call: Call, found: list[Fault]) -> str | None:
    body = call.body
    if call.principal.role != "operator":
        if body.gateway_id not in {None, call.principal.gateway_id}:
            found.append(Fault("/gateway_id", "unknown_reference", "no such gateway"))
        return call.principal.gateway_id
    if body.role in {"operator", "service"}:
        if body.gateway_id is not None:
            found.append(Fault("/gateway_id", "not_allowed", f"a token of role {body.role} is bound to no gateway"))
        return None
    if body.gateway_id is None or access.gateway(call.tx, body.gateway_id) is None:
        found.append(Fault("/gateway_id", "required" if body.gateway_id is None else "unknown_reference", "which gateway is this token for?"))
    return str(body.gateway_id)


def _a_token(call: Call) -> Any:
    """Of the caller's gateway; operators and services have theirs among themselves."""
    return or_404(access.get_token(call.tx, call.principal.gateway_id, call.id("tok")))


def _tokens(call: Call) -> Answer:
    rows = access.tokens_page(call.tx, call.principal.gateway_id, before=after(call, tuple[str]), limit=call.query["limit"] + 1)
    return page(call, rows, _token_shown, lambda row: [row.id])


def _token(call: Call) -> Answer:
    found = _a_token(call)
    return versioned(call, _token_shown(found), 2 if found.revoked_at else 1)


def _revoke(call: Call) -> Answer:
    found = _a_token(call)
    access.revoke_token(call.tx, found.id)
    call.audit(found.id)
    return Answer()


# ---- credentials ----------------------------------------------------------------------------------------------------------------------------------------
def _credential_shown(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("id", "name", "kind", "owner", "public_key", "fingerprint", "version", "expires_at", "last_used_at", "created_at")}


def _create_credential(call: Call) -> Answer:
    body = call.body
    if body.kind == "S3_KEY":
        secret, public, fingerprint = _s3_key(body)
    else:
        secret, public, fingerprint = _ssh_key(body)
    expires = reading.naive(body.expires_at)
    if expires is not None and expires <= call.at:
        raise invalid([Fault("/expires_at", "out_of_range", "in the future")])
    credential_id, gateway_id = instance.fresh_id("crd"), call.principal.gateway
    sealed = secrets.seal(secret, master=call.services.master_key, gateway_id=gateway_id, credential_id=credential_id)
    row = {
        "id": credential_id, "gateway_id": gateway_id, "owner": call.principal.user, "name": body.name, "kind": body.kind, "public_key": public, "fingerprint": fingerprint,
        "sealed": sealed, "expires_at": expires, "now": call.at,
    }  # fmt: skip
    access.create_credential(call.tx, row)
    call.audit(credential_id)
    found = access.credential(call.tx, gateway_id, credential_id)
    assert found is not None
    return versioned(call, _credential_shown(found), 1, location=f"/v1/credentials/{credential_id}")


def _ssh_key(body: models.Credential) -> tuple[bytes, str, str]:
    if body.source == "GENERATE":
        if body.private_key is not None:
            raise invalid([Fault("/private_key", "conflicts_with", "source GENERATE makes the key itself")])
        made = secrets.generate_ssh_key(f"airavata-{body.name}")
        return made.private, made.public, made.fingerprint
    if body.private_key is None:
        raise invalid([Fault("/private_key", "required", "source IMPORT needs it")])
    try:
        made = secrets.import_ssh_key(body.private_key, body.passphrase, f"airavata-{body.name}")
    except secrets.BadKey as fault:
        raise invalid([Fault("/private_key", fault.code, fault.detail)]) from None
    return made.private, made.public, made.fingerprint


def _s3_key(body: models.Credential) -> tuple[bytes, str, str]:
    """`private_key` is `<access key id>:<secret>`."""
    if body.source != "IMPORT" or not body.private_key or ":" not in body.private_key:
        raise invalid([Fault("/private_key", "bad_format", "source IMPORT and <access key id>:<secret access key> are wanted")])
    return body.private_key.encode(), body.private_key.split(":", 1)[0], "s3"


def _a_credential(call: Call) -> dict[str, Any]:
    return or_404(access.credential(call.tx, call.principal.gateway, call.id("crd"), owner=call.principal.owner))


def _credentials(call: Call) -> Answer:
    query, before = call.query, after(call, tuple[datetime, str])
    rows = access.credentials_page(call.tx, call.principal.gateway, owner=call.principal.owner, name=query["name"], before=before, limit=query["limit"] + 1)
    return page(call, rows, _credential_shown, lambda row: [row["created_at"], row["id"]])


def _credential(call: Call) -> Answer:
    found = _a_credential(call)
    return versioned(call, _credential_shown(found), found["version"])


def _delete_credential(call: Call) -> Answer:
    found = _a_credential(call)
    matched(call, found["version"])
    if call.query["force"] != "true":
        hosts = catalogue.every(call.tx, call.principal.gateway, catalogue.COMPUTE)
        storages = catalogue.every(call.tx, call.principal.gateway, catalogue.STORAGE)
        users = [f"compute resource {each['name']}" for each in hosts if each["access"]["credential_id"] == found["id"]]
        users += [f"storage {each['name']}" for each in storages if each["credential_id"] == found["id"]]
        if users:
            raise Problem("in_use", f"{', '.join(users[:5])} use it; ?force=true removes it all the same and parks the work")
    access.remove_credential(call.tx, found["id"])
    call.audit(found["id"])
    return Answer()


_FORCE = choice("force", "true", "false")
OPERATIONS = (
    Operation("GET", "/v1/me", "get_me", "Who am I", _me, shape="Me"),
    Operation("POST", "/v1/gateways", "create_gateways", "Create a gateway", _create_gateway, "gateway:admin", models.Gateway, "Gateway", 201, errors=("name_taken",), key="may"),
    Operation("GET", "/v1/gateways", "list_gateways", "List gateways", _gateways, "gateway:admin", shape="GatewayList", parameters=(*PAGED, text("name", 63))),
    Operation("GET", "/v1/gateways/{id}", "get_gateways", "Read a gateway", _gateway, "gateway:admin", shape="Gateway", also=(304,)),
    Operation("PATCH", "/v1/gateways/{id}", "change_gateways", "Change a gateway", _change_gateway, "gateway:admin", models.Gateway, "Gateway", errors=("name_taken",), key="may", match=True),
    Operation("POST", "/v1/tokens", "create_tokens", "Make a token; its secret is shown once", _create_token, "gateway:admin", models.Token, "Token", 201, key="may"),
    Operation("GET", "/v1/tokens", "list_tokens", "List tokens", _tokens, "gateway:admin", shape="TokenList", parameters=PAGED),
    Operation("GET", "/v1/tokens/{id}", "get_tokens", "Read a token", _token, "gateway:admin", shape="Token", also=(304,)),
    Operation("DELETE", "/v1/tokens/{id}", "delete_tokens", "Revoke a token", _revoke, "gateway:admin", status=204),
    Operation("POST", "/v1/credentials", "create_credentials", "Generate or import a credential", _create_credential, "credentials:write", models.Credential, "Credential", 201, errors=("name_taken",), key="may"),
    Operation("GET", "/v1/credentials", "list_credentials", "List credentials", _credentials, "credentials:write", shape="CredentialList", parameters=(*PAGED, text("name", 63))),
    Operation("GET", "/v1/credentials/{id}", "get_credentials", "Read a credential", _credential, "credentials:write", shape="Credential", also=(304,)),
    Operation("DELETE", "/v1/credentials/{id}", "delete_credentials", "Remove a credential", _delete_credential, "credentials:write", status=204, errors=("in_use",), match=True, parameters=(_FORCE,)),
)  # fmt: skip
