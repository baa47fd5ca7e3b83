"""The public listener's service: the prediction routes in front of the FastAPI application.

``POST /models/{model}/versions/{version}/predict`` and ``POST /models/{model}/predict``. It checks
path and header, bounds the body and passes its bytes on, unparsed. Nearly every prediction is begun
and answered by plain calls, without a task.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from functools import partial
from typing import NamedTuple

import structlog

from gateway.errors import DeadlineExceededError, DrainingError, GatewayError, WorkerDiedError
from gateway.http.predict import request
from gateway.http.predict.request import RequestHead, request_id_of
from gateway.http.problems import render, retry_after, status_of
from gateway.observability import NO_MODEL, Telemetry
from gateway.routing import Route
from gateway.serving import Admission, BufferedBytes, Call, Dispatcher, Slot, WorkerReply
from gateway.system.http1 import (
    MEDIA_TYPE,
    AsgiService,
    Body,
    EndingError,
    Exchange,
    RefusedError,
    check_size,
)

_COUNTED_BYTES = 64 * 1024
"""A larger body may be refused by its announced length; a larger answer counts until it is read."""
_MOST_REMEMBERED = 4096
_log = structlog.get_logger("gateway.http")


class _VersionHeaders(NamedTuple):
    """The headers of every answer of a version, as lines."""

    route: Route
    content_type: str
    lines: bytes


class _BodyWithDeadline(Body):
    """A body whose request has a deadline, in the event loop's time."""

    def __init__(
        self, max_bytes: int, timeout_s: float, room: BufferedBytes, now: float, deadline: float
    ) -> None:
        super().__init__(max_bytes=max_bytes, timeout_s=timeout_s, room=room, now=now)
        self._deadline = deadline
        self.give_up_at = min(self.give_up_at, deadline)

    def add(self, piece: bytes, now: float, *, last: bool) -> None:
        super().add(piece, now, last=last)
        self.give_up_at = min(self.give_up_at, self._deadline)

    def too_late(self) -> Exception:
        if self.give_up_at < self._deadline:
            return super().too_late()
        return DeadlineExceededError("the body did not come within X-Request-Timeout")


