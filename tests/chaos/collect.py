"""The end of a run: what a stopped system left in MySQL, Kafka and on its hosts, written as tests/checker/formats.py says.

`mark` at the start, when nothing has been done; `collect` at the end, when our processes have stopped and the servers still answer. Nothing is judged here.
"""

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient
from sqlalchemy.engine import make_url

from app.clock import utc_now
from tests.chaos.topics import reader
from tests.checker.binlog import Column, Reader
from tests.support.sql import connect

ROOT = Path(__file__).parents[2]
END_SECONDS = 60.0


@dataclass(frozen=True)
class Mark:
    """Where the binary log stood before the first component started."""

    file: str
    position: int
    started: str


@dataclass(frozen=True)
class Host:
    """A compute host to look at: its scratch roots (control directories, work directories), the ledger of the application, storages by id, sshd's log."""

    name: str
    scratch: Sequence[Path] = ()
    ledgers: Sequence[Path] = ()
    storages: Mapping[str, Path] = field(default_factory=dict)
    sshd_log: Path | None = None
    watch: Path | None = None


def _wall() -> str:
    return utc_now().isoformat(timespec="microseconds").replace("+00:00", "Z")


def rows(connection: Any, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def mark(database_url: str) -> Mark:
    """Before the run. The binary log is never purged by a test's server, so to know where it began is enough."""
    connection = connect(database_url)
    try:
        return Mark(*_end_of_binlog(connection), _wall())
    finally:
        connection.close()


def _end_of_binlog(connection: Any) -> tuple[str, int]:
    maria = "MariaDB" in rows(connection, "SELECT VERSION()")[0][0]
    found = rows(connection, "SHOW MASTER STATUS" if maria else "SHOW BINARY LOG STATUS")[0]
    return str(found[0]), int(found[1])


def collect(run: Path, *, database_url: str, kafka: str, topic_prefix: str, marked: Mark, hosts: Sequence[Host] = (), told: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Fills `run`; `told`: what the harness knows for the manifest (journal, lives, commit, versions, …). Returns the manifest as written."""
    run.mkdir(parents=True, exist_ok=True)
    manifest: dict[str, Any] = {"started": marked.started, "topic_prefix": topic_prefix, **(told or {})}
    connection = connect(database_url)
    try:
        manifest["schema"] = str(make_url(database_url).database)
        manifest["tables"], columns = tables(run / "mysql/tables", connection)
        manifest["binlog"] = binary_log(run / "mysql/binlog", connection, columns, marked)
    finally:
        connection.close()
    manifest["topics"] = topics(run / "kafka", kafka, topic_prefix)
    manifest["hosts"] = [each.name for each in hosts]
    for each in hosts:
        host(run / "hosts" / each.name, each)
    manifest["ended"] = _wall()
    (run / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


# ---- MySQL: every table in one snapshot, then the binary log --------------------------------------------------------------------------------------------
def tables(directory: Path, connection: Any) -> tuple[dict[str, int], dict[str, list[Column]]]:
    """One consistent snapshot; column names from information_schema, as the binary log needs them."""
    directory.mkdir(parents=True, exist_ok=True)
    columns: dict[str, list[Column]] = {}
    query = "SELECT table_name, column_name, data_type, IF(data_type = 'binary', character_octet_length, 0) FROM information_schema.columns WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position"
    for table, name, kind, size in rows(connection, query):
        columns.setdefault(table, []).append(Column(name, kind, int(size)))
    with connection.cursor() as cursor:
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    counts = {table: _table(directory / f"{table}.jsonl", connection, table, some) for table, some in columns.items()}
    connection.rollback()
    return counts, columns


def _table(path: Path, connection: Any, table: str, columns: Sequence[Column]) -> int:
    found = rows(connection, f"SELECT {', '.join(f'`{each.name}`' for each in columns)} FROM `{table}`")
    with path.open("w") as out:
        out.write(json.dumps({"table": table, "columns": {each.name: each.type for each in columns}, "rows": len(found)}) + "\n")
        for row in found:
            out.write(json.dumps({each.name: _value(value) for each, value in zip(columns, row, strict=True)}, ensure_ascii=False) + "\n")
    return len(found)


def _value(value: Any) -> Any:
    """Spelled as the binary log's reader spells it."""
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, int | str):
        return value
    return value.isoformat(" ", "microseconds") if hasattr(value, "isoformat") else str(value)


def binary_log(directory: Path, connection: Any, columns: Mapping[str, Sequence[Column]], marked: Mark) -> dict[str, Any]:
    """From the mark to now, file by file, by the server's own tool. The last file is closed first, so that all of it is on disk."""
    directory.mkdir(parents=True, exist_ok=True)
    end, schema = _end_of_binlog(connection), str(rows(connection, "SELECT DATABASE()")[0][0])
    rows(connection, "FLUSH BINARY LOGS")
    maria = "MariaDB" in rows(connection, "SELECT VERSION()")[0][0]
    data = Path(rows(connection, "SELECT @@log_bin_basename")[0][0]).parent
    names = [str(row[0]) for row in rows(connection, "SHOW BINARY LOGS")]
    wanted = names[names.index(marked.file) : names.index(end[0]) + 1]
    reader = Reader(schema=schema, columns=columns, dialect="mariadb" if maria else "mysql")
    with (directory / "transactions.jsonl").open("w") as out:
        for name in wanted:
            out.write(json.dumps({"file": name}) + "\n")
            for transaction in reader.read(_decoded(data / name, schema, maria=maria, start=marked.position if name == marked.file else 4)):
                out.write(json.dumps(transaction, ensure_ascii=False, separators=(",", ":")) + "\n")
        out.write(json.dumps({"end": {"transactions": reader.transactions, "rows": reader.rows}}) + "\n")
    return {"from": [marked.file, marked.position], "to": list(end), "transactions": reader.transactions}


def tool(*, maria: bool) -> list[str]:
    """mariadb-binlog of the system, or mysqlbinlog of the private prefix, run by that prefix's own loader."""
    if maria:
        return ["mariadb-binlog", "--no-defaults", "--skip-annotate-row-events"]
    prefix = (ROOT / ".dev/lib").resolve() / "mysql"
    libraries = f"{prefix}/usr/lib/x86_64-linux-gnu:{prefix}/usr/lib/mysql/private"
    return [f"{prefix}/usr/lib64/ld-linux-x86-64.so.2", "--library-path", libraries, f"{prefix}/usr/bin/mysqlbinlog", "--no-defaults"]


def _decoded(path: Path, schema: str, *, maria: bool, start: int) -> Iterator[bytes]:
    """The tool's lines. Raises RuntimeError if it ends badly: a cut log must never look like a whole one."""
    argv = [*tool(maria=maria), "--base64-output=DECODE-ROWS", "-vv", f"--database={schema}", f"--start-position={start}", str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "TZ": "UTC"}) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        yield from process.stdout
        fault = process.stderr.read().decode(errors="replace")
        if process.wait() != 0:
            raise RuntimeError(f"{argv[-1]} was not decoded to its end: {fault[-500:]}")


