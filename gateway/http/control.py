"""The control contract on the Unix socket. Access to the socket is access to the contract."""

from __future__ import annotations

from fastapi import APIRouter, Request

from gateway.contract import (
    Ack,
    ActivateRequest,
    AllowRequest,
    NodeState,
    RetireRequest,
    StageRequest,
    UnchangedCatalogue,
)
from gateway.errors import RolloutRefusedError
from gateway.http.catalogue_reader import read_catalogue, read_model_change
from gateway.http.services import services_of

router = APIRouter()


@router.put("/catalogue")
async def put_catalogue(request: Request) -> Ack:
    """Take a whole `Catalogue`, which may be megabytes."""
    document = await request.body()
    catalogue = await read_catalogue(document)
    return await services_of(request).rollout.catalogue.take(catalogue, document)


@router.put("/catalogue/models/{name:path}")
async def put_model(request: Request, name: str) -> Ack:
    """Take a `ModelChange`, which may have thousands of versions."""
    document = (await request.body()).replace(b"\n", b" ")  # one line; in JSON it is only space
    change = await read_model_change(document)
    if change.name != name:
        raise RolloutRefusedError("invalid_request", f"the body is about model {change.name!r}")
    return await services_of(request).rollout.catalogue.take_model(change, document)


@router.post("/catalogue/unchanged")
async def keep_catalogue(request: Request, body: UnchangedCatalogue) -> Ack:
    """Take the time of a listing that has not changed."""
    return await services_of(request).rollout.catalogue.confirm(body)


@router.post("/stage", status_code=202)
async def stage(request: Request, body: StageRequest) -> Ack:
    """Start a standby; its outcome comes through ``observe``."""
    return services_of(request).rollout.standbys.start(body)


@router.post("/activate")
async def activate(request: Request, body: ActivateRequest) -> Ack:
    """Point an alias at a staged version."""
    return await services_of(request).rollout.activate(body)


@router.post("/retire")
async def retire(request: Request, body: RetireRequest) -> Ack:
    """Remove an alias or a standby."""
    return await services_of(request).rollout.retire(body)


@router.post("/allow")
async def allow(request: Request, body: AllowRequest) -> Ack:
    """Let an alias take bytes again that an automatic rollback refused it."""
    return await services_of(request).rollout.allow(body)


@router.get("/observe")
async def observe(request: Request, after: int = 0, of: str | None = None) -> NodeState:
    """Return the node's state after its next change. Refused while the gateway shuts down."""
    services = services_of(request)
    if services.draining:
        raise RolloutRefusedError("draining", "the gateway is shutting down")
    return await services.rollout.observe(after, of)
