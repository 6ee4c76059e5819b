"""The key a host shows, found by the SSH handshake alone: no account is needed and none is tried."""

import base64
import binascii
import hashlib
import socket
from collections.abc import Sequence


def shown(host: str, port: int, *, timeout_seconds: float, kinds: Sequence[str] = ()) -> str:
    """`type base64`, of one of `kinds` if given. Raises OSError, also when what answers does not speak SSH."""
    import paramiko

    connection = socket.create_connection((host, port), timeout=timeout_seconds)
    transport = paramiko.Transport(connection)
    try:
        if kinds:
            options = transport.get_security_options()
            options.key_types = tuple(each for each in options.key_types if any(matches(each, kind) for kind in kinds))
        transport.start_client(timeout=timeout_seconds)
        key = transport.get_remote_server_key()
        return f"{key.get_name()} {key.get_base64()}"
    except (paramiko.SSHException, EOFError) as fault:
        raise OSError(f"answers, but not as an SSH server should: {fault}") from fault
    finally:
        transport.close()


def matches(algorithm: str, kind: str) -> bool:
    return algorithm == kind or (kind == "ssh-rsa" and algorithm.startswith("rsa-sha2-"))


def fingerprint(key: str) -> str:
    """As ssh-keygen prints it: `ssh-ed25519 SHA256:…`."""
    kind, _, rest = key.partition(" ")
    try:
        digest = hashlib.sha256(base64.b64decode(rest.split(" ")[0], validate=True)).digest()
    except (binascii.Error, ValueError):
        return f"{kind} (unreadable)"
    return f"{kind} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
