"""The webhooks: authenticated hints that the registry has changed.

A delivery is answered 202 at once; the registry is listed afterwards. A refused one has no effect.
Event loop only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from registry_sync.domain import WebhookState
from registry_sync.operations.errors import problem
from registry_sync.operations.webhooks.authentication import (
    MLFLOW_HEADERS,
    RELOAD_HEADERS,
    NotAuthenticError,
    Sender,
    SigningSender,
    TokenSender,
)
from registry_sync.operations.webhooks.payloads import (
    Hinted,
    UnreadableBodyError,
    by_mlflow,
    by_reload,
    by_s3,
)
from registry_sync.sources import Root

_BETWEEN_COMPLAINTS_S = 10.0
_log = structlog.get_logger("registry_sync.operations.webhooks")


@dataclass(frozen=True, slots=True)
class WebhookSecrets:
    """The secret of each sender; without one, the webhook does not exist."""

    mlflow: str = ""
    s3: str = ""
    reload: str = ""


def build_webhooks(
    secrets: WebhookSecrets,
    *,
    hint: Callable[[str | None], None],
    tracking_uri: str,
    clock: Callable[[], float],
) -> tuple[Webhook, ...]:
    """Return every webhook whose secret is set.

    ``hint`` is called with a model that may have changed, or None for any model, and returns at
    once; ``tracking_uri`` is the registry's, for keys in S3; ``clock`` gives epoch seconds.
    """
    webhooks = []
    if secrets.mlflow:
        mlflow = SigningSender(secrets.mlflow, MLFLOW_HEADERS, clock=clock)
        webhooks.append(Webhook("mlflow", mlflow, by_mlflow, hint, clock))
    if secrets.s3:
        read = partial(by_s3, root=Root.of(tracking_uri))
        webhooks.append(Webhook("s3", TokenSender(secrets.s3), read, hint, clock))
    if secrets.reload:
        ci = SigningSender(secrets.reload, RELOAD_HEADERS, clock=clock)
        webhooks.append(Webhook("reload", ci, by_reload, hint, clock))
    return tuple(webhooks)


def create_webhooks_app(webhooks: Iterable[Webhook]) -> Starlette:
    """Return the application with these webhooks."""
    app = Starlette(
        routes=[Route(f"/webhooks/{one.name}", one.receive, methods=["POST"]) for one in webhooks],
        exception_handlers={HTTPException: _no_such_route},
    )
    app.router.redirect_slashes = False  # a redirect would repeat the caller's Host
    return app


async def _no_such_route(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    detail = (
        f"{request.method} {request.url.path} is not a webhook whose secret is set on this node"
    )
    code = "method_not_allowed" if error.status_code == 405 else "route_not_found"  # noqa: PLR2004 - HTTP's
    return problem(error.status_code, code, detail, error.headers)


class _RefusedError(Exception):
    """A delivery that has no effect, and its answer."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.answer = problem(status, code, detail)


class Webhook:
    """One webhook; `receive` is its route.

    ``read`` returns the models that a body names; ``clock`` gives epoch seconds.

    Attributes:
        state: Deliveries so far; replaced, never changed.
    """

    def __init__(
        self,
        name: str,
        sender: Sender,
        read: Callable[[bytes], Hinted],
        hint: Callable[[str | None], None],
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.state = WebhookState(name=name)
        self.sender = sender
        self._read = read
        self._hint = hint
        self._clock = clock
        self._complained_at = float("-inf")

    async def receive(self, request: Request) -> Response:
        """Accept a delivery, once, or refuse it."""
        try:
            self._accept(request, await request.body())
        except _RefusedError as refused:
            self.complain(str(refused))
            return refused.answer
        return Response(status_code=202)

    def _accept(self, request: Request, body: bytes) -> None:
        """Hint at the models of a delivery, unless it was accepted before.

        The delivery is remembered after the hints, so that a sender may repeat one that failed
        halfway. The code between awaits no call, so the same delivery cannot arrive twice.
        """
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            detail = "the body of a webhook must come as it is, without a content encoding"
            raise _RefusedError(415, "unsupported_media_type", detail)
        try:
            delivery = self.sender.check(request.headers, body)
            if self.sender.has_accepted(delivery):
                self._note(repeated=self.state.repeated + 1)
                return
            hinted = self._read(body)
        except NotAuthenticError as error:
            raise _RefusedError(401, "not_authentic", str(error)) from error
        except UnreadableBodyError as error:
            raise _RefusedError(400, "unreadable_body", str(error)) from error
        models = (None,) if hinted is None else sorted(hinted)
        for model in models:
            self._hint(model)
        self.sender.accept(delivery)
        self._note(accepted=self.state.accepted + 1, accepted_at=self._clock())
        _log.info("webhook.accepted", webhook=self.name, models=models)

    def complain(self, reason: str) -> None:
        """Count a refusal, and log one every few seconds: strangers must not fill the disk."""
        now = self._clock()
        self._note(refused=self.state.refused + 1, refused_at=now, refusal=reason)
        if now - self._complained_at >= _BETWEEN_COMPLAINTS_S:
            self._complained_at = now
            refused = self.state.refused
            _log.warning("webhook.refused", webhook=self.name, reason=reason, refused=refused)

    def _note(self, **changed: Any) -> None:
        self.state = self.state.model_copy(update=changed)
