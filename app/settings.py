"""Configuration: read once, whole, at the start, from a mapping of AIRAVATA_* names. Only `__main__` modules import this.

Every fault is named with what was expected and what came, unknown keys included; a process with faulty settings prints one line per fault and exits 78.
A name ending in _FILE gives a file that holds the value of the name without it: how secrets come in production. Such a file of a secret that others may read, or
the group may change, is refused: a kubelet makes 0400 into 0440 for the pod's own group, anything wider is a mistake.
"""

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from app.errors import Misconfigured
from app.messages.codec import SCHEMA_VERSION, SCHEMA_VERSION_BEFORE
from app.messages.placement import Placement
from app.messages.topics import Topics

PREFIX = "AIRAVATA_"
CLIENT_NAMES = frozenset({"URL", "TOKEN", "TOKEN_FILE", "PROFILE", "OUTPUT", "TRACE_URL"})  # The CLI's own.
FOREIGN_PREFIXES = ("TEST_", "DEV_")


def _number(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError
        return value

    read.__doc__ = f"a whole number from {low} to {high}"
    return read


def _share(text: str) -> float:
    """A number from 0 to 1"""
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError
        return text

    read.__doc__ = "one of " + ", ".join(allowed)
    return read


def _listen(text: str) -> tuple[str, int]:
    """host:port"""
    host, _, port = text.rpartition(":")
    return host or "127.0.0.1", _number(0, 65535)(port)


def _address(text: str) -> str:
    """A host name and port, host:port"""
    host, _, port = text.rpartition(":")
    _host(host)
    _number(1, 65535)(port)
    return text


def _host(name: str | None) -> None:
    if not name or any(each in name for each in "/@?# \t\r\n"):
        raise ValueError
    name.encode("idna")  # As a look-up will: a label that is empty or too long raises by itself.


def _brokers(text: str) -> str:
    """Host names and ports separated by commas, host:port,host:port"""
    return ",".join(_address(each.strip()) for each in text.split(","))


def _url(text: str, *schemes: str) -> SplitResult:
    """With a scheme and a host. A port that is none raises by itself."""
    url = urlsplit(text)
    _host(url.hostname)
    if url.scheme not in schemes or url.port == 0 or text.split() != [text]:  # urlsplit forgets the ends of lines.
        raise ValueError
    return url


def _web(text: str) -> str:
    """A URL http://host:port or https://host:port"""
    url = _url(text, "http", "https")
    if url.username is not None or url.query or url.fragment:
        raise ValueError
    return text


def _endpoint(text: str) -> str:
    """A URL http://host:port/path or https://host:port/path, or nothing"""
    if text and not ((url := _url(text, "http", "https")).port and url.path.strip("/")):
        raise ValueError
    return text


def _mysql(text: str) -> str:
    """A URL mysql://user:password@host:port/database"""
    url = _url(text, "mysql", "mysql+pymysql")
    if not url.username or url.path.count("/") != 1 or url.path == "/":
        raise ValueError
    return text


def _names(text: str) -> tuple[str, ...]:
    """Names separated by commas"""
    return tuple(filter(None, (each.strip() for each in text.split(","))))


def _kafka_client(text: str) -> tuple[tuple[str, str], ...]:
    """Lines name=value of security.protocol, ssl.* and sasl.*, named as librdkafka names them"""
    pairs = [line.partition("=") for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not all(name.startswith(("security.protocol", "ssl.", "sasl.")) and value for name, _, value in pairs):
        raise ValueError  # What else a client is told is the protocol's (docs/protocol.md).
    return tuple((name.strip(), value.strip()) for name, _, value in pairs)


def _roots(text: str) -> tuple[str, ...]:
    """Absolute paths separated by commas, in which {gateway} stands for a gateway's id"""
    found = _names(text)
    if any(not each.startswith("/") or ".." in each.split("/") for each in found):
        raise ValueError
    return found


def _text(text: str) -> str:
    """Text"""
    return text


TOO_WIDE = 0o037  # What nobody but owner and group may do with a secret's file, and what the group may not.


def _content(path: Path, *, secret: bool) -> str:
    """Of a …_FILE. Raises PermissionError for a secret that others may read."""
    if secret and (mode := stat.S_IMODE(path.stat().st_mode)) & TOO_WIDE:
        raise PermissionError(0, f"mode {mode:04o} is too wide for a secret, 0400 is wanted")
    return path.read_text().strip()


def setting(read: Callable[[str], Any], default: Any = ..., *, secret: bool = False) -> Any:
    metadata = {"read": read, "secret": secret}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a component may be told. `AIRAVATA_` + the upper-case name is the variable."""

    environment: str = setting(_text, "development")  # Prefix of transactional ids and consumer groups; `production` refuses fail points and journal.
    mysql_url: str = setting(_mysql, "", secret=True)
    kafka: str = setting(_brokers, "127.0.0.1:9092")
    kafka_client: tuple[tuple[str, str], ...] = setting(_kafka_client, (), secret=True)  # How brokers are spoken to; none: in the clear.
    topic_prefix: str = setting(_text, "")
    partitions: int = setting(_number(1, 1000), 100)
    placement_width: int = setting(_number(1, 1000), 16)
    relay_shards: int = setting(_number(1, 100), 2)
    replication: int = setting(_number(1, 9), 1)
    session_timeout_ms: int = setting(_number(500, 60_000), 6000)
    compatibility: int = setting(_number(SCHEMA_VERSION_BEFORE, SCHEMA_VERSION), SCHEMA_VERSION_BEFORE)  # The schema version of what is written: raised when no release before reads.
    admin_listen: tuple[str, int] = setting(_listen, ("127.0.0.1", 9464))
    public_listen: tuple[str, int] = setting(_listen, ("127.0.0.1", 8080))
    internal_listen: tuple[str, int] = setting(_listen, ("127.0.0.1", 8081))
    internal_url: str = setting(_web, "http://127.0.0.1:8081")
    internal_token: str = setting(_text, "", secret=True)
    nudge_listen: tuple[str, int] = setting(_listen, ("127.0.0.1", 9465))
    nudge_to: str = setting(_address, "127.0.0.1:9465")
    token_key: str = setting(_text, "", secret=True)  # HMAC key of bearer tokens, cursors.
    master_key: str = setting(_text, "", secret=True)  # 64 hex digits: seals credentials; API and executors only.
    posix_roots: tuple[str, ...] = setting(_roots, ("/",))  # Where POSIX storages may lie; gateways' administrators name their roots.
    enabled_planners: tuple[str, ...] = setting(_names, ("batch-application",))
    live_experiments_max: int = setting(_number(0, 10_000_000), 10_000)
    workers: int = setting(_number(1, 64), 4)
    capacity: int = setting(_number(0, 100_000), 0)  # 0: 4 × workers.
    watch_interval_ms: int = setting(_number(50, 600_000), 1000)
    lease_seconds: int = setting(_number(2, 600), 10)
    sweep_after_seconds: int = setting(_number(2, 3600), 60)
    purge_every_seconds: int = setting(_number(1, 86_400), 3600)
    failpoints: str = setting(_text, "")
    struck_directory: str = setting(_text, "")
    journal: str = setting(_text, "")  # A directory; refused in production like fail points.
    journal_who: str = setting(_text, "")  # Component and copy, as `scheduler/1`.
    otlp_endpoint: str = setting(_endpoint, "")  # Where spans go, as http://collector:4318/v1/traces; empty: none is made.
    trace_ratio: float = setting(_share, 1.0)  # Of requests that begin a trace; what went wrong is told at any ratio.
    trace_delay_ms: int = setting(_number(10, 60_000), 1000)
    log_level: str = setting(_one_of("debug", "info", "warning", "error"), "info")
    log_format: str = setting(_one_of("json", "console"), "json")

    @property
    def placement(self) -> Placement:
        return Placement(self.partitions, min(self.placement_width, self.partitions), self.relay_shards)

    @property
    def brokers(self) -> dict[str, str]:
        """What every Kafka client of ours is made of first: where they are, and how they are spoken to."""
        return {**dict(self.kafka_client), "bootstrap.servers": self.kafka}

    @property
    def topics(self) -> Topics:
        return Topics(self.topic_prefix)

    def redacted(self) -> dict[str, Any]:
        """For `airavata doctor`: what is in force, without secrets."""
        return {each.name: "***" if each.metadata["secret"] else getattr(self, each.name) for each in fields(self)}


def read(environ: Mapping[str, str], *, database: bool = True) -> Settings:
    """`database`: whether a MySQL account is needed; the sink has none. Raises Misconfigured with one line per fault."""
    given = {key.removeprefix(PREFIX): value for key, value in environ.items() if key.startswith(PREFIX)}
    known = {each.name.upper(): each for each in fields(Settings)}
    faults, values = [], {}
    for key, text in sorted(given.items()):
        name = key.removesuffix("_FILE") if key not in known else key
        if key in CLIENT_NAMES or key.startswith(FOREIGN_PREFIXES):
            continue
        if name not in known:
            faults.append(f"{PREFIX}{key}: unknown setting")
            continue
        reader = known[name].metadata["read"]
        try:
            values[name.lower()] = reader(text if key in known else _content(Path(text), secret=known[name].metadata["secret"]))
        except ValueError:
            came = "***" if known[name].metadata["secret"] or "@" in text else repr(text)  # Before an @ stands a password.
            faults.append(f"{PREFIX}{key}: expected {reader.__doc__}, got {came}")
        except OSError as fault:
            faults.append(f"{PREFIX}{key}: {fault.strerror}: {text}")
    if database and "mysql_url" not in values and not any(line.startswith(f"{PREFIX}MYSQL_URL") for line in faults):
        faults.append(f"{PREFIX}MYSQL_URL: required, a URL mysql://user:password@host:port/database")
    if not faults and values.get("partitions", 100) % values.get("relay_shards", 2):
        faults.append(f"{PREFIX}RELAY_SHARDS: must divide {PREFIX}PARTITIONS")
    if faults:
        raise Misconfigured("\n".join(faults))
    return Settings(**values)
