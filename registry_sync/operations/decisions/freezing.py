"""Freeze the node: no alias follows the registry, until it is unfrozen."""

from __future__ import annotations

from registry_sync.domain import FreezeAnswer
from registry_sync.operations.state import frozen
from registry_sync.reconcile import NodeView, Operators


def read_freeze(view: NodeView) -> FreezeAnswer:
    """Return whether the node is frozen, and which aliases move all the same."""
    return FreezeAnswer(frozen=frozen(view), changed=False, moving=view.moving())


async def freeze(view: NodeView, operators: Operators) -> FreezeAnswer:
    """Let no alias follow the registry from now on; those that are moving already arrive."""
    changed = frozen(view) is None
    not_recorded = await operators.freeze()
    update = {"changed": changed, "not_recorded": not_recorded}
    return read_freeze(view).model_copy(update=update)


async def unfreeze(view: NodeView, operators: Operators) -> FreezeAnswer:
    """Let the aliases of the node follow the registry again."""
    changed = frozen(view) is not None
    not_recorded = await operators.unfreeze()
    return FreezeAnswer(frozen=None, changed=changed, moving=[], not_recorded=not_recorded)
