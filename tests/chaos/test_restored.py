"""MySQL restored to a moment that Kafka and the hosts are beyond, as docs/deploying.md tells it: a dump and the binary log since, up to there; nothing of ours runs meanwhile.

What MySQL knows of goes on and ends, each job started once, each event in the history once. What it knows nothing of is set aside by name, and holds up nobody.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from app.dev.databases import PASSWORD
from app.messages import ids
from tests.chaos import collect
from tests.chaos.conftest import Build
from tests.support.gateway import Refused
from tests.support.servers import InOrder
from tests.support.system import COMPONENTS, System, ledger

DIAMOND = {"edges": "a>b a>c b>d c>d", "behaviour": "b:sleep_ms=1500"}
MID_GRAPH = "SELECT COUNT(*) >= 2 AND COUNT(*) < 16 FROM tasks WHERE type = 'NOOP' AND state = 'COMPLETED' AND process_id IN (SELECT id FROM processes WHERE experiment_id IN %s)"


def tool(name: str, system: System, *argv: str, given: bytes = b"") -> bytes:
    """A client program of the private prefix, as MySQL's administrator; what it says."""
    server, loader = make_url(system.database_url), collect.tool(maria=False)[:-1]
    address = ["--no-defaults", f"--host={server.host}", f"--port={server.port}", f"--user={server.username}", "--protocol=tcp"]
    environment = {**os.environ, "MYSQL_PWD": PASSWORD, "TZ": "UTC"}
    done = subprocess.run([*loader[:-1], str(Path(loader[-1]).with_name(name)), *address, *argv], input=given, capture_output=True, timeout=120, check=False, env=environment)
    assert done.returncode == 0, f"{name}: {done.stderr.decode()[-1000:]}"
    return done.stdout


def restored(system: System, dump: bytes, moment: collect.Mark) -> None:
    """The commands of docs/deploying.md. The server still knows the global ids of what is replayed, and would pass it by without a word."""
    found, schema = re.search(rb"SOURCE_LOG_FILE='([^']+)', SOURCE_LOG_POS=(\d+)", dump), make_url(system.database_url).database
    assert found is not None
    assert found[1].decode() == moment.file
    tool("mysql", system, given=dump)
    since = [f"--start-position={int(found[2])}", f"--stop-position={moment.position}", moment.file]
    tool("mysql", system, given=tool("mysqlbinlog", system, "--read-from-remote-server", "--skip-gtids", f"--database={schema}", *since))


def test_a_database_restored_to_a_moment_goes_on_from_there(build: Build, servers: InOrder, tmp_path: Path) -> None:
    system = build(dict.fromkeys(COMPONENTS, 1), partitions=12, placement_width=4, lease_seconds=4)
    gateway, schema = system.gateway, make_url(system.database_url).database
    effect, book = gateway.effect(gateway.host(servers.ssh_host(), tmp_path / "scratch"), tmp_path / "effect")
    storage, shape = gateway.storage(tmp_path / "storage"), gateway.shape()

    def job(seconds: float) -> str:
        return gateway.launch(effect, {"seconds": seconds}, output_storage_id=storage)

    def diamonds(count: int) -> list[str]:
        return [gateway.launch(shape, DIAMOND) for _ in range(count)]

    def outcomes(launched: list[str]) -> set[str]:
        return {gateway.wait(each)["outcome"] for each in launched}

    ended = [job(0.2), *diamonds(2)]
    assert outcomes(ended) == {"NORMAL_COMPLETION"}
    dump = tool("mysqldump", system, "--single-transaction", "--source-data=2", "--set-gtid-purged=OFF", "--databases", str(schema))
    under_way = [job(8.0)]
    system.until(lambda: len(ledger(book)) == 2, 60.0)
    under_way += diamonds(4)
    system.until(lambda: system.one(MID_GRAPH, under_way), 60.0)
    moment = collect.mark(system.database_url)
    lost = [job(0.2), *diamonds(2)]
    assert outcomes([*under_way, *lost]) == {"NORMAL_COMPLETION"}

    lives = [(name.rpartition("-")[0], int(name.rpartition("-")[2])) for name in system.daemons]
    for each in lives:
        system.kill(*each)
    system.rows(f"DROP DATABASE {schema}")
    restored(system, dump, moment)
    for component, copy in lives:
        system.revive(component, copy, wait=False)
    for name in system.daemons:
        system.await_ready(name)

    after = [job(0.2), *diamonds(1)]
    assert outcomes([*ended, *under_way, *after]) == {"NORMAL_COMPLETION"}
    system.quiet()
    assert len(ledger(book)) == len(set(ledger(book))) == 4
    for each in lost:
        with pytest.raises(Refused, match="404"):
            gateway.get(f"/experiments/{each}")
    system.until(lambda: unknown(system) == {ids.derived("prc", each, "1") for each in lost}, 30.0, system.dead_letters)
    kept = [*ended[1:], *under_way[1:], *after[1:]]
    system.until(lambda: all(whole(system, each) for each in kept), 30.0, lambda: [(each, whole(system, each)) for each in kept])


def whole(system: System, experiment: str) -> bool:
    """A diamond's 26 events at least, without a gap: an attempt that was in hand at the moment may be begun again in a newer epoch, which is told, too."""
    (found,) = system.rows("SELECT COUNT(*), MAX(seq) FROM events WHERE experiment_id = %s", experiment)
    return bool(26 <= found[0] == found[1])


def unknown(system: System) -> set[str]:
    """The processes that dead letters name. Each names what MySQL does not know: of the lost, or an attempt that was dispatched after the moment, and is dispatched again."""
    found = {str(text): re.fullmatch(r"(process|attempt) (\S+) is not (known|there)", str(text)) for *_, text in system.dead_letters()}
    assert None not in found.values(), [row for row in system.dead_letters() if found[str(row[3])] is None]
    return {each[2] for each in found.values() if each and each[1] == "process"}
