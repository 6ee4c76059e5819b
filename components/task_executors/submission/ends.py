"""PURE. The watcher's two orders to a worker, as task types that no planner plans: LOOK at a host's jobs, KILL those that overran.

`order.model` holds `root` and `controls` (token → control directory); the answer comes as the detail of Succeeded, since an outcome is all a worker can bring home.
"""

import hashlib

import msgspec

from app.workflow.execution import Succeeded
from components.task_executors.plugin import Steps, TaskType, WorkOrder
from components.task_executors.submission.watch import KILL_SECONDS, LOOK_SECONDS, Seen, kill, look


def look_steps(order: WorkOrder) -> Steps:
    seen = yield from look(order.model["root"], order.model["controls"], _nonce(order))
    return Succeeded({token: msgspec.json.encode(each).decode() for token, each in seen.items()})


def kill_steps(order: WorkOrder) -> Steps:
    killed = yield from kill(order.model["root"], order.model["controls"], _nonce(order))
    return Succeeded(dict.fromkeys(killed, True))


def seen_of(outcome: Succeeded) -> dict[str, Seen]:
    """What LOOK brought home."""
    return {token: msgspec.json.decode(str(text), type=Seen) for token, text in outcome.detail.items()}


def _nonce(order: WorkOrder) -> str:
    return hashlib.sha256(f"{order.task_type}/{order.token}/{order.epoch}".encode()).hexdigest()[:32]


LOOK = TaskType("LOOK", look_steps, deadline_seconds=LOOK_SECONDS + 15.0)
KILL = TaskType("KILL", kill_steps, deadline_seconds=KILL_SECONDS + 15.0)
