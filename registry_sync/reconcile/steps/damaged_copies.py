"""Drops copies that were altered or lost on this node, so that they are fetched again."""

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
"""Drops, three of each of 5,000 models; a copy whose drop is forgotten has no pause."""
_log = structlog.get_logger("registry_sync.reconcile.steps.damaged_copies")


@dataclass(frozen=True, slots=True)
class _Drop:
    """How often a copy was dropped, when last (epoch seconds), and the pause after it."""

    count: int
    at: float
    pause_s: float


@dataclass
class Copies:
    """Drops damaged copies, on which no worker can start. Event loop only.

    The publisher's bytes may be right: they are fetched again, and verified as always. If copies of
    a version are damaged again and again, the pauses between drops grow. A pause begins when the
    new copy is stored, not when the old one is dropped: a fetch may take longer than any pause.
    """

    context: Context
    _drops: LRUCache[str, _Drop] = field(default_factory=lambda: LRUCache(_MOST_REMEMBERED))

    async def drop(self, digest: str) -> bool:
        """Drop a copy, if it is stored; return False if its pause is not over.

        Raises:
            StoreError: The disk refused; the copy still counts as stored.
        """
        if self._pauses(digest):
            return False
        stored = self.context.artifacts.pop(digest, None)
        if stored is None:
            return True  # an earlier report of the damage dropped it
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
        """Whether it is too early to drop a copy that replaced a damaged one."""
        stored, dropped = self.context.artifacts.get(digest), self._drops.get(digest)
        if stored is None or dropped is None:
            return False
        since = max(stored.stored_at, dropped.at)  # the disk may have refused to drop the old copy
        # A time in the future dates from before the clock was set back, and does not count.
        return since <= self.context.clock() < since + dropped.pause_s

    async def heal(
        self, damaged: Sequence[DamagedCopy], aspired: Aspired, ledger: LedgerView
    ) -> None:
        """Drop copies that workers found damaged, if they can be fetched again."""
        for one in damaged:
            stored = self.context.artifacts.get(one.digest)
            if stored is None or one.at <= stored.stored_at:
                continue
            if not _can_be_fetched(one, aspired, ledger):
                continue
            try:
                if not await self.drop(one.digest):
                    continue
            except StoreError as error:
                _log.warning("damaged_copy.kept", digest=one.digest, reason=error.reason)
                continue
            _log.warning(
                "damaged_copy.dropped",
                model=one.model,
                version=one.version,
                digest=one.digest,
                reason=one.reason,
            )

    async def heal_store(self, node: NodeState, aspired: Aspired, ledger: LedgerView) -> None:
        """Drop copies that the store found damaged, unless they serve and cannot be replaced.

        A dropped copy counts as absent, so it is fetched again if it is needed.
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
                _log.warning("damaged_copy.kept", digest=digest, reason=error.reason)
                continue
            if whole is not None:  # unreadable for a moment only, or fetched again
                self.context.artifacts.setdefault(digest, whole)
                continue
            _log.warning("damaged_copy.dropped", digest=digest, reason=reason)
            self.context.changes.wake()

    async def lost(self, digest: str, check: Callable[[], object]) -> str | None:
        """Compare a copy with its manifest, and drop it if it is damaged.

        ``check`` may raise to end the comparison.

        Returns:
            The damage and what follows, as a sentence, or None if the copy is whole.

        Raises:
            StoreError: The copy cannot be compared, or cannot be dropped.
        """
        damage = await self.context.threads.building(self.context.store.compare, digest, check)
        if damage is None:
            return None
        reason = f"this node's copy is damaged: {damage}"
        again = "it is fetched again" if await self.drop(digest) else "it is fetched again later"
        return f"{reason}; {again}"


def _can_be_fetched(one: DamagedCopy, aspired: Aspired, ledger: LedgerView) -> bool:
    """Whether the registry lists a version that must have these bytes."""
    listed = find(aspired, one.model, one.version)
    if listed is None or is_quarantined(listed, ledger):
        return False
    return admissible_digest(listed, ledger) == one.digest
