"""The whole path, real processes, both databases: what a gateway launches over REST runs on a real host and comes back."""

import subprocess
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from app.dev import hmmer
from app.dev.compute_host import SshHost
from tests.support.gateway import Gateway, Refused, fresh_key
from tests.support.system import System, ledger


def rows_of(table: bytes) -> list[str]:
    """A --tblout table without its comment lines, which name the day and the command."""
    return [line for line in table.decode().splitlines() if not line.startswith("#")]


def by_hand(directory: Path) -> list[str]:
    subprocess.run(["hmmbuild", hmmer.PROFILE, hmmer.EXAMPLES / hmmer.ALIGNMENT], cwd=directory, check=True, capture_output=True)
    subprocess.run(["hmmsearch", "--tblout", hmmer.HITS, hmmer.PROFILE, hmmer.EXAMPLES / hmmer.SEQUENCES], cwd=directory, check=True, capture_output=True)
    return rows_of((directory / hmmer.HITS).read_bytes())


def states(gateway: Gateway, experiment: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["state"] for each in gateway.tasks(experiment)}


def test_the_main_job_prints_the_table_that_the_same_commands_print_by_hand(system: System, ssh: SshHost, storage: str, tmp_path: Path) -> None:
    gateway = system.gateway
    hmmer.put_inputs(tmp_path / "storage")
    interface = gateway.application(gateway.host(ssh, tmp_path / "scratch"), inputs=hmmer.INTERFACE["inputs"], outputs=hmmer.INTERFACE["outputs"], **hmmer.DEPLOYMENT)
    given = {"alignment": f"storage://{storage}/globins/{hmmer.ALIGNMENT}", "sequences": f"storage://{storage}/globins/{hmmer.SEQUENCES}"}
    launched = gateway.launch(interface, given, output_storage_id=storage)
    ended = gateway.wait(launched)
    assert (ended["state"], ended["outcome"], ended["errors"]) == ("COMPLETED", "NORMAL_COMPLETION", []), gateway.told(launched)
    assert {each["state"] for each in ended["outputs"]} == {"STAGED"}
    assert rows_of(gateway.output(launched, "hits")) == by_hand(tmp_path)
    assert len(rows_of(gateway.output(launched, "hits"))) > 40
    assert b"Query:" in gateway.output(launched, "report")


def test_the_history_tells_every_step_once_in_order_and_in_one_trace(system: System, ssh: SshHost, storage: str, tmp_path: Path) -> None:
    gateway = system.gateway
    effect, book = gateway.effect(gateway.host(ssh, tmp_path / "scratch"), tmp_path / "effect")
    launched = gateway.launch(effect, {}, output_storage_id=storage)
    gateway.wait(launched)
    system.until(lambda: any(each["type"] == "ExperimentChanged" and each["to_state"] == "COMPLETED" for each in gateway.events(launched)), 60.0)
    events = gateway.events(launched)
    assert [each["seq"] for each in events] == list(range(1, len(events) + 1))
    assert len({each["id"] for each in events}) == len(events)
    assert not [each for each in events if each["late"]]
    assert len({each["traceparent"].split("-")[1] for each in events}) == 1
    ends = Counter((each["task_type"], each["to_state"]) for each in events if each["type"] == "TaskChanged" and each["to_state"] == "COMPLETED")
    assert ends == Counter({(each, "COMPLETED"): 1 for each in ("ENV_SETUP", "INGRESS_STAGING", "JOB_SUBMISSION", "EGRESS_STAGING")})
    assert len(ledger(book)) == 1


def test_a_program_that_exits_3_has_failed_and_everything_it_wrote_is_there(system: System, ssh: SshHost, storage: str, tmp_path: Path) -> None:
    gateway = system.gateway
    effect, book = gateway.effect(gateway.host(ssh, tmp_path / "scratch"), tmp_path / "effect")
    launched = gateway.launch(effect, {"status": 3}, output_storage_id=storage)
    ended = gateway.wait(launched)
    assert (ended["state"], ended["outcome"]) == ("FAILED", "APP_NONZERO_EXIT")
    assert (ended["errors"][0]["code"], ended["errors"][0]["exit_code"], ended["errors"][0]["signal"]) == ("APP_NONZERO_EXIT", 3, None)
    assert "exit status 3" in ended["errors"][0]["message"]
    (token,) = ledger(book)
    assert gateway.output(launched, "said").decode() == f"said by {token}\n"
    assert gateway.output(launched, "complained").decode() == f"complained by {token}\n"
    assert gateway.output(launched, "result").decode() == f"made by {token}\n"
    (job,) = gateway.get(f"/experiments/{launched}/jobs")["items"]
    assert (job["state"], job["exit_code"], job["name"]) == ("FAILED", 3, token)
    assert gateway.ask("GET", f"/jobs/{job['id']}/stderr", headers={"Accept": "text/plain"}).text == f"complained by {token}\n"


