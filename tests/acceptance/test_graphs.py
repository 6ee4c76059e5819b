"""Graphs of no-ops through every component, over REST, on both databases."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from app.dev.servers import InOrder
from tests.support.whole import Whole, a_system, launch_shape, shape_of, until

COMPONENTS = ("api", "relay", "generator", "scheduler", "executor-noop", "event-sink")


@pytest.fixture(scope="module")
def whole(servers: InOrder, shared_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with a_system(servers, shared_database, tmp_path_factory.mktemp("whole")) as made:
        made.daemon("api", 1)
        made.start(COMPONENTS)
        made.start(("api",), copies=2)
        made.open_gateway()
        yield made


def test_a_diamond_completes_and_its_history_has_no_gaps(whole: Whole) -> None:
    gateway = whole.at(0)
    launched = launch_shape(gateway, "a>b a>c b>d c>d")
    assert gateway.wait(launched["id"])["outcome"] == "NORMAL_COMPLETION"
    events = until(lambda: found if (found := gateway.get(f"/experiments/{launched['id']}/events", limit=200)["items"]) and found[-1]["type"] == "ExperimentChanged" and found[-1]["to_state"] == "COMPLETED" else None)
    assert [each["seq"] for each in events] == list(range(1, len(events) + 1))
    assert sorted(each["task_type"] for each in events if each["type"] == "TaskSucceeded") == ["NOOP"] * 4
    assert len({each["id"] for each in events}) == len(events)


def test_a_failed_attempt_is_tried_again_and_a_hopeless_task_fails_the_experiment_by_its_code(whole: Whole) -> None:
    gateway = whole.at(0)
    retried, hopeless = launch_shape(gateway, "a>b", "a:fail=1"), launch_shape(gateway, "a>b a=c", "a:fail_for_good=1")
    assert gateway.wait(retried["id"])["state"] == "COMPLETED"
    told = gateway.wait(hopeless["id"])
    assert (told["state"], told["outcome"]) == ("FAILED", "INTERNAL")
    shown = gateway.get(f"/experiments/{hopeless['id']}")
    assert "fail for good" in shown["errors"][0]["message"]
    graph = gateway.get(f"/processes/{shown['process_id']}/graph")
    assert {each["name"]: each["state"] for each in graph["nodes"]} == {"a": "FAILED", "b": "SKIPPED", "c": "COMPLETED"}


def test_the_same_launch_sent_100_times_at_once_to_two_servers_is_one_process(whole: Whole) -> None:
    gateway = whole.at(0)
    interface = shape_of(gateway)
    body = {"name": "many", "application_interface_id": interface["id"], "inputs": {"edges": "a>b"}, "launch": True}

    def send(n: int) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {whole.gateway_token}", "Idempotency-Key": "the-one"}
        return httpx2.post(f"{whole.url_of(n % 2)}/v1/experiments", json=body, headers=headers, timeout=60)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(send, range(100)))
    codes = [each.status_code for each in answers]
    assert set(codes) <= {201, 409, 503}, codes
    ids = {each.json()["id"] for each in answers if each.status_code == 201}
    assert len(ids) == 1
    assert whole.query("SELECT COUNT(*) FROM processes p JOIN experiments e ON e.id = p.experiment_id WHERE e.name = 'many'")[0][0] == 1
    assert gateway.wait(ids.pop())["state"] == "COMPLETED"


def test_nothing_is_left_behind(whole: Whole) -> None:
    whole.settled()
    assert whole.rescues() == 0
