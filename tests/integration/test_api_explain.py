"""Why a run is not further, over HTTP and from the database alone: a test per cause, each made as the components would leave it; and nobody sees another's."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from app.messages.placement import Placement
from app.mysql import dead_letters, hosts, instances, shards
from app.mysql.dead_letters import DeadLetter
from app.workflow import explanation
from tests.support.history import Story
from tests.support.rest import Client, Rest, a_place, a_shape, fresh, problem

pytestmark = pytest.mark.mysql
COMPONENTS = ("generator", "scheduler", "executor-noop", "executor-job")
PLACEMENT = Placement(12, 4, 2)  # As tests/support/rest.py.


class Run(Story):
    """A launched experiment on a host, whose process has started; its launch's messages have been sent."""

    def __init__(self, rest: Rest, client: Client, place: dict[str, str]) -> None:
        body = {"name": "x", "application_interface_id": place["interface"], "inputs": {"text": "data:,x"}, "output_storage_id": place["storage"], "launch": True}
        super().__init__(rest, client.made("/v1/experiments", body))
        self.client, self.place = client, place
        rest.write("DELETE FROM outbox WHERE k = %s", self.process)

    def started(self) -> "Run":
        self.rest.write("UPDATE processes SET state = 'STARTED', tasks_open = 1 WHERE id = %s", self.process)
        self.rest.write("UPDATE experiments SET state = 'EXECUTING' WHERE id = %s", self.experiment)
        return self

    def unsent(self, topic: str, part: int, task: str = "") -> None:
        key = f"{self.process}-{task}" if task else self.process
        self.rest.write(
            "INSERT INTO outbox (shard, part, mid, topic, k, headers, payload, created_at) VALUES (%s, %s, %s, %s, %s, '', '', %s)", PLACEMENT.shard(part), part, fresh("m").encode()[-16:].rjust(16), topic, key, self.at
        )

    def waits(self, name: str, state: str, *, seconds: int = 60, **columns: Any) -> str:
        task = self.task(name, state, attempt=1, epoch=1)
        values = {"next_attempt_at": self.at + timedelta(seconds=seconds), **columns}
        self.rest.write(f"UPDATE tasks SET {', '.join(f'{each} = %s' for each in values)} WHERE id = %s", *values.values(), task)
        return task

    def explained(self) -> Any:
        return self.client.read(f"/v1/experiments/{self.experiment}/explain")


@pytest.fixture
def run(rest: Rest, admin: Client, everybody_lives: None, tmp_path: Any) -> Run:
    return Run(rest, admin, a_place(admin, str(tmp_path)))


@pytest.fixture
def everybody_lives(rest: Rest) -> Iterator[None]:
    """An instance of each component, and a relay that holds both shards; gone afterwards, for other tests."""
    with rest.unit("test.beat") as tx:
        shards.ensure(tx, 2)
        for each in COMPONENTS:
            instances.beat(tx, f"{each}-1", component=each, version="0.1.0", facts={})
        for shard in range(2):
            assert shards.lease(tx, shard, owner="relay-1", seconds=600)
    yield
    rest.write("UPDATE relay_shards SET owner = NULL, until = NULL")
    rest.write("DELETE FROM instances")


def gone(run: Run, component: str) -> None:
    run.rest.write("DELETE FROM instances WHERE component = %s", component)


def silent(run: Run, component: str) -> None:
    run.rest.write("UPDATE instances SET heartbeat_at = heartbeat_at - INTERVAL 1 MINUTE WHERE component = %s", component)


def set_aside(run: Run) -> None:
    letter = DeadLetter("dlt_" + fresh("0").rjust(26, "0")[-26:], "task-scheduler", "event-sink", 0, 1, b"0" * 16, run.process, b"", b"", run.experiment, "Illegal", "no such task", 5, run.at)
    with run.rest.unit("test.letter") as tx:
        dead_letters.set_aside(tx, [letter], now=run.at)


def held(run: Run, owner: str = "executor-noop-9") -> None:
    run.attempt(run.task("b", "EXECUTING", attempt=1, epoch=1), 1, "RUNNING", owner=owner)


def budget(run: Run) -> None:
    run.attempt(run.task("b", "EXECUTING", kind="JOB_SUBMISSION", attempt=1, epoch=1), 1, "RUNNING", owner="executor-job-9")
    key = f"{fresh('h')}.example.org"
    run.client.send_json("PATCH", f"/v1/compute-resources/{run.place['compute']}", {"host": key, "limits": {"connections": 1}}, headers={"If-Match": "*"})
    with run.rest.unit("test.slot") as tx:
        hosts.ensure_slots(tx, f"{key}:22", 1)
        assert hosts.claim_slot(tx, f"{key}:22", count=1, owner="executor-job-9", seconds=600) == 0


def a_job(state: str, *, watched: bool = True) -> Callable[[Run], None]:
    def make(run: Run) -> None:
        task = run.task("b", "EXECUTING", kind="JOB_SUBMISSION", attempt=1, epoch=1)
        run.job(task, run.attempt(task, 1, "RUNNING"), state, scheduler_job_id="4711", compute_resource_id=run.place["compute"], reason="Priority")
        with run.rest.unit("test.watch") as tx:
            hosts.ensure_watch(tx, [run.place["compute"]])
            if watched:
                hosts.claim_watches(tx, [run.place["compute"]], owner="executor-job-1", seconds=600)
                hosts.looked(tx, run.place["compute"])

    return make


