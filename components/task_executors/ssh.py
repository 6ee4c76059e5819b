"""DOOR to compute hosts: one SSH connection, one command at a time, inside a worker process that may be killed (workers.py).

paramiko can wait for ever on a dead link (paramiko#515, #2599) or be kept waiting by a peer that only answers keepalives (#2479): nothing here is trusted to end by itself.
The host's key must equal a pinned one before any credential is sent; there is no policy that accepts another. No agent, no PTY, no password, modern algorithms only.
"""

import io
import logging
import select
import shlex
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import paramiko

from app import clock, failpoint
from components.task_executors.plugin import OperationFailed
from components.task_executors.remote_host import CHUNK_BYTES, OUTPUT_BYTES_MAX, HostAddress, RemoteHost, Stream

CONNECT_SECONDS = 10.0
AGE_SECONDS_MAX = 900.0  # Renewed between operations: hosts end old sessions, and credentials are withdrawn.
FAREWELL_SECONDS = 1.0
LINGER_SECONDS = 1.0  # A command that has ended may leave its stdout open in a background child.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
_KEYS = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)
logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # Its faults become ours; its lines would name hosts and users.


class SshHost(RemoteHost):
    """RemoteHost over SSH. Connects with the first command, stays connected until `close`, its maximum age, or a fault."""

    def __init__(self, address: HostAddress, *, connected: Callable[[int, OperationFailed | None], None] = lambda _began, _fault: None) -> None:
        """`connected` is told of each attempt to connect: when it began (ns), and what became of it."""
        self.address, self.connected = address, connected
        self._transport: paramiko.Transport | None = None
        self._born = 0.0

    def open(self, argv: Sequence[str], timeout_seconds: float) -> Stream:
        deadline = time.monotonic() + timeout_seconds
        transport = self._connected()
        channel = self._session(transport, deadline)
        failpoint.hit("ssh.exec.before", host=self.address.host)
        try:
            channel.settimeout(max(0.1, deadline - time.monotonic()))
            channel.exec_command(shlex.join(argv))
        except (paramiko.SSHException, OSError, EOFError) as fault:
            self.close()
            raise _lost(self.address, fault) from fault
        return _Command(self, channel, deadline)

    def close(self) -> None:
        if self._transport is not None:
            _end(self._transport)
            self._transport = None

    def _connected(self) -> paramiko.Transport:
        if self._transport is not None and (not self._transport.is_active() or time.monotonic() - self._born > AGE_SECONDS_MAX):
            self.close()
        if self._transport is None:
            failpoint.hit("ssh.connect.before", host=self.address.host)
            began = clock.ns()
            try:
                self._transport, self._born = connect(self.address), time.monotonic()
            except OperationFailed as fault:
                self.connected(began, fault)
                raise
            self.connected(began, None)
            failpoint.hit("ssh.connect.after", host=self.address.host)
        return self._transport

    def _session(self, transport: paramiko.Transport, deadline: float) -> paramiko.Channel:
        """A channel; a warm connection that has died meanwhile is replaced once: nothing was sent on it."""
        for last in (False, True):
            try:
                return transport.open_session(timeout=max(0.1, min(CONNECT_SECONDS, deadline - time.monotonic())))
            except (paramiko.SSHException, OSError, EOFError) as fault:
                self.close()
                if last or time.monotonic() > deadline:
                    raise _unreachable(self.address, fault) from fault
                transport = self._connected()
        raise AssertionError


