"""A private MySQL or MariaDB under one directory, durable as the protocol needs it. User root, password given; the schema is the caller's."""

import subprocess
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import pymysql

from app.dev.process import Daemon, NotStarted

PASSWORD = "airavata-dev"  # Loopback only, made anew with every directory.
COMMON = """user=root
innodb_flush_log_at_trx_commit=1
sync_binlog=1
binlog_format=ROW
binlog_row_image=FULL
server-id=1
innodb_flush_method=O_DIRECT
innodb_buffer_pool_size=256M
transaction-isolation=READ-COMMITTED
character-set-server=utf8mb4
max_connections=400
bind-address=127.0.0.1
skip-name-resolve
performance_schema=OFF
"""


@dataclass(frozen=True)
class DatabaseAddress:
    kind: str
    host: str
    port: int
    user: str
    password: str
    tls: bool = False  # On loopback it costs a fifth of a statement and 60 ms of CPU a connection, and protects from nobody.

    def url(self, schema: str = "") -> str:
        plain = "" if self.tls else "?ssl_disabled=1"
        return f"mysql+pymysql://{self.user}:{self.password}@{self.host}:{self.port}/{schema}{plain}"

    def connect(self) -> "pymysql.connections.Connection[pymysql.cursors.Cursor]":
        return pymysql.connect(host=self.host, port=self.port, user=self.user, password=self.password, connect_timeout=5, read_timeout=30, autocommit=True, ssl_disabled=not self.tls)

    def execute(self, *statements: str) -> None:
        with self.connect() as connection, connection.cursor() as cursor:
            for each in statements:
                cursor.execute(each)


def _socket(base: Path) -> Path:
    """A Unix socket's path may have 107 bytes."""
    found = base / "server.sock"
    return found if len(str(found)) < 100 else Path(tempfile.gettempdir()) / f"airavata-{zlib.crc32(str(base).encode()):08x}.sock"


def answers(address: DatabaseAddress) -> bool:
    try:
        address.execute("SELECT 1")
    except pymysql.MySQLError:
        return False
    return True


def mysql(base: Path, prefix: Path, port: int) -> tuple[Daemon, DatabaseAddress]:
    """MySQL from a private prefix, run by that prefix's own loader. Initialises `base` at its first start."""
    base.mkdir(parents=True, exist_ok=True)
    socket = _socket(base)
    configuration = base / "my.cnf"
    configuration.write_text(
        f"[mysqld]\n{COMMON}basedir={prefix}/usr\nlc-messages-dir={prefix}/usr/share/mysql\ncharacter-sets-dir={prefix}/usr/share/mysql/charsets\n"
        f"plugin-dir={prefix}/usr/lib/mysql/plugin\ndatadir={base}/data\nsocket={socket}\npid-file={base}/server_pid\nport={port}\nmysqlx=OFF\n"
        f"secure-file-priv=NULL\ntmpdir={_made(base / 'tmp')}\nlog-bin=binlog\ninnodb_redo_log_capacity=256M\n"
    )
    program = f"{prefix}/usr/sbin/mysqld"
    libraries = f"{prefix}/usr/lib/x86_64-linux-gnu:{prefix}/usr/lib/mysql/private"
    argv = [f"{prefix}/usr/lib64/ld-linux-x86-64.so.2", "--argv0", program, "--library-path", libraries, program, f"--defaults-file={configuration}"]
    if not (base / "data" / "mysql").is_dir():
        init = base / "init.sql"
        init.write_text(
            f"ALTER USER root@localhost IDENTIFIED BY '{PASSWORD}';\nCREATE USER root@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n"
        )
        _initialise([*argv, "--initialize-insecure", f"--init-file={init}"], base)
    address = DatabaseAddress("mysql", "127.0.0.1", port, "root", PASSWORD)
    return Daemon("mysql", base, argv, answers=lambda: answers(address), stale=(socket, socket.with_name(f"{socket.name}.lock"))), address


def mariadb(base: Path, port: int) -> tuple[Daemon, DatabaseAddress]:
    """MariaDB from Debian's package, with nothing of the system's configuration."""
    base.mkdir(parents=True, exist_ok=True)
    configuration = base / "my.cnf"
    configuration.write_text(
        f"[mysqld]\n{COMMON}datadir={base}/data\nsocket={_socket(base)}\npid-file={base}/server_pid\nport={port}\ntmpdir={_made(base / 'tmp')}\n"
        f"log-bin={base}/data/binlog\ninnodb_log_file_size=128M\ncollation-server=utf8mb4_bin\n"
    )
    if not (base / "data" / "mysql").is_dir():
        _initialise(["mariadb-install-db", f"--defaults-file={configuration}", "--auth-root-authentication-method=normal", "--skip-test-db", "--force"], base)
        grants = base / "grants.sql"
        grants.write_text(
            "FLUSH PRIVILEGES;\n"
            f"ALTER USER root@localhost IDENTIFIED BY '{PASSWORD}';\nCREATE OR REPLACE USER root@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION;\n"
        )
        with grants.open("rb") as given:
            subprocess.run(["mariadbd", f"--defaults-file={configuration}", "--bootstrap"], stdin=given, check=True, capture_output=True, timeout=60)
    address = DatabaseAddress("mariadb", "127.0.0.1", port, "root", PASSWORD)
    return Daemon("mariadb", base, ["mariadbd", f"--defaults-file={configuration}"], answers=lambda: answers(address)), address


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _initialise(argv: list[str], base: Path) -> None:
    log = base / "initialise.log"
    with log.open("wb") as out:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False, timeout=120)
    if done.returncode:
        raise NotStarted(f"{argv[0]} could not initialise {base}: see {log}\n{log.read_text(errors='replace')[-800:]}")
