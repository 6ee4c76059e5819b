"""How a process ends: by the kind of what stopped it, also when that was a thread, and also when nobody hears its last words; and what its admin port bears."""

import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
A_LIFE = """
import threading
from app.errors import Fenced, Misconfigured
from app.lifecycle import run

def dies(fault):
    raise fault

def turns(lifecycle):
    while not lifecycle.stop.wait(1.0):
        lifecycle.turned()

def in_a_thread(lifecycle, fault):
    threading.Thread(target=dies, args=(fault,), name="timers", daemon=True).start()
    lifecycle.stop.wait(600.0)

"""
ENVIRONMENT = {**{name: value for name, value in os.environ.items() if not name.startswith("AIRAVATA_")}, "AIRAVATA_ADMIN_LISTEN": "127.0.0.1:0"}


def a_life(work: str, redirection: str = "") -> tuple[int, str]:
    program = f"{A_LIFE}run('relay', lambda lifecycle: {work}, database=False)"
    ended = subprocess.run(["sh", "-c", f'exec "$0" "$@" {redirection}', sys.executable, "-c", program], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(("fault", "code"), [("ValueError('a bug')", 70), ("Misconfigured('set it')", 78), ("Fenced('another')", 75)])
def test_a_thread_that_dies_ends_its_process_as_the_main_one_would(fault: str, code: int) -> None:
    ended, said = a_life(f"in_a_thread(lifecycle, {fault})")
    assert ended == code
    assert ('"thread": "timers"' in said and "a bug" in said) if code == 70 else said.splitlines()[-1] == f"relay: {fault[fault.index('(') + 2 : -2]}"


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize(("work", "code"), [("None", 0), ("dies(Misconfigured('set it'))", 78), ("dies(ValueError('a bug'))", 70), ("in_a_thread(lifecycle, ValueError('a bug'))", 70)])
def test_last_words_that_nobody_hears_change_no_exit_code(redirection: str, work: str, code: int) -> None:
    assert a_life(work, redirection)[0] == code


def test_idle_connections_keep_no_probe_from_the_admin_port() -> None:
    program = f"{A_LIFE}import app.lifecycle as life\nmade = life._AdminServer.__init__\ndef told(self, *given):\n    made(self, *given)\n    print(self.server_address[1], flush=True)\nlife._AdminServer.__init__ = told\nrun('relay', turns, database=False)"
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child, ExitStack() as stack:
        assert child.stdout is not None
        stack.callback(child.kill)
        port = int(child.stdout.readline())
        idle = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 300)) for _ in range(200)]
        with socket.create_connection(("127.0.0.1", port), 300) as probe:
            probe.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert probe.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
        idle[0].settimeout(300)
        assert idle[0].recv(1) == b"", "the oldest made room"
        assert len(list(Path(f"/proc/{child.pid}/task").iterdir())) < 60
        child.terminate()
        child.communicate(timeout=300)
    assert child.returncode == 0
