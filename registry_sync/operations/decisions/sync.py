"""Look at one model now: list the registry, and let nothing of the model wait."""

from __future__ import annotations

from registry_sync.domain import SyncAnswer
from registry_sync.operations.explanation import explain_alias
from registry_sync.operations.state import model_state
from registry_sync.reconcile import NodeView, Operators


def sync(view: NodeView, operators: Operators, model: str) -> SyncAnswer:
    """Have the registry listed, and everything of the model tried again, now.

    A freeze counts: what an operator asks to look at is not what an operator asks to promote.
    """
    operators.sync(model)
    state = model_state(view, model)
    aliases = state.aliases if state else []
    explained = [explain_alias(view, model, one.alias) for one in aliases]
    return SyncAnswer(model=model, explained=explained)
