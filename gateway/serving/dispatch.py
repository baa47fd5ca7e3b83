"""The spine of a request: resolve → lease → submit → reply."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import orjson

from gateway.contract import ReplicaKey, Selector, SelectorKind
from gateway.errors import (
    DeadlineExceededError,
    DisplacedError,
    DrainingError,
    ModelLoadFailedError,
    ModelLoadingError,
    ModelOverloadedError,
    NotDeliveredError,
    RegistryUnavailableError,
    VersionConflictError,
    WorkerDiedError,
)
from gateway.observability import LiveTallies
from gateway.routing import Node, Route
from gateway.serving.admission import Place
from gateway.serving.replica import WorkerReply, clock_deadline
from gateway.serving.residency import Lease, ResidentSet
from gateway.worker.protocol.messages import Predict

_ANSWER_TYPES = {"predict": "application/json"}
"""What the answers of a protocol are: known here, not told by the worker."""
_DELIVERY_TRIES = 3
_WANTED_S = 10.0
_SOME_ALIAS = 0
"""In place of a version, which is at least 1: it is not known which one the alias will mean."""


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
        pending: Its answer to come, where `Dispatcher.begin` was asked for it.
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
    pending: asyncio.Future[WorkerReply] | None = None

    def leave(self) -> None:
        """Wait no more: the worker skips what it has not begun."""
        if self.pending is not None:
            self.pending.cancel()


_Awaited = tuple[str, int, str | None]
"""A model, a version, and the alias that is to mean it; None: the version is waited for itself."""


class _Missing(NamedTuple):
    """A version or alias that a call waits for, and the refusal if it does not come in time."""

    awaited: _Awaited
    error: ModelLoadingError


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
        live_tallies: LiveTallies,
        *,
        request_timeout_s: float,
        load_budget_s: float,
        max_waiting: int,
    ) -> None:
        """Store. Seconds, which do not overlap: a load does not eat the time-out.

        ``live_tallies``: counts the requests of a version that does not load.
        ``max_waiting``: the most requests that wait for one alias or one version's bytes.
        """
        self._node = node
        self._residents = residents
        self._live_tallies = live_tallies
        self._request_timeout_s = request_timeout_s
        self._load_budget_s = load_budget_s
        self._max_waiting = max_waiting
        self._waiting: Counter[_Awaited] = Counter()
        self._wanted_for_a_while: set[tuple[str, int]] = set()
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
        route = call.route = await self._until_routable(call)
        for _ in range(_DELIVERY_TRIES):
            key = ReplicaKey(route.model, route.version, str(route.digest))
            lease = self._residents.try_lease(key, len(call.body))
            if lease is None:
                try:
                    lease = await self._loaded(key)
                except DisplacedError:
                    route = call.route = self.resolve(call)
                    continue
            try:
                return Answer(route, await self._give(lease, call, route))
            except NotDeliveredError:
                continue  # the worker has not begun it, and will not: another may have it
        told = f"no worker of {route.model}/{route.version} has begun the request"
        raise WorkerDiedError(told, retry_after_s=1)

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
            if (other.version, other.digest) != (route.version, route.digest):
                raise VersionConflictError(_conflict(route, other))
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

    def begin(self, call: Call, told: Callable[[asyncio.Future[WorkerReply]], None]) -> None:
        """Begin with one call: at once, where a worker is ready; else as `predict` does.

        ``call.pending`` is what to cancel when its caller has left; ``told`` is called with it when
        it is done. Nearly every request goes this way, without a task.

        Raises:
            GatewayError: It cannot begin; ``told`` is not called.
        """
        lease = self._lease_now(call) if call.deadline is None else None
        if lease is None or call.route is None:
            self._begin_waiting(call, told)
            return
        try:
            answer = self._give(lease, call, call.route)
        except NotDeliveredError:
            self._begin_waiting(call, told)
            return
        call.pending = answer
        answer.add_done_callback(partial(self._ended, call, told))

    def _begin_waiting(
        self, call: Call, told: Callable[[asyncio.Future[WorkerReply]], None]
    ) -> None:
        call.pending = asyncio.get_running_loop().create_task(self._reply_to(call))
        call.pending.add_done_callback(told)

    async def _reply_to(self, call: Call) -> WorkerReply:
        return (await self.predict(call)).reply

    def _lease_now(self, call: Call) -> Lease | None:
        """Take a lease, if nothing has to be waited for."""
        try:
            route = self.resolve(call)
        except (ModelLoadingError, ModelLoadFailedError):
            return None
        call.route = route
        if route.digest is None:
            return None
        key = ReplicaKey(route.model, route.version, route.digest)
        return self._residents.try_lease(key, len(call.body))

    def _ended(
        self,
        call: Call,
        told: Callable[[asyncio.Future[WorkerReply]], None],
        answer: asyncio.Future[WorkerReply],
    ) -> None:
        if not answer.cancelled() and isinstance(answer.exception(), NotDeliveredError):
            self._begin_waiting(call, told)  # another worker may have it
        else:
            told(answer)

    def _give(self, lease: Lease, call: Call, route: Route) -> asyncio.Future[WorkerReply]:
        """Give a call to a worker.

        Lease and place end with the worker's answer or death, not with the caller's patience: they
        are taken until then.
        """
        limit_s = route.timeout_s or self._request_timeout_s
        try:
            timeout_s = limit_s if call.deadline is None else min(limit_s, _left_s(call.deadline))
            answer = self._send(lease, call, timeout_s, limit_s)
        except BaseException:
            lease.release()
            raise
        call.place.keep()
        return answer

    async def _loaded(self, key: ReplicaKey) -> Lease:
        try:
            return await self._residents.lease(key)
        except ModelLoadFailedError as error:
            if self._node.is_damaged(key.digest):  # which is no fault of the version
                raise self._damaged(key, error) from error
            self._live_tallies.count(key, None)  # no worker ever has the request
            raise

    def _damaged(self, key: ReplicaKey, error: ModelLoadFailedError) -> ModelLoadFailedError:
        """Say that this node's copy is damaged, and who puts that right."""
        who = "the control plane fetches it again"
        if (gone := self._node.table.why_gone(*key)) is not None:
            who = f"it cannot be fetched again: {gone}"
        elif self._node.control_plane_silent:
            who = "the control plane, which would fetch it again, has been silent for 15 s"
        return ModelLoadFailedError(
            f"{error.message}; this node's copy of its bytes is damaged or gone, and {who}",
            retry_after_s=error.retry_after_s,
        )

    def _send(
        self, lease: Lease, call: Call, timeout_s: float, limit_s: float
    ) -> asyncio.Future[WorkerReply]:
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
            answer_type=_ANSWER_TYPES[call.protocol],
        )

    # --- what the control plane has to bring ------------------------------------------------------

    async def _until_routable(self, call: Call) -> Route:
        """Resolve a call, as soon as the control plane has brought what that takes.

        That is wanted meanwhile: every step up to it goes before those that no caller waits for.

        Raises:
            ModelLoadingError: It did not come within the load budget, or there is no control plane
                to activate the alias.
            RegistryUnavailableError: There is no control plane to fetch the version.
            GatewayError: As `resolve`.
        """
        found = self._routable(call)
        if isinstance(found, Route):
            return found
        missing, awaited = found, None
        with contextlib.ExitStack() as want, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._load_budget_s):
                while True:
                    if missing.awaited != awaited:  # the registry has moved the alias
                        want.close()
                        awaited = missing.awaited
                        want.enter_context(self._wanting(awaited))
                    await self._change_or_second()
                    self.refuse_when_draining()
                    found = self._routable(call)
                    if isinstance(found, Route):
                        return found
                    missing = found
        error = missing.error
        error.retry_after_s = max(error.retry_after_s or 0.0, self._node.queue_s())
        raise error

    def _routable(self, call: Call) -> Route | _Missing:
        """Resolve a call to bytes that are here; else say what it has to wait for.

        Raises:
            GatewayError: Waiting would be in vain.
        """
        try:
            route = self.resolve(call)
        except ModelLoadingError as error:
            if self._node.control_plane_silent:
                raise
            return _Missing(error.awaited or (call.model, _SOME_ALIAS, None), error)
        except ModelLoadFailedError as error:
            if error.not_fetched is None:
                raise
            self._want_for_a_while(error.not_fetched)
            served = self._served_without_copy(*error.not_fetched) if _is_number(call) else None
            if served is None:
                raise
            return served
        if route.digest is not None:
            return route
        served = self._served_without_copy(route.model, route.version)
        if served is not None:
            # Its copy is wanted too: the control plane fetches none for a version called by number.
            self._want_for_a_while((route.model, route.version))
            return served
        return _Missing((route.model, route.version, None), self._not_here(route))

    def _not_here(self, route: Route) -> ModelLoadingError:
        """Return the refusal of a call whose version's bytes did not come in time.

        Raises:
            RegistryUnavailableError: There is no control plane to fetch them.
        """
        named = f"version {route.version} of model {route.model!r}"
        if self._node.control_plane_silent:
            raise RegistryUnavailableError(
                f"{named} is not on this node, and the control plane that would fetch it has been "
                "silent for 15 s",
                retry_after_s=15,
            )
        key = ReplicaKey(route.model, route.version, "")
        return ModelLoadingError(
            f"{named} is still being fetched",
            retry_after_s=self._residents.track_record.expected_load_s(key),
        )

    async def _change_or_second(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):  # silence is no change: look again
                await self._node.next_table()

    def _served_without_copy(self, model: str, version: int) -> Route | None:
        """Return the route to workers that serve a version whose copy is on its way, or None.

        A copy that one worker found damaged is dropped, and its siblings are as good as they were:
        their bytes were checked when they were loaded.
        """
        route = self._node.table.without_copy(model, version)
        if route is None:
            return None
        key = ReplicaKey(route.model, route.version, str(route.digest))
        return route if self._residents.is_ready(key) else None

    def _want_for_a_while(self, wanted: tuple[str, int]) -> None:
        """Want bytes although their caller does not wait for them."""
        self._node.want(*wanted)
        if wanted not in self._wanted_for_a_while:
            self._wanted_for_a_while.add(wanted)
            asyncio.get_running_loop().call_later(_WANTED_S, self._end_want, wanted)

    def _end_want(self, wanted: tuple[str, int]) -> None:
        self._wanted_for_a_while.discard(wanted)
        if (*wanted, None) not in self._waiting:
            self._node.unwant(*wanted)

    @contextlib.contextmanager
    def _wanting(self, awaited: _Awaited) -> Iterator[None]:
        """Want what a call waits for; refuse one call too many for the same."""
        if self._waiting[awaited] >= self._max_waiting:
            raise ModelOverloadedError(
                f"{self._waiting[awaited]} requests wait for model {awaited[0]!r} already",
                retry_after_s=1,
            )
        self._waiting[awaited] += 1
        if awaited[1] != _SOME_ALIAS:
            self._node.want(*awaited)
        try:
            yield
        finally:
            self._waiting[awaited] -= 1
            if self._waiting[awaited] == 0:
                del self._waiting[awaited]
                self._node.unwant(*awaited)


def _conflict(route: Route, other: Route) -> str:
    """Say how path and header disagree."""
    if route.version != other.version:
        return (
            f"the path names version {route.version}, the header X-Model-Version names version "
            f"{other.version}"
        )
    return (
        f"path and header X-Model-Version name different bytes of version {route.version}: it was "
        "made anew in the registry, and an alias means its predecessor until its own bytes are "
        "active; name the alias or the number, not both"
    )


def _let_go(lease: Lease, place: Place) -> None:
    """The worker has answered, or is gone."""
    try:
        lease.release()
    finally:
        place.let_go()


def _is_number(call: Call) -> bool:
    """Whether a call names a version by its number, and nothing else that might disagree."""
    selector = call.selector
    by_number = selector is not None and selector.kind is SelectorKind.VERSION
    return by_number and call.also in (None, selector)


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
