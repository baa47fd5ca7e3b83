"""The prediction routes: in front of the FastAPI application, and without it.

``POST /models/{model}/versions/{version}/predict`` and ``POST /models/{model}/predict``. It checks
path and header, bounds the body, and passes the bytes on; it never parses a prediction's body.

A request that came whole is taken as an `Exchange`, begun and answered without a task; one that
comes in pieces is served as ASGI would have it. What is asked, who answers and what is said is the
same for both.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, NamedTuple

import structlog

from gateway.admission import Admission, Held, Place
from gateway.dispatch import Answer, Call, Dispatcher
from gateway.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    DeadlineExceededError,
    DrainingError,
    GatewayError,
    GatewayOverloadedError,
    WorkerDiedError,
)
from gateway.http import asked
from gateway.http.arrival import Arrival, BodyLimits, ClientLeftError, Message, Receive
from gateway.http.asked import Asked, request_id_of
from gateway.http.exchange import Exchange, Header
from gateway.http.problems import MEDIA_TYPE, render, retry_after, status_of
from gateway.replica import WorkerReply
from gateway.routing import Route
from gateway.telemetry import NO_MODEL, Telemetry

Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_WATCH_AFTER_S = 0.05
_SENT_AT_ONCE_BYTES = 64 * 1024
_MOST_REMEMBERED = 4096
_NO_HEADER_VALUE = re.compile(r"[^\x20-\x7e]")
_TOO_MUCH = (BodyTooLargeError, GatewayOverloadedError, DrainingError)
_TOO_SLOW = (BodyTimeoutError, DeadlineExceededError)
_log = structlog.get_logger("gateway.http")


class _Said(NamedTuple):
    """The headers that every answer of a version has, as pairs and as lines."""

    route: Route
    content_type: str
    headers: list[Header]
    lines: bytes


class _Refusal(NamedTuple):
    """An error's answer. ``rest_follows``: its caller is sending still, and is to be heard out."""

    status: int
    headers: list[Header]
    body: bytes
    closes: bool
    rest_follows: bool


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
        self._said: dict[tuple[str, int], _Said] = {}
        self._slow: set[asyncio.Task[None]] = set()
        self._tells_each = _log.is_enabled_for(logging.DEBUG)

    # --- requests that came whole -----------------------------------------------------------------

    def take(self, exchange: Exchange) -> bool:
        """Begin with a request that came whole, if it is a prediction; return whether it is."""
        found = asked.URL.match(exchange.url)
        if found is None:
            return False
        headers = dict(exchange.headers)
        request_id = request_id_of(headers)
        call: Call | None = None
        place: Place | None = None
        try:
            self._dispatcher.refuse_when_draining()
            wanted = asked.read(found[1], found[2], found[3] or b"", exchange.headers, headers)
            self._body_limits.check(len(exchange.body))
            place = self._admission.enter(len(exchange.body))
            call = _call(wanted, request_id, exchange.body, place)
            self._dispatcher.begin(call, partial(self._ended, exchange, call, time.perf_counter()))
            exchange.on_end = call.leave
        except GatewayError as error:
            self._answer_refusal(exchange, self._refusal(error, request_id, call), place)
        except Exception as error:  # noqa: BLE001  # the last resort: every caller is answered
            self._answer_refusal(exchange, self._crashed(error, request_id, call), place)
        return True

    def _ended(
        self,
        exchange: Exchange,
        call: Call,
        started: float,
        pending: asyncio.Future[WorkerReply],
    ) -> None:
        """Answer an exchange. Nothing may leave here but an answer."""
        try:
            if pending.cancelled():
                self._give_up(exchange, call)
            else:  # which may raise
                self._answer_reply(exchange, call, pending.result(), started)
        except GatewayError as error:
            refusal = self._refusal(error, call.request_id, call)
            self._answer_refusal(exchange, refusal, call.place)
        except Exception as error:  # noqa: BLE001  # as above
            refusal = self._crashed(error, call.request_id, call)
            self._answer_refusal(exchange, refusal, call.place)

    def _give_up(self, exchange: Exchange, call: Call) -> None:
        if not exchange.disconnected:
            raise _too_late_to_wait()
        _log.debug("request.abandoned", request_id=call.request_id)
        call.place.let_go()

    def _answer_reply(
        self, exchange: Exchange, call: Call, reply: WorkerReply, started: float
    ) -> None:
        if call.route is None:
            raise WorkerDiedError("an answer of no version")
        seconds = time.perf_counter() - started
        said = self._of_version(call.route, reply.content_type)
        self._count(call.route, seconds)
        lines = b"%bcontent-length: %d\r\nx-request-id: %b\r\nserver-timing: %b\r\n" % (
            said.lines,
            len(reply.body),
            call.request_id.encode(),
            _timing(reply, seconds),
        )
        self._tell(call.request_id, seconds)
        self._answer(exchange, 200, lines, reply.body, call.place)

    def _answer_refusal(self, exchange: Exchange, refusal: _Refusal, place: Place | None) -> None:
        exchange.keep_alive = exchange.keep_alive and not refusal.closes
        lines = b"".join(b"%b: %b\r\n" % header for header in refusal.headers)
        self._answer(exchange, refusal.status, lines, refusal.body, place)

    def _answer(
        self, exchange: Exchange, status: int, lines: bytes, body: bytes, place: Place | None
    ) -> None:
        """Answer: at once where the caller reads; else it is counted until most of it is read."""
        if len(body) <= _SENT_AT_ONCE_BYTES and exchange.is_read:
            exchange.answer(status, lines, body)
        else:
            held = self._admission.hold(len(body))
            task = asyncio.get_running_loop().create_task(
                _answer_in_time(exchange, status, lines, body, held)
            )
            self._slow.add(task)
            task.add_done_callback(self._slow.discard)
        if place is not None:
            place.let_go()

    # --- requests that come in pieces -------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] == "POST":
            found = asked.URL.match(scope["raw_path"])
            if found is not None:
                await self._serve(scope, receive, send, found)
                return
        await self._following(scope, receive, send)

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, found: re.Match[bytes]
    ) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = request_id_of(headers)
        arrival = Arrival(self._body_limits, self._admission, receive)
        call: Call | None = None
        try:
            self._dispatcher.refuse_when_draining()
            wanted = asked.read(
                found[1], found[2], scope["query_string"], scope["headers"], headers
            )
            length = headers.get(b"content-length", b"")
            body, place = await arrival.read(length, wanted.deadline)
            started = time.perf_counter()
            call = _call(wanted, request_id, body, place)
            answer = await self._predict(call, receive)
        except GatewayError as error:
            await self._send_refusal(send, self._refusal(error, request_id, call, arrival), arrival)
        except (ClientLeftError, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                _log.debug("request.abandoned", request_id=request_id)
            elif self._dispatcher.draining:
                late = self._refusal(_too_late_to_wait(), request_id, call, arrival)
                await self._send_refusal(send, late, arrival)
            else:
                raise
        except Exception as error:  # noqa: BLE001  # the last resort: every caller is answered
            await self._send_refusal(send, self._crashed(error, request_id, call), arrival)
        else:
            arrival.answered()
            await self._send_reply(send, answer, call, time.perf_counter() - started)
        finally:
            arrival.end()

    async def _predict(self, call: Call, receive: Receive) -> Answer:
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

    async def _send_reply(self, send: Send, answer: Answer, call: Call, seconds: float) -> None:
        route, reply, request_id = answer.route, answer.reply, call.request_id
        self._count(route, seconds)
        headers = [
            *self._of_version(route, reply.content_type).headers,
            (b"content-length", str(len(reply.body)).encode()),
            (b"x-request-id", request_id.encode()),
            (b"server-timing", _timing(reply, seconds)),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if len(reply.body) <= _SENT_AT_ONCE_BYTES:
            await send({"type": "http.response.body", "body": reply.body})
        else:
            await _send_and_wait(send, reply.body, self._admission.hold(len(reply.body)))
        self._tell(request_id, seconds)

    async def _send_refusal(self, send: Send, refusal: _Refusal, arrival: Arrival) -> None:
        arrival.answered()
        start = {"type": "http.response.start", "status": refusal.status}
        await send({**start, "headers": refusal.headers})
        more = refusal.rest_follows
        await send({"type": "http.response.body", "body": refusal.body, "more_body": more})
        if more:
            # A connection that is closed on a caller who is still sending is reset, and the
            # answer may be lost with it: take and drop what comes, within limits, then close.
            await arrival.drop_rest()
            await send({"type": "http.response.body", "body": b""})

    # --- what is said -----------------------------------------------------------------------------

    def _of_version(self, route: Route, content_type: str) -> _Said:
        """Return what every answer of a version says."""
        said = self._said.get((route.model, route.version))
        if said is not None and said.route is route and said.content_type == content_type:
            return said
        if _NO_HEADER_VALUE.search(content_type):
            raise WorkerDiedError("the worker's content type is none")
        headers = [
            (b"content-type", content_type.encode()),
            (b"x-model-version", str(route.version).encode()),
            (b"x-model-digest", str(route.digest).encode()),
            (b"x-route-generation", str(route.generation).encode()),
        ]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        if len(self._said) >= _MOST_REMEMBERED:
            self._said.clear()
        said = self._said[route.model, route.version] = _Said(route, content_type, headers, lines)
        return said

    def _count(self, route: Route, seconds: float) -> None:
        series = self._telemetry.series(route.model, route.version)
        series.requests.inc()
        series.latency.observe(seconds)

    def _tell(self, request_id: str, seconds: float) -> None:
        if self._tells_each:
            _log.debug("request.complete", request_id=request_id, seconds=round(seconds, 6))

    def _crashed(self, error: Exception, request_id: str, call: Call | None) -> _Refusal:
        """Return the answer to a request that met a fault of ours."""
        _log.error("request.crashed", request_id=request_id, exc_info=error)
        internal = GatewayError(f"internal error ({type(error).__name__})")
        return self._refusal(internal, request_id, call)

    def _refusal(
        self,
        error: GatewayError,
        request_id: str,
        call: Call | None,
        arrival: Arrival | None = None,
    ) -> _Refusal:
        """Return an error's answer; count and log it. ``arrival``: None if the body is here."""
        status = status_of(error)
        body = render(error, request_id)
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", request_id.encode()),
        ]
        if (seconds := retry_after(error)) is not None:
            headers.append((b"retry-after", seconds.encode()))
        arriving = arrival is not None and not arrival.complete
        rest_follows = arriving and isinstance(error, _TOO_MUCH)
        gone_by = arriving and isinstance(error, _TOO_SLOW)
        closes = rest_follows or gone_by or isinstance(error, DrainingError)
        if closes and arrival is not None:
            headers.append((b"connection", b"close"))
        model, version = self._route_headers(call, headers)
        self._telemetry.errors.labels(model, version, error.code).inc()
        # What is a caller's fault is counted, and in no log: there may be thousands in a second.
        report = _log.warning if status >= 500 else _log.debug  # noqa: PLR2004  # server's faults
        report(
            "request.refused",
            request_id=request_id,
            model=model,
            version=version,
            status=status,
            code=error.code,
        )
        return _Refusal(status, headers, body, closes, rest_follows)

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


def _call(wanted: Asked, request_id: str, body: bytes, place: Place) -> Call:
    model, selector, also, probabilities = wanted.target
    return Call(
        model=model,
        selector=selector,
        also=also,
        protocol="predict",
        content_type=wanted.content_type,
        content_encoding=wanted.content_encoding,
        request_id=request_id,
        body=body,
        place=place,
        deadline=wanted.deadline,
        probabilities=probabilities,
    )


def _timing(reply: WorkerReply, seconds: float) -> bytes:
    return b"queue;dur=%.3f, predict;dur=%.3f, total;dur=%.3f" % (
        reply.queued_s * 1000,
        reply.predict_s * 1000,
        seconds * 1000,
    )


def _too_late_to_wait() -> DrainingError:
    return DrainingError("the gateway shuts down now", retry_after_s=1)


async def _answer_in_time(
    exchange: Exchange, status: int, lines: bytes, body: bytes, held: Held
) -> None:
    """Send an answer that is large, or to a caller who is slow; count it until it is read."""
    try:
        await exchange.answer_in_time(status, lines, body)
    finally:
        held.let_go()


async def _send_and_wait(send: Send, body: bytes, held: Held) -> None:
    """Send a large answer; count it until its caller has read most of it.

    Every ``send`` first waits until the connection has room again: so the second one does.
    """
    try:
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        held.let_go()
