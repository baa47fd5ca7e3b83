"""A wire to the registry that can be cut: the server behind it stays, for the other tests."""

import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit

CHUNK_BYTES = 65536
ACCEPT_LIMIT_S = 0.2


class Relay:
    """Passes TCP connections on from a loopback port of its own, on threads of its own.

    ``cut``: what is open breaks, and new connections are refused. ``join``: as before.
    """

    def __init__(self, target: tuple[str, int], port: int = 0) -> None:
        self._target = target
        self._port = port
        self._listener: socket.socket | None = None
        self._accepting: threading.Thread | None = None
        self._pumps: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()

    @classmethod
    def to(cls, url: str) -> "Relay":
        """A relay to the server at ``url``, joined."""
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        relay = cls((parts.hostname, parts.port))
        relay.join()
        return relay

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def join(self) -> None:
        """Accept connections, always on the same port."""
        self._listener = socket.create_server(("127.0.0.1", self._port))
        self._listener.settimeout(ACCEPT_LIMIT_S)
        self._port = self._listener.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, args=(self._listener,))
        self._accepting.start()

    def cut(self) -> None:
        """Break every connection and refuse new ones."""
        listener, self._listener = self._listener, None
        if listener is not None and self._accepting is not None:
            self._accepting.join()
            listener.close()
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        for pump in self._pumps:
            pump.join()
        self._pumps.clear()
        for one in self._open:
            one.close()
        self._open.clear()

    def close(self) -> None:
        self.cut()

    def _accept(self, listener: socket.socket) -> None:
        while self._listener is listener:
            try:
                near, _ = listener.accept()
            except TimeoutError:
                continue
            try:
                far = socket.create_connection(self._target, timeout=10)
            except OSError:
                near.close()
                continue
            near.settimeout(None)
            far.settimeout(None)
            with self._lock:
                self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                pump = threading.Thread(target=self._pump, args=(source, sink))
                self._pumps.append(pump)
                pump.start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
