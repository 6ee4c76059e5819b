"""`make demo`: the whole system on this machine, one real experiment through every component, and the promise in a minute: a scheduler killed on the way.

Run twice it reuses what exists; after a SIGKILL of everything it starts again.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from app.dev import hmmer, stack
from app.dev.process import NotStarted
from app.dev.servers import ROOT
from app.dev.system import System

AIRAVATA = ROOT / ".venv" / "bin" / "airavata"
RUN = stack.BASE
STANDBY_WAIT_SECONDS, STEPS = 30.0, 12
OBSERVE = "--observe" in sys.argv


def say(text: str = "") -> None:
    print(text, flush=True)


def main() -> int:
    began = time.monotonic()
    try:
        if stack.running():
            say("The system runs already; using it.")
            if OBSERVE:
                stack.watch(stack.system(stack.servers()), stack.servers())
        else:
            for step in stack.up(observe=OBSERVE):
                say(f"[{time.monotonic() - began:5.1f} s] {step}")
        native = stack.servers()
        system = stack.system(native)
        gateway = hmmer.Gateway(system.url, stack.token(system.environment, "demo").read_text())
        say(f"[{time.monotonic() - began:5.1f} s] gateway, project, credential, host, storage, application HMMER")
        host = hmmer.a_host(gateway, native.ssh_host(), RUN / "scratch")
        storage = hmmer.a_storage(gateway, RUN / "storage")
        gateway.patch(f"/gateways/{gateway.get('/me')['gateway_id']}", {"default_storage_id": storage["id"]})
        interface = hmmer.an_application(gateway, host)
        system.daemon("scheduler", 1).start()  # Stands by from here on.
        if not _search(system, gateway, interface, host, storage):
            return 1
        _take_over(system, gateway)
        _farewell(system)
    except (stack.Refused, NotStarted, RuntimeError) as fault:
        say(f"The demo could not go on: {fault}")
        return 1
    return 0


def _search(system: System, gateway: hmmer.Gateway, interface: Any, host: Any, storage: Any) -> bool:
    launched = gateway.post("/experiments", hmmer.an_experiment(interface, host, storage))
    say(f"\nLaunched {launched['id']} (HMMER: hmmbuild, then hmmsearch against 45 globins). Its task graph:\n")
    _watch(system, launched["id"])
    told = gateway.wait(launched["id"])
    if told["outcome"] != "NORMAL_COMPLETION":
        errors = gateway.get(f"/experiments/{launched['id']}")["errors"]
        say(f"It ended {told['state']} {told['outcome']}: {errors}")
        return False
    say("\nThe hits (target, E-value, score), as fetched through the API:\n")
    table = gateway.bytes_of(f"/experiments/{launched['id']}/outputs/hits/content").decode()
    for line in [each for each in table.splitlines() if not each.startswith("#")]:
        words = line.split()
        say(f"  {words[0]:<24}{words[4]:>12}{words[5]:>9}")
    return True


def _watch(system: System, experiment_id: str) -> None:
    """The live graph of the command line."""
    environment = {"AIRAVATA_URL": system.url, "AIRAVATA_TOKEN_FILE": str(system.directory / "gateway-token"), "PATH": "/usr/bin:/bin", "TERM": "xterm-256color"}
    subprocess.run([str(AIRAVATA), "watch", experiment_id], env=environment, check=False, timeout=120)


def _take_over(system: System, gateway: hmmer.Gateway) -> None:
    """A standby scheduler, a graph that takes a while, SIGKILL to the one that holds it: how long until the next task starts?"""
    say("\nNow the promise: a second scheduler stands by, and the first is killed (SIGKILL) in the middle of a graph.\n")
    interface = gateway.ensure("/application-interfaces", {"name": "shape", "planner": "shape", "inputs": [{"name": "edges", "type": "STRING", "required": True}, {"name": "behaviour", "type": "STRING"}]})
    first, standby = system.daemon("scheduler", 0), system.daemon("scheduler", 1)
    standby.wait()
    edges = " ".join(f"step-{n}>step-{n + 1}" for n in range(1, STEPS))
    for milliseconds in (200, 1000, 5000):  # On a busy machine a graph of short steps has ended before its holder is found.
        behaviour = " ".join(f"step-{n}:sleep_ms={milliseconds}" for n in range(1, STEPS + 1))
        launched = gateway.post("/experiments", {"name": "take-over", "application_interface_id": interface["id"], "inputs": {"edges": edges, "behaviour": behaviour}, "launch": True})
        victim = _holder(gateway, launched["id"], system) or "scheduler-0"
        told = _started(gateway, launched["id"], least=4)
        if told <= STEPS // 2:
            break
    pid, killed_at = system.daemons[victim].pid, time.monotonic()
    system.daemons[victim].kill()
    _started(gateway, launched["id"], least=told + 1)
    gap = time.monotonic() - killed_at
    say(f"  {victim} (pid {pid}) killed after {told} of {STEPS} tasks had started; the next task started {gap:.2f} s later.")
    status = gateway.wait(launched["id"])
    attempts = [each for each in gateway.get(f"/experiments/{launched['id']}/events", limit=200)["items"] if each["type"] == "TaskStarted"]
    twice = len(attempts) - len({each["task_id"] for each in attempts})
    say(f"  The experiment ended {status['state']}, {status['outcome']}; tasks lost: {STEPS - len({each['task_id'] for each in attempts})}, run twice: {twice}.")
    first.start()
    first.wait()
    standby.stop()


def _holder(gateway: hmmer.Gateway, experiment_id: str, system: System) -> str | None:
    """Which of the two schedulers reads this experiment's partition."""
    from app import admin
    from app.mysql import positions
    from app.settings import read

    part = gateway.get(f"/experiments/{experiment_id}/processes")["items"][0]["placement"]["partition"]
    with admin.opened(read(system.environment)) as begin, begin("dev.holder") as tx:
        owners = [row.owner for _, topic, number, row in positions.all_rows(tx) if number == part and topic.endswith("event-sink") and row.owner and row.owner.startswith("scheduler")]
    pids = {str(each.pid): name for name, each in system.daemons.items() if name.startswith("scheduler")}
    return next((pids[word] for owner in owners for word in owner.split("-") if word in pids), None)


