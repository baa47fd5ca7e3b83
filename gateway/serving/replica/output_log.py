"""What workers write to standard output and error: log lines of the gateway, bounded.

Each worker writes into a pipe of its own. One that prints in a loop fills it and waits; what is
read from it beyond an allowance is counted and left out. So neither the log nor the event loop can
be drowned by a model. A slow reader of the log holds up no model either, nor this: see `log_lines`.
"""

from __future__ import annotations

import asyncio
import os

import structlog

_READ_BYTES = 64 * 1024
_BURST_BYTES = 64 * 1024
_BYTES_PER_S = 4 * 1024
"""What of one worker's output is logged: so much at once, and so much in every second."""
_LINE_BYTES = 8 * 1024
_LAST_WORDS_BYTES = 4 * 1024
"""The end of what a worker said before it ended is logged in any case."""
_DRAIN_BYTES = 1024 * 1024
_PAUSE_S = 0.05
_SHORT_PAUSE_S = 0.005
"""After a read: what is written meanwhile is one line of the log. Shorter for one who waits."""
_log = structlog.get_logger("gateway.worker")


class WorkerOutput:
    """The read end of one worker's pipe. Event loop only."""

    def __init__(self, name: str, descriptor: int) -> None:
        """Store; the descriptor belongs to the worker's owner."""
        self._name = name
        self._descriptor = descriptor
        self._left_bytes = float(_BURST_BYTES)
        self._filled_at = 0.0
        self._left_out = 0
        self._timer: asyncio.TimerHandle | None = None
        self._open = False

    def open(self) -> None:
        """Start to read.

        Raises:
            OSError: The pipe cannot be made not to block. It is not read then, at the end neither:
                that would hold the loop up for as long as the worker lives.
        """
        self._loop = asyncio.get_running_loop()
        self._filled_at = self._loop.time()
        os.set_blocking(self._descriptor, False)
        self._loop.add_reader(self._descriptor, self._readable)
        self._open = True

    def close(self) -> None:
        """Read what is still there, log its end, and stop."""
        if not self._open:
            return
        rest = b""
        read = 0
        try:
            while read < _DRAIN_BYTES and (data := self._read()):
                read += len(data)
                rest = (rest + data)[-_LAST_WORDS_BYTES:]
        finally:
            self._stop()
        self._left_out += read - len(rest)
        if rest or self._left_out:
            self._say(rest)

    def _readable(self) -> None:
        data = self._read()
        if not data:
            return
        self._take(data)
        # Not again at once: a worker that prints without end must not keep the loop busy.
        self._loop.remove_reader(self._descriptor)
        pause_s = _SHORT_PAUSE_S if len(data) == _READ_BYTES else _PAUSE_S
        self._timer = self._loop.call_later(pause_s, self._listen)

    def _listen(self) -> None:
        self._timer = self._loop.call_later(_PAUSE_S, self._listen)  # unless this comes to an end
        self._loop.add_reader(self._descriptor, self._readable)
        self._timer.cancel()
        self._timer = None

    def _read(self) -> bytes:
        """Return what there is, at most so much; nothing at its end too, and then stop."""
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self._stop()
        return data

    def _stop(self) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._descriptor)
        if self._timer is not None:
            self._timer.cancel()

    def _take(self, data: bytes) -> None:
        now = self._loop.time()
        earned = (now - self._filled_at) * _BYTES_PER_S
        self._left_bytes = min(_BURST_BYTES, self._left_bytes + earned)
        self._filled_at = now
        text = data[: min(_LINE_BYTES, int(self._left_bytes))]
        self._left_bytes -= len(text)
        # Told with the next line that is logged, or at the end.
        if text:
            self._say(text)
        self._left_out += len(data) - len(text)

    def _say(self, data: bytes) -> None:
        text = data.decode("utf-8", errors="replace").rstrip("\n")
        more = {"left_out_bytes": self._left_out} if self._left_out else {}
        self._left_out = 0
        _log.info("worker.output", replica=self._name, text=text, **more)
