"""A whole system as processes of this machine: schema, topics, tokens, then N instances of each microservice on free ports. `airavata dev` and the tests use it alike.

Everything a component is told is in `environment`; secrets are made anew with the directory. A component is a Daemon: stopped by its pid, killed, frozen, started again.
"""

import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app import plugins, secrets
from app.dev.process import Daemon, keep_private
from app.dev.servers import ROOT, kept_port
from app.settings import read

PYTHON = str(ROOT / ".venv" / "bin" / "python")
COMPONENTS: Mapping[str, Sequence[str]] = {  # In the order of a start; each its own process.
    "api": ("app.api",),
    "relay": ("outbox_relay",),
    "generator": ("components.workflow_generator",),
    "scheduler": ("components.task_scheduler",),
    "executor-environment": ("components.task_executors", "--types", "ENV_SETUP,ENV_CLEANUP"),
    "executor-data": ("components.task_executors", "--types", "INGRESS_STAGING,EGRESS_STAGING"),
    "executor-job": ("components.task_executors", "--types", "JOB_SUBMISSION"),
    "executor-noop": ("components.task_executors", "--types", "NOOP"),
    "event-sink": ("components.event_sink",),
}


@dataclass
class System:
    """`settings`: further AIRAVATA_* values without the prefix. `directory` keeps logs, pids, ports and secrets."""

    directory: Path
    database_url: str
    kafka: str
    settings: Mapping[str, str] = field(default_factory=dict)
    daemons: dict[str, Daemon] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What every component is told; also what `.dev/env` says."""
        told = {
            "MYSQL_URL": self.database_url, "KAFKA": self.kafka, "SESSION_TIMEOUT_MS": "1000", "PLACEMENT_WIDTH": "4", "ENABLED_PLANNERS": "batch-application,shape",
            "TOKEN_KEY_FILE": str(self._secret("token-key")), "MASTER_KEY_FILE": str(self._secret("master-key")), "NUDGE_TO": f"127.0.0.1:{self.port('nudge-0')}",
            **self.settings,
        }  # fmt: skip
        return {f"AIRAVATA_{name}": value for name, value in told.items()}

    def _secret(self, name: str) -> Path:
        path = self.directory / name
        if not path.exists():
            keep_private(path, os.urandom(32).hex())
        return path

    def port(self, name: str) -> int:
        return kept_port(self.directory / "ports" / name)

    @property
    def url(self) -> str:
        return self.url_of(0)

    def url_of(self, copy: int) -> str:
        return f"http://127.0.0.1:{self.port(f'api-{copy}')}"

    def admin_address(self, name: str) -> str:
        return f"127.0.0.1:{self.port(f'admin-{name}')}"

    # ---- making it ready --------------------------------------------------------------------------------------------------------------------------
    def prepare(self) -> None:
        """Schema at head, topics with their positions, the sink's token. Repeatable."""
        from app import admin

        settings = read(self.environment)
        admin.migrate(settings, say=lambda _: None)
        admin.topics(settings, list(plugins.task_types()), apply=True, say=lambda _: None)
        if not (self.directory / "internal-token").exists():
            keep_private(self.directory / "internal-token", secrets.new_token()[0])
        admin.service_token(read(self.environment | {"AIRAVATA_INTERNAL_TOKEN_FILE": str(self.directory / "internal-token")}), say=lambda _: None)

    # ---- processes ----------------------------------------------------------------------------------------------------------------------------------
    def daemon(self, component: str, copy: int = 0, **settings: str) -> Daemon:
        """The instance of a component, made at its first mention. `settings`: of this instance alone."""
        name = f"{component}-{copy}"
        if name not in self.daemons:
            own = {"JOURNAL_WHO": f"{component}/{copy}", "ADMIN_LISTEN": self.admin_address(name)}
            if component == "api":
                own |= {"PUBLIC_LISTEN": f"127.0.0.1:{self.port(name)}", "INTERNAL_LISTEN": f"127.0.0.1:{self.port(f'internal-{copy}')}"}
            elif component == "relay":
                own |= {"NUDGE_LISTEN": f"127.0.0.1:{self.port(f'nudge-{copy}')}"}
            elif component == "event-sink":
                own |= {"INTERNAL_URL": f"http://127.0.0.1:{self.port('internal-0')}", "INTERNAL_TOKEN_FILE": str(self.directory / "internal-token")}
            own |= settings
            self.daemons[name] = Daemon(
                name, self.directory / "processes", [PYTHON, "-m", *COMPONENTS[component]], {**self.environment, **{f"AIRAVATA_{key}": value for key, value in own.items()}},
                answers=lambda: self.ready(name) is None, stop_seconds=40.0, start_seconds=90.0, directory_of_work=ROOT,
            )  # fmt: skip
        return self.daemons[name]

    def start(self) -> None:
        """One of each, all at once, then until each says it is ready."""
        started = [self.daemon(component) for component in COMPONENTS]
        for each in started:
            each.start()
        for each in started:
            each.wait()

    def ready(self, name: str) -> str | None:
        """What keeps an instance from being ready, None when nothing does."""
        try:
            with urllib.request.urlopen(f"http://{self.admin_address(name)}/readyz", timeout=2):
                return None
        except urllib.error.HTTPError as fault:
            with fault:
                return fault.read().decode(errors="replace").strip()
        except OSError:
            return "not listening"
