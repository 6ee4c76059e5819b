"""`login`, `whoami`, and who may: tokens, gateways, projects."""

from typing import Annotated, Any

import typer

from app.cli import entries, session, show
from app.cli.exits import Exit, Failed
from app.cli.show import Form

commands = typer.Typer()
tokens = typer.Typer(no_args_is_help=True, help="Tokens of the gateway.")
gateways = typer.Typer(no_args_is_help=True, help="Gateways (for operators).")
projects = typer.Typer(no_args_is_help=True, help="Projects of the gateway.")
commands.add_typer(tokens, name="token")
commands.add_typer(gateways, name="gateway")
commands.add_typer(projects, name="project")


@commands.command()
def login() -> None:
    """Ask for a token, try it, and keep it for later commands."""
    from app.cli.client import Client

    secret = (session.chosen.token or typer.prompt(f"Token for {session.url()}", hide_input=True, err=True)).strip()
    me = Client(session.url(), secret).get("/me")
    path = session.remember(session.url(), secret)
    show.note(f"you are {me['user']} ({me['role']}); the token is kept in {path}")


@commands.command()
def whoami(output: Form = None) -> None:
    """User, gateway, role, scopes, expiry."""
    show.one(session.client().get("/me"), output)


@tokens.command("add")
def add_token(
    name: str,
    *,
    user: Annotated[str | None, typer.Option(help="For whom (you).", show_default=False)] = None,
    role: Annotated[str, typer.Option(help="user, gateway-admin, operator or service.")] = "user",
    scope: Annotated[list[str] | None, typer.Option(help="Fewer than the role has; may be repeated.")] = None,
    days: Annotated[int, typer.Option(min=1, max=365)] = 90,
    gateway: Annotated[str | None, typer.Option(help="For operators: the gateway, by id or name.", show_default=False)] = None,
    output: Form = None,
) -> None:
    """Make a token; its secret is shown this once."""
    from datetime import timedelta

    from app import clock

    client = session.client()
    expires = (clock.utc_now() + timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    body: dict[str, Any] = {"name": name, "user": user or client.get("/me")["user"], "role": role, "expires_at": expires}
    if scope:
        body["scopes"] = scope
    if gateway:
        body["gateway_id"] = client.find("/gateways", gateway)["id"]
    show.one(client.post("/tokens", body), output)


entries.listed(tokens, "/tokens", ("id", "name", "user", "role", "expires_at", "revoked_at"), "Tokens, without their secrets.")


@tokens.command("show")
def show_token(token_id: str, output: Form = None) -> None:
    """A token, without its secret."""
    show.one(session.client().get(f"/tokens/{token_id}"), output)


@tokens.command("rm")
def remove_token(token_id: str) -> None:
    """Revoke a token: it holds nowhere within 5 s."""
    session.client().delete(f"/tokens/{token_id}")


@gateways.command("add")
def add_gateway(
    name: str,
    display_name: Annotated[str | None, typer.Option(show_default=False)] = None,
    domain: Annotated[str | None, typer.Option(show_default=False)] = None,
    contact_email: Annotated[str | None, typer.Option(show_default=False)] = None,
    output: Form = None,
) -> None:
    """Make a gateway, with a project named default."""
    given = {"name": name, "display_name": display_name, "domain": domain, "contact_email": contact_email}
    show.one(session.client().post("/gateways", {key: value for key, value in given.items() if value is not None}), output)


entries.listed(gateways, "/gateways", ("id", "name", "state", "created_at"), "All of them for operators, its own for an administrator.")
entries.shown(gateways, "/gateways", "A gateway with its limits.")


@projects.command("add")
def add_project(name: str, description: str = "", output: Form = None) -> None:
    """Make a project: a folder for experiments."""
    show.one(session.client().post("/projects", {"name": name, "description": description}), output)


entries.listed(projects, "/projects", ("id", "name", "description", "created_at"), "Projects, newest first.")
entries.shown(projects, "/projects", "A project.")
entries.removed(projects, "/projects", "Remove a project in which nothing is alive.")


def pairs(given: list[str] | None, flag: str) -> dict[str, str]:
    """`name=value` flags as a mapping; a repeated name is a fault."""
    found: dict[str, str] = {}
    for each in given or []:
        name, equals, value = each.partition("=")
        if not equals or not name or name in found:
            raise Failed(Exit.USAGE, f"{flag} {each!r}: expected name=value, each name once")
        found[name] = value
    return found
