"""`airavata dev up|down|status|reset`: servers and every microservice as private processes under `.dev/`, and nothing elsewhere. `python -m app.dev.stack down` does the same.

A second `up` while one runs says so; after a SIGKILL of everything `up` works again, since a process is recognised by pid and start time.
"""

import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from app.dev import prometheus
from app.dev.process import Daemon, keep_private
from app.dev.servers import ROOT, Native
from app.dev.system import COMPONENTS, System
from app.settings import read

BASE = ROOT / ".dev" / "run"
COMPONENT, SERVER = "system/processes/*.pid", "servers/*/*.pid"  # In the order of an end.
SCHEMA = "airavata"
MEMORY_MIB_MIN = 2048


class Refused(RuntimeError):
    """It cannot start like this; the text says what to do."""


def kind_of_database() -> str:
    """MySQL where it was installed, else MariaDB."""
    return "mysql" if (ROOT / ".dev/lib/mysql/usr/sbin/mysqld").exists() else "mariadb"


def servers() -> Native:
    return Native(BASE / "servers")


def system(native: Native) -> System:
    """The embedded system: one of everything, placement width 4."""
    database = native.database(kind_of_database())
    return System(BASE / "system", database.url(SCHEMA), native.kafka(), {"LIVE_EXPERIMENTS_MAX": "10000", "WATCH_INTERVAL_MS": "500"})


def token(environment: Mapping[str, str], gateway: str) -> Path:
    """The file with the token of a gateway's administrator, made at its first mention; an operator's lies beside it."""
    path = BASE / "system" / "gateway-token"
    if not path.exists():
        from app import admin

        made = admin.bootstrap(read(environment), gateway=gateway, another=True)
        keep_private(path.with_name("operator-token"), made["operator_token"])
        keep_private(path, made["gateway_token"])
    return path


def _noted(pattern: str) -> list[Daemon]:
    """Whatever was started under .dev/run and left its pid there."""
    return [Daemon(each.stem, each.parent, [], stop_seconds=35.0) for each in sorted(BASE.glob(pattern))]


def running() -> list[str]:
    return [each.name for pattern in (COMPONENT, SERVER) for each in _noted(pattern) if each.pid is not None]


def up(*, observe: bool = False) -> Iterator[str]:
    """Progress, step by step; at its end everything is ready. Raises Refused, NotStarted."""
    if running():
        raise Refused(f"it runs already ({len(running())} processes): `airavata dev status`, `airavata dev down`")
    free = _free_memory_mib()
    if free < MEMORY_MIB_MIN:
        raise Refused(f"{free} MiB of memory are free, {MEMORY_MIB_MIN} are needed: stop something first")
    native = servers()
    yield f"starting {'MySQL' if kind_of_database() == 'mysql' else 'MariaDB'}, Apache Kafka and sshd"
    native.together(kind_of_database(), "kafka", "sshd")
    native.database(kind_of_database()).execute(f"CREATE DATABASE IF NOT EXISTS {SCHEMA}")
    made = system(native)
    yield "schema, topics, positions"
    made.prepare()
    _write_environment(made)
    yield f"starting {len(COMPONENTS)} microservices"
    made.start()
    if observe:
        yield "starting Prometheus"
        yield f"Prometheus at {watch(made, native)}: alerts at /alerts"
    yield f"ready at {made.url}"


def watch(made: System, native: Native) -> str:
    """A Prometheus that scrapes every microservice there is now; its address."""
    port, base = native.port("prometheus"), BASE / "servers" / "prometheus"
    daemon = prometheus.prometheus(base, port)
    prometheus.target(base, {each.name.removeprefix("admin-"): f"127.0.0.1:{each.read_text()}" for each in sorted((made.directory / "ports").glob("admin-*"))})
    daemon.start()
    daemon.wait()
    return f"http://127.0.0.1:{port}"


def _write_environment(made: System) -> None:
    """A dotenv for tests, IDEs and the command line."""
    told = {**made.environment, "AIRAVATA_URL": made.url}
    keep_private(ROOT / ".dev" / "env", "".join(f"{name}={value}\n" for name, value in sorted(told.items())))


def _free_memory_mib() -> int:
    found = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return int(found["MemAvailable"].split()[0]) // 1024


def down() -> Iterator[str]:
    """Components first (SIGTERM, all at once), then the servers."""
    for pattern in (COMPONENT, SERVER):
        group = [each for each in _noted(pattern) if each.pid is not None]
        for each in group:
            each.signal(15)
        for each in group:
            clean = each.stop()
            yield f"stopped {each.name}" if clean else f"killed {each.name}: it did not end in time"


def status() -> list[tuple[str, int | None, str]]:
    """(name, pid, what keeps it from being ready)."""
    made = System(BASE / "system", "", "")
    found = [(each.name, each.pid, made.ready(each.name) or "ready") for each in _noted(COMPONENT)] + [(each.name, each.pid, "running") for each in _noted(SERVER)]
    return [(name, pid, "not running" if pid is None else state) for name, pid, state in found]


def reset() -> Iterator[str]:
    """Down, and everything that was kept is gone."""
    yield from down()
    shutil.rmtree(BASE, ignore_errors=True)
    (ROOT / ".dev" / "env").unlink(missing_ok=True)
    yield "removed .dev/run"


if __name__ == "__main__":
    acts = {"up": up, "down": down, "reset": reset}
    try:
        for step in acts[sys.argv[1]]():
            print(step, flush=True)
    except Refused as refusal:
        sys.exit(str(refusal))
