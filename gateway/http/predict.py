"""The prediction routes: a small ASGI callable in front of the FastAPI application.

``POST /models/{model}/versions/{version}/predict`` and ``POST /models/{model}/predict``. It checks
path and header, bounds the body, and passes the bytes on; it never parses a prediction's body.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, unquote_to_bytes

import structlog

from gateway.admission import Admission
from gateway.dispatch import Answer, Call, Dispatcher
from gateway.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    DeadlineExceededError,
    DrainingError,
    GatewayError,
    GatewayOverloadedError,
    InvalidInputError,
    InvalidSelectorError,
    InvalidTimeoutError,
    MediaTypeError,
)
from gateway.http.arrival import (
    BODY_IS_HERE,
    Arrival,
    BodyLimits,
    ClientLeftError,
    Message,
    Receive,
)
from gateway.http.problems import MEDIA_TYPE, new_request_id, render, retry_after, status_of
from gateway.model_ref import InvalidReferenceError, Selector, parse_model_name, parse_selector
from gateway.telemetry import NO_MODEL, Telemetry

Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_ROUTE = re.compile(rb"/models/([^/]+)(?:/versions/([^/]+))?/predict/?\Z")
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}\Z")
_SECONDS = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?\Z")
_MAX_MEDIA_TYPE_BYTES = 1024
_WATCH_AFTER_S = 0.05
_SENT_AT_ONCE_BYTES = 64 * 1024
_TOO_MUCH = (BodyTooLargeError, GatewayOverloadedError, DrainingError)
_TOO_SLOW = (BodyTimeoutError, DeadlineExceededError)
_TRUE = ("true", "1", "yes")
_FALSE = ("false", "0", "no")
_log = structlog.get_logger("gateway.http")


class _CallerWatch:
    """Cancels a request's task when its caller hangs up.

    Nearly every prediction is over before anybody needs to listen, so the listener starts late: it
    costs a task.
    """

    def __init__(self, receive: Receive, task: asyncio.Task[Any] | None) -> None:
        self._receive = receive
        self._task = task
        self._listener: asyncio.Task[None] | None = None
        self._caller_left = False

    def begin(self) -> None:
        self._listener = asyncio.get_running_loop().create_task(self._listen())

    def cancelled_it(self) -> bool:
        """Whether the cancellation came from here; if so, take it back: it has done its work."""
        if self._caller_left and self._task is not None:
            self._task.uncancel()
        return self._caller_left

    def end(self) -> None:
        if self._listener is not None:
            self._listener.cancel()

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._caller_left = True
        if self._task is not None:
            self._task.cancel()


class PredictApp:
    """Answers prediction requests; hands everything else on."""

    def __init__(
        self,
        following: App,
        dispatcher: Dispatcher,
        telemetry: Telemetry,
        admission: Admission,
        body_limits: BodyLimits,
    ) -> None:
        """Store. ``following`` is the application that serves all other routes."""
        self._following = following
        self._dispatcher = dispatcher
        self._telemetry = telemetry
        self._admission = admission
        self._body_limits = body_limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            found = _ROUTE.match(scope["raw_path"])
            if found is not None:
                await self._serve(scope, receive, send, found[1], found[2])
                return
        await self._following(scope, receive, send)

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, model: bytes, version: bytes | None
    ) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = request_id_of(headers)
        arrival = Arrival(self._body_limits, self._admission, receive)
        call: Call | None = None
        try:
            if len(headers) < len(scope["headers"]):
                _refuse_twice(scope["headers"])
            self._dispatcher.refuse_when_draining()
            deadline = _deadline(headers.get(b"x-request-timeout"))
            selectors = _selectors(version, headers.get(b"x-model-version"))
            name = _decode_name(model)
            probabilities = _probabilities(scope["query_string"])
            length, is_here = headers.get(b"content-length", b""), scope.get(BODY_IS_HERE, False)
            body, place = await arrival.read(length, deadline, is_here=is_here)
            started = time.perf_counter()
            call = Call(
                model=name,
                selector=selectors[0],
                also=selectors[1],
                protocol="predict",
                content_type=_media(headers, b"content-type"),
                content_encoding=_media(headers, b"content-encoding"),
                request_id=request_id,
                body=body,
                place=place,
                deadline=deadline,
                probabilities=probabilities,
            )
            answer = await self._answer(call, receive)
        except GatewayError as error:
            await self._refuse(send, error, request_id, call, arrival)
        except (ClientLeftError, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                _log.debug("request.abandoned", request_id=request_id)
            elif self._dispatcher.draining:
                late = DrainingError("the gateway shuts down now", retry_after_s=1)
                await self._refuse(send, late, request_id, call, arrival)
            else:
                raise
        except Exception as error:  # noqa: BLE001  # the last resort: every caller is answered
            _log.exception("request.crashed", request_id=request_id)
            internal = GatewayError(f"internal error ({type(error).__name__})")
            await self._refuse(send, internal, request_id, call, arrival)
        else:
            await self._reply(send, answer, call, time.perf_counter() - started)
        finally:
            arrival.end()

    async def _answer(self, call: Call, receive: Receive) -> Answer:
        """Predict; give up as soon as the caller does."""
        watch = _CallerWatch(receive, asyncio.current_task())
        begin = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, watch.begin)
        try:
            return await self._dispatcher.predict(call)
        except asyncio.CancelledError as error:
            if watch.cancelled_it():
                raise ClientLeftError from error
            raise
        finally:
            begin.cancel()
            watch.end()

    async def _reply(self, send: Send, answer: Answer, call: Call, seconds: float) -> None:
        route, reply, request_id = answer.route, answer.reply, call.request_id
        series = self._telemetry.series(route.model, route.version)
        series.requests.inc()
        series.latency.observe(seconds)
        timing = (
            f"queue;dur={reply.queued_s * 1000:.3f}, predict;dur={reply.predict_s * 1000:.3f}, "
            f"total;dur={seconds * 1000:.3f}"
        )
        headers = [
            (b"content-type", reply.content_type.encode()),
            (b"content-length", str(len(reply.body)).encode()),
            (b"x-model-version", str(route.version).encode()),
            (b"x-model-digest", str(route.digest).encode()),
            (b"x-route-generation", str(route.generation).encode()),
            (b"x-request-id", request_id.encode()),
            (b"server-timing", timing.encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if len(reply.body) <= _SENT_AT_ONCE_BYTES:
            await send({"type": "http.response.body", "body": reply.body})
        else:
            await _send_and_wait(send, reply.body, call)
        _log.debug("request.complete", request_id=request_id, seconds=round(seconds, 6))

    async def _refuse(
        self,
        send: Send,
        error: GatewayError,
        request_id: str,
        call: Call | None,
        arrival: Arrival,
    ) -> None:
        status = status_of(error)
        body = render(error, request_id)
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", request_id.encode()),
        ]
        if (seconds := retry_after(error)) is not None:
            headers.append((b"retry-after", seconds.encode()))
        still_sending = isinstance(error, _TOO_MUCH) and not arrival.complete
        gone_by = isinstance(error, _TOO_SLOW) and not arrival.complete
        if still_sending or gone_by or isinstance(error, DrainingError):
            headers.append((b"connection", b"close"))
        model, version = self._route_headers(call, headers)
        self._telemetry.errors.labels(model, version, error.code).inc()
        report = _log.warning if status >= 500 else _log.info  # noqa: PLR2004  # server's faults
        report(
            "request.refused",
            request_id=request_id,
            model=model,
            version=version,
            status=status,
            code=error.code,
        )
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": still_sending})
        if still_sending:
            # A connection that is closed on a caller who is still sending is reset, and the
            # answer may be lost with it: take and drop what comes, within limits, then close.
            await arrival.drop_rest()
            await send({"type": "http.response.body", "body": b""})

    def _route_headers(
        self, call: Call | None, headers: list[tuple[bytes, bytes]]
    ) -> tuple[str, str]:
        """Name the version that refused, where it is known; return model and version as labels."""
        if call is None:
            return NO_MODEL, NO_MODEL
        try:
            route = call.route or self._dispatcher.resolve(call)
        except GatewayError:
            return NO_MODEL, NO_MODEL
        headers += [
            (b"x-model-version", str(route.version).encode()),
            (b"x-route-generation", str(route.generation).encode()),
        ]
        if route.digest is not None:
            headers.append((b"x-model-digest", route.digest.encode()))
        return route.model, str(route.version)


async def _send_and_wait(send: Send, body: bytes, call: Call) -> None:
    """Send a large answer; keep its place, and count it, until its caller has read most of it.

    Every ``send`` first waits until the connection has room again: so the second one does.
    """
    call.place.count(len(body))
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def request_id_of(headers: dict[bytes, bytes]) -> str:
    """Return the caller's ``X-Request-Id`` if it is printable and short, else a new one."""
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if _REQUEST_ID.match(given) else new_request_id()