def blocked(code: str) -> Callable[[Run], None]:
    return lambda run: void(run.waits("b", "BLOCKED", reason=f"{code}: not now"))


def void(*_: Any) -> None:
    pass


def command(run: Run) -> str:
    task = run.task("b", "SCHEDULED", attempt=1, epoch=1)
    run.attempt(task, 1, "DISPATCHED")
    return task


def after_another(run: Run) -> None:
    first, second = run.waits("a", "RETRY_WAIT"), run.task("b", "CREATED")
    run.rest.write("INSERT INTO edges (process_id, from_task, to_task, on_end) VALUES (%s, %s, %s, 'SUCCESS')", run.process, first, second)


CASES: dict[str, tuple[str, Callable[[Run], Any]]] = {
    "launched, not sent": ("MESSAGE_IN_OUTBOX", lambda run: run.unsent("airavata-launch", run.part)),
    "launched, sent": ("NOT_CONSUMED", void),
    "launched, no generator": ("NO_INSTANCE", lambda run: gone(run, "generator")),
    "launched, generator silent": ("NO_INSTANCE", lambda run: silent(run, "generator")),
    "launched an hour ago": ("STUCK", lambda run: run.rest.write("UPDATE processes SET state_since = state_since - INTERVAL 1 HOUR WHERE id = %s", run.process)),
    "canceling": ("CANCEL_UNCONFIRMED", lambda run: run.rest.write("UPDATE experiments SET state = 'CANCELING' WHERE id = %s", run.experiment)),
    "no task open": ("STUCK", Run.started),
    "commanded, not sent": ("MESSAGE_IN_OUTBOX", lambda run: run.started().unsent("noop-task", PLACEMENT.of_task(run.task_id("b")), command(run))),
    "commanded, sent": ("NOT_CONSUMED", lambda run: command(run.started())),
    "commanded, no executor": ("NO_EXECUTOR", lambda run: (command(run.started()), gone(run, "executor-noop"))),
    "in hand": ("LEASE_HELD", lambda run: held(run.started())),
    "its owner silent": ("OWNER_SILENT", lambda run: (held(run.started()), silent(run, "executor-job"))),
    "no connection free": ("HOST_BUDGET", lambda run: budget(run.started())),
    "a job in its queue": ("BATCH_QUEUE", lambda run: a_job("QUEUED")(run.started())),
    "a job held": ("JOB_HELD", lambda run: a_job("SUSPENDED")(run.started())),
    "a job that runs": ("JOB_RUNNING", lambda run: a_job("ACTIVE")(run.started())),
    "a job out of sight": ("JOB_UNSEEN", lambda run: a_job("UNKNOWN")(run.started())),
    "a job nobody watches": ("NO_EXECUTOR", lambda run: (gone(run, "executor-job"), a_job("ACTIVE", watched=False)(run.started()))),
    "tried again": ("RETRY_WAIT", lambda run: run.started().waits("b", "RETRY_WAIT", reason="SSH_TIMEOUT: no answer", burned=1)),
    "due, no scheduler": ("NO_INSTANCE", lambda run: (run.started().waits("b", "RETRY_WAIT", seconds=-60), gone(run, "scheduler"))),
    "in doubt": ("IN_DOUBT", lambda run: run.started().waits("b", "IN_DOUBT", doubt_since=run.at)),
    "after another": ("RETRY_WAIT", lambda run: after_another(run.started())),
    "set aside": ("DEAD_LETTER", lambda run: set_aside(run.started())),
    **{f"blocked by {code}": (code, (lambda make: lambda run: make(run.started()))(blocked(code))) for code in ("AUTH_REQUIRED", "HOST_KEY_CHANGED", "HOST_DISABLED", "QUOTA", "HOST_CIRCUIT_OPEN")},
    "blocked by something new": ("BLOCKED", lambda run: blocked("MOON")(run.started())),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_says_what_holds_it(run: Run, case: str) -> None:
    code, arrange = CASES[case]
    arrange(run)
    told = run.explained()
    assert told["causes"][0]["code"] == code, told
    assert told["verdict"] == explanation.CAUSES[code].verdict
    assert told["summary"].startswith(told["causes"][0]["sentence"])
    assert (told["subject"], told["failure"]) == (run.experiment, None)
    assert told["causes"][0]["since"].endswith("Z")


def test_a_task_that_waits_for_another_names_it(run: Run) -> None:
    after_another(run.started())
    assert [(each["code"], each["detail"]) for each in run.explained()["causes"]][1:] == [("DEPENDENCY", "a")]


def test_a_retry_tells_when_and_how_often(run: Run) -> None:
    run.started().waits("b", "RETRY_WAIT", reason="SSH_TIMEOUT: no answer", burned=1)
    (cause,) = run.explained()["causes"]
    assert (cause["attempts_burned"], cause["detail"], cause["next_check_at"][:19]) == (1, "SSH_TIMEOUT: no answer", (run.at + timedelta(minutes=1)).isoformat()[:19])


def test_without_a_relay_the_row_in_the_outbox_says_so(run: Run) -> None:
    run.rest.write("UPDATE relay_shards SET until = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND")
    run.unsent("airavata-launch", run.part)
    told = run.explained()
    assert (told["causes"][0]["code"], told["verdict"]) == ("NO_INSTANCE", "WAITING")
    assert told["summary"].startswith("The launch cannot go on because no relay is running. Since ")


def test_a_draft_waits_for_its_launch_and_says_what_would_refuse_it(rest: Rest, operator: Client) -> None:
    gateway = rest.gateway()
    with rest.client(gateway) as client:
        body = {"name": "x", "application_interface_id": a_shape(client), "inputs": {"edges": "a>b"}}
        draft = client.made("/v1/experiments", body)["id"]
        client.made("/v1/experiments", {**body, "launch": True})
        path = f"/v1/experiments/{draft}/explain"
        assert [each["code"] for each in client.read(path)["causes"]] == ["NOT_LAUNCHED"]
        operator.send_json("PATCH", f"/v1/gateways/{gateway}", {"paused": True, "limits": {"live_experiments": 1}}, headers={"If-Match": "*"})
        told = client.read(path)
    assert [each["code"] for each in told["causes"]] == ["PAUSED", "GATEWAY_LIMIT", "NOT_LAUNCHED"]
    assert (told["verdict"], told["causes"][1]["detail"]) == ("NOT_LAUNCHED", "1 of 1")


def test_a_failed_run_says_whose_fault_it_was_and_what_it_printed(run: Run) -> None:
    run.started()
    task = run.task("b", "FAILED", kind="JOB_SUBMISSION", attempt=1, epoch=1)
    run.job(task, run.attempt(task, 1, "FAILED"), "FAILED", exit_code=3, stdout_tail=b"all good", stderr_tail=b"no such \xff file", reason="exit status 3")
    failure = f'{{"code":"APP_NONZERO_EXIT","message":"The program ended with exit status 3.","exit_code":3,"task":"{task}"}}'
    run.rest.write("UPDATE experiments SET state = 'FAILED', outcome = 'APP_NONZERO_EXIT', failure = %s, finished_at = %s WHERE id = %s", failure, run.at, run.experiment)
    told = run.explained()
    assert (told["verdict"], told["causes"]) == ("ENDED", [])
    assert "The program ended with exit status 3." in told["summary"]
    assert told["failure"] | {"hint": None} == {
        "code": "APP_NONZERO_EXIT", "class": "USER", "retriable": False, "stage": "JOB_SUBMISSION", "message": "The program ended with exit status 3.", "exit_code": 3, "signal": None,
        "scheduler_reason": "exit status 3", "raw_message": None, "stdout_tail": "all good", "stderr_tail": "no such \ufffd file", "hint": None, "runbook": None,
    }  # fmt: skip


def test_a_process_and_a_task_explain_themselves(run: Run) -> None:
    after_another(run.started())
    process = run.client.read(f"/v1/processes/{run.process}/explain")
    assert ([each["code"] for each in process["causes"]], process["subject"], process["state"]) == (["RETRY_WAIT", "DEPENDENCY"], run.process, "STARTED")
    task = run.client.read(f"/v1/tasks/{run.task_id('b')}/explain")
    assert ([each["code"] for each in task["causes"]], task["subject"], task["state"], task["verdict"]) == (["DEPENDENCY"], run.task_id("b"), "CREATED", "PROGRESSING")


def test_a_task_that_has_ended_says_how_while_its_run_goes_on(run: Run) -> None:
    failed = run.started().waits("a", "RETRY_WAIT")
    run.rest.write("UPDATE tasks SET state = 'FAILED', reason = 'No such file.', failure = %s, finished_at = %s WHERE id = %s", '{"code":"PLUG_IN_CODE","message":"No such file."}', run.at, failed)
    held(run)
    told = run.client.read(f"/v1/tasks/{failed}/explain")
    assert (told["verdict"], told["summary"], told["causes"]) == ("ENDED", "It ended FAILED: No such file.", [])
    assert (told["failure"]["code"], told["failure"]["class"]) == ("PLUG_IN_CODE", "PLATFORM")
    assert run.explained()["causes"][0]["code"] == "LEASE_HELD"


def test_nobody_explains_anothers_run(rest: Rest, run: Run, user: Client) -> None:
    task = run.started().waits("a", "RETRY_WAIT")
    for path in (f"/v1/experiments/{run.experiment}/explain", f"/v1/processes/{run.process}/explain", f"/v1/tasks/{task}/explain"):
        with rest.client(rest.gateway()) as stranger:
            assert problem(stranger.get(path)) == (404, "not_found")
        assert problem(user.get(path)) == (404, "not_found")  # Of the same gateway, but ann's.
        assert run.client.get(path).status_code == 200
    assert problem(run.client.get("/v1/experiments/exp_x/explain")) == (404, "not_found")
