"""P19 P20 P22, and P17, whose part is not built: what must be nowhere, and what must stay below a cap."""

import base64
import json
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.checker.reading import Place
from tests.checker.verdicts import Promise

_NOT_SEARCHED = frozenset({"plan.json", "canaries.json", "verdict.json", "report.md", "junit.xml", "system/internal-token", "system/master-key", "system/token-key"})


class TenantsApart(Promise):
    """`answers`: searched; `rows`: of one tenant searched for the canaries of the others; `tenants`: whose own canaries stood there, so that they could have strayed."""

    number, title, counts = "P19", "tenants stay apart", ("answers", "rows", "tenants")
    needs = frozenset({"client", "tables"})

    def __init__(self, evidence: Any) -> None:
        super().__init__(evidence)
        self.own: dict[str, list[str]] = evidence.canaries.get("tenants") or {}
        self.foreign = {tenant: [(owner, each) for owner, some in self.own.items() if owner != tenant for each in some] for tenant in self.own}
        self.at_home: set[str] = set()

    def answered(self, asked: Any, at: Place, line: Any, place: Place) -> None:
        tenant = str(asked.get("tenant"))
        if line.get("answer_text") is not None:
            self.count("answers", tenant in self.foreign)
            self._search(tenant, line["answer_text"], place, "an answer")

    def row(self, table: str, row: Any, place: Place) -> None:
        tenant = row.get("gateway_id")
        if tenant in self.foreign:
            self.count("rows")
            self._search(tenant, json.dumps(row, ensure_ascii=False), place, f"a row of {table}")

    def record(self, record: Any, line: Any) -> None:
        if record.gateway in self.foreign:
            self._search(record.gateway, f"{line['k']} {line['v']}", record.place, "a record")

    def conclude(self) -> None:
        self.count("tenants", len(self.at_home))

    def _search(self, tenant: str, text: str, place: Place, what: str) -> None:
        if tenant not in self.at_home and any(each in text for each in self.own.get(tenant, ())):
            self.at_home.add(tenant)
        for owner, canary in self.foreign.get(tenant, ()):
            if canary in text:
                self.broken(f"{what} of {tenant} has a canary of {owner}", place)


class SecretsInside(Promise):
    """`secrets`: looked for; `bytes`: searched, of every file of the run but those in which they were given (formats.py)."""

    number, title, counts = "P20", "secrets stay inside", ("secrets", "bytes")
    needs = frozenset({"binlog", "tables", "kafka", "client"})

    def conclude(self) -> None:
        secrets = self.evidence.canaries.get("secrets") or []
        self.count("secrets", len(secrets))
        spelled = {spelling: secret for secret in secrets for spelling in _spellings(secret)}
        if not spelled:
            return
        for path in sorted(self.evidence.run.rglob("*")):
            if path.is_file() and str(path.relative_to(self.evidence.run)) not in _NOT_SEARCHED and path.stat().st_size:
                self._search(path, spelled)

    def _search(self, path: Path, spelled: dict[bytes, str]) -> None:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            self.count("bytes", len(text))
            for spelling, secret in spelled.items():
                at = text.find(spelling)
                if at >= 0:
                    name = str(path.relative_to(self.evidence.run))
                    self.broken(f"secret {secret[:4]}… stands in {name}", Place(name, text[:at].count(b"\n") + 1))


def _spellings(secret: str) -> Iterator[bytes]:
    """Plain, base64 at each of its three alignments, hex, URL, JSON."""
    raw = secret.encode()
    yield raw
    for shift in range(3):
        padded = base64.b64encode(b"\0" * shift + raw)
        yield padded[4 if shift else 0 : len(padded) - 4]  # Without the ends, which depend on what stands around it.
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    for text in (quote(secret, safe=""), json.dumps(secret)[1:-1]):
        if text != secret:
            yield text.encode()


class BoundsHold(Promise):
    """`samples`; `capped`: numbers that have a cap; `over_capacity`: answers 429 and 503."""

    number, title, counts = "P22", "bounds hold", ("samples", "capped", "over_capacity")
    needs = frozenset({"samples", "client"})

    def sample(self, line: Any, place: Place) -> None:
        self.count("samples")
        caps = self.evidence.plan.get("caps") or {}
        for path, name, value in _numbers(line, ""):
            if name in caps:
                self.count("capped")
                if value > caps[name]:
                    self.broken(f"{path} was {value}, the cap is {caps[name]}", place)

    def answered(self, asked: Any, at: Place, line: Any, place: Place) -> None:
        if line.get("status") in {429, 503}:
            self.count("over_capacity")
            if line.get("retry_after") is None:
                self.broken(f"{line['status']} without Retry-After", place)


def _numbers(value: Any, path: str) -> Iterator[tuple[str, str, float]]:
    """Every number below a sample: its path, the nearest names it may be capped by, and itself."""
    if isinstance(value, dict):
        for name, each in value.items():
            if isinstance(each, dict):
                yield from _numbers(each, f"{path}{name}.")
                yield from ((f"{path}{name}.{key}", name, number) for key, number in each.items() if isinstance(number, int | float))
            elif isinstance(each, int | float) and not isinstance(each, bool):
                yield f"{path}{name}", name, each


class CancelHonoured(Promise):
    """Comes with cancelling."""

    number, title, counts = "P17", "cancel is honoured", ("runs",)
    exists = False
