"""The spine of a request: resolve → lease → submit → reply."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import orjson

from gateway.admission import Place
from gateway.demands import Lease
from gateway.errors import (
    DeadlineExceededError,
    DisplacedError,
    DrainingError,
    ModelLoadFailedError,
    ModelLoadingError,
    ModelOverloadedError,
    ModelRaisedError,
    NotDeliveredError,
    RegistryUnavailableError,
    VersionConflictError,
    WorkerDiedError,
)
from gateway.live_record import LiveRecord
from gateway.model_ref import Selector
from gateway.node import Node
from gateway.replica import WorkerReply, clock_deadline
from gateway.residency import ResidentSet
from gateway.room import ReplicaKey
from gateway.routing import Route
from gateway.worker.messages import Predict

_DELIVERY_TRIES = 3
_WISH_S = 10.0
_WHOLE_LIMIT = 0.9
"""A deadline that passes earlier than at this share of the model's limit was the caller's own."""
_SOME_ALIAS = 0
"""In place of a version, which is at least 1: callers who wait for an activation."""


@dataclass(slots=True)
class Call:
    """One prediction request as the HTTP layer hands it over.

    Attributes:
        route: Which version it went to, as soon as that is known; set by the dispatcher. An error
            is that version's, although the alias may mean another one by then.
        selector: Which version; None: the model's default.
        also: A second selector of the same request (path and header), which must agree.
        body: The caller's bytes, untouched.
        deadline: When its caller gives up (``CLOCK_MONOTONIC``, seconds), wherever the request is
            then; None: it has not said, and the time-out of its model begins when a worker has it.
        place: What the request holds of this gateway; a worker that is given it keeps it too.
    """

    model: str
    selector: Selector | None
    also: Selector | None
    protocol: str
    content_type: str
    content_encoding: str
    request_id: str
    body: bytes
    place: Place
    deadline: float | None = None
    probabilities: bool = False
    route: Route | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished body, and which version gave it."""

    route: Route
    reply: WorkerReply


