"""A wire to a real server that breaks, or lets bytes through in drops."""

import contextlib
import socket
import threading

from tests.acceptance.relay import CHUNK_BYTES, Relay

DROP_PAUSE_S = 0.02


class FaultyWire(Relay):
    """What comes from the server is passed on with faults.

    ``breaks_after``: bytes after which each connection breaks. ``drips_after``: bytes after which
    each connection lets one byte through in `DROP_PAUSE_S`. ``passed``: bytes of all connections.
    """

    breaks_after: int | None = None
    drips_after: int | None = None

    def __init__(self, target: tuple[str, int], port: int = 0) -> None:
        super().__init__(target, port)
        self.passed = 0
        self.broken = 0
        self._mended = threading.Event()

    def close(self) -> None:
        self._mended.set()
        super().close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:  # type: ignore[override]  # sockets only
        try:
            is_answer = source.getpeername() == self._target
        except OSError:  # the connection is gone already
            is_answer = False
        if not is_answer:
            super()._pump(source, sink)
            return
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                if self.breaks_after is not None and passed + len(data) > self.breaks_after:
                    sink.sendall(data[: self.breaks_after - passed])
                    self.broken += 1
                    for end in (source, sink):
                        end.shutdown(socket.SHUT_RDWR)
                    return
                passed += len(data)
                self.passed += len(data)
                if self.drips_after is not None and passed > self.drips_after:
                    self._drip(data, sink)
                else:
                    sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _drip(self, data: bytes, sink: socket.socket) -> None:
        for number in range(len(data)):
            if self._mended.wait(DROP_PAUSE_S):
                return
            sink.sendall(data[number : number + 1])
