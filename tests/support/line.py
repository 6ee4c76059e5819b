"""A line to a server that can be cut, frozen, or made to lose the answer to one request: what a client sees of a store that fails."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class Line:
    """Relays connections to one address. Safe to turn while they run."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.open, self.going = True, threading.Event()
        self.going.set()
        self.mute: bytes | None = None
        self.swallowed = 0
        self.ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Ends what is connected; what comes is ended at once."""
        self.open = False
        for each in self.ends:
            _end(each)

    def mend(self) -> None:
        self.open = True

    def freeze(self) -> None:
        """Bytes go neither way, until `thaw`."""
        self.going.clear()

    def thaw(self) -> None:
        self.going.set()

    def lose_the_answer_to(self, request: bytes) -> None:
        """The next request that holds these bytes reaches the server, and is done there; then the line breaks."""
        self.mute = request

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                if not self.open:
                    _end(near)
                    continue
                far = socket.create_connection(self.target)
                self.ends += [near, far]
                silent = threading.Event()
                threading.Thread(target=self._relay, args=(near, far, True, silent), daemon=True).start()
                threading.Thread(target=self._relay, args=(far, near, False, silent), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, outward: bool, silent: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self.going.wait()
                if outward and self.mute is not None and self.mute in data:
                    self.mute = None
                    silent.set()
                if not outward and silent.is_set():  # The server has answered, so it is done there.
                    self.swallowed += 1
                    break
                sink.sendall(data)
        _end(source)
        _end(sink)

    def close(self) -> None:
        self.thaw()
        self.cut()
        self.listener.close()


def _end(each: socket.socket) -> None:
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()


@contextlib.contextmanager
def line_to(host: str, port: int) -> Iterator[Line]:
    line = Line(host, port)
    try:
        yield line
    finally:
        line.close()