class Dispatcher:
    """Takes calls to workers and answers back. Event loop only."""

    def __init__(
        self,
        node: Node,
        residents: ResidentSet,
        live_record: LiveRecord,
        *,
        request_timeout_s: float,
        load_budget_s: float,
        max_waiting: int,
    ) -> None:
        """Store. Seconds, which do not overlap: a load does not eat the time-out.

        ``live_record``: told how every request went that says something of its version.
        ``max_waiting``: the most requests that wait for one alias or one version's bytes.
        """
        self._node = node
        self._residents = residents
        self._live_record = live_record
        self._request_timeout_s = request_timeout_s
        self._load_budget_s = load_budget_s
        self._max_waiting = max_waiting
        self._waiting: Counter[tuple[str, int]] = Counter()
        self.draining = False

    async def predict(self, call: Call) -> Answer:
        """Answer one call.

        Raises:
            GatewayError: Its family says who must act.
        """
        if call.deadline is None:
            return await self._predict(call)
        try:
            async with asyncio.timeout(_left_s(call.deadline)):
                return await self._predict(call)
        except TimeoutError as error:
            raise _too_late() from error

    async def _predict(self, call: Call) -> Answer:
        try:
            route = self.resolve(call)
        except ModelLoadingError as error:
            route = await self._activated(call, error)
        except ModelLoadFailedError as error:
            self._want_again(error)
            raise
        call.route = route
        if route.digest is None:
            call.route = route = await self._fetched(route)
        for _ in range(_DELIVERY_TRIES):
            key = ReplicaKey(route.model, route.version, str(route.digest))
            lease = self._residents.try_lease(key)
            if lease is None:
                try:
                    lease = await self._loaded(key)
                except DisplacedError:
                    route = call.route = self.resolve(call)
                    continue
            try:
                return Answer(route, await self._submit(lease, call, route))
            except NotDeliveredError:
                continue  # the worker died before it had the request: another may have it
        raise WorkerDiedError(f"the worker of {route.model}/{route.version} keeps dying")

    def resolve(self, call: Call) -> Route:
        """Say which version is meant, on one snapshot, once.

        Raises:
            VersionConflictError: Path and header name different versions.
            GatewayError: As `RouteTable.resolve`.
        """
        table = self._node.table
        route = table.resolve(call.model, call.selector)
        if call.also is not None and call.also != call.selector:
            other = table.resolve(call.model, call.also)
            if other.version != route.version:
                raise VersionConflictError(
                    f"the path names version {route.version}, the header X-Model-Version names "
                    f"version {other.version}"
                )
        return route

    def drain(self) -> None:
        """Accept no new calls; those that were accepted go on, unless they wait for a change."""
        self.draining = True

    def refuse_when_draining(self) -> None:
        """Refuse a call that has not begun.

        Raises:
            DrainingError: The gateway is shutting down.
        """
        if self.draining:
            raise DrainingError("the gateway is shutting down", retry_after_s=1)

    async def _submit(self, lease: Lease, call: Call, route: Route) -> WorkerReply:
        limit_s = route.timeout_s or self._request_timeout_s
        try:
            answer = self._send(lease, call, limit_s)
        except BaseException:
            lease.release()
            raise
        # From here on lease and place end with the worker's answer or death, not with the caller's
        # patience: they are taken until then.
        call.place.keep()
        key, pid, began = lease.resident.key, lease.replica.pid, time.monotonic()
        try:
            reply = await answer
        except WorkerDiedError:
            self._live_record.died(key, pid or 0)
            raise
        except ModelRaisedError:
            self._live_record.failed(key)
            raise
        except DeadlineExceededError:
            if time.monotonic() - began > _WHOLE_LIMIT * limit_s:
                self._live_record.failed(key)
            raise
        self._live_record.answered(key, time.monotonic() - began)
        return reply

    async def _loaded(self, key: ReplicaKey) -> Lease:
        try:
            return await self._residents.lease(key)
        except ModelLoadFailedError:
            self._live_record.failed(key)  # callers get no answer, and it never comes to a worker
            raise

    def _send(self, lease: Lease, call: Call, limit_s: float) -> asyncio.Future[WorkerReply]:
        timeout_s = limit_s if call.deadline is None else min(limit_s, _left_s(call.deadline))
        header = Predict(
            protocol=call.protocol,
            content_type=call.content_type,
            deadline=clock_deadline(timeout_s),
            request_id=call.request_id,
            content_encoding=call.content_encoding,
            probabilities=call.probabilities,
        )
        return lease.replica.submit(
            orjson.dumps(header),
            call.body,
            timeout_s=timeout_s,
            limit_s=limit_s,
            on_done=partial(_let_go, lease, call.place),
        )

    async def _activated(self, call: Call, error: ModelLoadingError) -> Route:
        """Wait until an alias that is not active on this node yet is.

        What it is to mean is wanted meanwhile: bytes that come only when they are asked for are
        asked for here, and others come before those that nobody waits for.

        Raises:
            ModelLoadingError: It was not within the load budget, or nobody is there to activate it.
            GatewayError: As `resolve`.
        """
        wish, wanted = contextlib.ExitStack(), None
        with self._waiting_for((call.model, _SOME_ALIAS)), wish, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._load_budget_s):
                while not self._node.control_plane_silent:
                    if error.not_here != wanted:  # the registry has moved the alias, or bytes came
                        wish.close()
                        wanted = error.not_here
                        if wanted is not None:
                            wish.enter_context(self._wanting(wanted))
                    await self._change_or_second()
                    self.refuse_when_draining()
                    try:
                        return self.resolve(call)
                    except ModelLoadingError as still:
                        error = still
        return self.resolve(call)

    def _want_again(self, error: ModelLoadFailedError) -> None:
        """A caller has asked for what could not be fetched: let it be tried soon, for a while."""
        if error.not_fetched is not None:
            self._node.want(*error.not_fetched)
            asyncio.get_running_loop().call_later(_WISH_S, self._forget_wish, error.not_fetched)

    def _forget_wish(self, wanted: tuple[str, int]) -> None:
        if wanted not in self._waiting:
            self._node.unwant(*wanted)

    async def _change_or_second(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):  # silence is no change: look again
                await self._node.next_change()

    async def _fetched(self, route: Route) -> Route:
        """Wait until a version's bytes are on this node."""
        with self._wanting((route.model, route.version)):
            try:
                async with asyncio.timeout(self._load_budget_s):
                    return await self._until_here(route)
            except TimeoutError as error:
                raise ModelLoadingError(
                    f"version {route.version} of model {route.model!r} is still being fetched",
                    retry_after_s=self._residents.track_record.expected_load_s(
                        ReplicaKey(route.model, route.version, "")
                    ),
                ) from error

    async def _until_here(self, route: Route) -> Route:
        while True:
            if self._node.control_plane_silent:
                raise RegistryUnavailableError(
                    f"version {route.version} of model {route.model!r} is not on this node, and "
                    "the control plane that would fetch it has been silent for 15 s",
                    retry_after_s=15,
                )
            await self._change_or_second()
            self.refuse_when_draining()
            selector = Selector.of_version(route.version)
            found = self._node.table.resolve(route.model, selector)
            if found.digest is not None:
                return found

    @contextlib.contextmanager
    def _wanting(self, wanted: tuple[str, int]) -> Iterator[None]:
        with self._waiting_for(wanted):
            self._node.want(*wanted)
            try:
                yield
            finally:
                if self._waiting[wanted] == 1:
                    self._node.unwant(*wanted)

    @contextlib.contextmanager
    def _waiting_for(self, wanted: tuple[str, int]) -> Iterator[None]:
        """Count who waits for the same, and refuse who would be one too many."""
        if self._waiting[wanted] >= self._max_waiting:
            raise ModelOverloadedError(
                f"{self._waiting[wanted]} requests wait for model {wanted[0]!r} already",
                retry_after_s=1,
            )
        self._waiting[wanted] += 1
        try:
            yield
        finally:
            self._waiting[wanted] -= 1
            if self._waiting[wanted] == 0:
                del self._waiting[wanted]


def _let_go(lease: Lease, place: Place) -> None:
    """The worker has answered, or is gone."""
    lease.release()
    place.let_go()


def _left_s(deadline: float) -> float:
    """Return how many seconds are left.

    Raises:
        DeadlineExceededError: None: what has not begun does not begin.
    """
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise _too_late()
    return left_s


def _too_late() -> DeadlineExceededError:
    return DeadlineExceededError("no answer within the time that X-Request-Timeout gives")
