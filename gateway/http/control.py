"""The control contract on the Unix socket. Access to the socket is access to the contract."""

from __future__ import annotations

import asyncio

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
from gateway.http.services import OurServices

router = APIRouter()


@router.put("/catalogue")
async def put_catalogue(services: OurServices, request: Request) -> Ack:
    """Take a whole `Catalogue`, which may be megabytes."""
    document = await request.body()
    return await services.rollout.catalogue.take(await read_catalogue(document), document)


@router.put("/catalogue/models/{name:path}")
async def put_model(services: OurServices, request: Request, name: str) -> Ack:
    """Take a `ModelChange`, which may have thousands of versions."""
    document = (await request.body()).replace(b"\n", b" ")  # one line; in JSON it is only space
    change = await read_model_change(document)
    if change.name != name:
        raise RolloutRefusedError("invalid_request", f"the body is about model {change.name!r}")
    return await services.rollout.catalogue.take_model(change, document)


@router.post("/catalogue/unchanged")
async def keep_catalogue(services: OurServices, body: UnchangedCatalogue) -> Ack:
    """Take the time of a listing that has not changed."""
    return await services.rollout.catalogue.confirm(body)


@router.post("/stage", status_code=202)
async def stage(services: OurServices, body: StageRequest) -> Ack:
    """Start a standby; its outcome comes through ``observe``."""
    return services.rollout.standbys.start(body)


@router.post("/activate")
async def activate(services: OurServices, body: ActivateRequest) -> Ack:
    """Point an alias at a staged version."""
    return await services.rollout.activate(body)


@router.post("/retire")
async def retire(services: OurServices, body: RetireRequest) -> Ack:
    """Remove an alias or a standby."""
    return await services.rollout.retire(body)


@router.post("/allow")
async def allow(services: OurServices, body: AllowRequest) -> Ack:
    """Let an alias take a refused digest again."""
    return await services.rollout.allow(body)


@router.get("/observe")
async def observe(
    services: OurServices, request: Request, after: int = 0, of: str | None = None
) -> NodeState:
    """Return the node's state after its next change. Refused while the gateway shuts down.

    The poll of a control plane that has ended must not count as listening for its whole time.
    """
    if services.draining:
        raise RolloutRefusedError("draining", "the gateway is shutting down")
    observing = asyncio.ensure_future(services.rollout.observe(after, of))
    hung_up = asyncio.ensure_future(_until_hung_up(request))
    try:
        await asyncio.wait({observing, hung_up}, return_when=asyncio.FIRST_COMPLETED)
        if observing.done():
            return observing.result()
        raise RolloutRefusedError("invalid_request", "the control plane has hung up")
    finally:
        hung_up.cancel()
        observing.cancel()


async def _until_hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
