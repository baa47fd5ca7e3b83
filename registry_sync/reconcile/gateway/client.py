"""The gateway as a `ServingTarget`: the control contract over its Unix socket."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from gateway.contract import (
    CONTRACT_VERSION,
    OBSERVE_TIMEOUT_S,
    ActivateAck,
    ActivateRequest,
    AllowAck,
    AllowRequest,
    Body,
    Catalogue,
    CatalogueAck,
    ModelChange,
    Nack,
    NodeState,
    RetireAck,
    RetireRequest,
    StageAck,
    StageRequest,
    UnchangedCatalogue,
)
from registry_sync.errors import RolloutRejectedError
from registry_sync.reconcile.gateway.target import TargetUnreachableError

_CONNECT_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 30.0
_OBSERVE_GRACE_S = 10.0
_MAX_CONNECTIONS = 16
_IDLE_S = 2.0
"""Less than the gateway keeps a connection that idles: one that it has just closed is not used."""
_SERVER_ERROR = 500

_Answer = TypeVar("_Answer", bound=Body)


class GatewayClient:
    """See `registry_sync.serving_target.ServingTarget`. Event loop only; `close` releases it."""

    def __init__(self, socket: Path) -> None:
        """Prepare a client for the gateway at ``socket``. Nothing is connected yet."""
        self._socket = socket
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                uds=str(socket),
                limits=httpx.Limits(max_connections=_MAX_CONNECTIONS, keepalive_expiry=_IDLE_S),
            ),
            base_url="http://gateway",
            timeout=httpx.Timeout(_ANSWER_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
        )

    async def publish(self, catalogue: Catalogue) -> CatalogueAck:
        """Send the full snapshot of the registry."""
        return await self._send("PUT", "/catalogue", catalogue, CatalogueAck)

    async def change(self, change: ModelChange) -> CatalogueAck:
        """Send one model of the snapshot as it is now."""
        path = f"/catalogue/models/{quote(change.name, safe='')}"
        return await self._send("PUT", path, change, CatalogueAck)

    async def keep(self, unchanged: UnchangedCatalogue) -> CatalogueAck:
        """Say that the registry was listed again, and lists the same."""
        return await self._send("POST", "/catalogue/unchanged", unchanged, CatalogueAck)

    async def stage(self, request: StageRequest) -> StageAck:
        """Ask for a standby; its outcome is an event of `observe`."""
        return await self._send("POST", "/stage", request, StageAck)

    async def activate(self, request: ActivateRequest) -> ActivateAck:
        """Point an alias at a version."""
        return await self._send("POST", "/activate", request, ActivateAck)

    async def retire(self, request: RetireRequest) -> RetireAck:
        """Take an alias away, or end a version."""
        return await self._send("POST", "/retire", request, RetireAck)

    async def allow(self, request: AllowRequest) -> AllowAck:
        """Let an alias take a digest again that an automatic rollback refused it."""
        return await self._send("POST", "/allow", request, AllowAck)

    async def observe(self, after: int, of: str | None = None) -> NodeState:
        """Wait for news of the node.

        Raises:
            TargetUnreachableError: Nobody answered.
            RolloutRejectedError: The gateway speaks a newer contract.
        """
        answer = await self._ask(
            self._client.build_request(
                "GET",
                "/observe",
                params={"after": after} if of is None else {"after": after, "of": of},
                timeout=httpx.Timeout(
                    OBSERVE_TIMEOUT_S + _OBSERVE_GRACE_S, connect=_CONNECT_TIMEOUT_S
                ),
            )
        )
        state = self._read(answer, NodeState)
        if state.contract_version > CONTRACT_VERSION:
            raise RolloutRejectedError(
                "contract_version",
                f"the gateway speaks contract {state.contract_version}, this control plane "
                f"{CONTRACT_VERSION}: upgrade the control plane",
            )
        return state

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _send(self, method: str, path: str, body: Body, answer: type[_Answer]) -> _Answer:
        """Send a body of the contract and read the answer."""
        request = self._client.build_request(
            method,
            path,
            content=body.model_dump_json().encode(),
            headers={"content-type": "application/json"},
        )
        return self._read(await self._ask(request), answer)

    async def _ask(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._client.send(request)
        except httpx.HTTPError as error:
            raise TargetUnreachableError(
                f"the gateway does not answer at {self._socket} ({type(error).__name__}): "
                "is it running, on this node's folder?"
            ) from error

    def _read(self, answer: httpx.Response, kind: type[_Answer]) -> _Answer:
        try:
            if answer.is_success:
                return kind.model_validate_json(answer.content)
            nack = Nack.model_validate_json(answer.content)
        except ValidationError as error:
            if not answer.is_success and answer.status_code < _SERVER_ERROR:
                raise RolloutRejectedError(
                    "invalid_request", f"the gateway answered {answer.status_code}"
                ) from error
            raise TargetUnreachableError(
                f"the gateway's answer ({answer.status_code}) cannot be understood"
            ) from error
        raise RolloutRejectedError(nack.code, nack.message, generation=nack.generation)
