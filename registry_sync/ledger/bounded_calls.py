"""The ledger asked from the event loop, with a limit: a database that hangs stops nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import structlog

from registry_sync.errors import LedgerError
from registry_sync.ledger.ledger import Ledger
from registry_sync.system import Threads

_ANSWER_LIMIT_S = 8.0
_MIGRATION_LIMIT_S = 60.0
_SLOW_S = 1.0
_REST_S = 5.0
_MOST_LEFT = 4
_CLOSE_LIMIT_S = 1.0

_P = ParamSpec("_P")
_T = TypeVar("_T")
_log = structlog.get_logger("registry_sync.ledger.bounded_calls")


class Patience:
    """Asks the ledger one thing at a time, and waits for no answer longer than a limit.

    Beyond it the ledger's connections are cut, and the thread that stands in one is left behind;
    the next question has new ones. What it was about may have been written all the same. After a
    failure that took long nobody is asked for a while: all that waits is answered at once.
    """

    def __init__(self, ledger: Ledger, threads: Threads) -> None:
        """Store."""
        self._ledger = ledger
        self._threads = threads
        self._turn = asyncio.Lock()
        self._rests_until = 0.0
        self._failure = ""

    async def ask(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a method of the ledger in its thread.

        Raises:
            LedgerError: The ledger does not answer; or it has not lately, and is not asked.
        """
        async with self._turn:
            began_at = time.monotonic()
            self._check_rest(began_at)
            try:
                return await self._answer(lambda: work(*args, **kwargs))
            except LedgerError as error:
                ended_at = time.monotonic()
                if ended_at - began_at > _SLOW_S:
                    self._rests_until, self._failure = ended_at + _REST_S, error.reason
                raise

    def _check_rest(self, now: float) -> None:
        if now < self._rests_until:
            raise LedgerError(self._failure)
        if self._threads.left_by_ledger() >= _MOST_LEFT:
            raise LedgerError(
                f"the ledger does not answer: {_MOST_LEFT} threads are still waiting for it"
            )

    async def _answer(self, work: Callable[[], _T]) -> _T:
        answer = asyncio.ensure_future(self._threads.ledger(work))
        try:
            limit_s = _ANSWER_LIMIT_S
            done, _ = await asyncio.wait({answer}, timeout=limit_s)
            if not done and self._ledger.is_migrating:
                limit_s = _MIGRATION_LIMIT_S
                done, _ = await asyncio.wait({answer}, timeout=limit_s)
            if not done:
                self._leave()
                raise LedgerError(
                    f"the ledger did not answer within {limit_s:g} s; what was being written to it "
                    "may have been written or not"
                )
            return _result(answer)
        finally:
            answer.cancel()  # of a caller that is cancelled: what has not begun never does

    async def close(self) -> None:
        """Close the ledger; one that does not let itself be closed is left."""
        closing = asyncio.ensure_future(self._threads.ledger(self._ledger.close))
        done, _ = await asyncio.wait({closing}, timeout=_CLOSE_LIMIT_S)
        if done:
            closing.result()
            return
        closing.cancel()
        self._leave()

    def _leave(self) -> None:
        """Leave the thread and what it holds to itself."""
        self._threads.leave_ledger(self._ledger.leave())
        _log.warning("ledger.left", threads=self._threads.left_by_ledger())


def _result(answer: asyncio.Future[_T]) -> _T:
    """Return an answer.

    Raises:
        LedgerError: The ledger did not give one, or no thread, file or memory is left to ask it.
    """
    try:
        return answer.result()
    except LedgerError:
        raise
    except Exception as error:
        _log.exception("ledger.failed")
        raise LedgerError(f"the ledger cannot be used: {type(error).__name__}") from error
