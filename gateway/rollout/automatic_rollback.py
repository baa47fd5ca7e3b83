"""Rollback by rule: what the registry promoted, and live traffic shows to be worse, is taken back.

This gateway decides and does it alone, whether a control plane is there or not. Every alias that
was moved from one version to another is on trial for a while: what its new version does is held
against what the old one did. Which aliases those are follows from the route table, so a trial goes
on after a restart, with what has been counted since.

Only what the registry asked for is on trial. Where an operator has put an alias, it stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import structlog

from gateway.contract import ActiveAlias, ReplicaKey
from gateway.errors import RolloutRefusedError
from gateway.observability import LiveRecord, Tally
from gateway.rollout.live_comparison import Margins, verdict
from gateway.rollout.rollout import Rollout
from gateway.routing import Node

_LOOK_EVERY_S = 1.0
_TRY_AGAIN_S = 10.0
_LONGEST_PAUSE_S = 300.0
_LAST_TRY_LEFT_S = 10.0
"""How long before the end of a trial its last try begins, at the latest."""
_TRIED_AND_FAILED = frozenset({"not_staged", "table_write_failed"})
"""What is refused only once the version before was staged, at the cost of the other perhaps."""
_BY_REGISTRY = frozenset({"poll", "webhook", "sync"})
_BY_RULE = "rule"
_log = structlog.get_logger("gateway.rollout.automatic_rollback")

_Key = tuple[str, str]
"""Model and alias."""


@dataclass(slots=True)
class _Trial:
    """An alias that was moved a while ago.

    Attributes:
        active: What it means now, and what before.
        ends_at: Monotonic seconds at which it has proved itself.
        old: What the version before had come to when the trial began.
        before: What the new version had come to by then.
        earlier: The trial of the version before, if that was not over.
        try_at: Monotonic seconds before which going back is not tried again.
        pause_s: Seconds from the next try that brings nothing up to the one after it. Each takes
            what serves away for a while, where the version before cannot come up beside it.
    """

    active: ActiveAlias
    ends_at: float
    old: Tally
    before: Tally
    earlier: ActiveAlias | None
    try_at: float = 0.0
    pause_s: float = _TRY_AGAIN_S

    def refused(self, now: float) -> None:
        """Look again soon at what stands in the way: that costs nothing."""
        self.try_at = now + _TRY_AGAIN_S

    def failed(self, now: float) -> None:
        """Let the next try wait, each time twice as long; but for the last one before the end."""
        last_at, self.try_at = self.ends_at - _LAST_TRY_LEFT_S, now + self.pause_s
        if now < last_at:
            self.try_at = min(self.try_at, last_at)
        self.pause_s = min(2 * self.pause_s, _LONGEST_PAUSE_S)


class RollbackRule:
    """Takes back what does worse than what it replaced. Event loop only; `run` does the work."""

    def __init__(
        self,
        *,
        node: Node,
        rollout: Rollout,
        live_record: LiveRecord,
        margins: Margins,
        window_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Store. ``window_s``: how long a trial lasts; ``clock`` gives monotonic seconds."""
        self._node = node
        self._rollout = rollout
        self._live_record = live_record
        self._margins = margins
        self._window_s = window_s
        self._clock = clock
        self._trials: dict[_Key, _Trial] = {}
        self._going: dict[_Key, asyncio.Task[None]] = {}
        self._turned_at = clock()
        self._seen: Mapping[_Key, ActiveAlias] | None = None
        self._seen_at = 0

    async def run(self) -> None:
        """Look at every trial about once a second, until cancelled. A window of 0 s: return."""
        if self._window_s <= 0:
            return
        try:
            while True:
                try:
                    self.look()
                    await self._turn_record()
                except Exception:  # noqa: BLE001  # one odd trial must not end the watch over all
                    _log.exception("rollback.failed")  # and the next look comes
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY_S):
                        while True:  # the first requests after a swap count, too
                            await self._node.next_change()
                            self._follow_table()
        finally:
            for task in list(self._going.values()):
                task.cancel()
            await asyncio.gather(*self._going.values(), return_exceptions=True)

    def look(self) -> None:
        """Begin and end trials as the table says, and go back where one has failed."""
        self._follow_table()
        now = self._clock()
        for key, trial in list(self._trials.items()):
            if now >= trial.ends_at:
                self._end(key)
        for key, trial in self._trials.items():
            if now < trial.try_at or key in self._going:
                continue
            reason = self._judged(trial)
            if reason is not None:
                task = asyncio.get_running_loop().create_task(self._go_back(key, trial, reason))
                self._going[key] = task
                task.add_done_callback(partial(self._went, key))

    async def _turn_record(self) -> None:
        """Begin another period of the live record, once in a window."""
        now = self._clock()
        if now - self._turned_at >= self._window_s:
            self._turned_at = now
            await self._live_record.turn()

    def _went(self, key: _Key, _: asyncio.Task[None]) -> None:
        del self._going[key]

    # --- trials -----------------------------------------------------------------------------------

    def _follow_table(self) -> None:
        active = self._node.table.active
        if active is self._seen:
            return  # no alias has moved since
        moved = None if self._seen is None else self._node.moved_after(self._seen_at)
        seen_at = self._node.seq
        keys = {*active, *self._trials} if moved is None else moved
        for key in keys & self._trials.keys() - active.keys():
            self._end(key)
        for key in keys & active.keys():
            entry = active[key]
            before = self._trials.get(key)
            if before is not None and _is_same(before.active, entry):
                before.active = entry  # what it knows of its bytes may have come since
                continue
            ends_at = self._ends_at(entry)
            if before is not None:
                self._end(key)
            if ends_at is not None:
                self._trials[key] = self._begin(entry, ends_at, before)
        # In the end: what could not be followed is followed again.
        self._seen, self._seen_at = active, seen_at

    def _begin(self, entry: ActiveAlias, ends_at: float, before: _Trial | None) -> _Trial:
        previous = (entry.previous_version, entry.previous_digest)
        replaced = before.active if before else None
        goes_on = replaced is not None and (replaced.version, replaced.digest) == previous
        old = ReplicaKey(entry.model, entry.previous_version or 0, entry.previous_digest or "")
        return _Trial(
            active=entry,
            ends_at=ends_at,
            old=self._live_record.lately(old),
            before=self._live_record.begin(_key_of(entry)),
            earlier=replaced if goes_on else None,
        )

    def _end(self, key: _Key) -> None:
        self._live_record.end(_key_of(self._trials.pop(key).active))
        self._node.warnings.pop(key, None)

    def _ends_at(self, entry: ActiveAlias) -> float | None:
        """Return until when an alias is on trial, in monotonic seconds; None: it is not.

        What began in the future began before the clock was set back: nobody knows when.
        """
        left_s = entry.since + self._window_s - self._node.clock()
        in_window = 0 < left_s <= self._window_s + _LOOK_EVERY_S
        return self._clock() + left_s if in_window and self._may_go_back(entry) else None

    def _may_go_back(self, entry: ActiveAlias) -> bool:
        """Whether the alias was moved by the registry's wish, from other bytes.

        One that went back by rule is on trial if the version that it went back to was, too.
        """
        if entry.previous_digest in (None, entry.digest):
            return False
        if entry.asked_by == _BY_RULE:
            left = (entry.model, entry.alias, entry.previous_digest or "")
            return self._node.table.hold_on(*left) is None
        return entry.asked_by in _BY_REGISTRY

    # --- judging ----------------------------------------------------------------------------------

    def _judged(self, trial: _Trial) -> str | None:
        """Say why a trial has failed; None: it has not."""
        key = _key_of(trial.active)
        if self._live_record.requests(key) - trial.before.requests < self._margins.min_requests:
            return None
        new = self._live_record.total(key).since(trial.before)
        worse = verdict(trial.old, new, self._margins)
        return worse and f"version {key.version} did worse on live traffic: {worse}"

    async def _go_back(self, key: _Key, trial: _Trial, reason: str) -> None:
        try:
            await self._rollout.go_back(trial.active, reason, before=trial.earlier)
        except RolloutRefusedError as error:
            if error.code in _TRIED_AND_FAILED:
                trial.failed(self._clock())
            else:
                trial.refused(self._clock())
            self._stays(key, trial, reason, error.message)
        except Exception:  # noqa: BLE001  # one odd alias must not end the watch over the others
            _log.exception("rollback.failed", model=key[0], alias=key[1])
            trial.failed(self._clock())

    def _stays(self, key: _Key, trial: _Trial, reason: str, why_not: str) -> None:
        """Say that an alias stays where it is although it does worse; it is tried again."""
        if self._node.table.active.get(key) != trial.active:
            return
        if self._node.warnings.get(key) is None:
            _log.warning(
                "rollback.refused", model=key[0], alias=key[1], reason=reason, why_not=why_not
            )
        self._node.warnings[key] = f"{reason}; it cannot go back: {why_not}"


def _is_same(one: ActiveAlias, other: ActiveAlias) -> bool:
    """Whether both tell of the same move of an alias."""
    return (one.version, one.digest, one.since) == (other.version, other.digest, other.since)


def _key_of(entry: ActiveAlias) -> ReplicaKey:
    return ReplicaKey(entry.model, entry.version, entry.digest)
