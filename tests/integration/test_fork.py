"""The host's helpers, run for real on this machine: one token starts at most once, whoever asks, however often, and whatever is killed in between.

The program's own ledger (a line it appends itself, outside every work directory) is the judge. Steps are those of docs/remote-submission.md.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.failpoint import Entry
from app.workflow.execution import Failed, InDoubt, Outcome, Submitted, Succeeded
from app.workflow.job import State
from components.task_executors import host as scripts
from components.task_executors.layout import control_dir, work_dir
from components.task_executors.plugin import Commit, OperationFailed, Ran
from components.task_executors.submission.ends import seen_of
from components.task_executors.submission.watch import Seen, verdict
from tests.support.local_host import LocalHost
from tests.support.remote_orders import a_snapshot, an_order, drive, shell
from tests.support.ssh_host import until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HELPER_POINTS = {
    "host.lock.after": "step 2 i, the lock", "host.epoch.after": "step 2 ii, the epoch", "host.intent.after": "step 2 v, the intent", "host.accept.after": "step 2 vi, the start",
}  # fmt: skip
WRAPPER_POINTS = {
    "job.guard.before": "before step 5, the guard", "job.guard.after": "step 5, the guard", "host.receipt.before": "before step 2 vii, the receipt",
    "host.receipt.after": "step 2 vii, the receipt",
}  # fmt: skip


class Place:
    """A scratch directory and a ledger on this machine."""

    def __init__(self, base: Path) -> None:
        self.scratch, self.ledger = base / "scratch", base / "ledger"
        base.mkdir(exist_ok=True)
        self.host = LocalHost(base)
        self.commits: list[Commit] = []
        self.groups: set[int] = set()  # Proved to be ours when they started.

    def snapshot(self, text: str = ":", **parts: Any) -> dict[str, Any]:
        told = f'printf "start %s\\n" "$AIRAVATA_TOKEN" >>{self.ledger}; {text}'
        return a_snapshot(self.scratch, **{**shell(told), **parts})

    def set_up(self) -> None:
        assert isinstance(drive(an_order("ENV_SETUP", snapshot=self.snapshot()), self.host), Succeeded)

    def submit(self, text: str = ":", *, epoch: int = 1, **parts: Any) -> Outcome:
        outcome = drive(an_order(epoch=epoch, snapshot=self.snapshot(text, **parts)), self.host, commits=self.commits)
        if isinstance(outcome, Submitted) and self.is_ours(pid := int(outcome.scheduler_job_id.split("@")[0])):
            self.groups.add(pid)
        return outcome

    def is_ours(self, pid: int) -> bool:
        """A wrapper of this very test, by its command line. Never trust a number read from a file: group 1 is everybody."""
        try:
            return pid > 1 and str(self.control).encode() in Path(f"/proc/{pid}/cmdline").read_bytes() and os.getpgid(pid) == pid
        except OSError:
            return False

    def leader(self) -> int:
        """The running job's process group."""
        (found,) = self.groups
        assert self.is_ours(found)
        return found

    def end_jobs(self) -> None:
        for pid in [each for each in self.groups if each > 1]:
            if self.is_ours(pid) or self.orphans(pid):
                os.killpg(pid, signal.SIGKILL)

    def orphans(self, group: int) -> bool:
        """Living members that outlived their leader, all of them in this test's directory."""
        places = []
        for each in subprocess.run(["pgrep", "-g", str(group)], capture_output=True, text=True, check=False).stdout.split():
            try:
                places.append(Path(f"/proc/{each}/cwd").readlink())
            except OSError:  # Ended meanwhile, or a zombie.
                continue
        return bool(places) and all(each.is_relative_to(self.scratch) for each in places)

    @property
    def control(self) -> Path:
        return Path(control_dir(str(self.scratch), "att_1"))

    def hit(self, point: str) -> list[str]:
        """Lines of the host's hits file about this point."""
        hits = self.scratch / ".airavata" / "hits"
        return [line for line in hits.read_text().splitlines() if line.startswith(f"{point} crash att_1 ")] if hits.exists() else []

    def starts(self) -> int:
        return len(self.ledger.read_text().splitlines()) if self.ledger.exists() else 0

    def order(self, task_type: str) -> Outcome:
        return drive(an_order(task_type, model={"root": str(self.scratch), "controls": {"att_1": str(self.control)}}), self.host)

    def look(self) -> Seen:
        outcome = self.order("LOOK")
        assert isinstance(outcome, Succeeded), outcome
        return seen_of(outcome)["att_1"]

    def ended(self) -> Seen:
        return until(lambda: seen if (seen := self.look()).code is not None else None)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    found.set_up()
    yield found
    scripts.arm((), {})
    found.end_jobs()  # By what was proved when they started: a receipt may be false here, and killpg(1) would end every process of this machine.