# ---- Kafka: every topic twice, and what the groups have committed ---------------------------------------------------------------------------------------
def topics(directory: Path, bootstrap: str, prefix: str) -> dict[str, dict[str, list[int]]]:
    """Topic → partition → [log start, end], noted first; then all of it is read, by both kinds of reader."""
    directory.mkdir(parents=True, exist_ok=True)
    client = AdminClient({"bootstrap.servers": bootstrap})
    names = sorted(name for name in client.list_topics(timeout=30).topics if name.startswith(prefix) and not name.startswith("__"))
    noted = {name: _ends(bootstrap, name, sorted(client.list_topics(name, timeout=30).topics[name].partitions)) for name in names}
    for name, ends in noted.items():
        for isolation in ("committed", "uncommitted"):
            _read(directory / f"{name}.{isolation}.jsonl", bootstrap, name, isolation, ends)
    (directory / "groups.json").write_text(json.dumps(_groups(client, prefix), indent=1) + "\n")
    return {name: {str(part): list(both) for part, both in ends.items()} for name, ends in noted.items()}


def _ends(bootstrap: str, name: str, parts: Sequence[int]) -> dict[int, tuple[int, int]]:
    consumer = reader(bootstrap, "evidence", isolation="read_uncommitted")
    try:
        return {part: consumer.get_watermark_offsets(TopicPartition(name, part), timeout=30.0) for part in parts}
    finally:
        consumer.close()


