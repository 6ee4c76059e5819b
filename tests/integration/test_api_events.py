"""What is told while an experiment runs: status and events, held until something changes; history and errors; and the insides they speak of."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event

from app.api import waiting
from app.messages.events import ExperimentChanged, JobChanged, ProcessChanged, TaskChanged, TaskFailed, TaskInDoubt, TaskStarted
from app.mysql import events
from app.mysql.unit_of_work import now
from tests.support.history import Story
from tests.support.rest import Client, Rest, a_shape, serving

pytestmark = pytest.mark.mysql


@pytest.fixture
def story(rest: Rest, admin: Client) -> Story:
    return Story(rest, admin.made("/v1/experiments", {"name": "x", "application_interface_id": a_shape(admin), "inputs": {"edges": "a>b"}, "launch": True}))


def told(story: Story, *documents: dict[str, Any]) -> None:
    """Stored as the sink's slices are."""
    with story.rest.unit("test.events") as tx:
        events.append(tx, [events.New(each, now(tx), late=False) for each in documents], now=now(tx))


def moved(story: Story, state: str) -> None:
    """As the scheduler moves it."""
    ended = ("NORMAL_COMPLETION", story.at) if state in {"COMPLETED", "FAILED"} else (None, None)
    story.rest.write("UPDATE experiments SET state = %s, outcome = %s, finished_at = %s, version = version + 1 WHERE id = %s", state, *ended, story.experiment)


def meanwhile(rest: Rest, ask: Callable[[], Any], act: Callable[[], None]) -> tuple[Any, float]:
    """Acts once the request is held; returns its answer and how long it took."""
    with ThreadPoolExecutor(1) as pool:
        began = time.monotonic()
        answer: Future[Any] = pool.submit(ask)
        deadline = time.monotonic() + 30
        while not rest.waiter.events and time.monotonic() < deadline:
            threading.Event().wait(0.005)
        assert rest.waiter.events, "it was not held"
        act()
        return answer.result(75), time.monotonic() - began


# ---- status -------------------------------------------------------------------------------------------------------------------------------------------
def test_status_tells_where_it_is(admin: Client, story: Story) -> None:
    found = admin.read(f"/v1/experiments/{story.experiment}/status")
    assert found == {"id": story.experiment, "state": "LAUNCHED", "outcome": None, "conditions": [], "version": 1, "terminal": False, "poll_after_seconds": 2}


def test_a_held_status_answers_when_the_version_changes(rest: Rest, admin: Client, story: Story) -> None:
    path = f"/v1/experiments/{story.experiment}/status"
    answer, took = meanwhile(rest, lambda: admin.read(path, wait_seconds=60, version=1), lambda: moved(story, "EXECUTING"))
    assert (answer["state"], answer["version"]) == ("EXECUTING", 2)
    assert took < 45
    assert admin.read(path, wait_seconds=60, version=1)["version"] == 2
    answer, took = meanwhile(rest, lambda: admin.read(path, wait_seconds=60, version=2), lambda: moved(story, "COMPLETED"))
    assert (answer["terminal"], answer["outcome"], answer["poll_after_seconds"], took < 45) == (True, "NORMAL_COMPLETION", None, True)
    assert admin.read(path, wait_seconds=60, version=3)["terminal"]


def test_without_a_version_it_is_the_one_first_told_that_must_change(rest: Rest, admin: Client, story: Story) -> None:
    first_told = threading.Event()

    def remember(_connection: Any, _cursor: Any, sql: str, *_: Any) -> None:
        if "FROM experiments" in sql:
            first_told.set()

    def act() -> None:
        assert first_told.wait(30)
        moved(story, "EXECUTING")

    event.listen(rest.engine, "after_cursor_execute", remember)
    answer, took = meanwhile(rest, lambda: admin.read(f"/v1/experiments/{story.experiment}/status", wait_seconds=60), act)
    event.remove(rest.engine, "after_cursor_execute", remember)
    assert (answer["version"], took < 45) == (2, True)


def test_waiting_for_the_end_does_not_stop_at_a_change(rest: Rest, admin: Client, story: Story) -> None:
    def act() -> None:
        moved(story, "EXECUTING")
        threading.Event().wait(0.3)
        moved(story, "FAILED")

    answer, _ = meanwhile(rest, lambda: admin.read(f"/v1/experiments/{story.experiment}/status", wait_seconds=60, until="terminal"), act)
    assert (answer["state"], answer["version"]) == ("FAILED", 3)


