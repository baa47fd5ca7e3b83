"""Ordered read-ahead on daemon threads, with a heartbeat for the reader.

The reader checks its time limit and the stop flag at least every `BEAT_S`, even if the storage is
silent: socket time-outs alone would let one read last for minutes. The threads are daemons, so a
read that hangs does not delay the end of the process.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from typing import TypeVar

BEAT_S = 0.25
"""The longest time between two checks, in seconds."""

_Part = TypeVar("_Part")
_Loaded = TypeVar("_Loaded")


def parts_in_order(
    parts: Iterable[_Part],
    load: Callable[[_Part, threading.Event], _Loaded],
    *,
    at_once: int,
) -> Generator[tuple[_Part, _Loaded | None]]:
    """Yield every part with its content, in order.

    After each `BEAT_S` without content the next part is yielded with None. An error of ``load`` is
    raised when its part is next.

    Args:
        parts: The parts; taken as needed.
        load: Loads a part on a thread of its own. The event is set when the reader ends early:
            ``load`` should then return soon, and its result is ignored.
        at_once: The most parts that are loaded or kept in memory at a time.
    """
    left = threading.Event()
    coming: deque[tuple[_Part, Future[_Loaded]]] = deque()
    pending = iter(parts)
    try:
        while True:
            for part in pending:
                coming.append((part, _start(load, part, left)))
                if len(coming) >= at_once:
                    break
            if not coming:
                return
            part, future = coming[0]
            while not _wait(future):
                yield part, None
            coming.popleft()
            yield part, future.result()
    finally:
        left.set()


def wait_for(call: Callable[[threading.Event], _Loaded], on_beat: Callable[[], None]) -> _Loaded:
    """Return the result of a call, which runs on a thread of its own. Its error is raised here.

    ``on_beat`` is called every `BEAT_S`. An error that it raises abandons the call, which ends by
    its own time-outs; its event is then set, as in `parts_in_order`.
    """
    left = threading.Event()
    future = _start(lambda _, event: call(event), None, left)
    try:
        while not _wait(future):
            on_beat()
        return future.result()
    finally:
        left.set()


def _start(
    load: Callable[[_Part, threading.Event], _Loaded], part: _Part, left: threading.Event
) -> Future[_Loaded]:
    """Start to load a part, on a daemon thread."""
    future: Future[_Loaded] = Future()

    def run() -> None:
        try:
            future.set_result(load(part, left))
        except BaseException as error:  # noqa: BLE001 - raised where the part is waited for
            future.set_exception(error)

    threading.Thread(target=run, name="read-ahead", daemon=True).start()
    return future


def _wait(future: Future[_Loaded]) -> bool:
    """Wait for one beat; return True if the future is done."""
    try:
        future.exception(timeout=BEAT_S)
    except TimeoutError:
        return future.done()
    return True
