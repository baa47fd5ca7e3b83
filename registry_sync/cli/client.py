"""Calls of the control plane: of this node through its socket, or of another at a URL."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from gateway.system.logs import names_user
from registry_sync.cli.arguments import read_settings
from registry_sync.cli.output import ExitStatus, fail
from registry_sync.domain import Problem

URL_VARIABLE = "REGISTRY_GATEWAY_OPERATIONS_URL"
TOKEN_VARIABLE = "REGISTRY_GATEWAY_OPERATIONS_TOKEN"  # noqa: S105 - a name, no token
_AS_IT_IS = {"Accept-Encoding": "identity"}
_MOST_ANSWER_BYTES = 256 * 2**20
_TIMEOUT = httpx.Timeout(90.0, connect=5.0)

_Answer = TypeVar("_Answer", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """The control plane to call: at ``url``, or this node's if that is empty."""

    url: str
    token: str


_THIS_NODES = ControlPlane(url="", token="")
_chosen = ContextVar("_chosen", default=_THIS_NODES)


def choose(url: str, token: str) -> None:
    """Choose the control plane to call; end the command if its URL is invalid."""
    if url and not url.startswith(("http://", "https://")):
        fail(
            f"{url!r} must be an http:// or https:// URL, such as http://node:8081",
            ExitStatus.USAGE,
        )
    if names_user(url):
        fail(
            f"{URL_VARIABLE} must be a URL without user and password, which errors would show: "
            f"take them out, and set {TOKEN_VARIABLE}",
            ExitStatus.USAGE,
        )
    _chosen.set(ControlPlane(url, token))


def call(method: str, path: str, kind: type[_Answer], **options: Any) -> _Answer:
    """Return the answer of the chosen control plane, or end with an error and its remedy."""
    chosen = _chosen.get()
    try:
        with _client(chosen) as client:
            status, content = _whole(client, method, path, options)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        fail(_unreachable(chosen, type(error).__name__), ExitStatus.UNREACHABLE)
    try:
        if not httpx.codes.is_success(status):
            fail(Problem.model_validate_json(content).detail, ExitStatus.REFUSED)
        return kind.model_validate_json(content)
    except ValidationError:
        fail(
            f"the control plane answered {status}, and this command cannot read it: "
            "use the command of the control plane's release",
            ExitStatus.UNREACHABLE,
        )


def _whole(
    client: httpx.Client, method: str, path: str, options: Mapping[str, Any]
) -> tuple[int, bytes]:
    """Return the status and the bytes of an answer, up to a limit, without unpacking them."""
    content = bytearray()
    with client.stream(method, path, **options) as answer:
        for piece in answer.iter_raw():
            content += piece
            if len(content) > _MOST_ANSWER_BYTES:
                fail(
                    f"the answer has more than {_MOST_ANSWER_BYTES} bytes: check that the URL is "
                    "a control plane's",
                    ExitStatus.UNREACHABLE,
                )
    return answer.status_code, bytes(content)


def _client(chosen: ControlPlane) -> httpx.Client:
    if chosen.url:
        headers = {"Authorization": f"Bearer {chosen.token}"} if chosen.token else {}
        headers |= _AS_IT_IS
        return httpx.Client(base_url=chosen.url, headers=headers, timeout=_TIMEOUT)
    path = str(read_settings().operations_socket)
    with socket.socket(socket.AF_UNIX) as probe:  # httpx leaves a refused one open
        probe.connect(path)
    transport = httpx.HTTPTransport(uds=path)
    return httpx.Client(transport=transport, base_url="http://control-plane", timeout=_TIMEOUT)


def _unreachable(chosen: ControlPlane, error: str) -> str:
    if chosen.url:
        return (
            f"no control plane answers at {chosen.url} ({error}): see its "
            "REGISTRY_SYNC_OPERATIONS_HOST and REGISTRY_SYNC_OPERATIONS_PORT"
        )
    return (
        f"no control plane answers at {read_settings().operations_socket.absolute()} ({error}): "
        "start it with `python -m registry_sync`, set REGISTRY_SYNC_NODE_DIR and "
        "REGISTRY_SYNC_RUNTIME_DIR to its folders, or "
        f"{URL_VARIABLE} to its address"
    )
