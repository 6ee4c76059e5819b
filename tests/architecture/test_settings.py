"""What may be set has an effect: a setting that nothing reads is a promise nobody keeps."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from app.errors import Misconfigured
from app.settings import Settings, read

ROOT = Path(__file__).parents[2]
READERS = "\n".join(path.read_text() for folder in ("app", "outbox_relay", "components", "observability") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("name", [each.name for each in fields(Settings)])
def test_a_setting_is_read_by_something(name: str) -> None:
    assert re.search(rf"\b(settings|self)\.{name}\b", READERS), f"AIRAVATA_{name.upper()} changes nothing"


@pytest.mark.parametrize(("name", "text"), [("PARTITIONS", "1.5"), ("WORKERS", "0"), ("POSIX_ROOTS", "data"), ("POSIX_ROOTS", "/data/../etc"), ("ADMIN_LISTEN", "9464x"), ("LAUNCHES_PER_MINUTE", "3")])
def test_what_no_component_could_use_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(Misconfigured, match=f"AIRAVATA_{name}: "):
        read({"AIRAVATA_MYSQL_URL": "mysql://a:b@c:1/d", f"AIRAVATA_{name}": text})


@pytest.mark.parametrize("path", [each for folder in ("app", "components", "outbox_relay") for each in sorted((ROOT / folder).rglob("__main__.py")) if "nudge=" in each.read_text()], ids=lambda each: each.parent.name)
def test_a_process_that_sends_messages_writes_the_version_that_its_operator_says(path: Path) -> None:
    """Whoever nudges the relay has written for it."""
    assert re.findall(r"unit_of_work\(database, nudge=.*", path.read_text()) == re.findall(r"unit_of_work\(database, nudge=.*\bcompatibility=settings\.compatibility\)", path.read_text())