def test_out_of_time_it_tells_what_is(rest: Rest, admin: Client, story: Story) -> None:
    began = time.monotonic()
    assert admin.read(f"/v1/experiments/{story.experiment}/status", wait_seconds=1, until="terminal")["state"] == "LAUNCHED"
    assert 0.9 < time.monotonic() - began < 45
    assert (rest.waiter.events, dict(rest.waiter.per_token)) == ({}, {})


def test_a_drain_answers_everybody_with_what_is(shared_database: str) -> None:
    with serving(shared_database, threads=4) as rest, rest.client(rest.gateway()) as client:
        made = client.made("/v1/experiments", {"name": "x", "application_interface_id": a_shape(client), "inputs": {"edges": "a"}})["id"]
        answer, took = meanwhile(rest, lambda: client.read(f"/v1/experiments/{made}/status", wait_seconds=60), lambda: rest.loop.call_soon_threadsafe(rest.waiter.draining.set))
        assert (answer["state"], took < 45) == ("CREATED", True)


def test_a_token_may_wait_fifty_times_and_no_more(rest: Rest, admin: Client, user: Client, story: Story) -> None:
    path = f"/v1/experiments/{story.experiment}/status"
    with ThreadPoolExecutor(waiting.PER_TOKEN_MAX) as pool:
        held = [pool.submit(admin.read, path, wait_seconds=60, version=1) for _ in range(waiting.PER_TOKEN_MAX)]
        deadline = time.monotonic() + 40
        while sum(rest.waiter.per_token.values()) < waiting.PER_TOKEN_MAX and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        refused = admin.send_json("GET", path, wait_seconds=5)
        assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (429, "too_many_streams", "1")
        assert admin.send_json("GET", path).status_code == 200
        assert user.send_json("GET", path, wait_seconds=5).status_code == 404
        moved(story, "EXECUTING")
        assert {each.result(75)["version"] for each in held} == {2}


@pytest.mark.parametrize("query", ["wait_seconds=61", "wait_seconds=-1", "until=soon", "version=x"])
def test_an_impossible_wait_is_refused(admin: Client, story: Story, query: str) -> None:
    assert admin.send_json("GET", f"/v1/experiments/{story.experiment}/status?{query}").json()["code"] == "invalid_parameter"


def test_forty_waits_share_one_look(shared_database: str) -> None:
    """What is asked of MySQL grows with time, not with who waits."""
    looks: list[int] = []

    def remember(_connection: Any, _cursor: Any, sql: str, values: Any, *_: Any) -> None:
        if "MAX(v.seq)" in sql:
            looks.append(len(values))

    with serving(shared_database) as own, own.client(own.gateway()) as client:
        event.listen(own.engine, "before_cursor_execute", remember)
        shape = a_shape(client)
        stories = [Story(own, client.made("/v1/experiments", {"name": "x", "application_interface_id": shape, "inputs": {"edges": "a"}, "launch": True})) for _ in range(10)]
        with ThreadPoolExecutor(40) as pool:
            began = time.monotonic()
            asked = [pool.submit(client.read, f"/v1/experiments/{each.experiment}/status", wait_seconds=60, version=1) for each in stories for _ in range(4)]
            deadline = time.monotonic() + 30
            while max(looks, default=0) < 10 and time.monotonic() < deadline:
                threading.Event().wait(0.01)
            for each in stories:
                moved(each, "EXECUTING")
            assert {each.result(75)["state"] for each in asked} == {"EXECUTING"}
            assert max(looks) == 10
            assert len(looks) <= (time.monotonic() - began) / waiting.LOOK_SECONDS + 1


# ---- the feed -----------------------------------------------------------------------------------------------------------------------------------------
def test_the_feed_is_read_on_from_a_seq_and_held_until_there_is_more(rest: Rest, admin: Client, story: Story) -> None:
    path = f"/v1/experiments/{story.experiment}/events"
    assert admin.read(path)["items"] == []
    told(story, *(story.event(TaskChanged("a", "b")) for _ in range(5)))
    assert [each["seq"] for each in admin.read(path, after=2, limit=2)["items"]] == [3, 4]
    assert admin.read(path, after=5)["items"] == []
    answer, took = meanwhile(rest, lambda: admin.read(path, after=5, wait_seconds=60), lambda: told(story, story.event(ExperimentChanged("LAUNCHED", "EXECUTING"))))
    assert ([each["seq"] for each in answer["items"]], took < 45) == ([6], True)
    began = time.monotonic()
    assert admin.read(path, after=6, wait_seconds=1)["items"] == []
    assert time.monotonic() - began > 0.9


