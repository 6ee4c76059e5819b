"""Following one experiment: its events in order, each once, with its state beside them; and the exit code its end means.

The state is the truth and the feed may trail it by a hop, so the end is read from the state and the feed is then drained. Leaving never cancels anything.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from app.cli import show
from app.cli.client import Client
from app.cli.exits import Exit, Failed
from app.cli.session import Format

WAIT_SECONDS = 1  # One long poll; the API answers at once when something happens.
DRAIN_SECONDS = 1
PACE_SECONDS = 0.2  # Between polls, however fast events come.
PAGE = 200


@dataclass(frozen=True)
class Step:
    """What one poll brought."""

    events: list[dict[str, Any]]
    status: dict[str, Any]


def follow(client: Client, experiment_id: str, *, after: int = 0, until: float | None = None) -> Iterator[Step]:
    """Until the run has ended and its last event is told. Raises Failed 7 or 8 when `until` (monotonic) has come."""
    status = client.get(f"/experiments/{experiment_id}/status")
    yield Step([], status)
    while True:
        began, wait = time.monotonic(), DRAIN_SECONDS if status["terminal"] else WAIT_SECONDS
        events = client.get(f"/experiments/{experiment_id}/events", after=after, limit=PAGE, wait_seconds=wait)["items"]
        after = events[-1]["seq"] if events else after
        ended = status["terminal"] and len(events) < PAGE
        status = client.get(f"/experiments/{experiment_id}/status")
        yield Step(events, status)
        if ended and (not events or any(is_end(each) for each in events)):
            return
        if until is not None and time.monotonic() > until and not status["terminal"]:
            raise Failed(*out_of_time(status))
        if len(events) < PAGE:
            time.sleep(max(0.0, began + PACE_SECONDS - time.monotonic()))


def is_end(event: dict[str, Any]) -> bool:
    return event["type"] == "ExperimentChanged" and event["to_state"] in {"COMPLETED", "FAILED", "CANCELED"}


def out_of_time(status: dict[str, Any]) -> tuple[Exit, str]:
    come_back = f"it is {status['state']} and goes on; come back with: airavata watch {status['id']}"
    if any(each["code"] == "IN_DOUBT" for each in status.get("conditions") or []):
        return Exit.IN_DOUBT, f"the wait ran out with a submission in doubt: {come_back}"
    return Exit.STILL_RUNNING, f"the wait ran out: {come_back}"


def exit_code(experiment: dict[str, Any]) -> Exit:
    return Exit.RUN_FAILED if experiment["state"] in {"FAILED", "CANCELED"} else Exit.OK


@contextmanager
def detachable(experiment_id: str) -> Iterator[None]:
    """Ctrl-C leaves the run alone and says how to come back."""
    try:
        yield
    except KeyboardInterrupt:
        raise Failed(Exit.INTERRUPTED, f"\ndetached; the run goes on. Come back with: airavata watch {experiment_id}") from None


class Names:
    """The events' task ids as the names a person gave; asked for once per plan."""

    def __init__(self, client: Client) -> None:
        self.client, self.known = client, dict[str, str]()

    def of(self, event: dict[str, Any]) -> str:
        task_id = event.get("task_id")
        if not task_id:
            return str(event["type"]).removesuffix("Changed").lower()
        if task_id not in self.known:
            nodes = self.client.get(f"/processes/{event['process_id']}/graph")["nodes"]
            self.known |= {task_id: event.get("task_type") or task_id} | {each["id"]: each["name"] for each in nodes}
        return self.known[task_id]


def tell(event: dict[str, Any], form: Format, names: Names) -> None:
    if form is Format.TABLE:
        print(sentence(event, names.of(event)), flush=True)
    else:
        show.line(event)


def sentence(event: dict[str, Any], subject: str) -> str:
    """One event as one line."""
    words = [event["occurred_at"][11:19], f"{subject:<16}", event["type"]]
    if event.get("from_state") or event.get("to_state"):
        words.append(f"{event.get('from_state') or '-'} → {event.get('to_state') or '-'}")
    if event.get("attempt"):
        words.append(f"attempt {event['attempt']}")
    if event.get("late"):
        words.append("(late: moves nothing)")
    if event.get("reason"):
        words.append(f"· {event['reason']}")
    return show.clean(" ".join(words))


def outcome(experiment: dict[str, Any]) -> str:
    """How it ended, in a sentence, with what the API says of the failure."""
    text = f"{experiment['name']}: {experiment['state']}"
    if experiment.get("outcome"):
        text += f", {experiment['outcome']}"
    for error in experiment.get("errors") or []:
        text += f"\n  {error.get('code')}: {error.get('message') or error.get('detail') or ''}"
    return "\n".join(show.clean(line) for line in text.splitlines())
