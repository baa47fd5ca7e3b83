"""Logs the standard output and error of workers, within bounds.

Each worker writes into a pipe of its own. If it prints in a loop, it fills the pipe and waits;
output beyond an allowance is counted and left out. So no model floods the log or the event loop.
A slow reader of the log delays no model either: see `gateway.system.logs.writer`.
"""

from __future__ import annotations

import asyncio
import os

import structlog

_READ_BYTES = 64 * 1024
_BURST_BYTES = 64 * 1024
_BYTES_PER_S = 4 * 1024
"""The allowance of one worker: a burst, and a rate after it."""
_LINE_BYTES = 8 * 1024
_LAST_BYTES = 4 * 1024
"""The end of a worker's output is logged in any case."""
_TAIL_BYTES = 32 * 1024
"""Of a fatal error, Python writes the names of hundreds of modules behind the lines that matter."""
_DRAIN_BYTES = 1024 * 1024
_PAUSE_S = 0.05
_SHORT_PAUSE_S = 0.005
"""After a read: output of that time is one log line. The short pause is for full pipes."""
_log = structlog.get_logger("gateway.worker")


class OutputLog:
    """The read end of one worker's pipe, which the worker process owns. Event loop only."""

    def __init__(self, name: str, descriptor: int) -> None:
        self._name = name
        self._descriptor = descriptor
        self._left_bytes = float(_BURST_BYTES)
        self._filled_at = 0.0
        self._left_out = 0
        self._last = b""
        self._timer: asyncio.TimerHandle | None = None
        self._open = False

    def open(self) -> None:
        """Start to read.

        Raises:
            OSError: The pipe cannot be made non-blocking. It is never read then, since that would
                block the loop.
        """
        self._loop = asyncio.get_running_loop()
        self._filled_at = self._loop.time()
        os.set_blocking(self._descriptor, False)
        self._loop.add_reader(self._descriptor, self._readable)
        self._open = True

    @property
    def tail(self) -> str:
        """The end of the output, which may hold data of callers once requests came."""
        return self._last.decode("utf-8", errors="replace")

    def close(self) -> None:
        """Read the last output, log its end, and stop."""
        if not self._open:
            return
        end = b""
        read = 0
        try:
            while read < _DRAIN_BYTES and (data := self._read()):
                read += len(data)
                end = (end + data)[-_TAIL_BYTES:]
        finally:
            self._last = (self._last + end)[-_TAIL_BYTES:]
            self._stop()
        logged = end[-_LAST_BYTES:]
        self._left_out += read - len(logged)
        if logged or self._left_out:
            self._log_output(logged)

    def _readable(self) -> None:
        data = self._read()
        if not data:
            return
        self._take(data)
        # Pause: a worker that prints without end must not keep the loop busy.
        self._loop.remove_reader(self._descriptor)
        pause_s = _SHORT_PAUSE_S if len(data) == _READ_BYTES else _PAUSE_S
        self._timer = self._loop.call_later(pause_s, self._resume)

    def _resume(self) -> None:
        self._timer = self._loop.call_later(_PAUSE_S, self._resume)  # if the next line raises
        self._loop.add_reader(self._descriptor, self._readable)
        self._timer.cancel()
        self._timer = None

    def _read(self) -> bytes:
        """Read once; stop at the end of the pipe, and return nothing."""
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
        self._last = (self._last + data)[-_TAIL_BYTES:]
        text = data[: min(_LINE_BYTES, int(self._left_bytes))]
        self._left_bytes -= len(text)
        if text:
            self._log_output(text)
        self._left_out += len(data) - len(text)

    def _log_output(self, data: bytes) -> None:
        text = data.decode("utf-8", errors="replace").rstrip("\n")
        more = {"left_out_bytes": self._left_out} if self._left_out else {}
        self._left_out = 0
        _log.info("worker.output", replica=self._name, text=text, **more)