@pytest.mark.parametrize("cut", ["events", "history", "errors"])
def test_a_history_that_is_no_longer_kept_is_gone(rest: Rest, admin: Client, story: Story, cut: str) -> None:
    path = f"/v1/experiments/{story.experiment}/{cut}"
    told(story, story.event(TaskFailed("INTERNAL", "It failed.")))
    moved(story, "FAILED")
    rest.write("UPDATE experiments SET finished_at = %s WHERE id = %s", story.at - timedelta(days=91), story.experiment)
    assert admin.send_json("GET", path).status_code == 200
    rest.write("DELETE FROM events WHERE experiment_id = %s", story.experiment)
    gone = admin.send_json("GET", path)
    assert (gone.status_code, gone.json()["code"]) == (410, "events_expired")


def test_history_tells_changes_with_their_cause_and_errors_tell_failures_in_words(admin: Client, story: Story) -> None:
    task = story.task("a", "EXECUTING")
    failure = TaskFailed("STAGING_IN_FAILED", "The host refused the key.", "Permission denied (publickey)", transient=True, condition="AUTH_REQUIRED")
    told(
        story, story.event(ExperimentChanged("LAUNCHED", "EXECUTING")), story.event(TaskStarted("me"), task, attempt=1, epoch=2),
        story.event(JobChanged("job_1", "SUBMITTED", "ACTIVE", "Priority"), task, attempt=1), story.event(failure, task, attempt=1),
        story.event(TaskInDoubt("Nobody knows.", ("silence",)), task, attempt=2), story.event(TaskChanged("EXECUTING", "BLOCKED", "AUTH_REQUIRED: refused"), task, attempt=2, epoch=3),
        story.event(ProcessChanged("STARTED", "FAILED", "The deadline passed.", "SCHEDULER_DEADLINE")), story.event(ProcessChanged("STARTED", "FAILED", "A task failed.", "INTERNAL")),
    )  # fmt: skip
    history = admin.read(f"/v1/experiments/{story.experiment}/history")["items"]
    assert [(each["seq"], each["entity"], each["to_state"]) for each in history] == [
        (1, "experiment", "EXECUTING"), (3, "job", "ACTIVE"), (6, "task", "BLOCKED"), (7, "process", "FAILED"), (8, "process", "FAILED"),
    ]  # fmt: skip
    assert (history[1]["job_id"], history[1]["reason"], history[2]["epoch"], history[2]["cause"], history[3]["outcome"]) == ("job_1", "Priority", 3, "00" * 16, "SCHEDULER_DEADLINE")
    errors = admin.read(f"/v1/experiments/{story.experiment}/errors")["items"]
    assert [(each["seq"], each["code"], each["message"]) for each in errors] == [
        (4, "STAGING_IN_FAILED", "The host refused the key."), (5, "IN_DOUBT", "Nobody knows."), (7, "SCHEDULER_DEADLINE", "The deadline passed."),
    ]  # fmt: skip
    assert (errors[0]["condition"], errors[0]["transient"], errors[0]["raw_message"], errors[1]["evidence"]) == ("AUTH_REQUIRED", True, "Permission denied (publickey)", ["silence"])
    assert [each["seq"] for each in admin.read(f"/v1/experiments/{story.experiment}/history", after=3, limit=1)["items"]] == [6]


# ---- the insides --------------------------------------------------------------------------------------------------------------------------------------
def test_conditions_say_what_holds_it(rest: Rest, admin: Client, story: Story) -> None:
    held = [story.task("a", "RETRY_WAIT", attempt=1, reason="SSH_TIMEOUT: again"), story.task("b", "BLOCKED", reason="AUTH_REQUIRED: publickey refused for demo"), story.task("c", "IN_DOUBT", attempt=1, reason="IN_DOUBT: silence")]
    story.task("d", "EXECUTING", attempt=1)
    rest.write("UPDATE processes SET tasks_total = 5, tasks_open = 4 WHERE id = %s", story.process)
    found = admin.read(f"/v1/experiments/{story.experiment}")
    assert {(each["subject"], each["code"]) for each in found["conditions"]} == {(held[0], "RETRY_WAIT"), (held[1], "AUTH_REQUIRED"), (held[2], "IN_DOUBT")}
    assert found["progress"] == {"tasks_total": 5, "tasks_done": 1, "attempts_in_doubt": 1}
    assert admin.read(f"/v1/experiments/{story.experiment}/status")["conditions"] == found["conditions"]


