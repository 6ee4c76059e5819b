"""DOOR to the API server's internal face: C0 over HTTP, and slices of events with their positions. Any call may be repeated blindly."""

from collections.abc import Sequence
from typing import Any

import httpx2
import msgspec

from app.errors import Misconfigured, StoreUnavailable

TIMEOUT_SECONDS = 15.0
EVENTS_PATH = "/internal/v1/task-events"


class Recreated(Misconfigured):
    """A topic was made anew: its positions belong to another."""


class ApiClient:
    """Raises StoreUnavailable for what may pass (no answer, 5xx, 429), Misconfigured for a token or route that never will."""

    def __init__(self, url: str, token: str, instance: str, version: str) -> None:
        self.instance = {"id": instance, "version": version}
        self.http = httpx2.Client(base_url=url.rstrip("/"), headers={"Authorization": f"Bearer {token}"}, timeout=httpx2.Timeout(TIMEOUT_SECONDS, connect=3.0))

    def claim(self, group: str, partitions: Sequence[tuple[str, int]], uuids: dict[str, str]) -> dict[tuple[str, int], tuple[int, int]]:
        """Partition → (owner epoch, next offset). Each call raises the epochs."""
        asked = [{"topic": topic, "topic_uuid": uuids.get(topic, ""), "partition": part} for topic, part in partitions]
        told = self._post("/internal/v1/positions", {"consumer_group": group, "instance": self.instance, "partitions": asked})
        return {(each["topic"], each["partition"]): (each["owner_epoch"], each["next_offset"]) for each in told["partitions"]}

    def store(self, group: str, slices: Sequence[dict[str, Any]], lag: Sequence[dict[str, Any]], *, traceparent: str = "") -> list[dict[str, Any]]:
        """One answer per slice: applied, behind or fenced. Without slices: the heartbeat. `traceparent`: the batch's own trace, if it is sampled."""
        body = {"consumer_group": group, "instance": self.instance, "lag": list(lag), "slices": list(slices)}
        found: list[dict[str, Any]] = self._post(EVENTS_PATH, body, traceparent)["slices"]
        return found

    def _post(self, path: str, body: dict[str, Any], traceparent: str = "") -> Any:
        headers = {"Content-Type": "application/json", **({"traceparent": traceparent} if traceparent else {})}
        try:
            answer = self.http.post(path, content=msgspec.json.encode(body), headers=headers)
        except httpx2.HTTPError as fault:
            raise StoreUnavailable(f"API server: {type(fault).__name__}") from fault
        if answer.status_code == 200:
            return msgspec.json.decode(answer.content)
        detail = answer.text[:300]
        if answer.status_code == 409 and "recreated" in detail:
            raise Recreated(msgspec.json.decode(answer.content)["detail"])
        if answer.status_code in {401, 403, 404}:
            raise Misconfigured(f"the API server's internal face refuses us ({answer.status_code}): check AIRAVATA_INTERNAL_URL and AIRAVATA_INTERNAL_TOKEN. {detail}")
        raise StoreUnavailable(f"API server: {answer.status_code} {detail}")