def _media(headers: dict[bytes, bytes], name: bytes) -> str:
    """Return a header that travels on to the worker, whose frames have small headers."""
    value = headers.get(name, b"")
    if len(value) > _MAX_MEDIA_TYPE_BYTES:
        raise MediaTypeError(f"{name.decode()} is longer than {_MAX_MEDIA_TYPE_BYTES} bytes")
    return value.decode("latin-1")


def _decode_name(raw: bytes) -> str:
    try:
        return parse_model_name(unquote_to_bytes(raw).decode("utf-8"))
    except (UnicodeDecodeError, InvalidReferenceError) as error:
        raise InvalidSelectorError(f"not a model's name: {error}") from error


def _selectors(path: bytes | None, header: bytes | None) -> tuple[Selector | None, Selector | None]:
    """Return the selector of the path, else of the header; and the header's where both are there.

    In a path an alias carries its ``@``; in the header it may.
    """
    try:
        by_header = parse_selector(header.decode("ascii").strip()) if header is not None else None
        if path is None:
            return by_header, None
        text = unquote_to_bytes(path).decode("ascii")
        return parse_selector(text), by_header
    except (UnicodeDecodeError, InvalidReferenceError) as error:
        raise InvalidSelectorError(f"not a version or alias: {error}") from error


def _refuse_twice(headers: list[tuple[bytes, bytes]]) -> None:
    """Two of them may disagree, and which one counts would be anybody's guess."""
    if sum(name == b"x-model-version" for name, _ in headers) > 1:
        raise InvalidSelectorError("the header X-Model-Version is given more than once")
    if sum(name == b"x-request-timeout" for name, _ in headers) > 1:
        raise InvalidTimeoutError("the header X-Request-Timeout is given more than once")


def _deadline(header: bytes | None) -> float | None:
    """Say when a caller gives up that gives its request so many seconds from now."""
    if header is None:
        return None
    if not _SECONDS.match(header):
        raise InvalidTimeoutError("the header X-Request-Timeout is not a number of seconds")
    return time.monotonic() + float(header)


def _probabilities(query: bytes) -> bool:
    if not query:
        return False
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("probabilities", [])
    if not values:
        return False
    value = values[-1].lower()
    if value not in (*_TRUE, *_FALSE):
        raise InvalidInputError("query parameter 'probabilities' is 'true' or 'false'")
    return value in _TRUE
