"""PURE. What a look at a host's jobs means: one exec for all of them, a verdict for each, and no verdict from absence alone.

A job is finished by its exit file only. One that has vanished without it is LOST after a window of 60 s, or at once if its host has been booted again; and so is one that its
host does not end.
"""

import base64
import re
from collections.abc import Generator, Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct, structs

from app.workflow.execution import Failed, Succeeded
from app.workflow.job import TERMINAL, State
from components.task_executors import host
from components.task_executors.plugin import Operation

LOST_AFTER = timedelta(seconds=60)
LOOK_SECONDS, KILL_SECONDS = 20.0, 60.0
JOBS_PER_LOOK_MAX, KILLS_MAX = 500, 5
Controls = Mapping[str, str]
_RECEIPT = re.compile(r"pid=(?!1 )[1-9][0-9]{0,9} start=[0-9]{1,20} boot=[A-Za-z0-9._-]{1,64} host=[!-~]{1,128} began=[0-9]{1,12}( again=1)?")


class Seen(Struct, frozen=True):
    """One job as its host shows it. `alive`: yes, group (the wrapper is gone, its children run), no, unknown (another machine must be asked), or empty (no receipt)."""

    token: str
    alive: str = ""
    receipt: str = ""
    job_id: str | None = None
    guard: str = ""
    rebooted: bool = False
    ran_seconds: int = 0
    code: int | None = None
    took_seconds: int = 0
    killed: bool = False
    cancelled: bool = False
    duplicate: bool = False
    refused: bool = False  # There is a receipt, but no wrapper of ours wrote it so.
    stdout_tail: bytes = b""
    stderr_tail: bytes = b""

    @property
    def answers(self) -> tuple[str, ...]:
        """What each source said, in the order in which they were asked."""
        code = "none" if self.code is None else self.code
        return f"receipt: {self.receipt or ('refused, it is broken or forged' if self.refused else 'none')}", f"guard: {self.guard or 'none'}", f"live: {self.alive or 'nothing to look for'}", f"exit file: {code}"


class Verdict(Struct, frozen=True):
    """`state`: the job's next. `outcome`: how its attempt ends, None while it goes on. `kill`: it must be killed now."""

    state: State
    reason: str = ""
    outcome: Succeeded | Failed | None = None
    kill: bool = False
    missing_since: datetime | None = None
    exit_code: int | None = None
    evidence: tuple[str, ...] = ()


def look(root: str, controls: Controls, nonce: str) -> Generator[Operation, Any, dict[str, Seen]]:
    """Token → what is seen, for at most JOBS_PER_LOOK_MAX. A token without an answer is not in it. Raises OperationFailed."""
    ran = yield from host.helper(root, "look", nonce, stdin=_lines(controls), timeout_seconds=LOOK_SECONDS)
    return parse_look(ran.stdout, nonce, controls)


def kill(root: str, controls: Controls, nonce: str) -> Generator[Operation, Any, list[str]]:
    """End these jobs' process groups; the tokens that were signalled. May be repeated. The next look tells how they ended."""
    ran = yield from host.helper(root, "kill", nonce, stdin=_lines(controls), timeout_seconds=KILL_SECONDS)
    return [line.split()[0] for line in host.framed(ran.stdout, nonce) if line.endswith(" killed")]


def parse_look(stdout: bytes, nonce: str, controls: Controls) -> dict[str, Seen]:
    found = {}
    for line in host.framed(stdout, nonce):
        token, *words = line.split()
        if token in controls:
            found[token] = _seen(token, dict(word.split("=", 1) for word in words if "=" in word))
    return found


def _lines(controls: Controls) -> bytes:
    return "".join(f"{directory}\n" for directory in controls.values()).encode()


def receipt_of(text: str) -> dict[str, str]:
    """Its fields, or nothing if a wrapper of ours cannot have written it: whoever shares the job's account may have."""
    return dict(word.split("=", 1) for word in text.split()) if _RECEIPT.fullmatch(text) else {}


def _seen(token: str, told: Mapping[str, str]) -> Seen:
    number = {key: int(told[key]) for key, most in (("began", 12), ("ended", 12), ("now", 12), ("code", 3)) if re.fullmatch(f"[0-9]{{1,{most}}}", told.get(key, ""))}
    text = " ".join(f"{key}={told.get(name, '')}" for key, name in (("pid", "pid"), ("start", "start"), ("boot", "receipt_boot"), ("host", "host"), ("began", "began")))
    receipt = text if receipt_of(text) else ""
    return Seen(
        token,
        alive=told.get("alive", ""),
        receipt=receipt,
        refused=not receipt and ("pid" in told or "refused" in told),
        job_id=f"{told['pid']}@{told['receipt_boot']}" if receipt else None,
        guard=told.get("guard", ""),
        rebooted=bool(receipt) and told.get("alive") == "no" and told.get("receipt_boot") != told.get("boot"),
        ran_seconds=max(0, number.get("now", 0) - number.get("began", number.get("now", 0))),
        code=number.get("code"),
        took_seconds=max(0, number.get("ended", 0) - number.get("began", 0)),
        killed="killed" in told,
        cancelled="cancelled" in told,
        duplicate="duplicate" in told,
        stdout_tail=base64.b64decode(told.get("stdout", "")),
        stderr_tail=base64.b64decode(told.get("stderr", "")),
    )


