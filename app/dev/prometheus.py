"""A private Prometheus (Debian's) for `airavata dev up --observe` and the tests: our committed configuration and rules, targets from a file that it reads again by itself."""

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from app.dev.process import Daemon, NotStarted

COMMITTED = Path(__file__).parents[2] / "observability"
PROGRAM = "/usr/bin/prometheus"


def prometheus(base: Path, port: int, *, seconds: float = 5.0) -> Daemon:
    """On loopback. `seconds` between scrapes and between looks at the rules. Raises NotStarted where there is none."""
    if not Path(PROGRAM).exists():
        raise NotStarted(f"there is no {PROGRAM}: run `make bootstrap`")
    (base / "targets").mkdir(parents=True, exist_ok=True)
    shutil.copytree(COMMITTED / "alerts", base / "alerts", dirs_exist_ok=True, ignore=shutil.ignore_patterns("tests"))
    text = (COMMITTED / "prometheus.yaml").read_text()
    (base / "prometheus.yaml").write_text(text.replace("_interval: 5s", f"_interval: {int(seconds * 1000)}ms"))
    argv = [
        PROGRAM, f"--config.file={base}/prometheus.yaml", f"--storage.tsdb.path={base}/data", f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage",
        "--storage.tsdb.retention.time=2d", "--log.level=warn",
    ]  # fmt: skip
    return Daemon("prometheus", base, argv, answers=lambda: _ready(port), start_seconds=30.0)


def target(base: Path, addresses: Mapping[str, str]) -> None:
    """`addresses`: `<component>-<copy>` → host:port of its admin listener. Replaced whole, by a rename."""
    told = [{"targets": [address], "labels": {"component": name.rpartition("-")[0], "instance": name}} for name, address in sorted(addresses.items())]
    part = base / "targets" / "dev.part"
    part.write_text(json.dumps(told))
    part.rename(base / "targets" / "dev.yaml")


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False
