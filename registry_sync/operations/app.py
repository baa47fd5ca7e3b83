"""The operations listener's routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import FastAPI, Query, Request, Response

from registry_sync.errors import SyncError
from registry_sync.operations.bodies import (
    FreezeAnswer,
    History,
    PinAnswer,
    PinRequest,
    RollbackAnswer,
    RollbackRequest,
    State,
    UnpinAnswer,
    UnpinRequest,
)
from registry_sync.operations.pinning import freeze, pin, unfreeze, unpin
from registry_sync.operations.problems import problem
from registry_sync.operations.refusals import RefusedError
from registry_sync.operations.rollback import roll_back
from registry_sync.operations.state import read_history, read_state
from registry_sync.operations.webhooks import Webhook
from registry_sync.reconcile import Reconciler

_MAX_HISTORY = 500
_ROLLBACK_PATIENCE_S = 60.0
_PIN_PATIENCE_S = 40.0
"""Twice: for the bytes, and for the outcome; the command waits a little longer than both."""


@dataclass(frozen=True, slots=True)
class Operations:
    """What the routes work with.

    Attributes:
        poll: Lists the registry once, now.
        webhooks: Those that there are.
    """

    spine: Reconciler
    node_id: str
    tracking_uri: str
    poll: Callable[[], Awaitable[None]]
    webhooks: tuple[Webhook, ...] = ()


def create_app(operations: Operations) -> FastAPI:
    """Return the operators' application. Whoever reaches it may use it: guard the way to it."""
    app = FastAPI(title="registry-gateway operations", docs_url=None, redoc_url=None)

    @app.get("/state")
    async def state() -> State:
        """Return what this node follows, serves and is busy with."""
        return _state(operations)

    @app.get("/history")
    async def history(
        model: Annotated[str | None, Query(min_length=1)] = None,
        limit: Annotated[int, Query(ge=1, le=_MAX_HISTORY)] = 50,
    ) -> History:
        """Return what happened to a model, or to all, newest first."""
        return await read_history(operations.spine, model, limit=limit)

    @app.post("/rollback")
    async def rollback(body: RollbackRequest) -> RollbackAnswer:
        """Put an alias back to what it pointed at before, and hold it there."""
        return await roll_back(operations.spine, body, patience_s=_ROLLBACK_PATIENCE_S)

    @app.post("/sync")
    async def sync() -> State:
        """List the registry now and decide on it."""
        await operations.poll()
        await operations.spine.next_decision()
        return _state(operations)

    _add_operator_routes(app, operations.spine)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(SyncError, _out_of_service)
    return app


def _state(operations: Operations) -> State:
    state = read_state(
        operations.spine, node_id=operations.node_id, tracking_uri=operations.tracking_uri
    )
    return state.model_copy(update={"webhooks": [one.state for one in operations.webhooks]})


def _add_operator_routes(app: FastAPI, spine: Reconciler) -> None:
    @app.post("/pin")
    async def pin_alias(body: PinRequest) -> PinAnswer:
        """Keep an alias at a version, wherever the registry moves it, until it is unpinned."""
        return await pin(spine, body, patience_s=_PIN_PATIENCE_S)

    @app.post("/unpin")
    async def unpin_alias(body: UnpinRequest) -> UnpinAnswer:
        """Let a pinned or held alias follow the registry again."""
        return await unpin(spine, body)

    @app.post("/freeze")
    async def freeze_node() -> FreezeAnswer:
        """Let no alias of this node follow the registry."""
        return await freeze(spine)

    @app.post("/unfreeze")
    async def unfreeze_node() -> FreezeAnswer:
        """Let the aliases of this node follow the registry again."""
        return await unfreeze(spine)


async def _refused(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RefusedError):
        raise error
    return problem(error.status, error.code, error.title, str(error))


async def _out_of_service(_request: Request, error: Exception) -> Response:
    return problem(503, "unavailable", "Not available now", str(error))
