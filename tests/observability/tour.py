"""The incident of docs/operating.md, run for real: `python -m tests.observability.tour`. The relay is killed while launches go on, until its alert fires; then it is started again.

Prints what an operator sees at each step and draws the panels into docs/pictures, from the dashboards' own queries. Takes about three minutes.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.dev.prometheus import prometheus, target
from app.dev.servers import ROOT, Native, free_port
from tests.observability import picture
from tests.support.containers import Containers
from tests.support.servers import Given, InOrder
from tests.support.system import WITHOUT_HOSTS, System

PICTURES = ROOT / "docs" / "pictures"
WARM_SECONDS, BEFORE_SECONDS, AFTER_SECONDS, ALERT_SECONDS, BETWEEN_SECONDS = 25.0, 25.0, 25.0, 200.0, 0.5
PANELS = {
    "launches": ("1 Is it healthy?", "Launches in"), "outbox_age": ("1 Is it healthy?", "Outbox age"), "published": ("3 Message plumbing", "Published"),
    "experiments": ("1 Is it healthy?", "Experiments out"), "held": ("3 Message plumbing", "Shards held"),
}  # fmt: skip


class Launches:
    """A gateway that goes on whatever happens."""

    def __init__(self, system: System) -> None:
        self.system, self.stop, self.made = system, threading.Event(), list[str]()
        self.interface = system.gateway.shape()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.stop.wait(BETWEEN_SECONDS):
            self.made.append(self.system.gateway.launch(self.interface, {"edges": "a>b"}))


@contextmanager
def a_system(base: Path) -> Iterator[System]:
    servers = InOrder(Given(os.environ), Native(base), Containers(base / "containers"))
    try:
        server = servers.database("mysql")
        server.execute("CREATE DATABASE tour")
        with System(servers, base / "system", database_url=server.url("tour"), kafka=servers.kafka(), topic_prefix="tour.", counts=WITHOUT_HOSTS) as system:
            yield system
    finally:
        servers.close()


def say(system: System, *words: str, token: str = "gateway_token") -> None:
    """What a command prints, as in the page."""
    told = {"PATH": os.environ["PATH"], "HOME": str(system.directory), "AIRAVATA_URL": system.url, "AIRAVATA_TOKEN": system.tokens[token]}
    done = subprocess.run([sys.executable, "-c", "from app.cli import main; main()", *words], cwd=ROOT, env=told, capture_output=True, text=True, timeout=60, check=False)
    print(f"$ airavata {' '.join(words)}\n{done.stdout}{done.stderr}", flush=True)


def firing(url: str) -> list[str]:
    return sorted({str(each["labels"]["alertname"]) for each in picture.results(url, "alerts") if each["state"] == "firing"})


def main() -> None:
    base = ROOT / ".dev" / "tour" / str(os.getpid())
    with a_system(base) as system:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        watching = prometheus(base / "prometheus", port, seconds=2.0)
        target(base / "prometheus", {name: system.admin_address(name) for name in system.daemons})
        watching.start()
        watching.wait()
        launches = Launches(system)
        try:
            tour(system, launches, url)
        finally:
            launches.stop.set()
            if launches.thread.is_alive():
                launches.thread.join()
            watching.stop()


def tour(system: System, launches: Launches, url: str) -> None:
    launches.thread.start()
    time.sleep(WARM_SECONDS)
    start = time.time()
    time.sleep(BEFORE_SECONDS)
    stopped, last, fired = time.time(), len(launches.made), dict[str, float]()
    system.kill("relay")

    def watch() -> bool:
        for each in firing(url):
            if each not in fired:
                fired[each] = time.time()
                print(f"{each} fires {fired[each] - stopped:.0f} s after the kill", flush=True)
        return "OutboxStalled" in fired

    system.until(watch, ALERT_SECONDS, lambda: fired)
    hurt = launches.made[last + 2]
    say(system, "outbox", token="operator_token")
    say(system, "explain", hurt)
    say(system, "trace", hurt)
    system.revive("relay")
    again = time.time()
    system.gateway.wait(hurt)
    print(f"{hurt} ended {time.time() - again:.1f} s after the relay was ready\n")
    system.quiet()
    print(f"the outbox was empty {time.time() - again:.1f} s after; {len(launches.made) - last} launches were accepted meanwhile\n")
    time.sleep(AFTER_SECONDS)
    say(system, "trace", hurt)
    say(system, "explain", hurt)
    system.until(lambda: "OutboxStalled" not in firing(url), 60.0)
    end = time.time()
    assert system.rescues() == 0
    assert not any(value for _, value in picture.instant(url, "sum(airavata_invariant_violations_total)"))
    for experiment in launches.made[last : last + 50]:
        assert system.gateway.wait(experiment)["outcome"] == "NORMAL_COMPLETION"
    marks = {"relay killed": stopped, **dict(sorted(fired.items(), key=lambda each: each[1])), "relay back": again}
    for name, (board, title) in PANELS.items():
        shown = picture.panel(board, title)
        lines = picture.series(url, shown, start=start, end=end)
        (PICTURES / f"{name}.svg").write_text(picture.drawn(shown, lines, start=start, end=end, marks=marks))


if __name__ == "__main__":
    main()
