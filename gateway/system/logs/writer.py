"""Lines of the log, written by a thread of their own: who logs never waits for the log's reader.

Standard error is a pipe to something that may hang, and one that nobody reads stops whoever writes
to it once it is full: the event loop, with every request. Here lines wait in a bounded queue;
those that find it full are left out, and how many were is said when there is room again.

Not `logging.handlers.QueueListener`: it says that its queue is full by writing to standard error,
and waits at its end for as long as the reader likes.
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
END_PATIENCE_S = 2.0
REGULARLY_S = 5.0


class LogWriter:
    """A stream for loggers, one line a `write`, by any thread. Never blocks.

    Once a line was left out, all are, until the queue has run empty: a gap is one gap, and the line
    that says so stands where it is.
    """

    def __init__(
        self,
        descriptor: int,
        tell: Callable[[int], object],
        regularly: Callable[[bool], object] = lambda _: None,
    ) -> None:
        """Store.

        Args:
            descriptor: Where lines go.
            tell: Logs, into this stream, that so many lines were left out.
            regularly: Called every `REGULARLY_S` by the writer, and at its end, with True. It may
                log.
        """
        self._descriptor = descriptor
        self._tell = tell
        self._regularly = regularly
        # Reentrant, as the collector may log in the middle of a call.
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._left_out = 0
        self._counting = threading.RLock()
        # Where nobody reads, it never ends: it must not keep the process.
        self._writer = threading.Thread(target=self._run, name="log lines", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._writer.start()

    def write(self, text: str) -> int:
        """Have a line written soon, or leave it out."""
        waiting = self._lines.qsize()
        if waiting >= MOST_LINES or (self._left_out and waiting):
            with self._counting:
                self._left_out += 1
        else:
            self._lines.put(text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: loggers ask for it after every line."""

    def end(self) -> None:
        """Write what is waiting, in at most `END_PATIENCE_S`; what comes later is not written.

        Twice is once.
        """
        self._lines.put(None)
        self._writer.join(END_PATIENCE_S)

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
                self._put_out(line.encode("utf-8", "backslashreplace"))
            if self._left_out and self._lines.empty():
                with self._counting:
                    left_out, self._left_out = self._left_out, 0
                with contextlib.suppress(Exception):  # nobody else writes the lines that come
                    self._tell(left_out)

    def _call_regularly(self, *, at_end: bool) -> None:
        with contextlib.suppress(Exception):  # whatever it is: lines go on being written
            self._regularly(at_end)

    def _put_out(self, data: bytes) -> None:
        """Write past `sys.stderr`, whose lock the interpreter wants at its end."""
        try:
            while data:
                try:
                    data = data[os.write(self._descriptor, data) :]
                except BlockingIOError:  # another process that has it made it so
                    select.select([], [self._descriptor], [])
        except OSError:
            return  # there is nobody who could be told
