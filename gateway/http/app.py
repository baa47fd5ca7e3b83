"""Builds the public application and the one of the control contract."""

from __future__ import annotations

from importlib.metadata import version

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gateway.contract import Nack
from gateway.errors import GatewayError, RolloutRefusedError
from gateway.http import catalogue, control, health
from gateway.http.predict import Predictions, declare_predictions, request_id_of
from gateway.http.problems import render, retry_after, status_of
from gateway.http.services import Services
from gateway.settings import BODY_TIMEOUT_S, GatewaySettings
from gateway.system.http1 import (
    MEDIA_TYPE,
    App,
    AsgiService,
    Message,
    Receive,
    Scope,
    Send,
    problem_of,
)

_DESCRIPTION = """Serves every model of a registry by name and version.

It follows promotions by verified, warmed swaps. Every answer names its version.
"""


def create_public_app(services: Services, settings: GatewaySettings) -> Predictions:
    """Return the service of the public listener."""
    app = FastAPI(
        title="registry-gateway",
        version=version("registry-gateway"),
        description=_DESCRIPTION,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the caller's Host
    )
    app.state.services = services
    app.include_router(health.router)
    app.include_router(catalogue.router)
    app.exception_handler(GatewayError)(_gateway_error)
    app.exception_handler(HTTPException)(_http_exception)
    app.exception_handler(RequestValidationError)(_invalid_request)
    app.add_middleware(_RequestIds)
    declare_predictions(app)
    fallback = AsgiService(
        app, max_body_bytes=settings.max_body_bytes, body_timeout_s=BODY_TIMEOUT_S
    )
    return Predictions(fallback, services.dispatcher, services.telemetry, services.admission)


def create_control_app(services: Services) -> FastAPI:
    """Return the application of the Unix socket."""
    app = FastAPI(
        title="registry-gateway control", docs_url=None, redoc_url=None, redirect_slashes=False
    )
    app.state.services = services
    app.include_router(control.router)
    app.exception_handler(RolloutRefusedError)(_refused)
    app.exception_handler(RequestValidationError)(_invalid_change)
    return app


class _RequestIds:
    """Adds the request id to every answer, without the task that FastAPI's middleware costs."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = request_id_of(dict(scope["headers"]))
        scope["state"]["request_id"] = request_id
        header = (b"x-request-id", request_id.encode())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], header]
            await send(message)

        await self._app(scope, receive, send_with_id)


async def _gateway_error(request: Request, error: GatewayError) -> Response:
    seconds = retry_after(error)
    headers = {"Retry-After": seconds} if seconds else None
    return Response(render(error, request.state.request_id), status_of(error), headers, MEDIA_TYPE)


async def _http_exception(request: Request, error: HTTPException) -> Response:
    """Answer an unknown route or method with a problem."""
    status, detail = error.status_code, f"{request.method} {request.url.path}: {error.detail}"
    code = {404: "route_not_found", 405: "method_not_allowed"}.get(status, "http_error")
    body = problem_of(status, code, detail, request.state.request_id)
    return Response(orjson.dumps(body), status, dict(error.headers or {}), MEDIA_TYPE)


async def _invalid_request(request: Request, error: RequestValidationError) -> Response:
    body = problem_of(422, "invalid_input", _where(error), request.state.request_id)
    return Response(orjson.dumps(body), 422, media_type=MEDIA_TYPE)


async def _refused(request: Request, error: RolloutRefusedError) -> Response:
    generation = request.app.state.services.node.table.generation
    nack = Nack.model_validate(
        {"code": error.code, "message": error.message, "generation": generation}
    )
    return Response(nack.model_dump_json(), status_code=409, media_type="application/json")


async def _invalid_change(_: Request, error: RequestValidationError) -> Response:
    nack = Nack(code="invalid_request", message=_where(error)[:2000])
    return Response(nack.model_dump_json(), status_code=422, media_type="application/json")


def _where(error: RequestValidationError) -> str:
    """Return each invalid field with its fault."""
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
