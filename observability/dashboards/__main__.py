"""Writes the dashboards: `python -m observability.dashboards`."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from observability.dashboards import api, hosts_and_jobs, is_it_healthy, message_plumbing, processes_and_stores, recovery, workflows
from observability.dashboards.panels import VARIABLES, built

BOARDS = tuple(each.BOARD for each in (is_it_healthy, api, message_plumbing, workflows, hosts_and_jobs, recovery, processes_and_stores))
DIRECTORY = Path(__file__).parents[1] / "grafana" / "dashboards"


def texts() -> dict[str, str]:
    """File name → content."""
    return {f"{each.uid}.json": json.dumps(built(each), indent=1, sort_keys=True) + "\n" for each in BOARDS}


def as_asked(expression: str, interval: str = "1m") -> str:
    """As Prometheus is asked it: `All` of each variable, and a rate interval."""
    return re.sub(rf"\$({'|'.join(VARIABLES)})\b", ".*", expression.replace("$__rate_interval", interval))


def expressions(interval: str = "1m") -> Iterator[tuple[str, str, str]]:
    """(dashboard, panel, expression) of every query."""
    for board in BOARDS:
        for panel in board.panels:
            for _, expression in panel.queries:
                yield board.title, panel.title, as_asked(expression, interval)


if __name__ == "__main__":
    for name, text in texts().items():
        (DIRECTORY / name).write_text(text)
