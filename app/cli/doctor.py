"""`airavata doctor`: one look at everything a running system rests on; each finding says what is wrong and what mends it.

Nothing is changed, every question has a deadline, and one that cannot be asked is a finding of its own. Hosts are asked for their key only, never for a login.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC
from typing import Any

from sqlalchemy import Engine

import migrations
from app import admin, clock
from app.cli import host_keys, show
from app.cli.session import Format
from app.errors import AiravataError
from app.mysql import engine
from app.mysql.hosts import catalogued
from app.mysql.unit_of_work import now, unit_of_work
from app.settings import Settings
from migrations import Schema

HOST_SECONDS, API_SECONDS = 5.0, 3.0
HOSTS_AT_ONCE = 8
SKEW_SECONDS_MAX = 1.0  # The API's own readiness bound (docs/api.md §1).


@dataclass(frozen=True)
class Finding:
    """`fix` is empty when all is well."""

    check: str
    subject: str
    text: str
    fix: str = ""

    @property
    def well(self) -> bool:
        return not self.fix


@dataclass
class Examination:
    settings: dict[str, Any]
    findings: list[Finding] = field(default_factory=list)

    @property
    def well(self) -> bool:
        return all(each.well for each in self.findings)

    def finds(self, check: str, subject: str, text: str, fix: str = "") -> None:
        self.findings.append(Finding(check, subject, text, fix))

    @contextmanager
    def asking(self, check: str, subject: str, fix: str) -> Iterator[None]:
        """What stops the question is the finding."""
        try:
            yield
        except AiravataError as fault:
            self.finds(check, subject, str(fault), fix)


def examine(settings: Settings, task_types: Iterable[str], *, url: str) -> Examination:
    found = Examination(settings.redacted())
    connected = engine.connect(settings.mysql_url, size=1, idle_seconds=60)
    try:
        if database(found, connected):
            topics(found, settings, task_types)
            hosts(found, connected)
    finally:
        connected.dispose()
    api(found, url)
    return found


def database(found: Examination, connected: Engine) -> bool:
    """Settings, clock and schema; whether the rest can be asked at all."""
    where = f"{connected.url.host}:{connected.url.port or 3306}/{connected.url.database}"
    try:
        skew(found, connected, where)
    except AiravataError as fault:
        found.finds("mysql", where, str(fault), "start the server, or correct AIRAVATA_MYSQL_URL and the account's grants")
        return False
    with found.asking("mysql settings", where, "change them on the server (my.cnf), restart it, ask again"):
        engine.check_settings(connected)
        found.finds("mysql settings", where, "durable, row based, READ COMMITTED")
    match migrations.check(connected):
        case Schema.BEHIND:
            found.finds("schema", where, f"behind: this release needs {migrations.head()}", "run `airavata admin migrate`")
            return False
        case Schema.AHEAD:
            found.finds("schema", where, "ahead: a later release has left this one behind", "install the release that migrated it")
        case Schema.CURRENT:
            found.finds("schema", where, f"fits this release ({migrations.head()})")
    return True


def skew(found: Examination, connected: Engine, where: str) -> None:
    """MySQL's clock decides everywhere; this machine's is in its logs and in the API's readiness."""
    with unit_of_work(connected)("doctor.clock.read") as tx:
        before = clock.utc_now()
        theirs = now(tx).replace(tzinfo=UTC)
        after = clock.utc_now()
    apart = max((theirs - after).total_seconds(), (before - theirs).total_seconds(), 0.0)
    if apart > SKEW_SECONDS_MAX:
        found.finds("clock", where, f"MySQL's clock and this machine's are {apart:.1f} s apart", "let both follow NTP (chronyc tracking, timedatectl)")
    else:
        found.finds("clock", where, f"within {SKEW_SECONDS_MAX:g} s of this machine's")


