"""Freeze the node: no alias follows the registry, until it is unfrozen."""

from __future__ import annotations

from registry_sync.domain import FreezeAnswer
from registry_sync.operations.state import frozen
from registry_sync.reconcile import NodeView, Operators


def read_freeze(view: NodeView) -> FreezeAnswer:
    """Return the freeze in force, and the models whose aliases still move."""
    return FreezeAnswer(frozen=frozen(view), changed=False, moving=view.moving())


async def freeze(view: NodeView, operators: Operators) -> FreezeAnswer:
    """Stop all aliases from following the registry; moves under way are completed."""
    changed = frozen(view) is None
    not_recorded = await operators.freeze()
    update = {"changed": changed, "not_recorded": not_recorded}
    return read_freeze(view).model_copy(update=update)


async def unfreeze(view: NodeView, operators: Operators) -> FreezeAnswer:
    """Let the aliases of the node follow the registry again."""
    changed = frozen(view) is not None
    not_recorded = await operators.unfreeze()
    return FreezeAnswer(frozen=None, changed=changed, moving=[], not_recorded=not_recorded)
