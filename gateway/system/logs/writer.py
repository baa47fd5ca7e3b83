"""Writes the log on a thread of its own, so that logging never blocks.

Standard error may be a pipe whose reader hangs; once the pipe is full, a write would block the
event loop. So lines wait in a bounded queue. Lines beyond it are left out, and their number is
logged when there is room again.

`logging.handlers.QueueListener` would not do: it reports a full queue on standard error, and waits
at its end without a limit.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

MOST_LINES = 2048
END_TIMEOUT_S = 2.0
REGULARLY_S = 5.0


class LogWriter:
    """A stream for loggers, one line per `write`. Never blocks. Any thread.

    Once a line was left out, all are until the queue is empty. So each gap is reported once, at its
    position.

    Args:
        descriptor: Receives the lines.
        log_left_out: Logs, into this stream, how many lines were left out.
        regularly: Called by the thread every `REGULARLY_S`, and with True at its end. It may log.
    """

    def __init__(
        self,
        descriptor: int,
        log_left_out: Callable[[int], object],
        regularly: Callable[[bool], object] = lambda _: None,
    ) -> None:
        self._descriptor = descriptor
        self._log_left_out = log_left_out
        self._regularly = regularly
        # Reentrant, since the garbage collector may log during a call.
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._left_out = 0
        self._counting = threading.RLock()
        # A daemon: without a reader it never ends.
        self._writer = threading.Thread(target=self._run, name="log lines", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._writer.start()

    def write(self, text: str) -> int:
        """Queue a line, or leave it out."""
        waiting = self._lines.qsize()
        if waiting >= MOST_LINES or (self._left_out and waiting):
            with self._counting:
                self._left_out += 1
        else:
            self._lines.put(text)
        return len(text)

    def flush(self) -> None:
        """Do nothing; loggers call it after every line."""

    def end(self) -> None:
        """Write the queued lines within `END_TIMEOUT_S`, and end the thread. Idempotent."""
        self._lines.put(None)
        self._writer.join(END_TIMEOUT_S)

    # --- on the writer's thread -------------------------------------------------------------------

    def _run(self) -> None:
        ending, due = False, time.monotonic() + REGULARLY_S
        while not (ending and self._lines.empty()):
            if time.monotonic() >= due:
                due = time.monotonic() + REGULARLY_S
                self._call_regularly(at_end=False)
            try:
                line = self._lines.get(timeout=REGULARLY_S)
            except Empty:
                continue
            if line is None:
                ending = True
                self._call_regularly(at_end=True)
            else:
                self._write_bytes(line.encode("utf-8", "backslashreplace"))
            if self._left_out and self._lines.empty():
                with self._counting:
                    left_out, self._left_out = self._left_out, 0
                with contextlib.suppress(Exception):  # the thread must go on
                    self._log_left_out(left_out)

    def _call_regularly(self, *, at_end: bool) -> None:
        with contextlib.suppress(Exception):  # the thread must go on
            self._regularly(at_end)

    def _write_bytes(self, data: bytes) -> None:
        """Write to the descriptor: the interpreter locks `sys.stderr` at its end."""
        try:
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:  # another process has made it non-blocking
                    select.select([], [self._descriptor], [])
        except OSError:
            return  # there is no reader
