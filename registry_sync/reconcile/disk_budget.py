"""Removes artifacts to make room, once the gateway no longer offers them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from gateway.contract import NodeState
from registry_sync.errors import NoDiskRoomError, RolloutRejectedError, StoreError
from registry_sync.planning import admissible_digest, choose_removed, what_stays
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.gateway import TargetUnreachableError

_BUDGET = "REGISTRY_SYNC_DISK_BUDGET_BYTES"
_log = structlog.get_logger("registry_sync.reconcile.disk_budget")


@dataclass
class DiskRoom:
    """Removes artifacts at each sweep, and if a fetch needs their room. Event loop only."""

    context: Context
    _needed_at: dict[str, float] = field(default_factory=dict)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def sweep(self) -> None:
        """Remove artifacts that may go, once both gateway and registry have answered."""
        async with self._one_at_a_time:
            artifacts = self.context.artifacts
            self._needed_at = {d: at for d, at in self._needed_at.items() if d in artifacts}
            node = await self.ask()  # news does not name the residents
            if node is None:
                return
            floor_bytes, store = self.context.limits.room.disk_floor_bytes, self.context.store
            doomed = self._choose(
                self._stays(node),
                disk_bytes=2 * floor_bytes - store.free_bytes(),
                budget_bytes=store.use().over_bytes,
            )
            if doomed:
                await self._remove(doomed)

    async def make(self, folder: Path, total_bytes: int) -> None:
        """Book room in the store for a fetch; remove artifacts if it needs their room.

        If all removable artifacts would not suffice, none is removed.

        Args:
            folder: Where the fetch writes; from `ArtifactStore.incoming`.
            total_bytes: All bytes of the folder.

        Raises:
            NoDiskRoomError: The room cannot be made now.
        """
        async with self._one_at_a_time:
            # Book again after each removal: another fetch may have made or taken the room.
            while lacking := self.context.store.book(folder, total_bytes):
                node = await self.ask()
                if node is None:
                    raise NoDiskRoomError(
                        f"{self._needs(total_bytes)}; nothing can be removed before both the "
                        "gateway and the registry answer"
                    )
                kept = self._stays(node)
                doomed = self._choose(kept, budget_bytes=lacking)
                frees_bytes = sum(self.context.artifacts[one].size_bytes for one in doomed)
                if frees_bytes < lacking or not await self._remove(doomed):
                    raise NoDiskRoomError(self._no_room_reason(kept, total_bytes))

    # --- the choice -------------------------------------------------------------------------------

    async def ask(self) -> NodeState | None:
        """Return the gateway's state now, or None if it or the registry has not answered.

        News does not name the residents. Changes that the gateway acknowledged, and that its answer
        may lack, are added.
        """
        observation = self.context.observation
        seen = observation.node
        if seen is None or observation.unreachable or not self.context.listings.count:
            return None
        try:
            node = await self.context.target.observe(0)
        except (TargetUnreachableError, RolloutRejectedError):
            return None
        needed = (*node.resident, *(one.digest for one in node.active))
        self._needed_at.update(dict.fromkeys(needed, self.context.clock()))
        for one in node.active:
            if left := one.previous_digest:  # it may have been active between two observations
                self._needed_at[left] = max(self._needed_at.get(left, 0.0), one.since)
        seen = observation.node or seen
        return node.model_copy(update={"active": [*node.active, *seen.active]})

    def _stays(self, node: NodeState) -> dict[str, AbstractSet[str]]:
        aspired, view = self.context.listings.aspired, self.context.journal.view
        return what_stays(node, aspired, view, since=self._window_begins_at())

    def _window_begins_at(self) -> float:
        return self.context.clock() - self.context.limits.room.rollback_retention_s

    def _choose(self, kept: Mapping[str, AbstractSet[str]], **pressure: int) -> list[str]:
        view = self.context.journal.view
        return choose_removed(
            self.context.artifacts,
            kept.values(),
            listed={
                admissible_digest(one, view) for one in self.context.listings.aspired.versions()
            },
            needed_at=self._needed_at,
            since=self._window_begins_at(),
            **pressure,
        )

    # --- the removal ------------------------------------------------------------------------------

    async def _remove(self, doomed: list[str]) -> int:
        """Remove artifacts that the gateway no longer offers; return how many were removed.

        So no worker starts on a folder that is being removed. An artifact that is still offered, or
        is needed by now, stays; one that is fetched anew meanwhile stays or is fetched once more.
        """
        artifacts, models = self.context.artifacts, self._models_of(doomed)
        going = {digest: artifacts.pop(digest) for digest in doomed}
        self.context.changes.note(models)
        try:
            await self.context.changes.next_decision()
            node = await self.ask()
            if node is None:
                return 0
            needed = self._stays(node).values()
            for digest in doomed:
                fetched_anew = digest in artifacts
                if fetched_anew or self.context.announcer.offers(digest):
                    continue
                if not any(digest in digests for digests in needed):
                    del going[digest]
                    await self._remove_one(digest)
        finally:
            for digest, artifact in going.items():
                artifacts.setdefault(digest, artifact)
            self.context.changes.note(models)
        return len(doomed) - len(going)

    def _models_of(self, digests: Collection[str]) -> frozenset[str]:
        """Return the models with a version that has, had or is to have these bytes."""
        artifacts, view = self.context.artifacts, self.context.journal.view
        return frozenset(
            {
                *(one.model for digest in digests for one in artifacts[digest].accepted),
                *(one.model for one in view.accepted.values() if one.digest in digests),
                *(hold.model for hold in view.holds.values() if hold.target_digest in digests),
                *(last.model for last in view.last_active.values() if last.digest in digests),
            }
        )

    async def _remove_one(self, digest: str) -> None:
        try:
            await self.context.threads.fetching(self.context.store.remove, digest)
        except StoreError as error:  # its remains count as stored until the next start
            _log.error("artifact.remove_failed", digest=digest, reason=error.reason)
        else:
            _log.info("artifact.removed", digest=digest)
        self.context.artifacts.pop(digest, None)

    # --- messages ---------------------------------------------------------------------------------

    def _needs(self, total_bytes: int) -> str:
        use = self.context.store.use()
        return (
            f"the artifact needs {total_bytes} bytes, and {use.stored_bytes} of the artifact "
            f"store's {use.budget_bytes} are used"
            + (f", {use.coming_bytes} booked by other fetches" if use.coming_bytes else "")
        )

    def _no_room_reason(self, kept: Mapping[str, AbstractSet[str]], total_bytes: int) -> str:
        """Return the bytes that must stay, by reason; an artifact counts under its first one."""
        left, held = dict(self.context.artifacts), dict[str, int]()
        for reason, digests in kept.items():
            found = [left.pop(digest) for digest in sorted(digests) if digest in left]
            if found:
                held[reason] = sum(one.size_bytes for one in found)
        kept_bytes = "; ".join(f"{size} are {reason}" for reason, size in held.items())
        return (
            f"{self._needs(total_bytes)}"
            + (f": {kept_bytes}, and must stay" if kept_bytes else "")
            + f"; raise {_BUDGET}, or reduce the bytes that must stay"
        )
