"""Calls of the ledger from the event loop, with a time limit."""

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
_PAUSE_S = 5.0
_MOST_ABANDONED = 4
_CLOSE_LIMIT_S = 1.0

_P = ParamSpec("_P")
_T = TypeVar("_T")
_log = structlog.get_logger("registry_sync.ledger.bounded_calls")


class BoundedCalls:
    """Calls the ledger, one call at a time, each within a time limit.

    At the limit the ledger's connections are cut and its thread is abandoned; the next call has new
    ones. The write may have happened or not. After a slow failure every call fails at once for a
    while.
    """

    def __init__(self, ledger: Ledger, threads: Threads) -> None:
        self._ledger = ledger
        self._threads = threads
        self._one_at_a_time = asyncio.Lock()
        self._paused_until = 0.0
        self._failure = ""

    async def call(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a method of the ledger in its thread.

        Raises:
            LedgerError: The ledger does not answer, or did not shortly before.
        """
        async with self._one_at_a_time:
            began_at = time.monotonic()
            self._check_usable(began_at)
            try:
                return await self._answer(lambda: work(*args, **kwargs))
            except LedgerError as error:
                ended_at = time.monotonic()
                if ended_at - began_at > _SLOW_S:
                    self._paused_until, self._failure = ended_at + _PAUSE_S, error.reason
                raise

    def _check_usable(self, now: float) -> None:
        if now < self._paused_until:
            raise LedgerError(self._failure)
        if self._threads.abandoned_ledger_threads() >= _MOST_ABANDONED:
            raise LedgerError(
                f"the ledger does not answer: {_MOST_ABANDONED} threads are still waiting for it"
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
                self._abandon()
                raise LedgerError(
                    f"the ledger did not answer within {limit_s:g} s; what was being written to it "
                    "may have been written or not"
                )
            return _result(answer)
        finally:
            answer.cancel()  # a call that has not begun when its caller is cancelled never begins

    async def close(self) -> None:
        """Close the ledger, or abandon it if that takes too long."""
        closing = asyncio.ensure_future(self._threads.ledger(self._ledger.close))
        done, _ = await asyncio.wait({closing}, timeout=_CLOSE_LIMIT_S)
        if done:
            closing.result()
            return
        closing.cancel()
        self._abandon()

    def _abandon(self) -> None:
        self._threads.abandon_ledger_thread(self._ledger.abandon())
        count = self._threads.abandoned_ledger_threads()
        _log.warning("ledger.connection_abandoned", threads=count)


def _result(answer: asyncio.Future[_T]) -> _T:
    """Return an answer.

    Raises:
        LedgerError: The call failed, or no thread, file or memory is available for it.
    """
    try:
        return answer.result()
    except LedgerError:
        raise
    except Exception as error:
        _log.exception("ledger.failed")
        raise LedgerError(f"the ledger cannot be used: {type(error).__name__}") from error