def verdict(seen: Seen, *, wall_time_seconds: int, missing_since: datetime | None, now: datetime) -> Verdict:
    """`now` and `missing_since` are MySQL's; how long a job runs is measured by its host alone, so that clocks need not agree."""
    means = _means(seen, wall_time_seconds=wall_time_seconds, missing_since=missing_since, now=now)
    if seen.duplicate and means.outcome is not None:
        return structs.replace(means, evidence=(*means.evidence, "duplicate_suppressed: its guard turned another start of this job away"))
    return means


def unwanted(means: Verdict, seen: Seen, *, was: State, stored: bool, wall_time_seconds: int, why: str) -> Verdict:
    """The same of a job whose attempt ended before it: no task moves, what runs is killed, what may still start is barred. CANCELED: killed in time, or barred and then not seen."""
    started = stored or bool(seen.receipt)
    if not started and not seen.cancelled:
        means = Verdict(State.UNKNOWN, "it may not have started")
    gone = (seen.killed and means.state is State.FAILED and not 0 < wall_time_seconds < seen.took_seconds) or (means.state is State.LOST and not started)
    state = State.IN_DOUBT if was is State.SUBMITTING else State.CANCELED if gone else means.state  # Out of a doubt every way leads.
    reason = f"{means.reason if means.reason and state is means.state else state.lower()}; its attempt had ended before: {why}"
    kill = state not in TERMINAL and (state is not State.UNKNOWN if started else not seen.cancelled)
    return structs.replace(means, state=state, reason=reason, outcome=None, kill=kill)


def unconfirmed(means: Verdict, seen: Seen, *, over: bool) -> Verdict:
    """Of what goes on although its host took the order to kill it so often: nobody waits for it any more, and an operator must look. `over`: its attempt has ended."""
    why = f"CANCEL_UNCONFIRMED: killed {KILLS_MAX} times, it goes on on its host"
    lost = None if over else Failed("LOST_JOB", f"The job could not be ended. {why}.", raw_message="; ".join(seen.answers))
    return structs.replace(means, state=State.LOST, reason=why, outcome=lost, kill=False, evidence=seen.answers)


def _means(seen: Seen, *, wall_time_seconds: int, missing_since: datetime | None, now: datetime) -> Verdict:
    if seen.code is not None:
        return _ended(seen, wall_time_seconds)
    if seen.alive in {"yes", "group"}:
        return Verdict(State.ACTIVE, kill=bool(wall_time_seconds) and seen.ran_seconds > wall_time_seconds)
    if seen.killed and seen.alive == "no":
        return _overran(wall_time_seconds, None)
    return _vanished(seen, wall_time_seconds, missing_since or now, now)


def _ended(seen: Seen, wall_time_seconds: int) -> Verdict:
    code = seen.code or 0
    if code == 0:
        return Verdict(State.COMPLETED, outcome=Succeeded({"exit_code": 0, "seconds": seen.took_seconds}), exit_code=0)
    if seen.killed:
        return _overran(wall_time_seconds, code)
    signal = code - 128 if 128 < code <= 192 else None
    how = f"was ended by signal {signal}" if signal else f"ended with exit status {code}"
    hint = {126: " (it may not be executed)", 127: " (it was not found on the host)"}.get(code, "")
    return Verdict(State.FAILED, f"exit status {code}", Failed("APP_NONZERO_EXIT", f"The program {how}{hint}.", exit_code=code, signal=signal), exit_code=code)


def _overran(wall_time_seconds: int, code: int | None) -> Verdict:
    message = f"The job ran longer than its wall time of {wall_time_seconds} s and was ended."
    return Verdict(State.FAILED, "wall time exceeded", Failed("SCHEDULER_TIMEOUT", message, exit_code=code), exit_code=code)


def _vanished(seen: Seen, wall_time_seconds: int, since: datetime, now: datetime) -> Verdict:
    searched = (*seen.answers, f"searched since {since.isoformat()}")
    elsewhere = seen.alive == "unknown"  # Another login node's process: only its wall time bounds the wait.
    window = LOST_AFTER + timedelta(seconds=max(0, wall_time_seconds - seen.ran_seconds)) if elsewhere else LOST_AFTER
    if not seen.rebooted and now - since < window:
        return Verdict(State.UNKNOWN, "not seen on the host", missing_since=since, evidence=searched)
    why = "its host was booted again" if seen.rebooted else "it vanished from its host without leaving an exit status"
    return Verdict(State.LOST, why, Failed("LOST_JOB", f"The job is lost: {why}.", raw_message="; ".join(searched)), missing_since=since, evidence=searched)
