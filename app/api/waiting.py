"""Holding requests: `wait_seconds` keeps a GET until something changes. One task per copy looks at MySQL for all of them, so a thousand waits cost one statement a turn."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from app.api.operations import Answer, Call
from app.api.problems import Problem
from app.errors import AiravataError
from app.messages import ids
from app.mysql import waiting
from app.mysql.unit_of_work import UnitOfWork

WAITS_MAX, PER_TOKEN_MAX = 1000, 50
LOOK_SECONDS = 0.1


class Waiter:
    """`still` says for an operation whether an answer means: wait on (given the query, and the request's first answer). When `draining` is set everybody is answered with what is."""

    def __init__(self, unit_of_work: UnitOfWork, still: Mapping[str, Callable[[Answer, Any, Answer], bool]]) -> None:
        self.unit_of_work, self.still = unit_of_work, still
        self.events: dict[str, tuple[asyncio.Event, int]] = {}
        self.marks: dict[str, Any] = {}
        self.per_token: Counter[str] = Counter()
        self.draining = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def hold(self, look: Callable[..., Awaitable[Answer]], call: Call) -> Answer:
        """Looks, and looks again after each change of the experiment, until it need not wait or the time is up."""
        experiment_id, token_id = call.path["id"], call.principal.token_id
        if not ids.is_id(experiment_id, "exp"):
            return await look()  # The 404 of what is no id; nothing of it reaches the shared look.
        if sum(self.per_token.values()) >= WAITS_MAX or self.per_token[token_id] >= PER_TOKEN_MAX:
            raise Problem("too_many_streams", f"at most {PER_TOKEN_MAX} waiting requests per token, {WAITS_MAX} per copy")
        self.per_token[token_id] += 1
        self._enter(experiment_id)
        ends_at = asyncio.get_running_loop().time() + call.query["wait_seconds"]
        first: Answer | None = None
        try:
            while True:
                event = self.events[experiment_id][0]
                answer = await look()
                first = first or answer
                left = ends_at - asyncio.get_running_loop().time()
                if left <= 0 or self.draining.is_set() or not self.still[call.operation.id](answer, call.query, first):
                    return answer
                await self._either(event, left)
        finally:
            self._leave(experiment_id)
            self.per_token[token_id] -= 1
            self.per_token += Counter()  # Drops zeros.

    async def _either(self, event: asyncio.Event, seconds: float) -> None:
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self.draining.wait())]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()

    def _enter(self, experiment_id: str) -> None:
        event, count = self.events.get(experiment_id, (asyncio.Event(), 0))
        self.events[experiment_id] = (event, count + 1)
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._look())

    def _leave(self, experiment_id: str) -> None:
        event, count = self.events[experiment_id]
        if count == 1:
            del self.events[experiment_id]
            self.marks.pop(experiment_id, None)
        else:
            self.events[experiment_id] = (event, count - 1)

    async def _look(self) -> None:
        """While anybody waits. A store that is away changes nothing: the requests end by their own time."""
        while self.events:
            try:
                found = await asyncio.to_thread(self._read, list(self.events))
            except AiravataError:
                found = {}
            for experiment_id, mark in found.items():
                if self.marks.get(experiment_id) != mark and experiment_id in self.events:
                    self.marks[experiment_id] = mark
                    event, count = self.events[experiment_id]
                    self.events[experiment_id] = (asyncio.Event(), count)
                    event.set()
            await asyncio.sleep(LOOK_SECONDS)

    def _read(self, experiment_ids: list[str]) -> dict[str, Any]:
        with self.unit_of_work("api.wait.read") as tx:
            return waiting.marks_of(tx, experiment_ids)
