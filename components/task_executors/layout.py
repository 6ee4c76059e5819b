"""PURE. Where things lie on a compute host, agreed between the plug-ins: scratch root, work directory, names of staged files, stdout and stderr.

`<SCRATCH>/airavata/<process>` is the work directory (mode 0700) and may be cleaned away; `<SCRATCH>/.airavata` holds the helpers and, per token, what proves that a job was
started once, and outlives it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

STDOUT, STDERR = "stdout", "stderr"
Snapshot = Mapping[str, Any]


class InputFile(NamedTuple):
    """One file to be staged: where it comes from, what it must hash to (if told), its name in the work directory."""

    name: str
    uri: str
    sha256: str | None


def scratch(snapshot: Snapshot) -> str:
    return str(snapshot["host"]["file_systems"]["SCRATCH"]).rstrip("/")


def work_dir(snapshot: Snapshot) -> str:
    return str(snapshot["work_dir"])


def control_dir(root: str, token: str) -> str:
    """What is kept of a token's job: lock, epoch, guard, intent, receipt, exit."""
    return f"{root}/.airavata/jobs/{token}"


def ordered_inputs(snapshot: Snapshot) -> list[dict[str, Any]]:
    return sorted(snapshot["interface"].get("inputs") or (), key=lambda each: (each.get("order") or 0, each["name"]))


def input_files(snapshot: Snapshot) -> dict[str, tuple[InputFile, ...]]:
    """Input → its files, for inputs of type URI and URI_COLLECTION that are staged. Names are safe, distinct and derive from the snapshot alone."""
    taken = {STDOUT, STDERR}
    found: dict[str, tuple[InputFile, ...]] = {}
    for declared in ordered_inputs(snapshot):
        value = (snapshot.get("inputs") or {}).get(declared["name"], declared.get("default"))
        if value is None or declared["type"] not in {"URI", "URI_COLLECTION"} or declared.get("staged") is False:
            continue
        files = []
        for given in value if isinstance(value, list | tuple) else (value,):
            uri, sha256 = (given["uri"], given.get("sha256")) if isinstance(given, Mapping) else (str(given), None)
            override = declared.get("override_filename") if declared["type"] == "URI" else None
            files.append(InputFile(_distinct(_safe(override or _basename(uri, declared["name"])), declared["name"], taken), uri, sha256))
        found[declared["name"]] = tuple(files)
    return found


def _basename(uri: str, name: str) -> str:
    return name if uri.startswith("data:") else unquote(uri.split("?", 1)[0].rstrip("/").rsplit("/", 1)[-1])


def _safe(name: str) -> str:
    """A plain file name: no slash, no control character, not hidden, not an option."""
    kept = "".join(each if each.isprintable() and each not in "/\\" else "_" for each in name)[:200].lstrip(".-")
    return kept or "input"


def _distinct(name: str, prefix: str, taken: set[str]) -> str:
    tries = [name, _safe(f"{prefix}-{name}"), *(_safe(f"{prefix}-{n}-{name}") for n in range(2, 10_000))]
    free = next(each for each in tries if each not in taken)
    taken.add(free)
    return free
