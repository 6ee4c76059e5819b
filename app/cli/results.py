"""What a run said and left behind: `events`, `logs`, `outputs`."""

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import session, show
from app.cli.exits import Exit, Failed
from app.cli.experiments import ExperimentId
from app.cli.session import Format
from app.cli.show import Form

if TYPE_CHECKING:
    from app.cli.client import Client

commands = typer.Typer()


@commands.command()
def events(
    experiment_id: ExperimentId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    after: Annotated[int, typer.Option(min=0, help="Only events after this seq.")] = 0,
    output: Form = None,
) -> None:
    """The run's history in order; NDJSON where no terminal is."""
    from app.cli import following

    client = session.client()
    names = following.Names(client)
    asked = output or session.chosen.output
    form = show.form(asked) if asked or sys.stdout.isatty() else Format.NDJSON
    if follow:
        with following.detachable(experiment_id):
            for step in following.follow(client, experiment_id, after=after):
                for event in step.events:
                    following.tell(event, Format.TABLE if form is Format.TABLE else Format.NDJSON, names)
        return
    found: list[Any] = []
    while page := client.get(f"/experiments/{experiment_id}/events", after=after, limit=following.PAGE)["items"]:
        after = page[-1]["seq"]
        found += page
    if form in {Format.JSON, Format.YAML}:
        show.items(found, (), form)
    for event in found if form in {Format.TABLE, Format.NDJSON} else []:
        following.tell(event, form, names)


@commands.command()
def logs(
    subject: Annotated[str, typer.Argument(metavar="ID", help="An experiment or a job.")],
    stderr: Annotated[bool, typer.Option("--stderr", help="Standard error instead of standard output.")] = False,
    tail_bytes: Annotated[int, typer.Option(min=1, max=1_048_576)] = 65_536,
) -> None:
    """The end of what the job printed, as bytes."""
    client = session.client()
    jobs = [{"id": subject}] if subject.startswith("job_") else client.get(f"/experiments/{subject}/jobs")["items"]
    if not jobs:
        raise Failed(Exit.NOT_FOUND, f"{subject} has no job yet")
    stream = "stderr" if stderr else "stdout"
    sys.stdout.buffer.write(client.ask("GET", f"/jobs/{jobs[-1]['id']}/{stream}", parameters={"tail_bytes": tail_bytes}, headers={"Accept": "text/plain"}).content)
    sys.stdout.flush()


@commands.command()
def outputs(
    experiment_id: ExperimentId,
    get: Annotated[str | None, typer.Option(help="Fetch this output.", show_default=False)] = None,
    directory: Annotated[Path | None, typer.Option("-o", "--directory", help="Write it there under its name; without it to stdout.", show_default=False)] = None,
    form: Annotated[Format | None, typer.Option("--format", show_default=False)] = None,
) -> None:
    """The declared outputs, or the bytes of one, checked against its SHA-256."""
    client = session.client()
    found = client.get(f"/experiments/{experiment_id}/outputs")["items"]
    if get is None:
        show.items(found, ("name", "type", "state", "size_bytes", "sha256", "uri"), form)
        return
    wanted = next((each for each in found if each["name"] == get), None)
    if wanted is None:
        raise Failed(Exit.NOT_FOUND, f"no output {get!r}; there are: {', '.join(each['name'] for each in found) or 'none'}")
    if directory is None:
        fetch(client, experiment_id, wanted, sys.stdout.buffer)
        sys.stdout.flush()
        return
    directory.mkdir(parents=True, exist_ok=True)
    path, part = directory / Path(get).name, directory / f"{Path(get).name}.part"
    try:
        with part.open("wb") as file:
            fetch(client, experiment_id, wanted, file)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    print(path)


def fetch(client: "Client", experiment_id: str, wanted: dict[str, Any], file: Any) -> None:
    digest = hashlib.sha256()
    for piece in client.content(f"/experiments/{experiment_id}/outputs/{wanted['name']}/content"):
        digest.update(piece)
        file.write(piece)
    if wanted.get("sha256") and digest.hexdigest() != wanted["sha256"]:
        raise Failed(Exit.SERVER, f"{wanted['name']}: the bytes received have another SHA-256 than the one recorded; fetch it again")
