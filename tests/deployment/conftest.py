"""Says at the end what this layer had to look with."""

import pytest

from tests.deployment import apiserver, compose, kustomize


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for told, wanted in ((kustomize.told, "manifests"), (apiserver.told, "dry runs of the manifests"), (compose.told, "compose.yaml")):
        terminalreporter.write_line(f"{wanted}: {told()}")
