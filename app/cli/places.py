"""Where work runs and files live: credentials, storages, hosts."""

from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import entries, session, show
from app.cli.access import pairs
from app.cli.entries import Reference
from app.cli.exits import Exit, Failed
from app.cli.show import Column, Form

commands = typer.Typer()
credentials = typer.Typer(no_args_is_help=True, help="Keys for hosts and storages.")
storages = typer.Typer(no_args_is_help=True, help="Where inputs and outputs are kept.")
hosts = typer.Typer(no_args_is_help=True, help="Compute hosts.")
commands.add_typer(credentials, name="credential")
commands.add_typer(storages, name="storage")
commands.add_typer(hosts, name="host")
KEY_SECONDS = 10.0


@credentials.command("add")
def add_credential(
    name: str,
    *,
    private_key: Annotated[Path | None, typer.Option(help="Import this private key; without it the service makes a new one.", show_default=False)] = None,
    kind: Annotated[str, typer.Option(help="SSH_KEY or S3_KEY (a file with `id:secret`).")] = "SSH_KEY",
    passphrase: Annotated[bool, typer.Option("--passphrase", help="Ask for the key's passphrase.")] = False,
    output: Form = None,
) -> None:
    """Make or import an SSH key; the answer's public key belongs into the host's authorized_keys."""
    body: dict[str, Any] = {"name": name, "kind": kind, "source": "IMPORT" if private_key else "GENERATE"}
    if private_key:
        text = private_key.read_text(errors="replace")
        body["private_key"] = text if kind == "SSH_KEY" else text.strip()
    if passphrase:
        body["passphrase"] = typer.prompt("Passphrase", hide_input=True, err=True)
    show.one(session.client().post("/credentials", body), output)


entries.listed(credentials, "/credentials", ("id", "name", "kind", "fingerprint", "expires_at", "last_used_at"), "Credentials; what is secret in them never comes back.")
entries.removed(credentials, "/credentials", "Forget a credential that no host and no storage uses.")


@storages.command("add")
def add_storage(
    name: str,
    *,
    root: Annotated[str | None, typer.Option(help="A mounted directory (POSIX).", show_default=False)] = None,
    endpoint: Annotated[str | None, typer.Option(help="An S3 endpoint.", show_default=False)] = None,
    bucket: Annotated[str | None, typer.Option(show_default=False)] = None,
    prefix: Annotated[str | None, typer.Option(show_default=False)] = None,
    credential: Annotated[str | None, typer.Option(help="Id or name.", show_default=False)] = None,
    default: Annotated[bool, typer.Option("--default", help="Keep the gateway's outputs there from now on.")] = False,
    output: Form = None,
) -> None:
    """Add a storage: --root for POSIX, --endpoint and --bucket for S3."""
    client = session.client()
    given = {"root": root, "endpoint": endpoint, "bucket": bucket, "prefix": prefix}
    body = {"name": name, "kind": "POSIX" if root else "S3", **{key: value for key, value in given.items() if value is not None}}
    if credential:
        body["credential_id"] = client.find("/credentials", credential)["id"]
    made = client.post("/storage-resources", body)
    if default:
        client.patch(f"/gateways/{client.get('/me')['gateway_id']}", {"default_storage_id": made["id"]})
    show.one(made, output)


entries.listed(storages, "/storage-resources", ("id", "name", "kind", "root", "bucket"), "Storages, newest first.")


@hosts.command("add")
def add_host(
    name: str,
    *,
    host: Annotated[str, typer.Option(help="Address of the login node.")],
    credential: Annotated[str, typer.Option(help="Id or name.")],
    login: Annotated[str, typer.Option(help="User there.")],
    scratch: Annotated[str, typer.Option(help="An absolute directory for work on the host.")],
    port: Annotated[int, typer.Option(min=1, max=65535)] = 22,
    host_key: Annotated[list[str] | None, typer.Option(help="`ssh-ed25519 AAAA…`; may be repeated. Without it the host is asked and you compare.")] = None,
    job_manager: str = "FORK",
    queue: Annotated[list[str] | None, typer.Option(help="name=wall-time-seconds; the first is the default.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Trust the key the host shows.")] = False,
    output: Form = None,
) -> None:
    """Add a compute host and pin its key."""
    client = session.client()
    keys = host_key or [trusted(host, port, yes=yes)]
    limits = pairs(queue or ["default=3600"], "--queue")
    if not all(seconds.isdigit() for seconds in limits.values()):
        raise Failed(Exit.USAGE, "--queue: expected name=seconds")
    queues = [{"name": each, "max_wall_time_seconds": int(seconds), "is_default": each == next(iter(limits))} for each, seconds in limits.items()]
    access = {"credential_id": client.find("/credentials", credential)["id"], "login": login}
    body = {"name": name, "host": host, "port": port, "host_keys": keys, "job_manager": {"type": job_manager}, "access": access}
    show.one(client.post("/compute-resources", {**body, "file_systems": {"SCRATCH": scratch}, "queues": queues}), output)


def trusted(host: str, port: int, *, yes: bool) -> str:
    """The key the host shows, once a person has compared its fingerprint."""
    from app.cli import host_keys

    try:
        key = host_keys.shown(host, port, timeout_seconds=KEY_SECONDS)
    except OSError as fault:
        raise Failed(Exit.SERVER, f"{host}:{port}: {fault}") from fault
    show.note(f"{host}:{port} shows {host_keys.fingerprint(key)}")
    show.confirmed("Does its administrator name the same fingerprint?", yes=yes)
    return key


HOST: tuple[Column, ...] = (
    "id", "name", "host", "port", "state", ("job_manager", lambda each: (each.get("job_manager") or {}).get("type")),
    ("circuit", lambda each: (each.get("circuit") or {}).get("state")), "last_contact_at",
)  # fmt: skip
entries.listed(hosts, "/compute-resources", HOST, "Compute hosts, newest first, and whether they take work.")


@hosts.command("trust")
def trust(host: Reference, yes: Annotated[bool, typer.Option("--yes", help="Trust the key the host shows.")] = False) -> None:
    """Pin the key the host shows now, once you have compared it: none was pinned, or the host was reinstalled."""
    client = session.client()
    found = client.find("/compute-resources", host)
    pinned = client.patch(f"/compute-resources/{found['id']}", {"host_keys": [trusted(found["host"], found["port"], yes=yes)]})
    show.note(f"{pinned['name']} is {pinned['state']}")


@hosts.command("drain")
def drain(host: Reference) -> None:
    """Finish what runs there, admit nothing new."""
    set_state(host, "DRAINING")


@hosts.command("enable")
def enable(host: Reference) -> None:
    """Admit work again."""
    set_state(host, "ENABLED")


def set_state(host: str, state: str) -> None:
    client = session.client()
    found = client.patch(f"/compute-resources/{client.find('/compute-resources', host)['id']}", {"state": state})
    show.note(f"{found['name']} is {found['state']}")