def test_a_task_that_fails_for_a_while_is_tried_again(system: System) -> None:
    gateway = system.gateway
    launched = gateway.launch(gateway.shape(), {"edges": "a>b", "behaviour": "a:fail=2"})
    ended = gateway.wait(launched)
    assert (ended["state"], ended["outcome"]) == ("COMPLETED", "NORMAL_COMPLETION")
    tasks = {each["name"]: each for each in gateway.tasks(ended)}
    assert (tasks["a"]["attempt"], tasks["b"]["attempt"]) == (3, 1)
    attempts = gateway.get(f"/tasks/{tasks['a']['id']}/attempts")["items"]
    assert sorted((each["number"], each["state"]) for each in attempts) == [(1, "FAILED"), (2, "FAILED"), (3, "SUCCEEDED")]


def test_a_graph_whose_task_fails_for_good_skips_what_needs_it_and_runs_the_rest(system: System) -> None:
    gateway = system.gateway
    launched = gateway.launch(gateway.shape(), {"edges": "a>b b>c b=d a>e", "behaviour": "b:fail_for_good=1 e:sleep_ms=200"})
    ended = gateway.wait(launched)
    assert (ended["state"], ended["outcome"]) == ("FAILED", "INTERNAL")
    assert states(gateway, ended) == {"a": "COMPLETED", "b": "FAILED", "c": "SKIPPED", "d": "COMPLETED", "e": "COMPLETED"}
    assert ended["errors"][0]["message"] == "This no-op was told to fail for good."


@pytest.mark.parametrize("edges", [" ".join(f"t{i}>t{i + 1}" for i in range(30)), " ".join([*(f"a>m{i}" for i in range(64)), *(f"m{i}>z" for i in range(64))])], ids=["chain", "fan"])
def test_every_task_of_a_graph_is_dispatched_once_and_after_those_it_needs(system: System, edges: str) -> None:
    gateway = system.gateway
    ended = gateway.wait(gateway.launch(gateway.shape(), {"edges": edges}))
    assert ended["state"] == "COMPLETED", gateway.told(ended["id"])
    graph = gateway.get(f"/processes/{ended['process_id']}/graph")
    times = dict(system.rows("SELECT t.id, a.started_at FROM tasks t JOIN attempts a ON a.task_id = t.id WHERE t.process_id = %s", ended["process_id"]))
    finished = dict(system.rows("SELECT task_id, finished_at FROM attempts WHERE process_id = %s", ended["process_id"]))
    assert len(times) == len(graph["nodes"]) == int(system.one("SELECT COUNT(*) FROM attempts WHERE process_id = %s", ended["process_id"]))
    assert all(finished[each["from_task"]] <= times[each["to_task"]] for each in graph["edges"])


def test_one_launch_sent_100_times_at_once_to_two_api_servers_is_one_process(system: System) -> None:
    gateway, key = system.gateway, fresh_key()
    shape = gateway.shape()
    together, answers = threading.Barrier(100), []

    def send(number: int) -> None:
        together.wait(30.0)
        answers.append(gateway.launch(shape, {"edges": "a>b"}, key=key, first=number, name=f"once {key}"))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(100)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(90.0)
    assert len(answers) == 100
    assert len(set(answers)) == 1
    assert system.one("SELECT COUNT(*) FROM experiments WHERE name = %s", f"once {key}") == 1
    assert system.one("SELECT COUNT(*) FROM processes WHERE experiment_id = %s", answers[0]) == 1
    assert gateway.wait(answers[0])["state"] == "COMPLETED"
    with pytest.raises(Refused) as refused:
        gateway.launch(shape, {"edges": "a"}, key=key)
    assert (refused.value.status, refused.value.problem["code"]) == (422, "idempotency_key_reused")


def test_launched_again_under_a_new_key_it_is_the_first_launch_that_is_shown(system: System) -> None:
    gateway = system.gateway
    draft = gateway.post("/experiments", {"name": "a draft", "application_interface_id": gateway.shape(), "inputs": {"edges": "a"}})["id"]
    first = gateway.ask("POST", f"/experiments/{draft}/launches", body={}, key=fresh_key())
    again = gateway.ask("POST", f"/experiments/{draft}/launches", body={}, key=fresh_key())
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["process_id"] == again.json()["process_id"]
    assert gateway.wait(draft)["state"] == "COMPLETED"
