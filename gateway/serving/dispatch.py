"""The way of a request: resolve → lease → submit → reply."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

import orjson

from gateway.contract import NODE_FAILURES, ArtifactRef
from gateway.errors import (
    DeadlineExceededError,
    DisplacedError,
    ModelLoadFailedError,
    ModelLoadingError,
    NotDeliveredError,
    WorkerDiedError,
)
from gateway.observability import LiveTallies
from gateway.routing import Node, Route
from gateway.serving.admission import Slot
from gateway.serving.call import Call
from gateway.serving.replica import WorkerReply
from gateway.serving.residency import Lease, ResidentSet
from gateway.serving.resolution import Resolution, resolve, shutting_down
from gateway.worker.protocol.messages import Predict

_REPLY_TYPES = {"predict": "application/json"}
"""The content type of a protocol's replies. It is not taken from the worker."""
_DELIVERY_TRIES = 3

OnDone = Callable[[asyncio.Future[WorkerReply]], None]


class Dispatcher:
    """Passes calls to workers and replies back. Event loop only.

    A request may wait ``load_budget_s`` seconds for its version, beside its own time-out.
    """

    def __init__(
        self,
        node: Node,
        residents: ResidentSet,
        live_tallies: LiveTallies,
        *,
        request_timeout_s: float,
        load_budget_s: float,
        max_waiting: int,
    ) -> None:
        self._node = node
        self._residents = residents
        self._live_tallies = live_tallies
        self._request_timeout_s = request_timeout_s
        self._resolution = Resolution(
            node, residents, load_budget_s=load_budget_s, max_waiting=max_waiting
        )

    async def predict(self, call: Call) -> WorkerReply:
        """Return the reply to one call.

        Raises:
            GatewayError: The call failed; see the families of errors.
        """
        if call.deadline is None:
            return await self._predict(call)
        try:
            async with asyncio.timeout(_left_s(call.deadline)):
                return await self._predict(call)
        except TimeoutError as error:
            raise _too_late() from error

    async def _predict(self, call: Call) -> WorkerReply:
        route = call.route = await self._resolution.until_routable(call)
        for _ in range(_DELIVERY_TRIES):
            lease = self._residents.try_lease(route.ref, len(call.body))
            if lease is None:
                try:
                    lease = await self._load(route.ref)
                except DisplacedError:
                    route = call.route = self.resolve(call)
                    continue
            try:
                return await self._submit(lease, call, route)
            except NotDeliveredError:
                continue  # that worker will not begin it: another may
        reason = f"no worker of {route.model}/{route.version} has begun the request"
        raise WorkerDiedError(reason, retry_after_s=1)

    def resolve(self, call: Call) -> Route:
        """Return the version that a call means now; raises as `resolution.resolve`."""
        return resolve(self._node.table, call)

    def drain(self) -> None:
        """Refuse new calls, and calls that wait for a version; finish the others."""
        self._resolution.draining = True

    def refuse_when_draining(self) -> None:
        """Refuse a call that has not begun.

        Raises:
            DrainingError: The gateway is shutting down.
        """
        if self._resolution.draining:
            raise shutting_down()

    def begin(self, call: Call, on_done: OnDone) -> None:
        """Begin one call: now, if a replica is ready, or else in a task.

        Sets ``call.pending``, and calls ``on_done`` with it when it is done. Nearly all requests
        need no task.

        Raises:
            GatewayError: The call cannot begin; ``on_done`` is not called.
        """
        lease = self._lease_now(call) if call.deadline is None else None
        if lease is None or call.route is None:
            self._begin_waiting(call, on_done)
            return
        try:
            reply = self._submit(lease, call, call.route)
        except NotDeliveredError:
            self._begin_waiting(call, on_done)
            return
        call.pending = reply
        reply.add_done_callback(partial(self._done, call, on_done))

    def _begin_waiting(self, call: Call, on_done: OnDone) -> None:
        call.pending = asyncio.get_running_loop().create_task(self.predict(call))
        call.pending.add_done_callback(on_done)

    def _lease_now(self, call: Call) -> Lease | None:
        try:
            route = resolve(self._node.table, call)
        except (ModelLoadingError, ModelLoadFailedError):
            return None
        call.route = route
        if route.digest is None:
            return None
        return self._residents.try_lease(route.ref, len(call.body))

    def _done(self, call: Call, on_done: OnDone, reply: asyncio.Future[WorkerReply]) -> None:
        if not reply.cancelled() and isinstance(reply.exception(), NotDeliveredError):
            self._begin_waiting(call, on_done)  # for another worker
        else:
            on_done(reply)

    def _submit(self, lease: Lease, call: Call, route: Route) -> asyncio.Future[WorkerReply]:
        """Send a call to a worker, which holds its lease and slot until it replies or dies."""
        limit_s = route.timeout_s or self._request_timeout_s
        try:
            timeout_s = limit_s if call.deadline is None else min(limit_s, _left_s(call.deadline))
            header = Predict(
                protocol=call.protocol,
                content_type=call.content_type,
                deadline=time.monotonic() + timeout_s,
                request_id=call.request_id,
                content_encoding=call.content_encoding,
                probabilities=call.probabilities,
            )
            reply = lease.replica.submit(
                orjson.dumps(header),
                call.body,
                timeout_s=timeout_s,
                limit_s=limit_s,
                on_done=partial(_release, lease, call.slot),
                answer_type=_REPLY_TYPES[call.protocol],
            )
        except BaseException:
            lease.release()
            raise
        call.slot.share()
        return reply

    async def _load(self, key: ArtifactRef) -> Lease:
        try:
            return await self._residents.lease(key)
        except ModelLoadFailedError as error:
            if self._node.why_damaged(key.digest):  # no fault of the version
                raise self._damaged(key, error) from error
            if error.failure not in NODE_FAILURES:
                self._live_tallies.count(key, None)  # no worker ever has the request
            raise

    def _damaged(self, key: ArtifactRef, error: ModelLoadFailedError) -> ModelLoadFailedError:
        """Return the refusal for a damaged copy, with its remedy."""
        remedy = "the control plane fetches it again"
        if (gone := self._node.table.why_gone(key)) is not None:
            remedy = f"it cannot be fetched again: {gone}"
        elif self._node.control_plane_silent:
            remedy = "the control plane, which would fetch it again, has been silent for 15 s"
        return ModelLoadFailedError(
            f"{error.message}; this node's copy of its bytes is damaged or gone, and {remedy}",
            retry_after_s=error.retry_after_s,
        )


def _release(lease: Lease, slot: Slot) -> None:
    try:
        lease.release()
    finally:
        slot.release()


def _left_s(deadline: float) -> float:
    """Return the seconds until a deadline.

    Raises:
        DeadlineExceededError: It has passed.
    """
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise _too_late()
    return left_s


def _too_late() -> DeadlineExceededError:
    return DeadlineExceededError("no answer within the time that X-Request-Timeout gives")
