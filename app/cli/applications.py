"""Applications: what can be run (module and interface) and how on each host (deployments), kept in one file and applied as a whole.

    module: {name: hmmer, module_version: "3.4"}
    interface:
      name: hmmsearch
      inputs: [{name: alignment, type: URI, required: true}]
      outputs: [{name: table, type: URI, required: true, search_glob: "*.tbl"}]
    deployments:
      - {host: cluster, executable_path: /usr/bin/hmmsearch}

Applying twice changes nothing; what differs is patched. Fields are the API's (docs/api.md §4); `host` names a compute resource.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import entries, session, show
from app.cli.exits import Exit, Failed
from app.cli.show import Column, Form

if TYPE_CHECKING:
    from app.cli.client import Client

commands = typer.Typer()
applications = typer.Typer(no_args_is_help=True, help="Applications.")
commands.add_typer(applications, name="app")
SECTIONS = frozenset({"module", "interface", "deployments"})


@applications.command("apply")
def apply(file: Annotated[Path, typer.Option("--file", "-f", help="YAML or JSON.")], output: Form = None) -> None:
    """Make module, interface and deployments what the file says."""
    wanted = parsed(file)
    client = session.client()
    module, did = make("/application-modules", wanted["module"], client)
    applied = [{"kind": "module", "id": module["id"], "name": module["name"], "did": did}]
    if "interface" in wanted:
        interface, did = make("/application-interfaces", {"module_ids": [module["id"]], **wanted["interface"]}, client)
        applied.append({"kind": "interface", "id": interface["id"], "name": interface["name"], "did": did})
    for each in wanted.get("deployments", []):
        host = client.find("/compute-resources", str(each.get("host")))
        body = {key: value for key, value in each.items() if key != "host"} | {"module_id": module["id"], "compute_resource_id": host["id"]}
        deployment, did = make("/application-deployments", body, client)
        applied.append({"kind": "deployment", "id": deployment["id"], "name": host["name"], "did": did})
    show.items(applied, ("kind", "name", "id", "did"), output)


def parsed(file: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(file.read_bytes())
    except yaml.YAMLError as fault:
        raise Failed(Exit.USAGE, f"{file}: {fault}") from fault
    if not isinstance(found, dict) or "module" not in found or not set(found) <= SECTIONS:
        raise Failed(Exit.USAGE, f"{file}: expected module, and interface and deployments if wanted, nothing else")
    deployments = found.get("deployments", [])
    if not isinstance(deployments, list) or not all(isinstance(each, dict) for each in (found["module"], found.get("interface", {}), *deployments)):
        raise Failed(Exit.USAGE, f"{file}: expected fields in module and interface, and deployments as a list of them")
    return found


def make(path: str, wanted: dict[str, Any], client: "Client") -> tuple[dict[str, Any], str]:
    """Create, patch what differs, or leave alone."""
    found = existing(path, wanted, client)
    if found is None:
        return client.post(path, wanted), "created"
    different = {key: value for key, value in wanted.items() if not holds(found.get(key), value)}
    return (client.patch(f"{path}/{found['id']}", different), "changed") if different else (found, "unchanged")


def existing(path: str, wanted: dict[str, Any], client: "Client") -> dict[str, Any] | None:
    """By name; deployments have none: one per module and host."""
    if "name" in wanted:
        named = client.get(path, name=wanted["name"])["items"]
        return named[0] if named else None
    pair = ("module_id", "compute_resource_id")
    return next((each for each in client.items(path, most=10_000) if all(each[key] == wanted.get(key) for key in pair)), None)


def holds(found: Any, wanted: Any) -> bool:
    """Whether everything said is so; fields that were left out are the API's defaults."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return all(holds(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(map(holds, found, wanted))
    return bool(found == wanted)


def names(field: str) -> Column:
    return field, lambda each: ", ".join(one["name"] for one in each[field])


entries.listed(applications, "/application-interfaces", ("id", "name", "planner", names("inputs"), names("outputs")), "Interfaces: what `airavata run` takes.")
entries.shown(applications, "/application-interfaces", "An interface with its inputs and outputs.")
