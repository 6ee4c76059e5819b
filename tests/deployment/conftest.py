"""Says at the end what this layer had to look with, and, loudly, what it could not look at."""

import pytest

from tests.deployment import compose, kustomize


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for told, wanted in ((kustomize.told, "manifests"), (compose.told, "compose.yaml")):
        line = told()
        terminalreporter.write_line(f"{wanted}: {line}", yellow=line.startswith("NOT"))
