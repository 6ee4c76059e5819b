"""Who the user is and which API is meant: flag, then environment, then ~/.config/airavata/config.toml. A token comes from a file that nobody else may read.

profile = "default"
[profiles.default]
url = "https://airavata.example.org"
token_file = "/home/me/.config/airavata/default.token"
output = "table"
"""

import os
import stat
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli.exits import Exit, Failed

if TYPE_CHECKING:
    from app.cli.client import Client

DEFAULT_URL = "http://127.0.0.1:8080"


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NDJSON = "ndjson"


@dataclass
class Choice:
    """What flags and environment said; the root command fills it in before any other runs."""

    url: str | None = None
    token: str | None = None
    token_file: str | None = None
    profile: str | None = None
    output: Format | None = None


chosen = Choice()


def directory() -> Path:
    return Path.home() / ".config" / "airavata"


def configured() -> dict[str, str]:
    """The profile in force, empty when none was ever written."""
    found = read_all()
    name = chosen.profile or str(found.get("profile", "default"))
    profiles = found.get("profiles", {})
    profile = profiles.get(name) if isinstance(profiles, dict) else None
    if profile is None and chosen.profile:
        raise Failed(Exit.USAGE, f"no profile {name!r} in {directory() / 'config.toml'}: make it with `airavata --profile {name} login`")
    return profile or {}


def read_all() -> dict[str, object]:
    path = directory() / "config.toml"
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as fault:
        raise Failed(Exit.USAGE, f"{path}: {fault}") from fault


def url() -> str:
    return chosen.url or configured().get("url") or DEFAULT_URL


def output() -> Format:
    given = configured().get("output", Format.TABLE)
    try:
        return Format(given)
    except ValueError as fault:
        raise Failed(Exit.USAGE, f"output in {directory() / 'config.toml'}: expected {', '.join(Format)}, got {given!r}") from fault


def token() -> str:
    if chosen.token:
        return chosen.token
    path = chosen.token_file or configured().get("token_file")
    return read_token(Path(path).expanduser()) if path else ""


def read_token(path: Path) -> str:
    """Refuses a file that others may read: the token in it is no secret any more."""
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise Failed(Exit.AUTH, f"{path} may be read by others: `chmod 600 {path}`, and revoke the token if they have")
        return path.read_text(errors="replace").strip()
    except OSError as fault:
        raise Failed(Exit.AUTH, f"{path}: {fault.strerror}") from fault


def client() -> "Client":
    from app.cli.client import Client

    given = token()
    if not given:
        raise Failed(Exit.AUTH, "no token: `airavata login`, or set AIRAVATA_TOKEN or AIRAVATA_TOKEN_FILE")
    return Client(url(), given)


def remember(address: str, secret: str) -> Path:
    """Write the profile and its token, the token first and for its owner only."""
    found = read_all()
    name = chosen.profile or str(found.get("profile", "default"))
    directory().mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory() / f"{name}.token"
    write_private(path, secret + "\n")
    profiles = found.get("profiles", {})
    profiles = {**profiles, name: {**profiles.get(name, {}), "url": address, "token_file": str(path)}} if isinstance(profiles, dict) else {}
    lines = [f"profile = {_quoted(str(found.get('profile', name)))}"]
    for each, values in profiles.items():
        lines += ["", f"[profiles.{_quoted(each)}]", *(f"{key} = {_quoted(str(value))}" for key, value in values.items())]
    write_private(directory() / "config.toml", "\n".join(lines) + "\n")
    return path


def write_private(path: Path, text: str) -> None:
    made = os.open(path.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(made, "w") as file:
        file.write(text)
    path.with_suffix(".new").replace(path)


def _quoted(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)  # A TOML basic string has the same escapes.