def connect(address: HostAddress) -> paramiko.Transport:
    """Reach, verify, authenticate; in this order. Every fault is certain: no command was sent."""
    try:
        connection = socket.create_connection((address.host, address.port), timeout=CONNECT_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Nagle costs 50 ms a command.
        transport = paramiko.Transport(connection)
    except (paramiko.SSHException, OSError, EOFError) as fault:
        raise _unreachable(address, fault) from fault
    try:
        _verified(transport, address)
        _authenticated(transport, address)
        transport.set_keepalive(30)
        return transport
    except BaseException:
        _end(transport)
        raise


def _end(transport: paramiko.Transport) -> None:
    """The host has ended its side, too, when this returns, unless it hangs: the next connection may be another process's, and is within the host's budget as the host counts."""
    with suppress(OSError):  # It is gone already.
        transport.sock.shutdown(socket.SHUT_WR)
    if transport.is_alive():
        transport.join(FAREWELL_SECONDS)
    transport.close()


def _verified(transport: paramiko.Transport, address: HostAddress) -> None:
    """Only kinds of key that are pinned are asked for, so a host with several keys shows the one we know."""
    transport.banner_timeout = transport.auth_timeout = CONNECT_SECONDS
    options = transport.get_security_options()
    options.ciphers, options.digests = _CIPHERS, _MACS
    pinned = {tuple(line.split()[:2]) for line in address.host_keys}
    names = {name for name, _ in pinned}
    options.key_types = tuple(each for each in options.key_types if each in names or (each.startswith("rsa-sha2-") and "ssh-rsa" in names))
    try:
        transport.start_client(timeout=CONNECT_SECONDS)
        shown = transport.get_remote_server_key()  # Raises when the time is over: start_client returns in silence.
    except paramiko.ssh_exception.IncompatiblePeer as fault:
        if "host key" in str(fault):
            raise _key_changed(address, f"the host offers no key of the pinned kinds {', '.join(sorted(names))}") from fault
        raise _unreachable(address, fault) from fault
    except (paramiko.SSHException, OSError, EOFError) as fault:
        raise _unreachable(address, fault) from fault
    if (shown.get_name(), shown.get_base64()) not in pinned:
        raise _key_changed(address, f"the host showed {shown.get_name()} {shown.fingerprint}")


def _authenticated(transport: paramiko.Transport, address: HostAddress) -> None:
    key = private_key(address.private_key)
    try:
        further = transport.auth_publickey(address.login, key)
    except (paramiko.AuthenticationException, paramiko.BadAuthenticationType) as fault:
        if "timeout" in str(fault).lower():
            raise _unreachable(address, fault) from fault
        raise _refused(address, str(fault)) from fault
    except (paramiko.SSHException, OSError, EOFError) as fault:
        raise _unreachable(address, fault) from fault
    if further:
        raise _refused(address, f"the host wants more than a key: {', '.join(further)}")


def private_key(data: bytes) -> paramiko.PKey:
    """An unencrypted private key in OpenSSH or PEM form."""
    for kind in _KEYS:
        try:
            return kind.from_private_key(io.StringIO(data.decode("ascii")))
        except (paramiko.SSHException, ValueError, IndexError):
            continue
    raise OperationFailed("AUTH_REQUIRED", "The stored key is no private key this system can use. Renew the credential.", certain=True)


class _Command:
    """Stream over one channel."""

    def __init__(self, host: SshHost, channel: paramiko.Channel, deadline: float) -> None:
        self.host, self.channel, self.deadline = host, channel, deadline
        self.stderr = bytearray()
        self.ended_at: float | None = None

    def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._in_time()
            self.channel.settimeout(max(0.1, self.deadline - time.monotonic()))
            try:
                rest = rest[self.channel.send(bytes(rest[:CHUNK_BYTES])) :]
            except TimeoutError:
                continue
            except OSError:  # "Socket is closed": the command stopped reading. Its status tells, or its absence does.
                return

    def end_input(self) -> None:
        try:
            self.channel.shutdown_write()
        except (OSError, EOFError):
            return
        failpoint.hit("ssh.exec.after", host=self.host.address.host)  # All is sent, the answer unread.

    def receive(self) -> bytes:
        while True:
            self._in_time()
            if self.channel.recv_stderr_ready():
                self._keep(self.channel.recv_stderr(CHUNK_BYTES))
            elif self.channel.recv_ready():
                return self.channel.recv(CHUNK_BYTES)
            elif self.channel.closed or self.channel.eof_received or self._lingered():
                if not (self.channel.recv_ready() or self.channel.recv_stderr_ready()):  # Data may have come between the two looks.
                    return b""
            else:
                select.select([self.channel], [], [], 0.05)

    def finish(self) -> tuple[int, bytes]:
        while not self.channel.exit_status_ready():
            self._in_time()
            self.channel.status_event.wait(0.05)
        status = self.channel.recv_exit_status()
        if status < 0:  # Nobody told: the host died under the command, or a signal ended it; the two look alike here.
            self.host.close()
            raise _lost(self.host.address, "the connection ended before the command's exit status came")
        return status, bytes(self.stderr)

    def close(self) -> None:
        self.channel.close()

    def _keep(self, piece: bytes) -> None:
        self.stderr += piece[: OUTPUT_BYTES_MAX - len(self.stderr)]

    def _lingered(self) -> bool:
        if self.ended_at is None and self.channel.exit_status_ready():
            self.ended_at = time.monotonic()
        return self.ended_at is not None and time.monotonic() - self.ended_at > LINGER_SECONDS

    def _in_time(self) -> None:
        if time.monotonic() > self.deadline:
            self.host.close()  # What the link still owes us must not reach the next command.
            raise OperationFailed("SSH_TIMEOUT", f"{self.host.address.host} did not answer in time.", certain=False)


def _unreachable(address: HostAddress, fault: object) -> OperationFailed:
    message = f"{address.host} cannot be reached on port {address.port}. It is tried again until it answers."
    return OperationFailed("SSH_CONNECT", message, certain=True, raw=_raw(fault))


def _refused(address: HostAddress, why: str) -> OperationFailed:
    message = f"{address.host} refused the key of {address.login}. Renew the credential or let the host know its public key; then it goes on."
    return OperationFailed("AUTH_REQUIRED", message, certain=True, raw=why)


def _key_changed(address: HostAddress, why: str) -> OperationFailed:
    message = f"{address.host} does not show the host key that is pinned for it. Nothing was sent to it. If its operators confirm the new key, pin that one; then it goes on."
    return OperationFailed("HOST_KEY_CHANGED", message, certain=True, raw=why)


def _lost(address: HostAddress, fault: object) -> OperationFailed:
    return OperationFailed("SSH_LOST", f"The connection to {address.host} broke in the middle of a command.", certain=False, raw=_raw(fault))


def _raw(fault: object) -> str:
    return f"{type(fault).__name__}: {fault}"[:300] if isinstance(fault, BaseException) else str(fault)
