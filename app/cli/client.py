"""The command line's way to the REST API: one HTTP client with bounded retries, and faults that carry their exit code.

A write keeps one Idempotency-Key over all its tries, so that a lost answer is never a second launch. Repeated are only answers that say nothing happened
or that may be asked again (no answer, 408, 429, 502, 503, 504, `idempotency_in_flight`), at most 5 times and 60 s in all.
"""

import time
from collections.abc import Iterator
from typing import Any

import httpx2

from app import instance
from app.cli import show
from app.cli.exits import Exit, Failed

TRIES = 5
FIRST_DELAY_SECONDS, DELAY_SECONDS_MAX, TOTAL_SECONDS_MAX = 0.25, 8.0, 60.0
CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0
PAGE = 200
AGAIN = frozenset({408, 429, 502, 503, 504})
EXITS = {
    401: Exit.AUTH, 403: Exit.AUTH, 404: Exit.NOT_FOUND, 410: Exit.NOT_FOUND, 409: Exit.CONFLICT, 412: Exit.CONFLICT, 428: Exit.CONFLICT, 429: Exit.SERVER,
}  # fmt: skip


class Client:
    """Paths are below /v1. Raises Failed, whose code is the process's exit code."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            self._http = httpx2.Client(base_url=f"{self.url}/v1", headers=headers, timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS), follow_redirects=False)
        except (httpx2.InvalidURL, UnicodeEncodeError) as fault:
            raise Failed(Exit.USAGE, f"{url!r} or its token cannot be used: {fault}") from fault

    def get(self, path: str, **parameters: Any) -> Any:
        return document(self.ask("GET", path, parameters=parameters))

    def post(self, path: str, body: Any, *, key: str | None = None) -> Any:
        """Under `key`, or one made for this call."""
        return document(self.ask("POST", path, body=body, headers={"Idempotency-Key": key or instance.fresh_id("req")}))

    def patch(self, path: str, body: Any) -> Any:
        """Of the version just read: a change in between is a conflict, exit 4."""
        etag = self.ask("GET", path).headers.get("etag", "*")
        return document(self.ask("PATCH", path, body=body, headers={"If-Match": etag, "Idempotency-Key": instance.fresh_id("req")}))

    def delete(self, path: str) -> None:
        """Gone is gone: a 404 after an unanswered try of ours is a success."""
        etag = self.ask("GET", path).headers.get("etag", "*")
        self.ask("DELETE", path, headers={"If-Match": etag}, gone_is_fine=True)

    def items(self, path: str, *, most: int, **parameters: Any) -> list[Any]:
        """A list's first `most` items, page by page."""
        found: list[Any] = []
        cursor: str | None = None
        while len(found) < most:
            page = self.get(path, limit=min(PAGE, most - len(found)), cursor=cursor, **parameters)
            found += page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                break
        return found

    def find(self, path: str, name_or_id: str) -> Any:
        """An entry by its id or by its name, in which `_` never stands."""
        if "_" in name_or_id:
            return self.get(f"{path}/{name_or_id}")
        found = self.get(path, name=name_or_id)["items"]
        if not found:
            raise Failed(Exit.NOT_FOUND, f"nothing named {name_or_id!r} under {path}")
        return found[0]

    def content(self, path: str, **parameters: Any) -> "Iterator[bytes]":
        """Bytes as they come; an answer that breaks off raises."""
        try:
            with self._http.stream("GET", path, params=_given(parameters)) as answer:
                if not answer.is_success:
                    answer.read()
                    raise problem(answer)
                yield from answer.iter_bytes()
        except httpx2.TransportError as fault:
            raise Failed(Exit.SERVER, f"{self.url}: {fault or type(fault).__name__}") from fault

    def ask(self, method: str, path: str, *, parameters: Any = None, body: Any = None, headers: dict[str, str] | None = None, gone_is_fine: bool = False) -> httpx2.Response:
        """One call, tried again while that can help. What redirects us is not the API."""
        parameters = _given(parameters or {})
        timeout = httpx2.Timeout(float(parameters.get("wait_seconds", READ_SECONDS - 10)) + 10, connect=CONNECT_SECONDS)
        began, lost = time.monotonic(), False
        for number in range(1, TRIES + 1):
            answer, fault = None, None
            try:
                answer = self._http.request(method, path, params=parameters, json=body, headers=headers, timeout=timeout)
            except httpx2.TransportError as broken:
                fault, lost = Failed(Exit.SERVER, f"no answer from {self.url}: {broken or type(broken).__name__}"), True
            if answer is not None:
                if answer.is_success or (gone_is_fine and lost and answer.status_code == 404):
                    return answer
                fault = problem(answer)
                if answer.status_code not in AGAIN and fault.problem.get("code") != "idempotency_in_flight":
                    raise fault
            delay = _delay(number, answer)
            if number == TRIES or time.monotonic() - began + delay > TOTAL_SECONDS_MAX:
                break
            time.sleep(delay)
        raise fault or Failed(Exit.SERVER, "not asked")


def document(answer: httpx2.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        raise problem(answer) from None


def problem(answer: httpx2.Response) -> Failed:
    """What an API's refusal means to a shell: the status decides the code, the problem's words are shown."""
    code = EXITS.get(answer.status_code, Exit.SERVER if answer.status_code >= 500 else Exit.USAGE)
    try:
        told = answer.json()
    except ValueError:
        told = {}
    if not isinstance(told, dict) or "code" not in told:
        return Failed(code, f"{answer.request.url} answered {answer.status_code}, not as the API does: is this the API server?")
    lines = [": ".join(dict.fromkeys(str(told[each]) for each in ("title", "detail") if told.get(each))) or str(told["code"])]
    lines += [f"  {each.get('pointer') or '(body)'}: {each.get('code')}: {each.get('detail')}" for each in told.get("errors") or []]
    if told.get("trace_id"):
        lines.append(f"  trace {told['trace_id']}")
    return Failed(code, "\n".join(map(show.clean, lines)), told)


def _given(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


def _delay(number: int, answer: httpx2.Response | None) -> float:
    told = (answer.headers.get("retry-after") if answer is not None else None) or ""
    if told.isdigit():
        return float(min(int(told), TOTAL_SECONDS_MAX))
    return instance.jitter(0.0, min(FIRST_DELAY_SECONDS * 2 ** (number - 1), DELAY_SECONDS_MAX))
