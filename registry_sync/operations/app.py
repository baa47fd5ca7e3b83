"""The operations listener's routes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from gateway.contract import InvalidReferenceError, ModelName, Selector, parse_selector
from registry_sync.domain import (
    ExplainAnswer,
    FreezeAnswer,
    History,
    PinAnswer,
    PinRequest,
    QuarantineAnswer,
    QuarantineRequest,
    Quarantines,
    Readiness,
    RetryAnswer,
    RetryRequest,
    RollbackAnswer,
    RollbackRequest,
    State,
    SyncAnswer,
    SyncRequest,
    UnpinAnswer,
    UnpinRequest,
)
from registry_sync.errors import SyncError
from registry_sync.operations.decisions import (
    accept,
    freeze,
    pin,
    read_freeze,
    read_quarantines,
    retry,
    retry_quarantine,
    roll_back,
    sync,
    unfreeze,
    unpin,
)
from registry_sync.operations.errors import RefusedError, UnknownError, problem
from registry_sync.operations.explained_model import explain_model
from registry_sync.operations.state import read_history, read_unwritten, state_document
from registry_sync.operations.webhooks import Webhook
from registry_sync.reconcile import NodeView, Operators
from registry_sync.system import METRICS, store_budget_bytes, store_bytes

_MAX_HISTORY = 500
_MAX_DETAIL = 2000
_HTTP_CODES = {404: "route_not_found", 405: "method_not_allowed"}


@dataclass(frozen=True, slots=True)
class Operations:
    """The services of the routes."""

    view: NodeView
    operators: Operators
    node_id: str
    tracking_uri: str
    webhooks: tuple[Webhook, ...] = ()


def create_app(operations: Operations) -> FastAPI:
    """Return the operators' application, which admits every caller: guard access to it."""
    app = FastAPI(
        title="registry-gateway operations",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the caller's Host
    )

    @app.get("/state", response_model=State)
    async def state(model: Annotated[ModelName | None, Query()] = None) -> Response:
        """Return the state of this node: registry, aliases of one or all models, and steps."""
        document = await state_document(
            operations.view,
            node_id=operations.node_id,
            tracking_uri=operations.tracking_uri,
            only=model,
            webhooks=[one.state for one in operations.webhooks],
        )
        return Response(document, media_type="application/json")

    @app.get("/health/ready")
    async def ready() -> Readiness:
        """Answer while the event loop runs; list the writes that fail."""
        return Readiness(not_written=read_unwritten(operations.view))

    @app.get("/metrics")
    async def metrics() -> Response:
        """Return the control plane's metrics, as Prometheus reads them."""
        use = operations.view.store_use()
        store_bytes.set(use.stored_bytes)
        store_budget_bytes.set(use.budget_bytes)
        return Response(generate_latest(METRICS), media_type=CONTENT_TYPE_LATEST)

    @app.get("/history")
    async def history(
        model: Annotated[str | None, Query(min_length=1)] = None,
        limit: Annotated[int, Query(ge=1, le=_MAX_HISTORY)] = 50,
    ) -> History:
        """Return the history of a model, or of all, newest first."""
        return await read_history(operations.view, model, limit=limit)

    @app.get("/explain")
    async def explain(
        model: Annotated[ModelName, Query()],
        selector: Annotated[str | None, Query(min_length=1)] = None,
    ) -> ExplainAnswer:
        """Explain what a model's selector, or every alias, means on this node."""
        return await explain_model(operations.view, model, _selector(selector))

    _add_decisions(app, operations.view, operations.operators)
    _add_tries(app, operations.view, operations.operators)
    app.exception_handler(HTTPException)(_http_refusal)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(RefusedError)(_refused)
    app.exception_handler(SyncError)(_out_of_service)
    return app


def _selector(text: str | None) -> Selector | None:
    try:
        return None if text is None else parse_selector(text)
    except InvalidReferenceError as error:
        raise UnknownError(f"{text!r} is neither a version nor an alias: {error}") from error


def _add_decisions(app: FastAPI, view: NodeView, operators: Operators) -> None:
    """Add the decisions: recorded when they are answered, carried out afterwards."""

    @app.post("/rollback", status_code=202)
    async def rollback(body: RollbackRequest) -> RollbackAnswer:
        """Return an alias to its previous version, and hold it there."""
        return await roll_back(view, operators, body)

    @app.post("/pin", status_code=202)
    async def pin_alias(body: PinRequest) -> PinAnswer:
        """Keep an alias at a version, wherever the registry moves it, until it is unpinned."""
        return await pin(view, operators, body)

    @app.post("/unpin", status_code=202)
    async def unpin_alias(body: UnpinRequest) -> UnpinAnswer:
        """End the pin or the hold of an alias."""
        return await unpin(view, operators, body)

    @app.post("/freeze", status_code=202)
    async def freeze_node() -> FreezeAnswer:
        """Stop all aliases of this node from following the registry."""
        return await freeze(view, operators)

    @app.get("/freeze")
    async def frozen_node() -> FreezeAnswer:
        """Return the freeze in force, and the models whose aliases still move."""
        return read_freeze(view)

    @app.post("/unfreeze", status_code=202)
    async def unfreeze_node() -> FreezeAnswer:
        """Let the aliases of this node follow the registry again."""
        return await unfreeze(view, operators)


def _add_tries(app: FastAPI, view: NodeView, operators: Operators) -> None:
    """Add the further attempts that operators start."""

    @app.post("/sync", status_code=202)
    async def sync_model(body: SyncRequest) -> SyncAnswer:
        """List the registry now, and retry every step of a model."""
        return sync(view, operators, body.model)

    @app.post("/retry", status_code=202)
    async def retry_version(body: RetryRequest) -> RetryAnswer:
        """Let the aliases that want a rejected version try it once more."""
        return await retry(view, operators, body)

    @app.get("/quarantine")
    async def quarantines() -> Quarantines:
        """Return the quarantines of this node, newest first."""
        return read_quarantines(view)

    @app.post("/quarantine/retry", status_code=202)
    async def retry_quarantined(body: QuarantineRequest) -> QuarantineAnswer:
        """Fetch and verify a quarantined version once more."""
        return await retry_quarantine(view, operators, body)

    @app.post("/quarantine/accept", status_code=202)
    async def accept_quarantined(body: QuarantineRequest) -> QuarantineAnswer:
        """Accept the altered bytes of a quarantined version as they were found."""
        return accept(view, operators, body)


async def _invalid(_request: Request, error: RequestValidationError) -> Response:
    """Refuse a body or a query, without repeating it: JSON cannot encode all of it."""
    faults = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    return problem(422, "invalid_request", "; ".join(faults)[:_MAX_DETAIL])


async def _http_refusal(request: Request, error: HTTPException) -> Response:
    """Return a problem for an unknown route or method, or a body that is not JSON."""
    code = _HTTP_CODES.get(error.status_code, "invalid_request")
    detail = f"{request.method} {request.url.path}: {error.detail}"
    return problem(error.status_code, code, detail, error.headers)


async def _refused(_request: Request, error: RefusedError) -> Response:
    return problem(error.status, error.code, str(error))


async def _out_of_service(_request: Request, error: SyncError) -> Response:
    return problem(503, "unavailable", str(error))
