"""What is collected for the checker is what the servers hold: binary log, tables and topics, read by their own means and compared with one another."""

import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from tests.chaos import collect
from tests.checker.evidence import Evidence
from tests.checker.sources import check

AWKWARD = ["it's", "two\nlines\tand tabs", 'a "quote" /* and */ a comment', "### @5=NULL", "é ß 漢 🙂", "", " /* VARSTRING */ ", "x" * 3000]
ROW = "INSERT INTO outbox (shard, part, mid, topic, k, headers, payload, created_at) VALUES (0, %s, %s, 't', 'k', %s, %s, UTC_TIMESTAMP(6))"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def folded(run: Path) -> dict[str, dict[Any, dict[str, Any]]]:
    """The rows that are left when every transaction is applied, one after the other."""
    found: dict[str, dict[Any, dict[str, Any]]] = {}
    for transaction in lines(run / "mysql/binlog/transactions.jsonl"):
        for kind, table, *images in transaction.get("rows", ()):
            rows = found.setdefault(table, {})
            key = images[0]["id"]
            if kind == "U":
                assert {**rows[key], **images[0]} == rows[key], "the image before is not what the last transaction left"
                rows[key] = {**rows[key], **images[1]}
            elif kind == "I":
                rows[key] = images[0]
            else:
                assert rows.pop(key) == images[0]
    return found


def test_the_binary_log_told_again_is_the_tables(database: str, tmp_path: Path) -> None:
    marked = collect.mark(database)
    connection = collect.connect(database)
    connection.autocommit(False)
    with connection.cursor() as cursor:
        for number, text in enumerate([*AWKWARD, bytes(range(256)).decode("latin-1")]):
            cursor.execute(ROW, (number - 3, bytes(range(number, number + 15)) + b"\0", bytes(range(256)) + b"\0\0", text.encode("latin-1" if len(text) == 256 else "utf-8")))
            if "\\" not in text and len(text) != 256:
                cursor.execute(
                    "INSERT INTO processes (id, experiment_id, gateway_id, part, state, state_since, version, reason, created_at, updated_at, snapshot) "
                    "VALUES (%s, 'e', 'g', -5, 'CREATED', '2026-01-01', 1, %s, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), %s)",
                    (f"prc_{number}", text[:500], text * 3),
                )
            connection.commit()
        cursor.execute("UPDATE processes SET state = 'VALIDATED', version = version + 1, tasks_open = 2000000000")
        connection.commit()
        cursor.execute("UPDATE processes SET version = 99")
        connection.rollback()
        cursor.execute("DELETE FROM outbox WHERE part < 0")
        connection.commit()
    counts, columns = collect.tables(tmp_path / "mysql/tables", connection)
    told = collect.binary_log(tmp_path / "mysql/binlog", connection, columns, marked)
    connection.close()
    found = folded(tmp_path)
    for table in ("outbox", "processes"):
        _, *rows = lines(tmp_path / f"mysql/tables/{table}.jsonl")
        assert len(rows) == counts[table] == len(found[table]) > 0
        assert {row["id"]: row for row in rows} == found[table]
    (first, *_, last) = lines(tmp_path / "mysql/binlog/transactions.jsonl")
    assert (first["file"], last["end"]["transactions"]) == (marked.file, told["transactions"])
    assert told["transactions"] == len(AWKWARD) + 3  # Neither what was rolled back nor what other schemas did.


def test_a_decoder_that_fails_is_never_taken_for_the_end(tmp_path: Path) -> None:
    broken = tmp_path / "binlog.000001"
    broken.write_bytes(b"no binary log")
    with pytest.raises(RuntimeError, match="not decoded to its end"):
        list(collect._decoded(broken, "schema", maria=True, start=4))


def test_topics_are_read_to_their_ends_by_both_kinds_of_reader(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> None:
    topic = f"{topic_prefix}event-sink"
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    admin.create_topics([NewTopic(topic, 3, 1)])[topic].result(30)
    producer = Producer({"bootstrap.servers": kafka_bootstrap, "transactional.id": topic, "linger.ms": 0, "log_level": 0})
    producer.init_transactions(30)
    for number, commit in enumerate((True, False, True)):
        producer.begin_transaction()
        headers = [("mid", bytes([number] * 16)), ("type", b"TaskChanged"), ("raw", b"\xff\xfe")]
        producer.produce(topic, f"value {number}".encode(), key="prc_é", partition=1, headers=headers, timestamp=1_700_000_000_000 + number)
        producer.flush(30)
        (producer.commit_transaction if commit else producer.abort_transaction)(30)
    noted = collect.topics(tmp_path / "kafka", kafka_bootstrap, topic_prefix)
    (tmp_path / "manifest.json").write_text(json.dumps({"topics": noted, "topic_prefix": topic_prefix}))
    committed, uncommitted = (lines(tmp_path / f"kafka/{topic}.{isolation}.jsonl") for isolation in ("committed", "uncommitted"))
    assert [each["v"] for each in committed[:-1]] == ["value 0", "value 2"]
    assert [each["v"] for each in uncommitted[:-1]] == ["value 0", "value 1", "value 2"]
    assert committed[0]["h"] == [["mid", "00" * 16], ["type", "TaskChanged"], ["raw", {"hex": "fffe"}]]
    assert (committed[0]["p"], committed[0]["o"], committed[0]["k"], committed[0]["ts"]) == (1, 0, "prc_é", 1_700_000_000_000)
    assert noted == {topic: {"0": [0, 0], "1": [0, 6], "2": [0, 0]}}  # Three records and three markers.
    evidence = Evidence(tmp_path)
    evidence.walk([])
    assert check(evidence)["kafka"].faults == []
