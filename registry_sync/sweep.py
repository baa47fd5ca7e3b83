"""Removes what nothing needs: artifacts, environments, and history beyond its bounds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from gateway.control_contract import NodeState
from registry_sync.artifact_store import StoredArtifact
from registry_sync.aspired import Aspired
from registry_sync.plan import LISTINGS_FOR_REMOVAL
from registry_sync.reconcile import Reconciler
from registry_sync.records import LedgerView
from registry_sync.retention import Kept, removable
from registry_sync.standing import admissible_digest, find

_log = structlog.get_logger("registry_sync.sweep")


@dataclass(frozen=True, slots=True)
class SweepLimits:
    """When bytes may go.

    Attributes:
        rollback_window_s: Seconds for which what an alias left, or what just came, stays.
        disk_floor_bytes: With less than twice this free, versions that no alias means go too, the
            oldest first, until that much is free.
    """

    rollback_window_s: float
    disk_floor_bytes: int


class Sweep:
    """The clean-up of one node. Event loop only."""

    def __init__(
        self,
        reconciler: Reconciler,
        *,
        limits: SweepLimits,
        folder: Path,
        clock: Callable[[], float],
    ) -> None:
        """Store. ``folder`` is on the file system whose room counts."""
        self._reconciler = reconciler
        self._limits = limits
        self._folder = folder
        self._clock = clock

    async def run(self) -> None:
        """Remove what may go, but nothing before gateway and registry have both been heard."""
        spine = self._reconciler
        await spine.journal.write(spine.ledger.prune)
        node = spine.observation.node
        if node is None or spine.observation.unreachable or not spine.listings.count:
            return
        await self._forget_gone(node)
        await spine.preparation.sweep(
            spine.arrival.artifacts.values(), older_than_s=self._limits.rollback_window_s
        )
        free = shutil.disk_usage(self._folder).free
        doomed = choose(
            spine.arrival.artifacts,
            node=node,
            aspired=spine.listings.aspired,
            ledger=spine.journal.view,
            now=self._clock(),
            limits=self._limits,
            lacking_bytes=max(0, 2 * self._limits.disk_floor_bytes - free),
        )
        if doomed:
            await self._remove(doomed)

    async def _forget_gone(self, node: NodeState) -> None:
        """Keep what is known of deleted versions bounded, once the registry surely lacks them."""
        spine = self._reconciler
        if spine.listings.error is not None or spine.listings.count < LISTINGS_FOR_REMOVAL:
            return
        aspired, view = spine.listings.aspired, spine.journal.view
        if retired := choose_retired(node=node, aspired=aspired, ledger=view):
            _log.info("aliases.retired", count=len(retired))
            await spine.journal.write(spine.ledger.retire, retired)
        if gone := choose_gone(spine.arrival.artifacts, node=node, aspired=aspired, ledger=view):
            await spine.journal.write(spine.ledger.forget_pins, gone)
        if gone := choose_gone_verdicts(aspired=aspired, ledger=view):
            await spine.journal.write(spine.ledger.forget_verdicts, gone)
        alive = {*aspired.models, *(one.model for one in node.active), *(m for m, _ in view.holds)}
        await spine.journal.write(spine.ledger.forget_history, alive)

    async def _remove(self, doomed: list[str]) -> None:
        """Remove artifacts, after the gateway was told: it starts no worker on a folder that goes.

        What it could not be told of stays; what is fetched anew meanwhile stays, or is fetched
        once more.
        """
        spine = self._reconciler
        going = {digest: spine.arrival.artifacts.pop(digest) for digest in doomed}
        await spine.next_decision()
        for digest, artifact in going.items():
            if digest in spine.arrival.artifacts:
                continue
            if spine.announcer.offers(digest):
                spine.arrival.artifacts[digest] = artifact
                continue
            await spine.threads.fetching(spine.store.remove, digest)
            spine.arrival.artifacts.pop(digest, None)
            _log.info("artifact.removed", digest=digest)
        spine.wake()


def choose(
    artifacts: dict[str, StoredArtifact],
    *,
    node: NodeState,
    aspired: Aspired,
    ledger: LedgerView,
    now: float,
    limits: SweepLimits,
    lacking_bytes: int,
) -> list[str]:
    """Return the digests that may go now, in the order in which they should.

    What no alias means but the registry still lists may be called by number: of that no more goes
    than the disk lacks, the oldest first.

    Args:
        artifacts: What the artifact store holds, by digest.
        node: What the gateway serves.
        aspired: The listing that counts.
        ledger: What is remembered.
        now: Epoch seconds.
        limits: When bytes may go.
        lacking_bytes: How much less is free than ought to be; 0: there is room.
    """
    window_s = limits.rollback_window_s
    kept = _kept(node, aspired, ledger, recent_since=now - window_s)
    listed = {admissible_digest(one, ledger) for one in aspired.versions()}
    free_to_go = removable(artifacts, kept, now=now, rollback_window_s=window_s)
    due = [one for one in free_to_go if now - artifacts[one].stored_at >= window_s]
    due.sort(key=lambda digest: (digest in listed, artifacts[digest].stored_at))
    doomed: list[str] = []
    for digest in due:
        if digest in listed and lacking_bytes <= 0:
            break
        doomed.append(digest)
        lacking_bytes -= artifacts[digest].size_bytes
    return doomed


def choose_gone(
    artifacts: dict[str, StoredArtifact], *, node: NodeState, aspired: Aspired, ledger: LedgerView
) -> frozenset[tuple[str, int]]:
    """Return the models and versions that were accepted once, and are nowhere any more."""
    needed = {
        *artifacts,
        *(one.digest for one in node.active),
        *(one.target_digest for one in ledger.holds.values()),
    }
    return frozenset(
        key
        for key, pin in ledger.pins.items()
        if pin.digest not in needed and find(aspired, *key) is None
    )


def choose_retired(
    *, node: NodeState, aspired: Aspired, ledger: LedgerView
) -> frozenset[tuple[str, str]]:
    """Return the models and aliases that served once, and that nobody has any more.

    Args:
        node: What the gateway serves.
        aspired: A listing that is surely complete.
        ledger: What is remembered.
    """
    alive = {
        *((one.model, one.alias) for one in node.active),
        *ledger.holds,
        *(
            (model.name, alias)
            for model in aspired.models.values()
            for alias in (*model.aliases, *model.unfollowed)
        ),
    }
    return frozenset(
        key
        for key, last in ledger.last_active.items()
        if last.retired_at is None and key not in alive
    )


def choose_gone_verdicts(*, aspired: Aspired, ledger: LedgerView) -> frozenset[tuple[str, int]]:
    """Return the models and versions with a verdict that neither registry nor operator means."""
    found = {*ledger.quarantines, *((model, version) for model, version, _ in ledger.rejections)}
    held = {(hold.model, hold.target_version) for hold in ledger.holds.values()}
    return frozenset(key for key in found - held if find(aspired, *key) is None)


def _kept(node: NodeState, aspired: Aspired, ledger: LedgerView, *, recent_since: float) -> Kept:
    """What must stay, by reason; what was retired after ``recent_since`` (epoch seconds), too."""
    targets = [
        find(aspired, model.name, version)
        for model in aspired.models.values()
        for version in model.aliases.values()
    ]
    wanted = [find(aspired, wish.model, wish.version) for wish in node.wanted]
    previous = {one.previous_digest: one.since for one in node.active if one.previous_digest}
    return Kept(
        active=frozenset(one.digest for one in node.active),
        standby=frozenset(one.digest for one in node.standbys)
        | frozenset(d for one in wanted if one and (d := admissible_digest(one, ledger))),
        previous=previous,
        last_known_good=frozenset(
            one.digest
            for one in ledger.last_active.values()
            if one.retired_at is None or one.retired_at > recent_since
        ),
        aspired=frozenset(d for one in targets if one and (d := admissible_digest(one, ledger))),
        held=frozenset(one.target_digest for one in ledger.holds.values()),
    )
