"""A connection to a database given as the service is given it, for who looks at it from outside. `with` closes it."""

import pymysql
from pymysql.connections import Connection
from pymysql.cursors import Cursor
from sqlalchemy.engine import make_url


def connect(url: str) -> "Connection[Cursor]":
    found = make_url(url)
    return pymysql.connect(
        host=found.host or "127.0.0.1", port=found.port or 3306, user=found.username or "root", password=str(found.password or ""), database=found.database, autocommit=True,
        read_timeout=120, init_command="SET time_zone = '+00:00'", ssl_disabled="ssl_disabled" in found.query,
    )  # fmt: skip
