"""Removes what nothing needs: artifacts, environments, and history beyond its bounds."""

from __future__ import annotations

from gateway.contract import NodeState
from registry_sync.artifacts import StoredArtifact
from registry_sync.domain import Aspired, LedgerView, find
from registry_sync.planning import LISTINGS_FOR_REMOVAL
from registry_sync.reconcile.reconciler import Reconciler


class Sweep:
    """The clean-up of one node. Event loop only."""

    def __init__(self, reconciler: Reconciler) -> None:
        """Store."""
        self._reconciler = reconciler

    async def run(self) -> None:
        """Remove what may go, but nothing before gateway and registry have both been heard."""
        spine = self._reconciler
        await spine.journal.write(None, spine.ledger.prune)
        node = spine.observation.node
        if node is None or spine.observation.unreachable or not spine.listings.count:
            return
        await self._forget_gone(node)
        spine.preparation.forget_all_but(spine.arrival.artifacts.keys())
        built = spine.preparation.built
        await spine.preparation.sweep(
            spine.arrival.artifacts.values(),
            older_than_s=spine.disk_room.limits.rollback_window_s,
        )
        if built != spine.preparation.built:
            spine.wake()
        await spine.disk_room.sweep()

    async def _forget_gone(self, node: NodeState) -> None:
        """Keep what is known of deleted versions bounded, once the registry surely lacks them."""
        spine = self._reconciler
        if spine.listings.error is not None or spine.listings.count < LISTINGS_FOR_REMOVAL:
            return
        aspired, view = spine.listings.aspired, spine.journal.view
        if gone := choose_gone(spine.arrival.artifacts, node=node, aspired=aspired, ledger=view):
            await spine.journal.write(None, spine.ledger.forget_pins, gone)
        if gone := choose_gone_verdicts(aspired=aspired, ledger=view):
            await spine.journal.write(None, spine.ledger.forget_verdicts, gone)
        alive = {*aspired.models, *(one.model for one in node.active), *(m for m, _ in view.holds)}
        await spine.journal.write(None, spine.ledger.forget_history, alive)


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


def choose_gone_verdicts(*, aspired: Aspired, ledger: LedgerView) -> frozenset[tuple[str, int]]:
    """Return the models and versions with a verdict that neither registry nor operator means."""
    found = {*ledger.quarantines, *((model, version) for model, version, _ in ledger.rejections)}
    held = {(hold.model, hold.target_version) for hold in ledger.holds.values()}
    return frozenset(key for key in found - held if find(aspired, *key) is None)
