"""A small real run judged whole: this is where the checker's reading of binary log, topics, tables and hosts meets the real ones."""

import json
import signal
import time
from pathlib import Path

from tests.chaos import collect
from tests.chaos.client import Client
from tests.chaos.conftest import Build
from tests.chaos.lines import Lines
from tests.chaos.rig import EFFECT, INPUTS, OUTPUTS
from tests.checker import report
from tests.checker.judge import judge
from tests.support import takeover
from tests.support.gateway import fresh_key
from tests.support.servers import InOrder
from tests.support.system import COMPONENTS, System


def shown(system: System, launched: list[str]) -> bool:
    """Their ends are in the history, and the scheduler has read what the sink has."""
    ends = system.rows("SELECT experiment_id FROM events WHERE type = 'ExperimentChanged' AND (document LIKE %s OR document LIKE %s)", '%"to_state":"COMPLETED"%', '%"to_state":"FAILED"%')
    return {row[0] for row in ends} >= set(launched)


PROMISES = {
    "P1": {}, "P2": {}, "P3": {"keys": 1}, "P5": {}, "P6": {"dispatches": 20, "joins": 2}, "P7": {"records": 50}, "P8": {"attempts": 20, "retries": 1}, "P9": {}, "P10": {"jobs": 1}, "P11": {"rows": 100},
    "P12": {"keys": 10}, "P13": {"events": 50}, "P14": {"offsets": 1}, "P16": {"committed": 100, "steps": 50}, "P18": {"outputs": 3, "inputs": 2}, "P25": {"experiments": 1, "messages": 100},
}  # fmt: skip


def test_a_run_with_a_killed_scheduler_is_judged_and_every_promise_is_held(build: Build, servers: InOrder, tmp_path: Path) -> None:
    system = build({**dict.fromkeys(COMPONENTS, 1), "scheduler": 2}, partitions=12, placement_width=4, journal=tmp_path / "run" / "journal")
    run = tmp_path / "run"
    marked = collect.mark(system.database_url)
    client, nemesis = (Lines(run / f"{name}.jsonl", name) for name in ("client", "nemesis"))
    system.gateway.close()
    gateway = system.gateway = Client(system.gateway.urls, system.tokens["gateway_token"], tenant=system.tokens["gateway_id"], lines=client)
    book, scratch, storage = tmp_path / "ledger", tmp_path / "scratch", tmp_path / "storage"
    effect = gateway.application(gateway.host(servers.ssh_host(), scratch), executable_path=str(EFFECT), inputs=INPUTS, outputs=OUTPUTS, environment={"LEDGER": str(book)})
    stored, shape = gateway.storage(storage), gateway.shape()
    takeover.both_hold(system)
    key = fresh_key()
    launched = [gateway.launch(effect, {"seed": f"s{status}", "seconds": 0.3, "status": status, "data": "data:,given"}, output_storage_id=stored) for status in (0, 3)]
    launched += [gateway.launch(shape, {"edges": "a>b a>c b>d c>d", "behaviour": "b:sleep_ms=300 a:fail=1"}, key=key) for _ in range(2)]
    launched += [gateway.launch(shape, {"edges": " ".join(f"a>m{i} m{i}>z" for i in range(6)), "behaviour": " ".join(f"m{i}:sleep_ms=200" for i in range(6))}) for _ in range(4)]
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
