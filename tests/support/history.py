"""A launched experiment as the components would leave it in the database, for tests of what is read: rows and events through the product's own statements."""

from datetime import datetime, timedelta
from typing import Any

from app.messages import ids
from app.messages.envelope import Envelope, Subject
from app.mysql import instances
from app.mysql.unit_of_work import now
from app.workflow import history
from tests.support.rest import Rest

TOPIC = "event-sink"


class Story:
    """One experiment of a `shape` graph. `event(body, task)` makes the document the sink would send."""

    def __init__(self, rest: Rest, experiment: dict[str, Any]) -> None:
        self.rest, self.gateway, self.experiment, self.process = rest, experiment["gateway_id"], experiment["id"], experiment["process_id"]
        self.serial = 0
        with rest.unit("test.clock") as tx:
            self.at = now(tx)
        self.part = int(rest.rows("SELECT part FROM processes WHERE id = %s", self.process)[0][0])

    def task_id(self, name: str) -> str:
        return ids.derived("tsk", self.process, name)

    def task(self, name: str, state: str = "CREATED", *, kind: str = "NOOP", attempt: int = 0, epoch: int = 0, reason: str = "") -> str:
        ended = self.at if state in {"COMPLETED", "FAILED", "CANCELED", "SKIPPED"} else None
        row = (self.task_id(name), self.process, name, kind, state, self.at, reason, 0, attempt, epoch, attempt, ended)
        self.rest.write("INSERT INTO tasks (id, process_id, name, type, model, state, state_since, reason, waiting_for, attempt, epoch, burned, version, finished_at) VALUES (%s, %s, %s, %s, '{}', %s, %s, %s, %s, %s, %s, %s, 1, %s)", *row)
        return self.task_id(name)

    def attempt(self, task: str, number: int, state: str, *, owner: str | None = None, outcome: str | None = None) -> str:
        attempt_id = ids.derived("att", task, str(number))
        ended = self.at if state in {"SUCCEEDED", "FAILED", "CANCELED"} else None
        row = (attempt_id, task, self.process, number, state, self.at, owner, self.at, self.at, ended, outcome)
        self.rest.write("INSERT INTO attempts (id, task_id, process_id, number, state, state_since, epoch, owner, created_at, started_at, finished_at, outcome) VALUES (%s, %s, %s, %s, %s, %s, 1, %s, %s, %s, %s, %s)", *row)
        if owner is not None:
            with self.rest.unit("test.beat") as tx:
                instances.beat(tx, owner, component="executor-job", version="0.1.0", facts={})
        return attempt_id

    def job(self, task: str, attempt: str, state: str = "ACTIVE", **more: Any) -> str:
        job_id = ids.derived("job", attempt)
        row = {
            "id": job_id, "attempt_id": attempt, "task_id": task, "process_id": self.process, "experiment_id": self.experiment, "compute_resource_id": "cmp_1", "epoch": 1, "state": state,
            "state_since": self.at, "script_sha256": "0" * 64, "work_dir": "/scratch", "document": "{}", "wall_time_seconds": 60, "created_at": self.at,
            "finished_at": self.at if state in {"COMPLETED", "FAILED"} else None, **more,
        }  # fmt: skip
        self.rest.write(f"INSERT INTO jobs ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})", *row.values())
        return job_id

    def event(self, body: Any, task: str = "", *, kind: str = "NOOP", attempt: int = 0, epoch: int = 0, at: datetime | None = None) -> dict[str, Any]:
        self.serial += 1
        subject = Subject(self.gateway, self.experiment, self.process, task, kind if task else "", attempt, epoch)
        moment = (at or self.at + timedelta(milliseconds=self.serial)).isoformat(timespec="microseconds") + "Z"
        mid = ids.digest(self.process, str(self.serial), type(body).__name__)
        return history.document(Envelope(mid=mid, topic=TOPIC, partition=self.part, subject=subject, body=body, step="test", cause="00" * 16, at=moment))
