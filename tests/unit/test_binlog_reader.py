"""What the server's own decoder prints is read as it stands: here the time of a commit, to the microsecond where the server tells it."""

from tests.checker.binlog import Column, Reader

MYSQL = b"""#261126  6:07:29 server id 1  end_log_pos 234 CRC32 0x5582fd3b 	Previous-GTIDs
#261126  6:07:29 server id 1  end_log_pos 335 CRC32 0x5582fd3b 	GTID	last_committed=1	sequence_number=2	original_committed_timestamp=1795673249924256	immediate_commit_timestamp=1795673249924256
#261126  6:07:29 server id 1  end_log_pos 454 CRC32 0x189ea1e1 	Query	thread_id=11	exec_time=0	error_code=0
CREATE TABLE x.t (a INT)
#261126  6:07:29 server id 1  end_log_pos 652 CRC32 0x5582fd3b 	GTID	last_committed=2	sequence_number=3	original_committed_timestamp=1795673249951060	immediate_commit_timestamp=1795673249951060
#261126  6:07:29 server id 1  end_log_pos 723 CRC32 0x189ea1e1 	Query	thread_id=12	exec_time=0	error_code=0
BEGIN
#261126  6:07:29 server id 1  end_log_pos 808 CRC32 0x424a5d67 	Write_rows: table id 106 flags: STMT_END_F
### INSERT INTO `x`.`t`
### SET
###   @1=1 /* INT meta=0 nullable=0 is_null=0 */
#261126  6:07:29 server id 1  end_log_pos 839 CRC32 0x235508c8 	Xid = 12
COMMIT/*!*/;
"""


def test_a_transaction_was_committed_when_its_first_event_says() -> None:
    (found,) = Reader(schema="x", columns={"t": [Column("a", "int")]}, dialect="mysql").read(MYSQL.splitlines(keepends=True))
    assert found["at"] == "2026-11-26T06:07:29.951060Z"
    assert found["rows"] == [["I", "t", {"a": 1}]]


def test_a_server_that_tells_seconds_is_taken_at_its_word() -> None:
    told = b"".join(line.partition(b"\toriginal")[0].rstrip() + b"\n" for line in MYSQL.splitlines())
    (found,) = Reader(schema="x", columns={"t": [Column("a", "int")]}, dialect="mariadb").read(told.splitlines(keepends=True))
    assert found["at"] == "2026-11-26T06:07:29Z"
