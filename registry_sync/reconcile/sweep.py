"""Removes artifacts and environments that are not needed, and old history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.contract import NodeState
from registry_sync.artifacts import StoredArtifact
from registry_sync.domain import Aspired, LedgerView, find
from registry_sync.planning import LISTINGS_FOR_REMOVAL
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.disk_budget import DiskRoom
from registry_sync.reconcile.steps import EnvironmentStep


@dataclass
class Sweep:
    """The clean-up of one node. Event loop only."""

    context: Context
    environment_step: EnvironmentStep
    disk_room: DiskRoom

    async def run(self) -> None:
        """Prune the history; once gateway and registry have answered, clean up the node."""
        await self.context.journal.write(None, self.context.ledger.prune)
        node = self.context.observation.node
        if node is None or self.context.observation.unreachable or not self.context.listings.count:
            return
        await self._forget_gone(node)
        built = self.environment_step.built
        await self.environment_step.sweep(
            self.context.artifacts.values(),
            older_than_s=self.context.limits.room.rollback_retention_s,
        )
        if built != self.environment_step.built:
            self.context.changes.wake()
        await self.disk_room.sweep()

    async def _forget_gone(self, node: NodeState) -> None:
        """Forget deleted versions, once enough listings have lacked them."""
        if (
            self.context.listings.error is not None
            or self.context.listings.count < LISTINGS_FOR_REMOVAL
        ):
            return
        aspired, view = self.context.listings.aspired, self.context.journal.view
        if gone := choose_gone(self.context.artifacts, node=node, aspired=aspired, ledger=view):
            await self.context.journal.write(None, self.context.ledger.forget_accepted, gone)
        if gone := choose_gone_refusals(aspired=aspired, ledger=view):
            await self.context.journal.write(None, self.context.ledger.forget_refusals, gone)
        alive = {*aspired.models, *(one.model for one in node.active), *(m for m, _ in view.holds)}
        await self.context.journal.write(None, self.context.ledger.forget_history, alive)


def choose_gone(
    artifacts: Mapping[str, StoredArtifact],
    *,
    node: NodeState,
    aspired: Aspired,
    ledger: LedgerView,
) -> frozenset[tuple[str, int]]:
    """Return the accepted versions that are neither listed, stored, active nor held."""
    needed = {
        *artifacts,
        *(one.digest for one in node.active),
        *(one.target_digest for one in ledger.holds.values()),
    }
    return frozenset(
        key
        for key, known in ledger.accepted.items()
        if known.digest not in needed and find(aspired, *key) is None
    )


def choose_gone_refusals(*, aspired: Aspired, ledger: LedgerView) -> frozenset[tuple[str, int]]:
    """Return the quarantined or rejected versions that are neither listed nor held."""
    found = {*ledger.quarantines, *((model, version) for model, version, _ in ledger.rejections)}
    held = {(hold.model, hold.target_version) for hold in ledger.holds.values()}
    return frozenset(key for key in found - held if find(aspired, *key) is None)
