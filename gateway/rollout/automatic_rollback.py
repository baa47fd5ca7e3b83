"""Automatic rollback: undoes a promotion whose version does worse on live traffic.

For the observation window after a promotion by the registry, the gateway compares the new version
with the version before it. It needs no control plane for that. The observed promotions follow from
the route table, so they outlive a restart; the requests before the restart do not.

An alias that an operator moved is not observed, nor is one that a rollback moved.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from gateway.contract import ActiveAlias, AliasRef
from gateway.errors import RolloutRefusedError
from gateway.observability import LiveTallies, Tally
from gateway.rollout.live_comparison import more_faults, slower
from gateway.rollout.rollout import Rollout
from gateway.routing import Node

_LOOK_EVERY_S = 1.0
_RETRY_S = 10.0
_CONFIRM_S = 10.0
"""A stall of the machine makes the answers of a moment slow; only later ones confirm it."""
_BY_REGISTRY = frozenset({"poll", "webhook", "sync"})
_log = structlog.get_logger("gateway.rollout.automatic_rollback")


@dataclass(slots=True)
class _Promotion:
    """An observed promotion.

    Attributes:
        active: The version that the alias points at, and the version before it.
        ends_at: The end of the observation window, in monotonic seconds.
        old: The recent requests of the version before, when the observation began.
        start: The requests of the new version, when the observation began.
        suspected: The requests of the new version when its answers were found slower, and that time
            in monotonic seconds, or None while its answers are as fast.
        try_at: Monotonic seconds before which no rollback is tried.
    """

    active: ActiveAlias
    ends_at: float
    old: Tally
    start: Tally
    suspected: tuple[Tally, float] | None = None
    try_at: float = 0.0


class AutomaticRollback:
    """Rolls back promotions that live traffic shows to be worse. Event loop only."""

    def __init__(
        self,
        *,
        node: Node,
        rollout: Rollout,
        live_tallies: LiveTallies,
        min_requests: int,
        window_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._node = node
        self._rollout = rollout
        self._live_tallies = live_tallies
        self._min_requests = min_requests
        self._window_s = window_s
        self._clock = clock
        self._observed: dict[AliasRef, _Promotion] = {}
        self._rollbacks: dict[AliasRef, asyncio.Task[None]] = {}
        self._period_began = clock()
        self._seen_at: int | None = None

    async def run(self) -> None:
        """Look every second, until cancelled. Return at once if the window is 0 s."""
        if self._window_s <= 0:
            return
        try:
            while True:
                try:
                    self.look()
                except Exception:  # noqa: BLE001  # a fault in one promotion must not end the watch
                    _log.exception("rollback.failed")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY_S):
                        while True:  # the first requests after a promotion count too
                            await self._node.next_change()
                            self._follow_table()
        finally:
            for task in list(self._rollbacks.values()):
                task.cancel()
            await asyncio.gather(*self._rollbacks.values(), return_exceptions=True)

    def look(self) -> None:
        """Begin and end observations as the table requires; roll back the failed promotions."""
        self._follow_table()
        now = self._clock()
        if now - self._period_began >= self._window_s:
            self._period_began = now
            self._live_tallies.begin_period()
        for alias, promotion in list(self._observed.items()):
            if now >= promotion.ends_at:
                self._end(alias)
            elif now >= promotion.try_at and alias not in self._rollbacks:
                self._roll_back_if_worse(alias, promotion)

    # --- observed promotions ----------------------------------------------------------------------

    def _follow_table(self) -> None:
        active = self._node.table.active
        moved = None if self._seen_at is None else self._node.moves.after(self._seen_at)
        for alias in {*active, *self._observed} if moved is None else moved:
            self._follow_alias(alias, active.get(alias))
        # Last: if an alias raised, the next look follows the same moves again.
        self._seen_at = self._node.seq

    def _follow_alias(self, alias: AliasRef, entry: ActiveAlias | None) -> None:
        promotion = self._observed.get(alias)
        if promotion is not None and entry is not None and _is_same(promotion.active, entry):
            promotion.active = entry  # it may have got its policy since
            return
        if promotion is not None:
            self._end(alias)
        ends_at = None if entry is None else self._ends_at(entry)
        if entry is not None and ends_at is not None:
            self._begin(alias, entry, ends_at)

    def _ends_at(self, entry: ActiveAlias) -> float | None:
        """Return the end of an alias's observation, in monotonic seconds, or None without one.

        An alias that moved in the future moved before the clock was set back, at an unknown time.
        """
        if entry.asked_by not in _BY_REGISTRY or entry.previous_digest in (None, entry.digest):
            return None
        left_s = entry.since + self._window_s - self._node.clock()
        return self._clock() + left_s if 0 < left_s <= self._window_s + _LOOK_EVERY_S else None

    def _begin(self, alias: AliasRef, entry: ActiveAlias, ends_at: float) -> None:
        tallies, before = self._live_tallies, entry.previous_ref
        old = Tally() if before is None else tallies.recent(before)
        self._observed[alias] = _Promotion(entry, ends_at, old, tallies.total(entry.ref))

    def _end(self, alias: AliasRef) -> None:
        del self._observed[alias]
        self._node.warnings.pop(alias, None)

    # --- rollback ---------------------------------------------------------------------------------

    def _roll_back_if_worse(self, alias: AliasRef, promotion: _Promotion) -> None:
        reason = self._why_worse(promotion)
        if reason is not None:
            rollback = self._roll_back(alias, promotion, reason)
            self._rollbacks[alias] = asyncio.get_running_loop().create_task(rollback)

    def _why_worse(self, promotion: _Promotion) -> str | None:
        key = promotion.active.ref
        requests = self._live_tallies.requests(key) - promotion.start.requests
        if requests < self._min_requests:
            return None
        total = self._live_tallies.total(key)
        new = total.since(promotion.start)
        faults = more_faults(promotion.old, new, self._min_requests)
        why = faults or self._why_slower(promotion, total)
        return why and f"version {key.version} did worse on live traffic: {why}"

    def _why_slower(self, promotion: _Promotion, total: Tally) -> str | None:
        """Return why the new version is slower, once later answers have confirmed it, or None."""
        now, old = self._clock(), promotion.old
        if promotion.suspected is None:
            if slower(old, total.since(promotion.start), self._min_requests):
                promotion.suspected = total, now
            return None
        before, since = promotion.suspected
        later = total.since(before)
        if now - since < _CONFIRM_S or later.answered < self._min_requests:
            return None
        promotion.suspected = None
        return slower(old, later, self._min_requests)

    async def _roll_back(self, alias: AliasRef, promotion: _Promotion, reason: str) -> None:
        try:
            await self._rollout.roll_back(promotion.active, reason)
        except RolloutRefusedError as error:
            self._warn(alias, promotion, reason, error.message)
        except Exception:  # noqa: BLE001  # a fault in one promotion must not end the watch
            _log.exception("rollback.failed", **alias._asdict())
        finally:
            promotion.try_at = self._clock() + _RETRY_S
            del self._rollbacks[alias]

    def _warn(self, alias: AliasRef, promotion: _Promotion, reason: str, why_not: str) -> None:
        """Report that an alias stays although its version does worse. It is tried again."""
        if self._node.table.active.get(alias) != promotion.active:
            return
        if alias not in self._node.warnings:
            _log.warning("rollback.refused", **alias._asdict(), reason=reason, why_not=why_not)
        self._node.warnings[alias] = f"{reason}; the rollback failed: {why_not}"


def _is_same(one: ActiveAlias, other: ActiveAlias) -> bool:
    """Return whether two entries are of the same move of an alias."""
    return (one.version, one.digest, one.since) == (other.version, other.digest, other.since)
