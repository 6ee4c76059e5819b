"""Running: `run`, `watch`, and the experiments there are."""

import base64
import math
import mimetypes
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import session, show
from app.cli.access import pairs
from app.cli.entries import Most
from app.cli.exits import Exit, Failed
from app.cli.session import Format
from app.cli.show import Form

if TYPE_CHECKING:
    from app.cli.client import Client

commands = typer.Typer()
experiments = typer.Typer(no_args_is_help=True, help="Experiments.")
commands.add_typer(experiments, name="experiment")
ExperimentId = Annotated[str, typer.Argument(metavar="ID")]
Seconds = Annotated[float | None, typer.Option("--timeout", min=0, help="Wait at most so many seconds; the run goes on.", show_default=False)]
COLUMNS = ("id", "name", "state", "outcome", "owner", "created_at", "finished_at")
INLINE_BYTES_MAX = 64 * 1024


@commands.command()
def run(
    application: Annotated[str, typer.Argument(metavar="APP", help="Interface, by name or id.")],
    *,
    host: Annotated[str | None, typer.Option(help="By name or id; may be left out if only one can run it.", show_default=False)] = None,
    given: Annotated[list[str] | None, typer.Option("--input", "-i", help="name=value; name=@file sends a small file along.")] = None,
    queue: Annotated[str | None, typer.Option(show_default=False)] = None,
    name: Annotated[str | None, typer.Option(help="A free-text name.", show_default="the application's")] = None,
    project: Annotated[str | None, typer.Option(help="By name or id.", show_default="default")] = None,
    storage: Annotated[str | None, typer.Option(help="Where outputs go, by name or id.", show_default="the gateway's")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key never launches twice.", show_default=False)] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Watch until it ends.")] = False,
    timeout: Seconds = None,
    output: Form = None,
) -> None:
    """Create and launch an experiment."""
    client = session.client()
    interface = client.find("/application-interfaces", application)
    body: dict[str, Any] = {"name": name or interface["name"], "application_interface_id": interface["id"], "launch": True}
    body["inputs"] = {each: value(interface, each, text) for each, text in pairs(given, "-i").items()}
    if host:
        body["compute_resource_id"] = client.find("/compute-resources", host)["id"]
    if project:
        body["project_id"] = client.find("/projects", project)["id"]
    if storage:
        body["output_storage_id"] = client.find("/storage-resources", storage)["id"]
    if queue:
        body["scheduling"] = {"queue": queue}
    experiment = client.post("/experiments", body, key=key)
    if wait:
        see_through(client, experiment["id"], timeout, output)
    elif show.form(output) is Format.TABLE:
        print(experiment["id"])
    else:
        show.one(experiment, output)


def value(interface: dict[str, Any], name: str, text: str) -> Any:
    """A flag's text as the interface's type wants it. What does not fit is sent as it is: the API says what is wrong."""
    kind = next((each["type"] for each in interface["inputs"] if each["name"] == name), "STRING")
    try:
        if kind == "INTEGER":
            return int(text)
        if kind == "FLOAT":
            return float(text) if math.isfinite(float(text)) else text  # JSON has no such number.
    except ValueError:
        return text
    if text.startswith("@"):
        content = contents(Path(text[1:]))
        return inline(content, text[1:]) if kind.startswith("URI") else content.decode(errors="replace")
    return text.split(",") if kind == "URI_COLLECTION" else text


def contents(path: Path) -> bytes:
    found = path.read_bytes()
    if len(found) > INLINE_BYTES_MAX:
        raise Failed(Exit.USAGE, f"{path} has {len(found)} bytes, at most {INLINE_BYTES_MAX} travel inline: put it into a storage and give its storage://… address")
    return found


def inline(content: bytes, name: str) -> str:
    return f"data:{mimetypes.guess_type(name)[0] or 'application/octet-stream'};base64,{base64.b64encode(content).decode()}"


@commands.command()
def watch(experiment_id: ExperimentId, timeout: Seconds = None, output: Form = None) -> None:
    """See a run through: live in a terminal, elsewhere a line per event. Ctrl-C leaves it running."""
    see_through(session.client(), experiment_id, timeout, output)


def see_through(client: "Client", experiment_id: str, timeout: float | None, asked: Format | None) -> None:
    """Follow to the end, then say the outcome and the outputs. The exit code is the run's."""
    import sys

    from app.cli import following, live

    form = show.form(asked)
    with following.detachable(experiment_id):
        experiment = client.get(f"/experiments/{experiment_id}")
        until = None if timeout is None else time.monotonic() + timeout
        steps = following.follow(client, experiment_id, until=until)
        if form is Format.TABLE and sys.stderr.isatty() and sys.stdout.isatty():
            live.watch(client, experiment, steps)
        else:
            names = following.Names(client)
            for step in steps:
                for event in step.events if form in {Format.TABLE, Format.NDJSON} else []:
                    following.tell(event, form, names)
        finish(client, experiment_id, form)


def finish(client: "Client", experiment_id: str, form: Format) -> None:
    from app.cli import following

    experiment = client.get(f"/experiments/{experiment_id}")
    if form is Format.TABLE:
        print(following.outcome(experiment))
        outputs = client.get(f"/experiments/{experiment_id}/outputs")["items"]
        if outputs:
            show.table(outputs, ("name", "type", "state", "size_bytes", "uri"))
            show.note(f"fetch one with: airavata outputs {experiment_id} --get {outputs[0]['name']}")
    elif form is not Format.NDJSON:
        show.one(experiment, form)
    code = following.exit_code(experiment)
    if code is not Exit.OK:
        raise Failed(code)


@experiments.command("ls")
def list_experiments(
    state: Annotated[str | None, typer.Option(help="EXECUTING, FAILED, …; several with commas.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(show_default=False)] = None,
    owner: Annotated[str | None, typer.Option(show_default=False)] = None,
    most: Most = 50,
    output: Form = None,
) -> None:
    """Experiments, newest first."""
    show.items(session.client().items("/experiments", most=most, state=state, name=name, owner=owner), COLUMNS, output)


@experiments.command("show")
def show_experiment(experiment_id: ExperimentId, output: Form = None) -> None:
    """An experiment with its tasks."""
    from app.cli import live

    client = session.client()
    experiment = client.get(f"/experiments/{experiment_id}")
    show.one(experiment, output)
    if show.form(output) is Format.TABLE:
        tasks, edges = live.graph(client, experiment.get("process_id"))
        if tasks:
            print()
            show.table(live.in_order(tasks, live.predecessors(edges)), ("name", "type", "state", "attempt", "reason"))


@experiments.command("launch")
def launch(experiment_id: ExperimentId, key: Annotated[str | None, typer.Option(show_default=False)] = None, output: Form = None) -> None:
    """Launch a draft; launched before, it is that launch that is shown."""
    show.one(session.client().post(f"/experiments/{experiment_id}/launches", {}, key=key), output)


@experiments.command("rm")
def remove(experiment_id: ExperimentId) -> None:
    """Hide a draft or an ended experiment."""
    session.client().delete(f"/experiments/{experiment_id}")
