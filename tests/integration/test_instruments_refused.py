"""No doors for tests in production: a process or command that is told to arm fail points or to write a journal ends with 78 before it connects to anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOWHERE = {"AIRAVATA_MYSQL_URL": "mysql://nobody:x@127.0.0.1:1/none", "AIRAVATA_KAFKA": "127.0.0.1:1", "AIRAVATA_ADMIN_LISTEN": "127.0.0.1:0"}
STARTS = {"relay": ("-m", "outbox_relay"), "executor": ("-m", "components.task_executors", "--types", "JOB_SUBMISSION"), "command": ("-c", "from app.cli import main; main()", "admin", "migrate")}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("instrument", ["AIRAVATA_FAILPOINTS", "AIRAVATA_JOURNAL"])
def test_production_refuses_to_start_with_an_instrument_switched_on(start: str, instrument: str, tmp_path: Path) -> None:
    value = "relay.commit.after=count" if instrument == "AIRAVATA_FAILPOINTS" else str(tmp_path / "journal")
    environment = {**{name: text for name, text in os.environ.items() if not name.startswith("AIRAVATA_")}, **NOWHERE, "AIRAVATA_ENVIRONMENT": "production", instrument: value}
    ended = subprocess.run([sys.executable, *STARTS[start]], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 78, ended.stderr
    assert f"{instrument} is set although environment=production" in ended.stderr
    assert not (tmp_path / "journal").exists()
