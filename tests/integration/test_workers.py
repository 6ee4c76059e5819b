"""Worker processes against a real sshd: a job's whole life, and every way a host or a worker can fail us."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.messages import trace
from app.workflow.execution import Failed, InDoubt, Outcome, Submitted, Succeeded
from app.workflow.job import State
from components.task_executors import workers
from components.task_executors.layout import control_dir
from components.task_executors.plugin import Steps, TaskType, WorkOrder
from components.task_executors.remote_host import HostAddress
from components.task_executors.submission.ends import seen_of
from components.task_executors.submission.watch import Seen, verdict
from components.task_executors.worker import Arming, Task, Worker
from components.task_executors.workers import CommitRequested, Pool
from tests.support.remote_orders import TYPES, Executor, a_snapshot, an_order, shell
from tests.support.ssh_host import SshServer, until

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SshServer]:
    found = SshServer(tmp_path / "host")
    found.start()
    yield found
    found.stop()


@pytest.fixture
def executor() -> Iterator[Executor]:
    pool = Pool(2)
    yield Executor(pool)
    pool.close()


def submitted(executor: Executor, server: SshServer, text: str, *, token: str = "att_1", epoch: int = 1, **parts: Any) -> Submitted:
    snapshot = a_snapshot(server.scratch, **{**shell(text), **parts})
    assert isinstance(executor.run(an_order("ENV_SETUP", token=f"setup-{token}", snapshot=snapshot), server.address()), Succeeded)
    outcome = executor.run(an_order(token=token, epoch=epoch, snapshot=snapshot), server.address())
    assert isinstance(outcome, Submitted), outcome
    return outcome


def look(executor: Executor, server: SshServer, *tokens: str) -> dict[str, Seen]:
    model = {"root": str(server.scratch), "controls": {each: control_dir(str(server.scratch), each) for each in tokens}}
    outcome = executor.run(an_order("LOOK", token="look", model=model), server.address())
    assert isinstance(outcome, Succeeded), outcome
    return seen_of(outcome)


def ended(executor: Executor, server: SshServer, token: str = "att_1") -> Seen:
    def found() -> Seen | None:
        seen = look(executor, server, token)[token]
        return seen if seen.code is not None else None

    return until(found)


def test_a_job_runs_and_its_output_and_exit_status_are_seen(server: SshServer, executor: Executor) -> None:
    submitted(executor, server, "echo to be; echo or not >&2; echo $TRACEPARENT $AIRAVATA_TOKEN")
    seen = ended(executor, server)
    found = verdict(seen, wall_time_seconds=300, missing_since=None, now=NOW)
    assert (found.state, found.exit_code) == (State.COMPLETED, 0)
    assert isinstance(found.outcome, Succeeded)
    assert seen.stdout_tail == f"to be\n{trace.skeleton(an_order().traceparent, 'job', 'att_1')} att_1\n".encode()
    assert seen.stderr_tail == b"or not\n"
    assert executor.states("att_1") == ["SUBMITTING", "SUBMITTED"]


def test_a_program_that_fails_is_an_outcome(server: SshServer, executor: Executor) -> None:
    submitted(executor, server, "exit 3")
    found = verdict(ended(executor, server), wall_time_seconds=300, missing_since=None, now=NOW)
    assert isinstance(found.outcome, Failed)
    assert (found.outcome.code, found.outcome.exit_code) == ("APP_NONZERO_EXIT", 3)


def test_orders_to_one_host_share_a_warm_connection_and_give_it_back(server: SshServer, executor: Executor) -> None:
    submitted(executor, server, ":")
    ended(executor, server)
    assert [each.address for each in executor.pool.workers] == [server.address()]
    assert server.log.count("Accepted publickey") == 1
    until(lambda: executor.turn() or not executor.pool.connections())
    assert not server.connections


def test_a_changed_host_key_blocks_and_no_credential_is_sent(server: SshServer, executor: Executor) -> None:
    server.stop()
    server.start(("other_host",))
    outcome = executor.run(an_order("ENV_SETUP", snapshot=a_snapshot(server.scratch)), server.address())
    assert isinstance(outcome, Failed)
    assert outcome.condition == "HOST_KEY_CHANGED"
    assert "does not show the host key that is pinned" in outcome.message
    assert "publickey" not in server.log
    assert "Postponed" not in server.log


def test_a_host_that_lost_the_pinned_kind_of_key_has_changed(server: SshServer, executor: Executor) -> None:
    server.stop()
    server.start(("host_rsa",))
    outcome = executor.run(an_order("ENV_SETUP", snapshot=a_snapshot(server.scratch)), server.address())
    assert isinstance(outcome, Failed)
    assert outcome.condition == "HOST_KEY_CHANGED"


def test_a_host_with_several_keys_shows_the_pinned_one(server: SshServer, executor: Executor) -> None:
    server.stop()
    server.start(("other_host", "host_rsa"))
    address = server.address(host_key="host_rsa")
    assert isinstance(executor.run(an_order("ENV_SETUP", snapshot=a_snapshot(server.scratch)), address), Succeeded)


@pytest.mark.parametrize("task_type", ["ENV_SETUP", "JOB_SUBMISSION"])
def test_a_refused_key_blocks_and_names_who_must_act(server: SshServer, executor: Executor, task_type: str) -> None:
    outcome = executor.run(an_order(task_type, snapshot=a_snapshot(server.scratch)), server.address(key="stranger"))
    assert isinstance(outcome, Failed)
    assert outcome.condition == "AUTH_REQUIRED"
    assert "Renew the credential" in outcome.message
    assert "PRIVATE" not in repr(server.address())


def test_a_key_that_is_none_blocks(server: SshServer, executor: Executor) -> None:
    address = replace(server.address(), private_key=b"-----BEGIN nonsense")
    outcome = executor.run(an_order("ENV_SETUP", snapshot=a_snapshot(server.scratch)), address)
    assert isinstance(outcome, Failed)
    assert outcome.condition == "AUTH_REQUIRED"


@pytest.mark.parametrize("epoch", [1, 2])
def test_an_unreachable_host_blocks_unless_an_earlier_epoch_may_have_started_the_job(server: SshServer, executor: Executor, epoch: int) -> None:
    server.stop()
    outcome = executor.run(an_order(epoch=epoch, snapshot=a_snapshot(server.scratch)), server.address())
    if epoch == 1:
        assert isinstance(outcome, Failed)
        assert outcome.condition == "HOST_CIRCUIT_OPEN"
        assert executor.states("att_1") == ["SUBMITTING"]  # The refusal ends the job with its attempt (E3).
    else:
        assert isinstance(outcome, InDoubt)
        assert executor.states("att_1") == ["SUBMITTING", "IN_DOUBT"]


def test_a_worker_follows_a_host_that_was_restarted(server: SshServer, executor: Executor) -> None:
    submitted(executor, server, ":")
    server.stop()
    server.start()
    assert ended(executor, server).code == 0


def test_a_frozen_host_is_given_up_within_the_deadline_and_its_job_is_in_doubt(server: SshServer, executor: Executor) -> None:
    snapshot = a_snapshot(server.scratch, **shell("sleep 1"))
    assert isinstance(executor.run(an_order("ENV_SETUP", token="setup", snapshot=snapshot), server.address()), Succeeded)
    server.signal(signal.SIGSTOP)
    began = time.monotonic()
    quick = replace(TYPES["JOB_SUBMISSION"], deadline_seconds=4.0)
    executor.pool.start(an_order(snapshot=snapshot), quick, server.address())
    (outcome,) = executor.wait(["att_1"])
    assert time.monotonic() - began < 40
    assert isinstance(outcome, InDoubt)
    assert executor.outcomes["att_1"].killed
    executor.pool.start(an_order("ENV_SETUP", token="setup", snapshot=snapshot), replace(TYPES["ENV_SETUP"], deadline_seconds=2.0), server.address())
    executor.outcomes.pop("setup")
    (outcome,) = executor.wait(["setup"])
    assert isinstance(outcome, Failed)
    assert outcome.transient
    server.signal(signal.SIGCONT)
    second = executor.run(an_order(epoch=2, snapshot=snapshot), server.address())
    assert isinstance(second, Submitted)
    assert ended(executor, server).code == 0


@pytest.mark.parametrize("mode", ["crash", "pause"])
def test_a_worker_lost_after_the_command_left_has_its_job_adopted_not_started_again(server: SshServer, executor: Executor, tmp_path: Path, mode: str) -> None:
    snapshot = a_snapshot(server.scratch, **shell(f"echo start >>{tmp_path}/ledger; sleep 1"))
    assert isinstance(executor.run(an_order("ENV_SETUP", token="setup", snapshot=snapshot), server.address()), Succeeded)
    lost = Executor(Pool(1, arming=Arming(f"ssh.exec.after={mode}", "test", str(tmp_path / "struck"))))
    lost.pool.start(an_order(snapshot=snapshot), replace(TYPES["JOB_SUBMISSION"], deadline_seconds=3.0), server.address())
    (outcome,) = lost.wait(["att_1"])
    lost.pool.close()
    assert [each.name for each in (tmp_path / "struck").iterdir()] == [f"ssh.exec.after.{mode}.struck"]
    assert isinstance(outcome, InDoubt)
    assert lost.outcomes["att_1"].killed
    adopted = executor.run(an_order(epoch=2, snapshot=snapshot), server.address())
    assert isinstance(adopted, Submitted)
    assert ended(executor, server).code == 0
    assert (tmp_path / "ledger").read_text() == "start\n"


def test_a_pool_closed_during_a_running_job_leaves_it_running_for_the_next(server: SshServer, executor: Executor, tmp_path: Path) -> None:
    other = Executor(Pool(1))
    first = submitted(other, server, f"echo start >>{tmp_path}/ledger; until [ -e {tmp_path}/go ]; do sleep 0.1; done")
    other.pool.close()
    again = executor.run(an_order(epoch=2, snapshot=a_snapshot(server.scratch, **shell("a script that differs"))), server.address())
    assert again == first
    assert look(executor, server, "att_1")["att_1"].alive == "yes"
    (tmp_path / "go").touch()
    assert ended(executor, server).code == 0
    assert (tmp_path / "ledger").read_text() == "start\n"


def test_a_zombie_is_told_so_before_anything_leaves(server: SshServer, executor: Executor, tmp_path: Path) -> None:
    order = an_order(snapshot=a_snapshot(server.scratch, **shell(f"touch {tmp_path}/ran")))
    executor.pool.start(order, TYPES["JOB_SUBMISSION"], server.address())
    (asked,) = until(executor.pool.poll)
    assert isinstance(asked, CommitRequested)
    asked.answer(False)
    (outcome,) = executor.wait(["att_1"])
    assert isinstance(outcome, Failed)
    assert "Accepted" not in server.log
    assert not (tmp_path / "ran").exists()


def test_a_waiting_commit_stops_the_clock(server: SshServer, executor: Executor) -> None:
    snapshot = a_snapshot(server.scratch, **shell(":"))
    assert isinstance(executor.run(an_order("ENV_SETUP", token="setup", snapshot=snapshot), server.address()), Succeeded)
    executor.pool.start(an_order(snapshot=snapshot), replace(TYPES["JOB_SUBMISSION"], deadline_seconds=3.0), server.address())
    (asked,) = until(executor.pool.poll)
    late = time.monotonic() + 3.2
    until(lambda: time.monotonic() > late and not executor.pool.poll())
    asked.answer(True)
    assert isinstance(executor.wait(["att_1"])[0], Submitted)


def test_more_orders_than_workers_wait_their_turn(server: SshServer, executor: Executor) -> None:
    tokens = [f"setup-{n}" for n in range(12)]
    for each in tokens:
        executor.start(an_order("ENV_SETUP", token=each, snapshot=a_snapshot(server.scratch, process=f"prc_{each}")), server.address())
    assert all(isinstance(each, Succeeded) for each in executor.wait(tokens))
    assert executor.pool.connections() == {f"127.0.0.1:{server.port}": 2}


def test_a_worker_that_is_frozen_while_idle_gives_its_connection_back(server: SshServer, executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "GRACE_SECONDS", 1.0)
    executor.run(an_order("ENV_SETUP", snapshot=a_snapshot(server.scratch)), server.address())
    (frozen,) = executor.pool.workers
    os.kill(frozen.process.pid, signal.SIGSTOP)
    until(lambda: executor.turn() or not executor.pool.workers)
    until(lambda: not server.connections)
    assert isinstance(executor.run(an_order("ENV_SETUP", token="next", snapshot=a_snapshot(server.scratch)), server.address()), Succeeded)


@pytest.mark.parametrize(("task_type", "expected"), [("ENV_SETUP", Failed), ("JOB_SUBMISSION", InDoubt)])
def test_an_order_given_to_a_frozen_worker_does_not_wait_for_its_deadline(executor: Executor, monkeypatch: pytest.MonkeyPatch, task_type: str, expected: type[Outcome]) -> None:
    monkeypatch.setattr(workers, "START_SECONDS", 0.5)
    os.kill(executor.pool._new().process.pid, signal.SIGSTOP)
    outcome = executor.run(an_order(task_type), HostAddress("h", 22, "u", (), b""))
    assert isinstance(outcome, expected)
    assert executor.outcomes["att_1"].killed
    assert executor.pool.free == 2


def test_an_abandoned_order_is_never_heard_of_again(server: SshServer, executor: Executor) -> None:
    for each in ("one", "two"):
        executor.start(an_order("ENV_SETUP", token=each, snapshot=a_snapshot(server.scratch)), server.address())
    executor.pool.abandon("one")
    executor.wait(["two"])
    assert set(executor.outcomes) == {"two"}


def a_bug(_order: WorkOrder) -> Steps:
    raise KeyError("nothing of this name")
    yield


@pytest.mark.parametrize("once", [False, True])
def test_a_bug_in_steps_is_told_without_its_trace_which_goes_to_the_log(capfd: pytest.CaptureFixture[str], once: bool) -> None:
    ours, theirs = multiprocessing.Pipe()
    outcome = Worker(theirs).run(Task(an_order(), TaskType("BUGGY", a_bug, once=once), HostAddress("h", 22, "u", (), b""), {}))
    ours.close()
    assert isinstance(outcome, InDoubt if once else Failed)
    told = outcome.evidence[0] if isinstance(outcome, InDoubt) else outcome.raw_message
    assert told == "KeyError('nothing of this name')"
    assert "in a_bug" in capfd.readouterr().err


PARENT = """
import sys, time
from components.task_executors.workers import Pool
from tests.support.remote_orders import TYPES, a_snapshot, an_order

class Address: pass

if __name__ == "__main__":
    pool = Pool(2)
    for _ in range(2):
        pool._new()
    print(*(each.process.pid for each in pool.workers), flush=True)
    time.sleep(600)
"""


def test_workers_die_with_their_parent(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    ) as parent:
        assert parent.stdout is not None
        pids = [int(each) for each in parent.stdout.readline().split()]
        assert len(pids) == 2
        until(lambda: all(alive(each) for each in pids))
        parent.kill()
    until(lambda: not any(alive(each) for each in pids))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False
