"""A small real run judged whole: this is where the checker's reading of binary log, topics, tables and hosts meets the real ones."""

import hashlib
import itertools
import json
import signal
import time
from pathlib import Path
from typing import Any

from app.clock import utc_now
from tests.chaos import collect
from tests.chaos.conftest import Build
from tests.checker import report
from tests.checker.judge import judge
from tests.support import takeover
from tests.support.gateway import fresh_key
from tests.support.servers import InOrder
from tests.support.system import COMPONENTS, System

EFFECT = """#!/bin/sh
printf '{"kind":"start","token":"%s","task":"%s","attempt":"%s","process":"%s","job":"","restarts":"0","pid":"%s","boot":"%s","at":"%s","up":"0","argv":"","inputs":{}}\\n' \\
  "$AIRAVATA_TOKEN" "$AIRAVATA_TASK" "$AIRAVATA_ATTEMPT" "$AIRAVATA_PROCESS" $$ "$(cat /proc/sys/kernel/random/boot_id)" "$(date +%s.%N)" >>"$LEDGER"
sleep "$1"
echo said; echo complained >&2
printf 'made by %s\\n' "$AIRAVATA_TOKEN" >result.txt
printf '{"kind":"end","token":"%s","pid":"%s","boot":"","at":"%s","up":"0","status":"%s","outputs":{"result.txt":"%s"}}\\n' "$AIRAVATA_TOKEN" $$ "$(date +%s.%N)" "$2" "$(sha256sum <result.txt | cut -c1-64)" >>"$LEDGER"
exit "$2"
"""


class Book:
    """A journal of the test's own: client or nemesis."""

    def __init__(self, path: Path, who: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.who, self.serial = path, who, itertools.count(1)

    def write(self, kind: str, **more: Any) -> None:
        stamp = utc_now().isoformat(timespec="microseconds").replace("+00:00", "Z")
        line = {"n": next(self.serial), "who": self.who, "life": f"{self.who}-1", "mono": time.monotonic(), "wall": stamp, "kind": kind, **more}
        with self.path.open("a") as out:
            out.write(json.dumps(line) + "\n")


class Client(Book):
    def launch(self, system: System, interface: str, inputs: dict[str, Any], *, key: str | None = None, **more: Any) -> str:
        op, key = f"c-{next(self.serial)}", key or fresh_key()
        body = hashlib.sha256(json.dumps([interface, inputs, more]).encode()).hexdigest()
        self.serial = itertools.count(next(self.serial) - 1)
        self.write("op.invoke", op=op, operation="launch", tenant=system.tokens["gateway_id"], session="c", key=key, body_sha256=body)
        launched = system.gateway.launch(interface, inputs, key=key, **more)
        self.write("op.return", op=op, outcome="ok", status=202, code=None, experiment=launched, version=1)
        return launched


def shown(system: System, launched: list[str]) -> bool:
    """Their ends are in the history, and the scheduler has read what the sink has."""
    ends = system.rows("SELECT experiment_id FROM events WHERE type = 'ExperimentChanged' AND (document LIKE %s OR document LIKE %s)", '%"to_state":"COMPLETED"%', '%"to_state":"FAILED"%')
    return {row[0] for row in ends} >= set(launched)


PROMISES = {
    "P1": {}, "P2": {}, "P3": {"keys": 1}, "P5": {}, "P6": {"dispatches": 20, "joins": 2}, "P7": {"records": 50}, "P8": {"attempts": 20, "retries": 1}, "P9": {}, "P10": {"jobs": 1}, "P11": {"rows": 100},
    "P12": {"keys": 10}, "P13": {"events": 50}, "P14": {"offsets": 1}, "P16": {"committed": 100, "steps": 50}, "P18": {}, "P25": {"experiments": 1, "messages": 100},
}  # fmt: skip


def test_a_run_with_a_killed_scheduler_is_judged_and_every_promise_is_held(build: Build, servers: InOrder, tmp_path: Path) -> None:
    system = build({**dict.fromkeys(COMPONENTS, 1), "scheduler": 2}, partitions=12, placement_width=4, journal=tmp_path / "run" / "journal")
    run = tmp_path / "run"
    marked = collect.mark(system.database_url)
    client, nemesis = Client(run / "client.jsonl", "client"), Book(run / "nemesis.jsonl", "nemesis")
    gateway = system.gateway
    program, book, scratch, storage = tmp_path / "effect.sh", tmp_path / "ledger", tmp_path / "scratch", tmp_path / "storage"
    program.write_text(EFFECT)
    program.chmod(0o755)
    outputs = [{"name": "result", "type": "URI", "required": True, "search_glob": "result.txt"}, {"name": "said", "type": "STDOUT", "required": True}]
    inputs = [{"name": "seconds", "type": "FLOAT", "order": 1, "on_command_line": True, "default": 0}, {"name": "status", "type": "INTEGER", "order": 2, "on_command_line": True, "default": 0}]
    effect = gateway.application(gateway.host(servers.ssh_host(), scratch), executable_path=str(program), inputs=inputs, outputs=outputs, environment={"LEDGER": str(book)})
    stored, shape = gateway.storage(storage), gateway.shape()
    takeover.both_hold(system)
    key = fresh_key()
    launched = [client.launch(system, effect, {"seconds": 0.3, "status": status}, output_storage_id=stored) for status in (0, 3)]
    launched += [client.launch(system, shape, {"edges": "a>b a>c b>d c>d", "behaviour": "b:sleep_ms=300 a:fail=1"}, key=key) for _ in range(2)]
    launched += [client.launch(system, shape, {"edges": " ".join(f"a>m{i} m{i}>z" for i in range(6)), "behaviour": " ".join(f"m{i}:sleep_ms=200" for i in range(6))}) for _ in range(4)]
    nemesis.write("fault.start", fault="f1", fault_kind="N1", target="scheduler/0")
    struck = time.monotonic()
    system.kill("scheduler", 0)
    nemesis.write("fault.proof", fault="f1", struck=struck, evidence={"wait_status": int(signal.SIGKILL)}, spare=True)
    system.revive("scheduler", 0)
    nemesis.write("fault.end", fault="f1", healed=time.monotonic())
    for each in launched:
        gateway.wait(each, 90.0)
    nemesis.write("healed")
    system.quiet()
    system.until(lambda: shown(system, launched), 30.0)
    nemesis.write("quiet", quiet=True, asked_seconds=1.0, open=[])
    assert system.stop() == []
    (run / "samples.jsonl").write_text("")
    faults = [{"fault": "f1", "kind": "N1", "target": "scheduler/0"}]
    (run / "plan.json").write_text(json.dumps({"seed": 0, "required": PROMISES, "faults": faults}))
    host = collect.Host("fork-a", scratch=[scratch], ledgers=[book], storages={stored: storage})
    collect.collect(run, database_url=system.database_url, kafka=system.kafka, topic_prefix=system.settings["TOPIC_PREFIX"], marked=marked, hosts=[host], told={"journal": True, "lives": len(system.daemons) + 1})
    judged = judge(run)
    report.write(judged)
    assert judged.exit_code == 0, (run / "report.md").read_text()
