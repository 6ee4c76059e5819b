"""The tree of a launch while it runs, from the database alone: over HTTP, and as `airavata trace` and `airavata explain` print it."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.dev.servers import ROOT
from tests.support.history import Story
from tests.support.rest import Client, Rest, a_shape, problem

pytestmark = pytest.mark.mysql
OUTCOME = '{"code":"STAGING_IN_FAILED","message":"no answer"}'


@pytest.fixture
def story(rest: Rest, admin: Client) -> Story:
    """One task has failed once and runs again, with a job; the other waits for it."""
    made = admin.made("/v1/experiments", {"name": "x", "application_interface_id": a_shape(admin), "inputs": {"edges": "a>b"}, "launch": True})
    story = Story(rest, made)
    rest.write("UPDATE processes SET state = 'STARTED' WHERE id = %s", story.process)
    task = story.task("a", "EXECUTING", attempt=2, epoch=1)
    story.task("b", "CREATED")
    story.attempt(task, 1, "FAILED", outcome=OUTCOME)
    story.job(task, story.attempt(task, 2, "RUNNING"), "ACTIVE", scheduler_job_id="4711", submitted_at=story.at)
    return story


def test_a_running_launch_is_drawn_from_its_rows(story: Story, admin: Client) -> None:
    told = admin.read(f"/v1/experiments/{story.experiment}/trace")
    experiment = admin.read(f"/v1/experiments/{story.experiment}")
    root = told["root"]
    assert (told["trace_id"], told["state"], root["name"], root["end"]) == (experiment["trace_id"], "LAUNCHED", "experiment run", None)
    assert sorted(each["name"] for each in root["children"]) == ["task NOOP", "task NOOP", "wait RETRY_WAIT"]
    second = next(each for each in root["children"] if each["attributes"].get("airavata.attempt.state") == "RUNNING")
    assert [(each["name"], each["attributes"]["airavata.job.id"], each["end"]) for each in second["children"]] == [("job run", "4711", None)]
    assert {each["parent_id"] for each in root["children"]} == {root["span_id"]}
    assert second["retry_of"] in {each["span_id"] for each in root["children"]}


def test_a_draft_has_no_tree(admin: Client) -> None:
    draft = admin.made("/v1/experiments", {"name": "x", "application_interface_id": a_shape(admin), "inputs": {"edges": "a"}})["id"]
    assert admin.read(f"/v1/experiments/{draft}/trace")["root"] is None


def test_nobody_sees_anothers_tree(rest: Rest, story: Story, user: Client) -> None:
    path = f"/v1/experiments/{story.experiment}/trace"
    with rest.client(rest.gateway()) as stranger:
        assert problem(stranger.get(path)) == (404, "not_found")
    assert problem(user.get(path)) == (404, "not_found")  # Of the same gateway, but ann's.


def test_the_command_line_draws_it_and_says_what_it_waits_for(rest: Rest, story: Story, gateway_id: str, tmp_path: Path) -> None:
    def airavata(*words: str) -> subprocess.CompletedProcess[str]:
        told = {"HOME": str(tmp_path), "AIRAVATA_URL": rest.public, "AIRAVATA_TOKEN": rest.token(gateway_id=gateway_id), "AIRAVATA_TRACE_URL": "https://jaeger.example.org/trace/{trace_id}"}
        return subprocess.run([sys.executable, "-c", "from app.cli import main; main()", *words], cwd=ROOT, env=told, capture_output=True, text=True, timeout=60, check=True)

    drawn = airavata("trace", story.experiment)
    lines = drawn.stdout.splitlines()
    assert lines[0].startswith(f"{story.experiment} LAUNCHED, trace ")
    assert lines[1].startswith("experiment run  +0.000 s")
    assert [line[:12] for line in lines if line[3:].startswith("task NOOP")] in (["├─ task NOOP", "└─ task NOOP"], ["├─ task NOOP", "├─ task NOOP"])
    assert any("└─ job run  4711  ACTIVE" in line for line in lines)
    assert any("task NOOP  a  attempt=1" in line and line.endswith("ERROR STAGING_IN_FAILED") for line in lines)
    assert drawn.stderr.startswith("https://jaeger.example.org/trace/")
    explained = airavata("explain", story.experiment).stdout
    assert explained.startswith("LAUNCHED, ")
    assert "CLEARS WHEN" in explained
