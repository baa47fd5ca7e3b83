"""Freeze the node: no alias follows the registry, until it is unfrozen."""

from __future__ import annotations

from registry_sync.domain import FreezeAnswer
from registry_sync.operations.state import frozen
from registry_sync.reconcile import Reconciler


def read_freeze(spine: Reconciler) -> FreezeAnswer:
    """Return whether the node is frozen, and which aliases move all the same."""
    return FreezeAnswer(frozen=frozen(spine), changed=False, moving=spine.moving())


async def freeze(spine: Reconciler) -> FreezeAnswer:
    """Let no alias follow the registry from now on; those that are moving already arrive."""
    changed = frozen(spine) is None
    not_recorded = await spine.freeze()
    update = {"changed": changed, "not_recorded": not_recorded}
    return read_freeze(spine).model_copy(update=update)


async def unfreeze(spine: Reconciler) -> FreezeAnswer:
    """Let the aliases of the node follow the registry again."""
    changed = frozen(spine) is not None
    not_recorded = await spine.unfreeze()
    return FreezeAnswer(frozen=None, changed=changed, moving=[], not_recorded=not_recorded)