class Predictions:
    """Answers prediction requests. Event loop only.

    ``fallback`` serves all other routes; its limits of bodies apply to predictions too.
    """

    def __init__(
        self,
        fallback: AsgiService,
        dispatcher: Dispatcher,
        telemetry: Telemetry,
        admission: Admission,
    ) -> None:
        self._fallback = fallback
        self._dispatcher = dispatcher
        self._telemetry = telemetry
        self._admission = admission
        self._version_headers: dict[tuple[str, int], _VersionHeaders] = {}
        self._logs_each = _log.is_enabled_for(logging.DEBUG)

    def expect(self, exchange: Exchange, length: int | None) -> Body:
        """Return the receiver of a body that arrives in pieces.

        Raises:
            GatewayError: The request is refused by its head.
            BodyTooLargeError: The body will be too large.
        """
        head: RequestHead | None = None
        found = _prediction(exchange)
        if found is not None:
            self._dispatcher.refuse_when_draining()
            exchange.read = head = _read(found, exchange)
        check_size(length or 0, self._fallback.max_body_bytes)
        if length is not None and length > _COUNTED_BYTES:
            self._admission.expect(length)
        return self._body(head)

    def _body(self, head: RequestHead | None) -> Body:
        max_bytes, timeout_s = self._fallback.max_body_bytes, self._fallback.body_timeout_s
        room, now = self._admission.buffer(), asyncio.get_running_loop().time()
        if head is not None and head.deadline is not None:
            deadline = now + head.deadline - time.monotonic()
            return _BodyWithDeadline(max_bytes, timeout_s, room, now, deadline)
        return Body(max_bytes=max_bytes, timeout_s=timeout_s, room=room, now=now)

    def begin(self, exchange: Exchange) -> None:
        """Begin a request that is complete."""
        found = _prediction(exchange)
        if found is None:
            self._fallback.begin(exchange)
            return
        request_id = request_id_of(exchange.fields)
        call: Call | None = None
        slot: Slot | None = None
        try:
            self._dispatcher.refuse_when_draining()
            body, head = exchange.body, exchange.read
            if not isinstance(head, RequestHead):
                head = _read(found, exchange)
            check_size(len(body), self._fallback.max_body_bytes)
            slot = self._admission.enter(len(body))
            call = _call(head, request_id, body, slot)
            self._dispatcher.begin(call, partial(self._ended, exchange, call, time.perf_counter()))
            exchange.on_end = call.leave
        except Exception as error:  # noqa: BLE001  # every caller is answered
            self._answer_error(exchange, error, request_id, call, slot)

    def refuse(self, exchange: Exchange, error: Exception) -> None:
        """Answer a request that was refused before it was complete."""
        self._answer_error(exchange, error, request_id_of(exchange.fields))

    def end(self) -> None:
        """End the requests of other routes; `Exchange.end` has ended the predictions."""
        self._fallback.end()

    def _ended(
        self,
        exchange: Exchange,
        call: Call,
        started: float,
        pending: asyncio.Future[WorkerReply],
    ) -> None:
        """Answer an exchange with its reply or an error."""
        try:
            if pending.cancelled():
                self._give_up(exchange, call)
            else:
                self._answer_reply(exchange, call, pending.result(), started)
        except Exception as error:  # noqa: BLE001  # as above
            self._answer_error(exchange, error, call.request_id, call, call.slot)

    def _give_up(self, exchange: Exchange, call: Call) -> None:
        if not exchange.disconnected:
            raise DrainingError("the gateway shuts down now", retry_after_s=1)
        _log.debug("request.abandoned", request_id=call.request_id)
        call.slot.release()

    def _answer_reply(
        self, exchange: Exchange, call: Call, reply: WorkerReply, started: float
    ) -> None:
        if call.route is None:
            raise WorkerDiedError("a reply without a route")
        seconds = time.perf_counter() - started
        version_headers = self._of_version(call.route, reply.content_type)
        series = self._telemetry.series(call.route.model, call.route.version)
        series.requests.inc()
        series.latency.observe(seconds)
        lines = b"%bcontent-length: %d\r\nx-request-id: %b\r\nserver-timing: %b\r\n" % (
            version_headers.lines,
            len(reply.body),
            call.request_id.encode(),
            _timing(reply, seconds),
        )
        if self._logs_each:
            _log.debug("request.completed", request_id=call.request_id, seconds=round(seconds, 6))
        self._answer(exchange, 200, lines, reply.body, call.slot)

    def _answer(
        self, exchange: Exchange, status: int, lines: bytes, body: bytes, slot: Slot | None
    ) -> None:
        """Answer, and count a large answer until most of it is read."""
        if len(body) > _COUNTED_BYTES:
            exchange.on_read = self._admission.buffer(len(body)).release
        exchange.answer(status, lines, body)
        if slot is not None:
            slot.release()

    # --- headers and logs -------------------------------------------------------------------------

    def _of_version(self, route: Route, content_type: str) -> _VersionHeaders:
        """Return the headers of every answer of a version."""
        known = self._version_headers.get((route.model, route.version))
        if known is not None and known.route is route and known.content_type == content_type:
            return known
        lines = b"content-type: %b\r\n%b" % (content_type.encode(), _route_lines(route))
        if len(self._version_headers) >= _MOST_REMEMBERED:
            self._version_headers.clear()
        made = _VersionHeaders(route, content_type, lines)
        self._version_headers[route.model, route.version] = made
        return made

    def _answer_error(
        self,
        exchange: Exchange,
        error: Exception,
        request_id: str,
        call: Call | None = None,
        slot: Slot | None = None,
    ) -> None:
        """Answer with a problem, after counting and logging the error."""
        if not isinstance(error, (GatewayError, RefusedError)):
            _log.error("request.crashed", request_id=request_id, exc_info=error)
            error = GatewayError(f"internal error ({type(error).__name__})")
        status = status_of(error)
        body = render(error, request_id)
        lines = b"content-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n" % (
            MEDIA_TYPE.encode(),
            len(body),
            request_id.encode(),
        )
        if (seconds := retry_after(error)) is not None:
            lines += b"retry-after: %b\r\n" % seconds.encode()
        model = version = NO_MODEL
        if (route := self._route_of(call)) is not None:
            lines += _route_lines(route)
            model, version = route.model, str(route.version)
        self._telemetry.errors.labels(model, version, error.code).inc()
        # Callers' faults are counted, but not logged: there may be thousands in a second.
        report = _log.warning if status >= 500 else _log.debug  # noqa: PLR2004  # server's faults
        report(
            "request.refused",
            request_id=request_id,
            model=model,
            version=version,
            status=status,
            code=error.code,
        )
        if isinstance(error, (DrainingError, EndingError)):
            exchange.keep_alive = False
        self._answer(exchange, status, lines, body, slot)

    def _route_of(self, call: Call | None) -> Route | None:
        """Return the route of a call, or None if it is not known."""
        with contextlib.suppress(GatewayError):
            return None if call is None else call.route or self._dispatcher.resolve(call)
        return None


def _route_lines(route: Route) -> bytes:
    """Return the headers that name a version."""
    digest = b"" if route.digest is None else b"x-model-digest: %b\r\n" % route.digest.encode()
    return b"x-model-version: %d\r\n%bx-route-generation: %d\r\n" % (
        route.version,
        digest,
        route.generation,
    )


def _prediction(exchange: Exchange) -> re.Match[bytes] | None:
    """Return the parts of a prediction's path, or None for another route."""
    return request.URL.match(exchange.url) if exchange.method == b"POST" else None


def _read(found: re.Match[bytes], exchange: Exchange) -> RequestHead:
    return request.read(found[1], found[2], found[3] or b"", exchange.headers, exchange.fields)


def _call(head: RequestHead, request_id: str, body: bytes, slot: Slot) -> Call:
    model, selector, second_selector, probabilities = head.target
    return Call(
        model=model,
        selector=selector,
        second_selector=second_selector,
        protocol="predict",
        content_type=head.content_type,
        content_encoding=head.content_encoding,
        request_id=request_id,
        body=body,
        slot=slot,
        deadline=head.deadline,
        probabilities=probabilities,
    )


def _timing(reply: WorkerReply, seconds: float) -> bytes:
    return b"queue;dur=%.3f, predict;dur=%.3f, total;dur=%.3f" % (
        reply.queued_s * 1000,
        reply.predict_s * 1000,
        seconds * 1000,
    )
