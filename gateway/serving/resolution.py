"""Resolves a call to a version whose bytes are on this node, and waits for that if need be.

A version that a call waits for is *wanted*: the control plane fetches and activates it before
versions without a waiting call.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from gateway.errors import (
    DrainingError,
    ModelLoadFailedError,
    ModelLoadingError,
    ModelOverloadedError,
    RegistryUnavailableError,
    VersionConflictError,
)
from gateway.routing import Node, Route, RouteTable, WantedVersion
from gateway.serving.call import Call
from gateway.serving.residency import ResidentSet

_WANTED_S = 10.0
_ANY_VERSION = 0
"""The version of an alias that is not active yet."""


def resolve(table: RouteTable, call: Call) -> Route:
    """Return the version that a call names by path and header.

    Raises:
        VersionConflictError: Path and header name different versions.
        GatewayError: As of `RouteTable.resolve`.
    """
    route = table.resolve(call.model, call.selector)
    if call.second_selector is not None and call.second_selector != call.selector:
        other = table.resolve(call.model, call.second_selector)
        if (other.version, other.digest) != (route.version, route.digest):
            raise VersionConflictError(_conflict(route, other))
    return route


def shutting_down() -> DrainingError:
    """Return the refusal of a call that has not begun."""
    return DrainingError("the gateway is shutting down", retry_after_s=1)


class _Missing(NamedTuple):
    """The version that a call waits for, and the refusal if it does not come in time."""

    wanted: WantedVersion
    error: ModelLoadingError


class Resolution:
    """Waits until calls can be routed, ``max_waiting`` for one alias or version. Event loop only.

    If the attribute ``draining`` is true, calls wait no longer.
    """

    def __init__(
        self, node: Node, residents: ResidentSet, *, load_budget_s: float, max_waiting: int
    ) -> None:
        self._node = node
        self._residents = residents
        self._load_budget_s = load_budget_s
        self._max_waiting = max_waiting
        self._waiting: Counter[WantedVersion] = Counter()
        self.draining = False

    async def until_routable(self, call: Call) -> Route:
        """Resolve a call as soon as its version is on this node.

        Raises:
            ModelLoadingError: It was not within the load budget, or the control plane, which would
                activate the alias, is silent.
            RegistryUnavailableError: The control plane, which would fetch the version, is silent.
            GatewayError: As of `resolve`.
        """
        found = self._routable(call)
        if isinstance(found, Route):
            return found
        missing, wanted = found, None
        with contextlib.ExitStack() as stack, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._load_budget_s):
                while True:
                    if missing.wanted != wanted:  # the alias has moved in the registry
                        stack.close()
                        wanted = missing.wanted
                        stack.enter_context(self._wanting(wanted))
                    await self._change_or_second()
                    if self.draining:
                        raise shutting_down()
                    found = self._routable(call)
                    if isinstance(found, Route):
                        return found
                    missing = found
        error = missing.error
        error.retry_after_s = max(error.retry_after_s or 0.0, self._node.queue_s())
        raise error

    def _routable(self, call: Call) -> Route | _Missing:
        """Resolve a call to bytes on this node, or return the missing version.

        Raises:
            GatewayError: Waiting would not help.
        """
        try:
            route = resolve(self._node.table, call)
        except ModelLoadingError as error:
            if self._node.control_plane_silent:
                raise
            wanted = error.awaited or (call.model, _ANY_VERSION, None)
            return _Missing(WantedVersion(*wanted), error)
        except ModelLoadFailedError as error:
            if error.not_fetched is None:
                raise
            self._want_briefly(error.not_fetched)
            served = self._served_without_copy(*error.not_fetched) if _is_number(call) else None
            if served is None:
                raise
            return served
        if route.digest is not None:
            return route
        served = self._served_without_copy(route.model, route.version)
        if served is not None:
            # The control plane fetches a version that is called by number only if it is wanted.
            self._want_briefly((route.model, route.version))
            return served
        return _Missing(WantedVersion(route.model, route.version, None), self._not_fetched(route))

    def _not_fetched(self, route: Route) -> ModelLoadingError:
        """Return the refusal for a version that was not fetched in time.

        Raises:
            RegistryUnavailableError: The control plane, which would fetch it, is silent.
        """
        named = f"version {route.version} of model {route.model!r}"
        if self._node.control_plane_silent:
            raise RegistryUnavailableError(
                f"{named} is not on this node, and the control plane that would fetch it has been "
                "silent for 15 s",
                retry_after_s=15,
            )
        return ModelLoadingError(
            f"{named} is still being fetched",
            retry_after_s=self._residents.load_history.expected_load_s(route.ref),
        )

    async def _change_or_second(self) -> None:
        """Wait for the next table, or a second: the control plane may have become silent."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self._node.next_table()

    def _served_without_copy(self, model: str, version: int) -> Route | None:
        """Return the route to ready replicas of a version whose copy is fetched again, or None.

        Their bytes were verified when they were loaded.
        """
        route = self._node.table.without_copy(model, version)
        return route if route is not None and self._residents.is_ready(route.ref) else None

    def _want_briefly(self, version: tuple[str, int]) -> None:
        """Want a version for some seconds without a waiting call."""
        wanted = WantedVersion(*version, None)
        self._node.want(*wanted)
        if not self._waiting[wanted]:
            stack = contextlib.ExitStack()
            stack.enter_context(self._wanting(wanted))
            asyncio.get_running_loop().call_later(_WANTED_S, stack.close)

    @contextlib.contextmanager
    def _wanting(self, wanted: WantedVersion) -> Iterator[None]:
        """Want a version for the block.

        Raises:
            ModelOverloadedError: Too many calls wait for it.
        """
        if self._waiting[wanted] >= self._max_waiting:
            raise ModelOverloadedError(
                f"{self._waiting[wanted]} requests already wait for model {wanted.model!r}",
                retry_after_s=1,
            )
        self._waiting[wanted] += 1
        if wanted.version != _ANY_VERSION:
            self._node.want(*wanted)
        try:
            yield
        finally:
            self._waiting[wanted] -= 1
            if self._waiting[wanted] == 0:
                del self._waiting[wanted]
                self._node.unwant(*wanted)


def _conflict(route: Route, other: Route) -> str:
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


def _is_number(call: Call) -> bool:
    """Whether a call names a version by its number only."""
    return isinstance(call.selector, int) and call.second_selector in (None, call.selector)
