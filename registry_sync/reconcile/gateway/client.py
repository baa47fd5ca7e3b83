"""The gateway as a `ServingTarget`: the control contract over its Unix socket."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import aiohttp
from pydantic import ValidationError
from yarl import URL

from gateway.contract import (
    CONTRACT_VERSION,
    OBSERVE_TIMEOUT_S,
    Ack,
    ActivateRequest,
    AllowRequest,
    Body,
    Catalogue,
    ModelChange,
    Nack,
    NodeState,
    RetireRequest,
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
"""Less than the gateway's own limit: a request never meets a connection that it is closing."""
_FIRST_ERROR, _SERVER_ERROR = 400, 500

_Answer = TypeVar("_Answer", bound=Body)


class GatewayClient:
    """A `ServingTarget` over a Unix socket. Event loop only; `close` releases it."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._opened: aiohttp.ClientSession | None = None

    @property
    def _session(self) -> aiohttp.ClientSession:
        """The connections; aiohttp requires that the running loop makes them."""
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                "http://gateway",
                connector=aiohttp.UnixConnector(
                    str(self._socket), limit=_MAX_CONNECTIONS, keepalive_timeout=_IDLE_S
                ),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("Accept-Encoding", "User-Agent"),
            )
        return self._opened

    async def publish(self, catalogue: Catalogue) -> Ack:
        """Send the full snapshot of the registry."""
        return await self._send("PUT", "/catalogue", catalogue)

    async def change(self, change: ModelChange) -> Ack:
        """Send one model of the snapshot as it is now."""
        path = f"/catalogue/models/{quote(change.name, safe='')}"
        return await self._send("PUT", path, change)

    async def keep(self, unchanged: UnchangedCatalogue) -> Ack:
        """Confirm the catalogue after a listing without changes."""
        return await self._send("POST", "/catalogue/unchanged", unchanged)

    async def stage(self, request: StageRequest) -> Ack:
        """Request a standby; its outcome is an event of `observe`."""
        return await self._send("POST", "/stage", request)

    async def activate(self, request: ActivateRequest) -> Ack:
        """Point an alias at a version."""
        return await self._send("POST", "/activate", request)

    async def retire(self, request: RetireRequest) -> Ack:
        """Retire an alias or a standby."""
        return await self._send("POST", "/retire", request)

    async def allow(self, request: AllowRequest) -> Ack:
        """Allow an alias a digest that an automatic rollback refused."""
        return await self._send("POST", "/allow", request)

    async def observe(self, after: int, of: str | None = None) -> NodeState:
        """Wait for news of the node.

        Raises:
            TargetUnreachableError: The gateway does not answer.
            RolloutRejectedError: The gateway speaks a newer contract.
        """
        query = f"after={after}" if of is None else f"after={after}&of={quote(of, safe='')}"
        answer = await self._ask(
            "GET", f"/observe?{query}", timeout_s=OBSERVE_TIMEOUT_S + _OBSERVE_GRACE_S
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
        if self._opened is not None:
            await self._opened.close()

    async def _send(self, method: str, path: str, body: Body) -> Ack:
        """Send a body of the contract and read the answer."""
        return self._read(await self._ask(method, path, body.model_dump_json().encode()), Ack)

    async def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        timeout_s: float = _ANSWER_TIMEOUT_S,
    ) -> tuple[int, bytes]:
        """Return status and body of an answer."""
        try:
            async with self._session.request(
                method,
                URL(path, encoded=True),
                data=body,
                headers={"Content-Type": "application/json"},
                timeout=aiohttp.ClientTimeout(timeout_s, sock_connect=_CONNECT_TIMEOUT_S),
                allow_redirects=False,
            ) as answer:
                return answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TargetUnreachableError(
                f"the gateway does not answer at {self._socket} ({type(error).__name__}): "
                "is it running, on this node's folder?"
            ) from error

    def _read(self, answer: tuple[int, bytes], kind: type[_Answer]) -> _Answer:
        status, content = answer
        is_nack = status >= _FIRST_ERROR
        try:
            if not is_nack:
                return kind.model_validate_json(content)
            nack = Nack.model_validate_json(content)
        except ValidationError as error:
            if is_nack and status < _SERVER_ERROR:
                raise RolloutRejectedError(
                    "invalid_request", f"the gateway refused the request: status {status}"
                ) from error
            raise TargetUnreachableError(
                f"the gateway's answer ({status}) is malformed: run both from the same release"
            ) from error
        raise RolloutRejectedError(nack.code, nack.message)
