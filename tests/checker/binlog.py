"""What `mysqlbinlog --base64-output=DECODE-ROWS -vv` prints, as transactions with named columns. Generic: it knows nothing of our tables.

The servers' own tools decode; this only reads their text, line by line. MySQL's tool escapes as C does; MariaDB's escapes control characters and no backslash, so that a value
that really holds `\\x0a` reads as a newline there.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

BIG = 256  # Columns of more characters are left out of a before image where they did not change.
_BINARY = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
_NUMBER = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_KINDS = {b"INSERT INTO": "I", b"UPDATE": "U", b"DELETE FROM": "D"}
_ROW = re.compile(rb"### (INSERT INTO|UPDATE|DELETE FROM) `([^`]+)`\.`([^`]+)`")
_HEADER = re.compile(rb"#(\d{6}) +(\d\d?):(\d\d):(\d\d) server id \d+ +end_log_pos (\d+)")
_COMMITTED = re.compile(rb"immediate_commit_timestamp=(\d+)")
_ESCAPED = {"mysql": re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL), "mariadb": re.compile(rb"\\(x[0-9a-f]{2})")}
_LETTERS = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"b": b"\b", b"f": b"\f", b"v": b"\v", b"a": b"\a", b"0": b"\0", b"e": b"\x1b"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Column(NamedTuple):
    """`bytes`: of a BINARY column, whose trailing zeros the log leaves out; 0 for all others."""

    name: str
    type: str  # information_schema.columns.data_type
    bytes: int = 0


class Reader:
    """One decoded file after the other; `columns`: table → its columns in order, of the schema that is wanted."""

    def __init__(self, *, schema: str, columns: Mapping[str, Sequence[Column]], dialect: str) -> None:
        self.schema = schema.encode()
        self.columns = {table.encode(): [(each.name, each.type in _BINARY, each.type in _NUMBER, each.bytes) for each in some] for table, some in columns.items()}
        self.escaped = _ESCAPED[dialect]
        self.transactions = self.rows = 0

    def read(self, lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        """Transactions in commit order; those that touch no table of the schema are left out. Raises ValueError for a row that does not fit its table."""
        at, pos = "", 0
        rows: list[list[Any]] | None = None
        row: _Row | None = None
        for line in lines:
            if line.startswith(b"###   @"):
                if row is not None:
                    row.take(line)
            elif line.startswith(b"### "):
                row = self._row(line, row, rows)
            elif line.startswith(b"#"):
                found = _HEADER.match(line)
                if found is not None:
                    row, pos = self._ended(row, rows), int(found[5])
                    if rows is None and (_COMMITTED.search(line) or "." not in at):  # MySQL's first event of a transaction tells exactly, the next one only seconds.
                        at = _at(line, found)
            elif line.startswith((b"BEGIN", b"START TRANSACTION")):
                rows = []
            elif line.startswith((b"COMMIT", b"ROLLBACK")):
                row = self._ended(row, rows)
                if rows and line.startswith(b"COMMIT"):
                    self.transactions += 1
                    self.rows += len(rows)
                    yield {"t": self.transactions, "pos": pos, "at": at, "rows": rows}
                rows = None

    def _row(self, line: bytes, row: "_Row | None", rows: list[list[Any]] | None) -> "_Row | None":
        found = _ROW.match(line)
        if found is None:
            if row is not None:
                row.turn(line)
            return row
        self._ended(row, rows)
        if found[2] != self.schema or found[3] not in self.columns:
            return None
        return _Row(_KINDS[found[1]], found[3].decode(), self.columns[found[3]], self.escaped)

    @staticmethod
    def _ended(row: "_Row | None", rows: list[list[Any]] | None) -> None:
        if row is not None and rows is not None:
            rows.append(row.told())


class _Row:
    """One row being read: the images of its `WHERE` and `SET`."""

    def __init__(self, kind: str, table: str, columns: list[tuple[str, bool, bool, int]], escaped: re.Pattern[bytes]) -> None:
        self.kind, self.table, self.columns, self.escaped = kind, table, columns, escaped
        self.images: list[dict[str, Any]] = []

    def turn(self, line: bytes) -> None:
        if line.startswith((b"### WHERE", b"### SET")):
            self.images.append({})

    def take(self, line: bytes) -> None:
        equal = line.index(b"=", 7)
        name, binary, number, size = self.columns[int(line[7:equal]) - 1]
        end = line.rfind(b" /* ")
        raw = line[equal + 1 : end if end > 0 else None]
        image = self.images[-1]
        if raw[:1] == b"'":
            value = raw[1:-1]
            if b"\\" in value:
                value = self.escaped.sub(_plain, value)
            image[name] = value.ljust(size, b"\0").hex() if binary else value.decode(errors="replace")
        elif raw == b"NULL":
            image[name] = None
        else:
            image[name] = int(raw.split(b" ")[0]) if number else raw.decode()

    def told(self) -> list[Any]:
        if any(len(each) != len(self.columns) for each in self.images) or len(self.images) != (2 if self.kind == "U" else 1):
            raise ValueError(f"a row of {self.table} has {[len(each) for each in self.images]} columns, the table {len(self.columns)}")
        if self.kind != "U":
            return [self.kind, self.table, self.images[0]]
        before, after = self.images
        changed = {name: value for name, value in after.items() if value != before[name]}
        kept = {name: value for name, value in before.items() if name in changed or not isinstance(value, str) or len(value) <= BIG}
        return ["U", self.table, kept, changed]


def _plain(found: "re.Match[bytes]") -> bytes:
    code = found[1]
    return bytes([int(code[1:], 16)]) if len(code) == 3 else _LETTERS.get(code, code)


def _at(line: bytes, found: "re.Match[bytes]") -> str:
    """When it was committed: MySQL tells microseconds, MariaDB seconds. The tool must run in UTC."""
    exact = _COMMITTED.search(line)
    if exact is not None:
        return (_EPOCH + timedelta(microseconds=int(exact[1]))).isoformat(timespec="microseconds").replace("+00:00", "Z")
    day = found[1].decode()
    return f"20{day[:2]}-{day[2:4]}-{day[4:]}T{int(found[2]):02}:{found[3].decode()}:{found[4].decode()}Z"
