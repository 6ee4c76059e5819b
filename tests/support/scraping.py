"""A real Prometheus beside a system: scrapes all its processes every three seconds, and knows the committed alert rules in a hurry, so that a test can wait for them."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.dev import prometheus
from app.dev.process import wait_until
from app.dev.servers import free_port
from tests.support.query_api import asked
from tests.support.system import System

HURRY = 20.0  # A minute of `for` is three seconds here.
THRESHOLDS = {"airavata_in_doubt_oldest_age_seconds) > 900": "airavata_in_doubt_oldest_age_seconds) > 10"}
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
SLACK_SECONDS = 30.0
SCRAPE_SECONDS = 3.0  # How long a scrape may take as well. One that fails starts the `for` of what it shows again; on two cores with five more loops to run one took three quarters of a second.
OWN = re.compile(r"up|scrape_\w+|ALERTS\w*|airavata:[\w:]+")


def hurried(rules: str) -> str:
    for said, shorter in THRESHOLDS.items():
        rules = rules.replace(said, shorter)
    return re.sub(r"(?m)^(\s+for: )(\d+)([smh])$", lambda found: f"{found[1]}{max(0, int(float(found[2]) * UNITS[found[3]] / HURRY))}s", rules)


@dataclass
class Scraper:
    base: Path
    port: int
    system: System

    def _get(self, path: str, **parameters: str) -> Any:
        return asked(f"http://127.0.0.1:{self.port}/api/v1/{path}", **parameters)

    def targets(self) -> None:
        """Everything there is now."""
        prometheus.target(self.base, {name: self.system.admin_address(name) for name in self.system.daemons})

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        return [(each["metric"], float(each["value"][1])) for each in self._get("query", query=expression)["result"]]

    def names(self) -> set[str]:
        return {name for name in self._get("label/__name__/values") if not OWN.fullmatch(name)}

    def exemplars(self, expression: str) -> list[str]:
        """Trace ids."""
        now = time.time()
        found = self._get("query_exemplars", query=expression, start=str(now - 3600), end=str(now))
        return [each["labels"]["trace_id"] for series in found for each in series["exemplars"]]

    def firing(self) -> set[str]:
        return {each["labels"]["alertname"] for each in self._get("alerts")["alerts"] if each["state"] == "firing"}

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def pause(self, name: str) -> float:
        """How long the condition must last here before the alert fires."""
        return max(float(rule["duration"]) for rule in self.rules() if rule["name"] == name)

    def fires(self, name: str) -> float:
        """Waits for it, `for` + 30 s at most; the seconds it took."""
        began = time.monotonic()
        fires = wait_until(lambda: name in self.firing(), self.pause(name) + SLACK_SECONDS, 0.2)
        assert fires, f"{name} does not fire: {self.query(self._expression(name))}; firing {self.firing()}; seconds of failed scrapes {self.query('count_over_time((up == 0)[2m:1s])')}"
        return time.monotonic() - began

    def resolves(self, name: str, seconds: float = SLACK_SECONDS) -> None:
        assert wait_until(lambda: name not in self.firing(), seconds, 0.2), f"{name} does not resolve: {self.query(self._expression(name))}"

    def _expression(self, name: str) -> str:
        return str(next(rule["query"] for rule in self.rules() if rule["name"] == name))


@contextmanager
def scraping(base: Path, system: System) -> Iterator[Scraper]:
    daemon = prometheus.prometheus(base, port := free_port(), seconds=SCRAPE_SECONDS)
    for file in (base / "alerts").glob("*.yml"):
        file.write_text(hurried(file.read_text()))
    made = Scraper(base, port, system)
    made.targets()
    daemon.start()
    try:
        daemon.wait()
        yield made
    finally:
        daemon.stop()
