"""This node's copies that were altered or lost after they were verified: dropped, to come anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from gateway.contract import DamagedCopy, NodeState
from registry_sync.domain import Aspired, LedgerView, find
from registry_sync.errors import StoreError
from registry_sync.planning import admissible_digest, is_quarantined
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.steps.backoff import Backoff

_LONGEST_PAUSE_S = 3600.0
_MOST_REMEMBERED = 16_384
"""Drops, three of each of 5,000 models: beyond it the one of longest ago has no pause any more."""
_log = structlog.get_logger("registry_sync.reconcile.steps.damaged_copies")


class Copies:
    """Drops copies that no worker can be started on. Event loop only.

    That says nothing of the publisher's bytes: they are fetched again, and judged as ever. A copy
    that is damaged again and again is dropped less and less often. The pause begins when the copy
    came, not when the one before it went: a fetch may take longer than any pause.
    """

    def __init__(
        self,
        context: Context,
    ) -> None:
        self._artifacts = context.artifacts
        self._store = context.store
        self._threads = context.threads
        self._changes = context.changes
        self._clock = context.clock
        self._backoff = Backoff(
            clock=context.clock, jitter=context.jitter, longest_s=_LONGEST_PAUSE_S
        )
        self._dropped: dict[str, None] = {}  # the digest that was dropped last comes last

    async def drop(self, digest: str, reason: str) -> bool:
        """Drop a copy; one that is not there is fine. False: it came too lately for that.

        Raises:
            StoreError: The disk refused; the copy counts as here still.
        """
        if self._pauses(digest):
            return False
        stored = self._artifacts.pop(digest, None)
        if stored is None:
            return True  # two have told of it: the next one may be here already
        self._remember(digest, reason)
        try:
            await self._threads.ledger(self._store.drop, digest)
        except StoreError:
            self._artifacts[digest] = stored
            raise
        self._changes.wake()
        return True

    def _pauses(self, digest: str) -> bool:
        """Whether it is too early to drop a copy that came in place of damaged ones, or stayed."""
        stored = self._artifacts.get(digest)
        failure = self._backoff.get(("copy", digest))
        if stored is None or failure is None:
            return False
        pause_s = failure.retry_at - failure.failed_at
        since = max(stored.stored_at, failure.failed_at)  # the disk may have refused to drop it
        # What was in the future was before the clock was set back: nobody waits for it.
        return since <= self._clock() < since + pause_s

    def _remember(self, digest: str, reason: str) -> None:
        """Count a drop. Only their number bounds what is remembered: an old copy has no pause."""
        self._backoff.failed(("copy", digest), reason)
        self._dropped.pop(digest, None)
        self._dropped[digest] = None
        if len(self._dropped) > _MOST_REMEMBERED:
            oldest = next(iter(self._dropped))
            del self._dropped[oldest]
            self._backoff.succeeded(("copy", oldest))

    async def heal(
        self, damaged: Sequence[DamagedCopy], aspired: Aspired, ledger: LedgerView
    ) -> None:
        """Drop what a worker has found damaged since it came here, if it can be fetched again."""
        for one in damaged:
            stored = self._artifacts.get(one.digest)
            if stored is None or one.at <= stored.stored_at:
                continue
            if not _comes_again(one, aspired, ledger):
                continue
            try:
                if not await self.drop(one.digest, one.reason):
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
        damaged = self._store.damaged()
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
            self._artifacts.pop(digest, None)
            try:
                whole = await self._threads.ledger(self._store.drop_damaged, digest)
            except StoreError as error:
                _log.warning("copy.kept", digest=digest, reason=error.reason)
                continue
            if whole is not None:  # it could not be read for a moment, or has come again
                self._artifacts.setdefault(digest, whole)
                continue
            _log.warning("copy.dropped", digest=digest, reason=reason)
            self._changes.wake()

    async def lost(self, digest: str, check: Callable[[], object]) -> str | None:
        """Compare a copy with its manifest before something is built from it, and drop a wrong one.

        Args:
            digest: Which one.
            check: What it raises ends the comparison.

        Returns:
            Why it cannot be built from now, as a sentence; None: it is whole.

        Raises:
            StoreError: It cannot be compared, or not be dropped.
        """
        damage = await self._threads.building(self._store.compare, digest, check)
        if damage is None:
            return None
        reason = f"this node's copy is damaged: {damage}"
        again = "it is fetched again" if await self.drop(digest, reason) else "it waits its turn"
        return f"{reason}; {again}"


def _comes_again(one: DamagedCopy, aspired: Aspired, ledger: LedgerView) -> bool:
    """Whether the registry lists a version that ought to have these bytes."""
    listed = find(aspired, one.model, one.version)
    if listed is None or is_quarantined(listed, ledger):
        return False
    return admissible_digest(listed, ledger) == one.digest