def test_a_program_that_ends_well_has_completed(place: Place) -> None:
    assert isinstance(place.submit("echo out; echo err >&2"), Submitted)
    seen = place.ended()
    assert (seen.code, seen.stdout_tail, seen.stderr_tail) == (0, b"out\n", b"err\n")
    assert [each.state for each in place.commits] == ["SUBMITTING", "SUBMITTED"]
    assert place.starts() == 1


@pytest.mark.parametrize(("text", "code", "number"), [("exit 3", 3, None), ("kill -9 $$", 137, 9), ("kill -TERM $$", 143, 15)])
def test_a_program_that_fails_tells_how(place: Place, text: str, code: int, number: int | None) -> None:
    place.submit(text)
    found = verdict(place.ended(), wall_time_seconds=300, missing_since=None, now=NOW)
    assert found.state is State.FAILED
    assert isinstance(found.outcome, Failed)
    assert (found.outcome.code, found.outcome.exit_code, found.outcome.signal, found.outcome.transient) == ("APP_NONZERO_EXIT", code, number, False)


def test_twenty_helpers_at_once_start_one_program(place: Place) -> None:
    """Step 0: one token, fixed before anything is sent."""
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(place.submit("sleep 5"))) for _ in range(20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    until(place.starts)
    assert len(outcomes) == 20
    assert len({each.scheduler_job_id for each in outcomes if isinstance(each, Submitted)}) == 1
    assert not [each for each in outcomes if not isinstance(each, Submitted | InDoubt)]
    assert place.starts() == 1
    assert not (place.control / "duplicate").exists()


@pytest.mark.parametrize("point", HELPER_POINTS, ids=HELPER_POINTS.get)
def test_a_helper_killed_at_a_step_is_run_again_and_starts_one_program(place: Place, point: str) -> None:
    scripts.arm([Entry(point, "crash")], {})
    first = place.submit("sleep 2")
    until(lambda: place.hit(point))
    scripts.arm((), {})
    second = place.submit("sleep 2", epoch=2)
    assert isinstance(first, Submitted | InDoubt)
    assert isinstance(second, Submitted), second
    assert place.ended().code == 0
    assert place.starts() == 1


@pytest.mark.parametrize("point", WRAPPER_POINTS, ids=WRAPPER_POINTS.get)
def test_a_wrapper_killed_at_a_step_is_followed_by_at_most_one_program(place: Place, point: str) -> None:
    scripts.arm([Entry(point, "crash")], {})
    first = place.submit()
    until(lambda: place.hit(point))
    scripts.arm((), {})
    second = place.submit(epoch=2)
    if point == "host.receipt.after":  # The receipt says it may have begun: it is adopted, found vanished, and lost after the window.
        assert isinstance(first, Submitted)
        assert isinstance(second, Submitted)
        seen = place.look()
        assert verdict(seen, wall_time_seconds=300, missing_since=None, now=NOW).state is State.UNKNOWN
        assert verdict(seen, wall_time_seconds=300, missing_since=NOW, now=NOW + timedelta(seconds=61)).state is State.LOST
        assert place.starts() == 0
        return
    assert isinstance(first, InDoubt), first
    assert isinstance(second, Submitted), second
    assert place.ended().code == 0
    assert place.starts() == 1


def test_a_wrapper_killed_before_it_could_tell_the_end_is_lost_and_after_it_is_believed(place: Place) -> None:
    """Step 6: the exit file."""
    scripts.arm([Entry("job.exit.before", "crash")], {})
    place.submit("exit 3")
    until(lambda: place.hit("job.exit.before"))
    seen = until(lambda: seen if (seen := place.look()).alive == "no" else None)
    assert seen.code is None
    assert verdict(seen, wall_time_seconds=300, missing_since=NOW, now=NOW + timedelta(seconds=61)).state is State.LOST
    assert isinstance(place.submit("exit 3", epoch=2), Submitted)
    assert place.starts() == 1


def test_a_wrapper_killed_after_its_exit_file_changes_nothing(place: Place) -> None:
    scripts.arm([Entry("job.exit.after", "crash")], {})
    place.submit("exit 3")
    until(lambda: place.hit("job.exit.after"))
    assert place.ended().code == 3
    assert place.starts() == 1


def test_a_wrapper_that_comes_late_finds_its_guard_barred(place: Place) -> None:
    """The helper dies after its launch, its wrapper is slow; the next helper bars it and starts its own."""
    scripts.arm([Entry("host.intent.after", "crash")], {})
    place.submit()
    scripts.arm((), {})
    assert isinstance(place.submit(epoch=2), Submitted)
    late = subprocess.run(["sh", scripts.path(str(place.scratch), "job"), str(place.control), "1", work_dir(place.snapshot())], check=False)
    assert late.returncode == 99
    assert place.ended().duplicate
    assert place.starts() == 1


def test_a_wrapper_that_is_barred_before_its_receipt_starts_nothing(place: Place) -> None:
    """Either it sees the tombstone, or whoever wrote that sees its receipt."""
    scripts.arm([Entry("host.receipt.before", "pause")], {})
    assert isinstance(place.submit(), InDoubt)
    scripts.arm((), {})
    assert place.order("KILL") == Succeeded({})
    pid = int(str((place.control / "guard.1").readlink()).split(":")[1])
    assert place.is_ours(pid)
    os.kill(pid, signal.SIGCONT)
    assert (place.ended().code, place.starts()) == (98, 0)


def test_an_older_epoch_is_refused(place: Place) -> None:
    """Step 2 ii."""
    assert isinstance(place.submit("sleep 1", epoch=3), Submitted)
    (place.control / "receipt").unlink()
    assert isinstance(place.submit(epoch=2), InDoubt)
    until(lambda: place.starts() == 1)


def test_a_cancelled_token_does_not_start(place: Place) -> None:
    """Step 2 iii: the tombstone."""
    place.control.mkdir(parents=True)
    (place.control / "cancelled").touch()
    outcome = place.submit()
    assert isinstance(outcome, Failed)
    assert (outcome.code, place.starts(), place.commits[-1].state) == ("CANCELED_BY_USER", 0, "SUBMITTING")


def test_a_lock_of_another_machine_is_neither_broken_nor_believed_free(place: Place) -> None:
    place.control.mkdir(parents=True)
    (place.control / "lock.1").symlink_to("othernode/4026531836:17:12345:boot")
    outcome = place.submit()
    assert isinstance(outcome, InDoubt)
    assert "the lock is held by othernode" in outcome.evidence[0]
    assert place.starts() == 0


def test_a_job_whose_wrapper_was_killed_is_followed_by_its_group(place: Place) -> None:
    place.submit("sleep 60")
    until(place.starts)
    os.kill(leader := place.leader(), signal.SIGKILL)
    until(lambda: place.look().alive == "group")
    assert verdict(place.look(), wall_time_seconds=300, missing_since=None, now=NOW).state is State.ACTIVE
    assert leader > 1
    assert place.orphans(leader)
    os.killpg(leader, signal.SIGKILL)
    until(lambda: place.look().alive == "no")


def test_a_job_over_its_wall_time_is_killed_with_its_children(place: Place) -> None:
    place.submit("trap '' TERM; sleep 600 & sleep 600; sleep 600", scheduling={"wall_time_seconds": 1})
    until(place.starts)
    until(lambda: verdict(place.look(), wall_time_seconds=1, missing_since=None, now=NOW).kill)
    leader = place.leader()
    assert place.order("KILL") == Succeeded({"att_1": True})
    seen = until(lambda: seen if (seen := place.look()).alive == "no" or seen.code is not None else None)
    found = verdict(seen, wall_time_seconds=1, missing_since=None, now=NOW)
    assert isinstance(found.outcome, Failed)
    assert (found.state, found.outcome.code) == (State.FAILED, "SCHEDULER_TIMEOUT")
    assert not place.orphans(leader)


@pytest.mark.parametrize("pid", ["1", "01", "0", "00", "-1", "", "self", "1 -1", "*", "4294967297", "18446744073709551617"])
def test_no_receipt_however_wrong_makes_kill_signal_a_stranger(place: Place, pid: str) -> None:
    """With `kill` replaced by a note: a test of this must not depend on what it tests."""
    place.submit("sleep 60")
    receipt = (place.control / "receipt").read_text()
    (place.control / "receipt").write_text(receipt.replace(receipt.split()[0], f"pid={pid}", 1))
    noted = place.scratch / "kills"
    stub = f'kill() {{ echo "$*" >>{noted}; }}\nsleep() {{ :; }}\n'.encode()
    ran = place.host.run(("sh", "-c", (stub + scripts.text("kill")).decode(), "kill", "nonce"), f"{place.control}\n".encode())
    assert scripts.framed(ran.stdout, "nonce") == ["att_1 ended"]
    assert not noted.exists() or not [each for each in noted.read_text().splitlines() if not each.startswith("-0 ")]


@pytest.mark.parametrize("forgery", ["a link", "too long"])
def test_a_receipt_that_is_a_link_or_too_long_is_refused_by_name_and_starts_nothing_again(place: Place, forgery: str) -> None:
    place.submit("sleep 60")
    until(place.starts)
    receipt = place.control / "receipt"
    text = receipt.read_text()
    if forgery == "a link":
        receipt.rename(place.scratch / "elsewhere")
        receipt.symlink_to(place.scratch / "elsewhere")
    else:
        receipt.write_text(f"{text.strip()} {'x' * (2 << 20)}\n")
    assert place.look().answers[0] == "receipt: refused, it is broken or forged"
    outcome = place.submit("sleep 60", epoch=2)
    assert isinstance(outcome, InDoubt)
    assert "CANNOT_TELL the receipt is broken or forged" in outcome.evidence[0]
    assert place.starts() == 1


def test_a_process_with_the_jobs_number_but_another_start_is_not_killed(place: Place) -> None:
    place.submit()
    place.ended()
    (place.control / "exit").unlink()
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        receipt = place.control / "receipt"
        receipt.write_text(receipt.read_text().replace(receipt.read_text().split()[0], f"pid={stranger.pid}"))
        assert place.order("KILL") == Succeeded({})
        assert place.look().alive == "no"
        assert stranger.poll() is None
        stranger.kill()


def test_a_host_booted_again_has_lost_a_job_without_an_exit_file(place: Place) -> None:
    place.submit("sleep 60")
    until(place.starts)
    receipt = place.control / "receipt"
    boot = dict(word.split("=") for word in receipt.read_text().split())["boot"]
    receipt.write_text(receipt.read_text().replace(boot, "5b1cb0f5-0000-0000-0000-000000000000"))
    found = verdict(place.look(), wall_time_seconds=300, missing_since=None, now=NOW)
    assert isinstance(found.outcome, Failed)
    assert (found.state, found.outcome.code) == (State.LOST, "LOST_JOB")


def test_arguments_of_users_reach_the_program_byte_for_byte(place: Place) -> None:
    awkward = 'it\'s "a" $HOME `id` $(id) \\ ; & | > x\n* ünï {a,b}'
    inputs = [
        {"name": "a", "type": "STRING", "order": 1, "on_command_line": True, "argument": "-n="},
        {"name": "b", "type": "STRING", "order": 2, "on_command_line": True},
    ]
    parts = {"interface": {"inputs": inputs}, "inputs": {"a": awkward, "b": awkward}, "deployment": {"executable_path": "/usr/bin/printf"}}
    inputs.insert(0, {"name": "format", "type": "STRING", "order": 0, "on_command_line": True, "default": "%s|"})
    drive(an_order(snapshot=a_snapshot(place.scratch, **parts)), place.host)
    assert place.ended().stdout_tail.decode() == f"-n={awkward}|{awkward}|"


def test_a_pre_job_command_that_fails_keeps_the_program_from_starting(place: Place) -> None:
    place.submit(deployment={"pre_job_commands": ["export GREETING=hello", "false"]})
    seen = place.ended()
    assert (seen.code, place.starts()) == (1, 0)
    assert seen.stderr_tail == b"airavata: pre-job command 2 ended with 1, the program was not started\n"


def test_environment_libraries_modules_and_post_job_commands_surround_the_program(place: Place) -> None:
    deployment = {
        "environment": {"GREETING": "it's me"},
        "module_load_commands": ["LOADED=yes; export LOADED"],
        "library_paths": {"prepend": ["/a b"], "append": ["/c"]},
        "pre_job_commands": ["echo to stderr", "cd ."],
        "post_job_commands": ["echo done", "exit 7"],
    }
    place.submit('echo "$GREETING $LOADED $LD_LIBRARY_PATH"', deployment=deployment)
    seen = place.ended()
    assert (seen.stdout_tail, seen.code) == (b"it's me yes /a b:/c\n", 7)
    assert seen.stderr_tail == b"to stderr\ndone\n"


def test_a_host_without_the_helper_gets_it_and_a_login_that_talks_is_not_believed(tmp_path: Path) -> None:
    """Step 2 viii: the answer is framed with a nonce."""
    place = Place(tmp_path)

    class Noisy(LocalHost):
        def run(self, argv: Any, stdin: bytes = b"", *, timeout_seconds: float = 30.0) -> Ran:
            ran = super().run(argv, stdin, timeout_seconds=timeout_seconds)
            return Ran(ran.exit_status, b"Welcome! " + " ".join(argv).encode() + b"\nRECEIPT pid=1" + ran.stdout, ran.stderr)

    place.host = Noisy(tmp_path)
    Path(work_dir(place.snapshot())).mkdir(parents=True)
    assert isinstance(place.submit(), Submitted)
    assert place.ended().code == 0


def test_a_lost_answer_is_asked_for_and_the_job_adopted(place: Place) -> None:
    """Step 2 iv: the receipt of the first run is told again."""
    class Deaf(LocalHost):
        heard = 0

        def run(self, argv: Any, stdin: bytes = b"", *, timeout_seconds: float = 30.0) -> Ran:
            ran = super().run(argv, stdin, timeout_seconds=timeout_seconds)
            Deaf.heard += 1
            if Deaf.heard == 1:
                raise OperationFailed("SSH_LOST", "The connection broke.", certain=False)
            return ran

    place.host = Deaf(place.scratch)
    assert isinstance(place.submit("sleep 1"), Submitted)
    assert place.ended().code == 0
    assert place.starts() == 1


def test_a_missing_work_directory_is_a_definite_refusal(place: Place) -> None:
    Path(work_dir(place.snapshot())).rmdir()
    outcome = place.submit()
    assert isinstance(outcome, Failed)
    assert (outcome.code, outcome.transient and outcome.condition) == ("LAUNCH_FAILURE", None)
    assert place.commits[-1].state == "SUBMITTING"  # The refusal ends the job with its attempt (E3).


def test_cleaning_up_removes_the_work_directory_and_follows_no_link(place: Place) -> None:
    outside = place.scratch / "precious"
    outside.mkdir()
    (outside / "file").touch()
    work = Path(work_dir(place.snapshot()))
    (work / "link").symlink_to(outside)
    order = an_order("ENV_CLEANUP", snapshot=place.snapshot())
    assert drive(order, place.host) == Succeeded({"removed": True})
    assert not work.exists()
    assert drive(order, place.host) == Succeeded({"removed": True})
    work.symlink_to(outside)
    assert isinstance(drive(order, place.host), Failed)
    assert (outside / "file").exists()


def test_the_work_directory_is_private_and_may_not_be_a_link(place: Place) -> None:
    work = Path(work_dir(place.snapshot()))
    assert work.stat().st_mode & 0o777 == 0o700
    work.rmdir()
    (place.scratch / "elsewhere").mkdir()
    work.symlink_to(place.scratch / "elsewhere")
    assert isinstance(drive(an_order("ENV_SETUP", snapshot=place.snapshot()), place.host), Failed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mounted = tmp_path / "small"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mounted)], check=True)
    yield mounted
    subprocess.run(["umount", "-l", str(mounted)], check=True)


def test_a_full_disk_holds_the_task_until_there_is_room(tmp_path: Path, small_disk: Path) -> None:
    place = Place(tmp_path)
    place.scratch = small_disk
    place.set_up()
    (small_disk / "balloon").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize))
    for outcome in (drive(an_order("ENV_SETUP", snapshot=place.snapshot()), place.host), place.submit()):
        assert isinstance(outcome, Failed), outcome
        assert (outcome.condition, outcome.code) == ("QUOTA", "LAUNCH_FAILURE")
    assert place.starts() == 0
    (small_disk / "balloon").unlink()
    assert isinstance(place.submit(epoch=2), Submitted)
    assert place.ended().code == 0


def test_a_disk_that_is_full_at_the_end_does_not_hide_how_the_job_ended(tmp_path: Path, small_disk: Path) -> None:
    place = Place(tmp_path)
    place.scratch = small_disk
    place.set_up()
    place.submit(f"cat /dev/zero >{small_disk}/balloon; exit 3")
    assert place.ended().code == 3
