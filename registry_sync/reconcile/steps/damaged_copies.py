"""This node's copies that were altered or lost after they were verified: dropped, to come anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
from cachetools import LRUCache

from gateway.contract import DamagedCopy, NodeState
from registry_sync.domain import Aspired, LedgerView, find
from registry_sync.errors import StoreError
from registry_sync.planning import admissible_digest, is_quarantined
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.steps.backoff import delay_s

_LONGEST_PAUSE_S = 3600.0
_MOST_REMEMBERED = 16_384
"""Drops, three of each of 5,000 models: beyond it the one of longest ago has no pause any more."""
_log = structlog.get_logger("registry_sync.reconcile.steps.damaged_copies")


@dataclass(frozen=True, slots=True)
class _Drop:
    """The last of so many drops of a copy, at epoch seconds, and the pause before the next."""

    count: int
    at: float
    pause_s: float


@dataclass
class Copies:
    """Drops copies that no worker can be started on. Event loop only.

    That says nothing of the publisher's bytes: they are fetched again, and judged as ever. A copy
    that is damaged again and again is dropped less and less often. The pause begins when the copy
    came, not when the one before it went: a fetch may take longer than any pause.
    """

    context: Context
    _drops: LRUCache[str, _Drop] = field(default_factory=lambda: LRUCache(_MOST_REMEMBERED))

    async def drop(self, digest: str) -> bool:
        """Drop a copy; one that is not there is fine. False: it came too lately for that.

        Raises:
            StoreError: The disk refused; the copy counts as here still.
        """
        if self._pauses(digest):
            return False
        stored = self.context.artifacts.pop(digest, None)
        if stored is None:
            return True  # two have told of it: the next one may be here already
        before, context = self._drops.get(digest), self.context
        count = before.count + 1 if before else 1
        pause_s = delay_s(count, jitter=context.jitter(), longest_s=_LONGEST_PAUSE_S)
        self._drops[digest] = _Drop(count, context.clock(), pause_s)
        try:
            await self.context.threads.ledger(self.context.store.drop, digest)
        except StoreError:
            self.context.artifacts[digest] = stored
            raise
        self.context.changes.wake()
        return True

    def _pauses(self, digest: str) -> bool:
        """Whether it is too early to drop a copy that came in place of damaged ones, or stayed."""
        stored, dropped = self.context.artifacts.get(digest), self._drops.get(digest)
        if stored is None or dropped is None:
            return False
        since = max(stored.stored_at, dropped.at)  # the disk may have refused to drop it
        # What was in the future was before the clock was set back: nobody waits for it.
        return since <= self.context.clock() < since + dropped.pause_s

    async def heal(
        self, damaged: Sequence[DamagedCopy], aspired: Aspired, ledger: LedgerView
    ) -> None:
        """Drop what a worker has found damaged since it came here, if it can be fetched again."""
        for one in damaged:
            stored = self.context.artifacts.get(one.digest)
            if stored is None or one.at <= stored.stored_at:
                continue
            if not _comes_again(one, aspired, ledger):
                continue
            try:
                if not await self.drop(one.digest):
                    continue
            except StoreError as error:
                _log.warning("copy.kept", digest=one.digest, reason=error.reason)
                continue
            _log.warning(
                "copy.dropped",
                model=one.model,
                version=one.version,
                digest=one.digest,
                reason=one.reason,
            )

    async def heal_store(self, node: NodeState, aspired: Aspired, ledger: LedgerView) -> None:
        """Drop what the store itself has found damaged, but what serves and cannot come again.

        It is here no more, so that it is fetched again where it is needed.
        """
        damaged = self.context.store.damaged()
        if not damaged:
            return
        admissible = {
            admissible_digest(listed, ledger)
            for listed in aspired.versions()
            if not is_quarantined(listed, ledger)
        }
        serving = {one.digest for one in node.active} | set(node.resident)
        for digest, reason in damaged.items():
            if digest in serving and digest not in admissible:
                continue
            self.context.artifacts.pop(digest, None)
            try:
                whole = await self.context.threads.ledger(self.context.store.drop_damaged, digest)
            except StoreError as error:
                _log.warning("copy.kept", digest=digest, reason=error.reason)
                continue
            if whole is not None:  # it could not be read for a moment, or has come again
                self.context.artifacts.setdefault(digest, whole)
                continue
            _log.warning("copy.dropped", digest=digest, reason=reason)
            self.context.changes.wake()

    async def lost(self, digest: str, check: Callable[[], object]) -> str | None:
        """Compare a copy with its manifest before something is built from it, and drop a wrong one.

        What ``check`` raises ends the comparison.

        Returns:
            Why it cannot be built from now, as a sentence, or None if it is whole.

        Raises:
            StoreError: It cannot be compared, or not be dropped.
        """
        damage = await self.context.threads.building(self.context.store.compare, digest, check)
        if damage is None:
            return None
        reason = f"this node's copy is damaged: {damage}"
        again = "it is fetched again" if await self.drop(digest) else "it waits its turn"
        return f"{reason}; {again}"


def _comes_again(one: DamagedCopy, aspired: Aspired, ledger: LedgerView) -> bool:
    """Whether the registry lists a version that ought to have these bytes."""
    listed = find(aspired, one.model, one.version)
    if listed is None or is_quarantined(listed, ledger):
        return False
    return admissible_digest(listed, ledger) == one.digest
