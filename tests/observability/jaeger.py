"""Jaeger, the program that compose.yaml starts, private and in memory, for the searches people make there. `python -m tests.observability.jaeger` (`make jaeger`) builds it from its Go module into
`.dev/lib`: five to eleven minutes with nothing cached, so once, and never by a test.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.dev.process import Daemon
from app.dev.servers import free_port
from tests.deployment import locked
from tests.deployment.locked import ROOT
from tests.support.query_api import asked

MODULE, VERSION = "github.com/jaegertracing/jaeger", "v1.62.0"  # The newest whose modules could all be verified.
PROGRAM = ROOT / ".dev" / "lib" / "jaeger" / VERSION / "all-in-one"
UNUSED = (
    "admin.http.host-port", "collector.grpc-server.host-port", "collector.http-server.host-port", "collector.otlp.grpc.host-port", "http-server.host-port", "query.grpc-server.host-port",
    "processor.jaeger-binary.server-host-port", "processor.jaeger-compact.server-host-port", "processor.zipkin-compact.server-host-port",
)  # fmt: skip


@dataclass
class Jaeger:
    """`endpoint`: where spans go; `port`: its query API."""

    endpoint: str
    port: int

    def _get(self, path: str, **parameters: str) -> Any:
        return asked(f"http://127.0.0.1:{self.port}/api/{path}", **parameters)

    def answers(self) -> bool:
        try:
            self._get("services")
        except OSError:
            return False
        return True

    def search(self, service: str, **tags: str) -> list[str]:
        """Trace ids of the last hour in which one span of the service has all these tags."""
        now = time.time_ns() // 1000
        wanted = json.dumps({f"airavata.{name.replace('_', '.')}": value for name, value in tags.items()})
        found = self._get("traces", service=service, tags=wanted, start=str(now - 3_600_000_000), end=str(now + 60_000_000), limit="100")
        return [each["traceID"] for each in found]

    def services(self, trace_id: str) -> set[str]:
        """Whose spans the trace holds."""
        (found,) = self._get(f"traces/{trace_id}")
        return {each["serviceName"] for each in found["processes"].values()}


@contextmanager
def jaeger(base: Path) -> Iterator[Jaeger]:
    """On loopback, ended with the block. It would also trace itself, to a port where nobody listens, and then take 10 s to stop."""
    otlp, made = free_port(), Jaeger("", free_port())
    made.endpoint = f"http://127.0.0.1:{otlp}/v1/traces"
    listen = {"collector.otlp.http.host-port": otlp, "query.http-server.host-port": made.port, **dict.fromkeys(UNUSED, 0)}
    argv = [str(PROGRAM), *(f"--{name}=127.0.0.1:{port}" for name, port in listen.items()), "--memory.max-traces=10000", "--log-level=warn"]
    daemon = Daemon("jaeger", base, argv, {"OTEL_TRACES_SAMPLER": "always_off"}, answers=made.answers)
    daemon.start()
    try:
        daemon.wait()
        yield made
    finally:
        daemon.stop()


def build() -> None:
    """`go install` refuses a module that replaces others; a module of ours that wants it does not. Raises NotHad."""
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PROGRAM.parent) as directory:
        module = Path(directory)
        locked.go("mod", "init", "jaeger.test", cwd=module)
        locked.go("get", "-tool", f"{MODULE}/cmd/all-in-one@{VERSION}", cwd=module)
        locked.go("build", "-ldflags=-s -w", "-o", "all-in-one", f"{MODULE}/cmd/all-in-one", cwd=module)
        (module / "all-in-one").rename(PROGRAM)


if __name__ == "__main__":
    if not PROGRAM.exists():
        print(f"building {MODULE} {VERSION}", file=sys.stderr, flush=True)
        try:
            build()
        except locked.NotHad as fault:
            sys.exit(str(fault))
    print(PROGRAM.relative_to(ROOT))