def _read(path: Path, bootstrap: str, name: str, isolation: str, ends: Mapping[int, tuple[int, int]]) -> None:
    """Sorted by partition. A reader that does not reach an end within its time leaves that partition's end where it stopped, which the checker calls cut."""
    found: dict[int, list[str]] = {part: [] for part in ends}
    reached = {part: low for part, (low, _) in ends.items()}
    consumer = reader(bootstrap, "evidence", isolation=f"read_{isolation}", **{"fetch.wait.max.ms": 50})
    try:
        consumer.assign([TopicPartition(name, part, low) for part, (low, high) in ends.items() if high > low])
        left, deadline = {part for part, (low, high) in ends.items() if high > low}, time.monotonic() + END_SECONDS
        while left and time.monotonic() < deadline:
            for each in consumer.consume(2000, 0.25):
                part, error = each.partition(), each.error()
                if error is None:
                    found[part].append(_record(each))
                    deadline = time.monotonic() + END_SECONDS
                elif error.code() == KafkaError._PARTITION_EOF and each.offset() >= ends[part][1]:
                    reached[part] = each.offset()
                    left.discard(part)
    finally:
        consumer.close()
    with path.open("w") as out:
        for part in sorted(found):
            out.writelines(found[part])
        out.write(json.dumps({"end": {str(part): [ends[part][0], reached[part]] for part in ends}}) + "\n")


def _record(message: Any) -> str:
    headers = [[name, value.hex() if name == "mid" and value is not None else _text(value)] for name, value in message.headers() or ()]
    told = {"p": message.partition(), "o": message.offset(), "ts": message.timestamp()[1], "k": _text(message.key()), "h": headers, "v": _text(message.value())}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")) + "\n"


def _text(value: bytes | str | None) -> Any:
    if value is None or isinstance(value, str):
        return value or ""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"hex": value.hex()}


def _groups(client: AdminClient, prefix: str) -> dict[str, dict[str, dict[str, int]]]:
    """Group → topic → partition → committed offset, of the groups that have any in our topics."""
    names = [each.group_id for each in client.list_consumer_groups(request_timeout=30).result().valid]
    found: dict[str, dict[str, dict[str, int]]] = {}
    for name in names:
        (asked,) = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)], request_timeout=30).values()
        for each in asked.result().topic_partitions or ():
            if each.topic.startswith(prefix) and each.offset >= 0:
                found.setdefault(name, {}).setdefault(each.topic, {})[str(each.partition)] = each.offset
    return found


# ---- hosts ------------------------------------------------------------------------------------------------------------------------------------------------
def host(directory: Path, told: Host) -> None:
    """Ledger, control directories, files and sshd's log of one host, read where they lie: a private sshd shares this machine's disks."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "ledger").write_bytes(b"".join(each.read_bytes() for each in told.ledgers if each.exists()))
    controls = [each for root in told.scratch for each in sorted((root / ".airavata/jobs").glob("*")) if each.is_dir()]
    (directory / "control.jsonl").write_text("".join(json.dumps(_control(each)) + "\n" for each in controls))
    with (directory / "files.jsonl").open("w") as out:
        places = [(root / "airavata", None) for root in told.scratch] + [(root, storage) for storage, root in told.storages.items()]
        for root, storage in places:
            for path in sorted(each for each in root.rglob("*") if each.is_file() and not each.is_symlink()):
                name = str(path.relative_to(root))
                uri = f"storage://{storage}/{name}" if storage else None
                line = {"path": str(path), "uri": uri, "size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "process": None if storage else name.split("/")[0]}
                out.write(json.dumps(line) + "\n")
    for source, name in ((told.sshd_log, "sshd.log"), (told.watch, "watch.jsonl")):
        if source is not None and source.exists():
            (directory / name).write_bytes(source.read_bytes())


def _control(directory: Path) -> dict[str, Any]:
    """What proves that a job was started once (components/task_executors/host/submit.sh)."""

    def text(name: str) -> str | None:
        path = directory / name
        return path.read_text(errors="replace").strip() if path.is_file() else None

    links = {kind: {each.name.split(".", 1)[1]: str(each.readlink()) for each in sorted(directory.glob(f"{kind}.*")) if each.is_symlink()} for kind in ("guard", "lock")}
    return {
        "token": directory.name, "epoch": text("epoch"), "intent": text("intent"), "receipt": text("receipt"), "exit": text("exit"), "duplicate": (text("duplicate") or "").splitlines(),
        "cancelled": (directory / "cancelled").exists(), "killed": text("killed"), "guards": links["guard"], "locks": links["lock"],
    }  # fmt: skip