def test_a_process_with_its_graph_tasks_and_attempts(rest: Rest, admin: Client, story: Story) -> None:
    process = admin.read(f"/v1/processes/{story.process}")
    assert (process["state"], process["graph"], process["phase"], process["trace_id"] is not None) == ("CREATED", None, None, True)
    assert admin.read(f"/v1/processes/{story.process}/graph") == {"process_id": story.process, "state": "CREATED", "nodes": [], "edges": []}
    a, b = story.task("a", "COMPLETED", kind="INGRESS_STAGING", attempt=1), story.task("b", "EXECUTING", kind="JOB_SUBMISSION", attempt=2)
    rest.write("INSERT INTO edges (process_id, from_task, to_task, on_end) VALUES (%s, %s, %s, 'SUCCESS')", story.process, a, b)
    rest.write("UPDATE processes SET state = 'STARTED', tasks_total = 2, tasks_open = 1 WHERE id = %s", story.process)
    first = story.attempt(b, 1, "FAILED", outcome='{"code":"INTERNAL","message":"It failed."}')
    second = story.attempt(b, 2, "RUNNING", owner=f"executor-job-{story.experiment}")
    process = admin.read(f"/v1/processes/{story.process}")
    assert (process["phase"], process["graph"], process["progress"]) == ("EXECUTING", f"/v1/processes/{story.process}/graph", {"tasks_total": 2, "tasks_done": 1, "tasks_failed": 0})
    (listed,) = admin.read(f"/v1/experiments/{story.experiment}/processes")["items"]
    assert {**listed, "snapshot": None, "work_dir": None} == {**process, "snapshot": None, "work_dir": None}
    graph = admin.read(f"/v1/processes/{story.process}/graph")
    assert [(each["name"], each["state"], each["attempt"]) for each in graph["nodes"]] == [("a", "COMPLETED", 1), ("b", "EXECUTING", 2)]
    assert graph["edges"] == [{"from_task": a, "to_task": b, "on": "SUCCESS"}]
    assert [each["id"] for each in admin.read(f"/v1/processes/{story.process}/tasks")["items"]] == [a, b]
    assert admin.read(f"/v1/tasks/{b}")["type"] == "JOB_SUBMISSION"
    attempts = admin.read(f"/v1/tasks/{b}/attempts")["items"]
    assert [(each["id"], each["number"], each["state"]) for each in attempts] == [(first, 1, "FAILED"), (second, 2, "RUNNING")]
    assert (attempts[0]["error"]["code"], attempts[0]["owner"], attempts[1]["error"]) == ("INTERNAL", None, None)
    one = admin.read(f"/v1/attempts/{second}")
    assert (one["owner"]["instance"], one["owner"]["heartbeat_at"] is not None, one["trace_id"]) == (f"executor-job-{story.experiment}", True, process["trace_id"])
    job = story.job(b, second, "QUEUED", scheduler_job_id="17")
    assert admin.read(f"/v1/processes/{story.process}")["phase"] == "MONITORING"
    found = admin.read(f"/v1/jobs/{job}")
    assert (found["name"], found["state"], found["scheduler_job_id"], admin.read(f"/v1/experiments/{story.experiment}/jobs")["items"]) == (second, "QUEUED", "17", [found])


def test_the_insides_are_as_private_as_their_experiment(rest: Rest, user: Client, admin: Client, story: Story) -> None:
    task = story.task("a", "EXECUTING", attempt=1)
    attempt = story.attempt(task, 1, "RUNNING")
    job = story.job(task, attempt, stdout_tail=b"x")
    paths = [f"/v1/processes/{story.process}{more}" for more in ("", "/graph", "/tasks")] + [f"/v1/tasks/{task}", f"/v1/tasks/{task}/attempts", f"/v1/attempts/{attempt}", f"/v1/jobs/{job}", f"/v1/jobs/{job}/stdout"]
    with rest.client(rest.gateway()) as other:
        for path in paths:
            headers = {"Accept": "*/*"}
            assert admin.send_json("GET", path, headers=headers).status_code == 200, path
            assert [client.send_json("GET", path, headers=headers).status_code for client in (other, user)] == [404, 404], path
    admin.send_json("DELETE", f"/v1/experiments/{story.experiment}", headers={"If-Match": "*"})
    moved(story, "COMPLETED")
    assert admin.send_json("DELETE", f"/v1/experiments/{story.experiment}", headers={"If-Match": "*"}).status_code == 204
    assert {admin.send_json("GET", path, headers={"Accept": "*/*"}).status_code for path in paths} == {404}