def _started(gateway: hmmer.Gateway, experiment_id: str, *, least: int) -> int:
    """Waits until at least so many tasks have started; how many."""
    deadline = time.monotonic() + STANDBY_WAIT_SECONDS
    while True:
        process = gateway.get(f"/experiments/{experiment_id}/processes")["items"][0]
        tasks = gateway.get(f"/processes/{process['id']}/tasks")["items"]
        count = sum(1 for each in tasks if each["attempt"] > 0)
        if count >= least:
            return count
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {count} tasks started within {STANDBY_WAIT_SECONDS:.0f} s: see {stack.BASE / 'system' / 'processes'}")
        time.sleep(0.01)


def _farewell(system: System) -> None:
    say(f"""
Everything keeps running:
  API           {system.url}/v1      OpenAPI {system.url}/openapi.json
  logs          {_short(system.directory / "processes")}/*.log
  settings      .dev/env
{f"  Prometheus    http://127.0.0.1:{stack.servers().port('prometheus')}      what it knows: observability/catalogue.py" if OBSERVE else ""}
Try next:
  export AIRAVATA_URL={system.url} AIRAVATA_TOKEN_FILE={_short(system.directory / "gateway-token")}
  .venv/bin/airavata experiment ls
  .venv/bin/airavata run shape -i edges='a>b a>c b>d c>d' --wait
  curl -sH "Authorization: Bearer $(cat {_short(system.directory / "gateway-token")})" {system.url}/v1/experiments?limit=2
  AIRAVATA_TOKEN_FILE={_short(system.directory / "operator-token")} .venv/bin/airavata consumers
Stop it:
  .venv/bin/airavata dev down""")


def _short(path: Path) -> str:
    return str(path.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(main())
