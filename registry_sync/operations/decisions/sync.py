"""List the registry now, and retry every step of a model."""

from __future__ import annotations

from registry_sync.domain import SyncAnswer
from registry_sync.operations.explained_model import explain_alias
from registry_sync.operations.state import model_state
from registry_sync.reconcile import NodeView, Operators


def sync(view: NodeView, operators: Operators, model: str) -> SyncAnswer:
    """List the registry and retry every step of the model, now.

    A freeze stays in force.
    """
    operators.sync(model)
    state = model_state(view, model)
    aliases = state.aliases if state else []
    explained = [explain_alias(view, model, one.alias) for one in aliases]
    return SyncAnswer(model=model, explained=explained)
