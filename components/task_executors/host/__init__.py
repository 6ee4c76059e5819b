"""The POSIX sh scripts that run on compute hosts, staged once per version as `<SCRATCH>/.airavata/<name>-<sha256>`: a running job keeps the one it began with.

`helper` yields the operation and stages what is missing, so whoever meets a fresh host, or one that was staged by another release, goes on by itself.
"""

import hashlib
import re
from collections.abc import Generator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from app.failpoint import EVERY, Entry
from components.task_executors.plugin import Exec, Operation, Ran
from components.task_executors.remote_host import host_fault

MISSING = 96
_RUN = f'[ -r "$1" ] || exit {MISSING}; exec sh "$@"'
_STAGE = (
    'umask 077; LC_ALL=C; export LC_ALL; mkdir -p "$1/.airavata/jobs" && cd "$1/.airavata" && cat >"$2.$$" && [ "$(sha256sum <"$2.$$" | cut -c1-64)" = "${2##*-}" ] '
    '&& { sync "$2.$$" 2>/dev/null || sync; } && mv -f "$2.$$" "$2"'
)
_points: str = ""


def arm(entries: Sequence[Entry], told: Mapping[str, object]) -> None:
    """Tests only: scripts staged from now on have these fail points: those that fit what is told of the order. A text of its own, so a host keeps both kinds apart."""
    global _points
    fit = (each for each in entries if each.fits(each.point, told) and not each.mode.startswith("raise"))
    _points = " ".join(f"{each.point}={each.mode}{'@*' if each.at == EVERY else ''}" for each in fit)


def text(name: str) -> bytes:
    return _text(name, _points)


@cache
def _text(name: str, points: str) -> bytes:
    source = "".join((Path(__file__).parent / f"{each}.sh").read_text() for each in ("common", name))
    return (f"FP_POINTS='{points}'\n{source}" if points else re.sub(r"(?m)^\s*fp .*\n|^# fp (?s:.*?)\n}\n", "", source)).encode()


def path(root: str, name: str) -> str:
    return f"{root}/.airavata/{name}-{hashlib.sha256(text(name)).hexdigest()}"


def exec_helper(root: str, name: str, *parameters: str, stdin: bytes = b"", timeout_seconds: float = 30.0) -> Exec:
    """One run of a helper; exit status MISSING if the host has not got it, and then nothing was done."""
    return Exec(("sh", "-c", _RUN, "sh", path(root, name), *parameters), stdin, timeout_seconds, name)


def stage(root: str, name: str) -> Generator[Operation, Any, None]:
    """Put one script on the host, whole or not at all. Raises HOST_DISK_FULL and its like."""
    ran: Ran = yield Exec(("sh", "-c", _STAGE, "sh", root, path(root, name).rsplit("/", 1)[-1]), text(name), verb=f"stage {name}")
    if ran.exit_status != 0:
        raise host_fault(ran.stderr.decode(errors="replace")[-500:], f"The scratch directory {root} of the compute host cannot be used.")


def helper(
    root: str, name: str, *parameters: str, stdin: bytes = b"", timeout_seconds: float = 30.0, needs: tuple[str, ...] = ()
) -> Generator[Operation, Any, Ran]:
    """Run a helper, staging it (and the scripts it `needs`) first where it is missing."""
    ran: Ran = yield exec_helper(root, name, *parameters, stdin=stdin, timeout_seconds=timeout_seconds)
    if ran.exit_status == MISSING:
        for each in (*needs, name):  # The helper last: where it is, all it needs is.
            yield from stage(root, each)
        ran = yield exec_helper(root, name, *parameters, stdin=stdin, timeout_seconds=timeout_seconds)
    return ran


def framed(stdout: bytes, nonce: str) -> list[str]:
    """What stands between two nonces on a line of its own: neither a login's noise nor an echo of the command looks so."""
    return re.findall(rf"(?m)^{re.escape(nonce)} (.*) {re.escape(nonce)}$", stdout.decode(errors="replace"))
