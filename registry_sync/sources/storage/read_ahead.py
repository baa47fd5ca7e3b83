"""Bring parts in order, several at a time, and never be silent for long; or wait for one call."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from contextlib import closing
from queue import SimpleQueue
from typing import Generic, TypeVar

BEAT_S = 0.25
"""The longest silence, in seconds."""

_Part = TypeVar("_Part")
_Loaded = TypeVar("_Loaded")


def parts_in_order(
    parts: Iterable[_Part],
    load: Callable[[_Part, threading.Event], _Loaded],
    *,
    at_once: int,
) -> Generator[tuple[_Part, _Loaded | None]]:
    """Yield every part with what was loaded of it, in order.

    Whoever waits hears of it: a part comes with None whenever nothing came for `BEAT_S`, so that
    no storage, however slow, keeps the reader from looking at its clock. What ``load`` raises is
    raised here, in its part's turn.

    Args:
        parts: What to bring; taken as needed.
        load: Brings one, on a thread of this reader's; ends soon after the event is set, which says
            that nobody waits any more. The threads are daemons: one that stands in a dead
            connection until its time-out must not keep the process from ending.
        at_once: Parts that are on their way or wait for their turn: the bound of the memory, and of
            the threads.
    """
    left = threading.Event()
    coming: deque[tuple[_Part, Future[_Loaded]]] = deque()
    work = _Work(load, left, at_once)
    pending = iter(parts)
    try:
        while True:
            for part in pending:
                coming.append((part, work.begin(part)))
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
        work.end()


def wait_for(call: Callable[[threading.Event], _Loaded], on_beat: Callable[[], None]) -> _Loaded:
    """Return what a call answers, and look at the clock meanwhile. What it raises is raised here.

    Args:
        call: Made on a thread of its own, as ``load`` of `parts_in_order`: once the event is set,
            it need not go on, and what it returns counts for nothing.
        on_beat: Called every `BEAT_S` while the call is waited for. Raising from it leaves the
            call, which ends by its own time-outs.
    """
    answers = parts_in_order([call], lambda one, left: (one(left),), at_once=1)
    with closing(answers):
        for _, answer in answers:
            if answer is not None:
                return answer[0]
            on_beat()
    raise AssertionError("a part comes with an answer, or its error is raised")


def _wait(future: Future[_Loaded]) -> bool:
    """Wait for one beat; whether it is done, well or not."""
    try:
        future.exception(timeout=BEAT_S)
    except TimeoutError:
        return future.done()
    return True


class _Work(Generic[_Part, _Loaded]):
    """The threads of one reader: each takes the next part when it has brought one."""

    def __init__(
        self, load: Callable[[_Part, threading.Event], _Loaded], left: threading.Event, most: int
    ) -> None:
        """Begin with none."""
        self._load = load
        self._left = left
        self._most = most
        self._threads = 0
        self._waiting: SimpleQueue[tuple[_Part, Future[_Loaded]] | None] = SimpleQueue()

    def begin(self, part: _Part) -> Future[_Loaded]:
        """Have a part brought, by one more thread as long as there may be more."""
        future: Future[_Loaded] = Future()
        self._waiting.put((part, future))
        if self._threads < self._most:
            self._threads += 1
            threading.Thread(target=self._run, name="read-ahead", daemon=True).start()
        return future

    def end(self) -> None:
        """Let every thread end once it has brought what it is at."""
        for _ in range(self._threads):
            self._waiting.put(None)

    def _run(self) -> None:
        while (taken := self._waiting.get()) is not None:
            part, future = taken
            if self._left.is_set():
                continue
            try:
                future.set_result(self._load(part, self._left))
            except BaseException as error:  # noqa: BLE001 - raised where the part is waited for
                future.set_exception(error)