def topics(found: Examination, settings: Settings, task_types: Iterable[str]) -> None:
    with found.asking("kafka", settings.kafka, "start the brokers, or correct AIRAVATA_KAFKA"):
        difference = admin.topics(settings, task_types, apply=False, say=lambda _: None)
        for text in difference.wrong:
            found.finds("topics", settings.kafka, text, "set AIRAVATA_PARTITIONS and AIRAVATA_RELAY_SHARDS to what the topics have, whose number never changes")
        for text in difference.recreated:
            found.finds("topics", settings.kafka, text, "see docs/runbooks/topic-recreated.md; nothing was skipped or repeated meanwhile")
        for text in [each for each in difference.lines() if each not in difference.wrong and each not in difference.recreated]:
            found.finds("topics", settings.kafka, text, "run `airavata admin topics --apply`")
        if difference.none:
            found.finds("topics", settings.kafka, f"as declared, {settings.partitions} partitions, positions complete")


def hosts(found: Examination, connected: Engine) -> None:
    """Every enabled host of the catalogue: reachable, and still showing a key that was pinned."""
    with found.asking("hosts", "catalogue", "run `airavata admin migrate`"):
        with unit_of_work(connected)("doctor.hosts.read") as tx:
            known = catalogued(tx)
        with ThreadPoolExecutor(HOSTS_AT_ONCE) as threads:
            found.findings += filter(None, threads.map(lambda each: host(*each), known))


def host(name: str, document: dict[str, Any]) -> Finding | None:
    if document.get("state") == "DISABLED":
        return None
    address, port, pinned = document["host"], document.get("port") or 22, document.get("host_keys") or []
    kinds = [each.split(" ")[0] for each in pinned]
    subject = f"{name} ({address}:{port})"
    try:
        key = host_keys.shown(address, port, timeout_seconds=HOST_SECONDS, kinds=kinds)
    except OSError as fault:
        return Finding("host", subject, f"unreachable: {fault or type(fault).__name__}", "look at the host and the way to it; until then `airavata host drain` keeps work away")
    shown = host_keys.fingerprint(key)
    if not pinned:
        return Finding("host key", subject, f"none is pinned; it shows {shown}", f"compare the fingerprint with its administrator, then `airavata host trust {name}`")
    if shown not in {host_keys.fingerprint(" ".join(each.split(" ")[:2])) for each in pinned}:
        return Finding("host key", subject, f"changed: it shows {shown}", f"ask its administrator whether it was reinstalled; only then `airavata host trust {name}`")
    return Finding("host", subject, f"answers with the pinned key, {shown}")


def api(found: Examination, url: str) -> None:
    import httpx2

    try:
        answer = httpx2.get(f"{url}/readyz", timeout=API_SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL) as fault:
        found.finds("api", url, f"no answer: {fault or type(fault).__name__}", "start an API server, or set AIRAVATA_URL")
        return
    if answer.status_code == 200:
        found.finds("api", url, "ready")
    else:
        found.finds("api", url, show.clean(f"not ready: {answer.status_code} {answer.text[:200]}"), "mend what it names; it becomes ready by itself")


def report(found: Examination, form: Format) -> None:
    """Findings with their fix; all settings in force, redacted."""
    if form is Format.TABLE:
        show.table([{"setting": f"AIRAVATA_{name.upper()}", "value": value} for name, value in found.settings.items()], ("setting", ("value", shown_setting)))
        print()
        for each in found.findings:
            print(show.clean(f"{'ok   ' if each.well else 'WRONG'} {each.check}: {each.subject}: {each.text}"))
            if each.fix:
                print(f"      → {each.fix}")
        return
    rows = [{**asdict(each), "well": each.well} for each in found.findings]
    if form is Format.NDJSON:
        for row in rows:
            show.line(row)
    else:
        settings = {name: list(value) if isinstance(value, tuple) else value for name, value in found.settings.items()}
        show.document({"well": found.well, "findings": rows, "settings": settings}, form)


def shown_setting(row: dict[str, Any]) -> str:
    value = row["value"]
    separator = ":" if row["setting"].endswith("_LISTEN") else ","
    return separator.join(map(str, value)) if isinstance(value, tuple) else str(value)
