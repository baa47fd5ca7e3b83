"""Listings of the registry: all of it by the clock, single models by hints."""

from __future__ import annotations

import structlog

from registry_sync.domain import Initiator
from registry_sync.planning import Fetch, StartOutcome
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.steps import FetchStep, Steps

_MODELS_LOOKED_AT = 10
_log = structlog.get_logger("registry_sync.reconcile.polling")


class Polls:
    """Lists the registry, and starts what only a listing can start. Event loop only."""

    def __init__(
        self,
        context: Context,
        fetch_step: FetchStep,
        steps: Steps,
    ) -> None:
        self._fetch_step = fetch_step
        self._steps = steps
        self._listings = context.listings
        self._journal = context.journal
        self._ledger = context.ledger
        self._changes = context.changes

    async def poll(self, asked_by: str = Initiator.POLL, *, thorough: bool = False) -> None:
        """List the registry; the listing applies from the next pass on."""
        if await self._listings.poll(asked_by, thorough=thorough):
            await self._release_rejections()
            for action in await self._fetch_step.look_at_quarantined():
                self._begin(action)
        self._changes.note(frozenset())

    async def look(self, models: frozenset[str] | None, asked_by: str) -> None:
        """List each of a few models, else everything."""
        if models is None or len(models) > _MODELS_LOOKED_AT:
            await self.poll(asked_by, thorough=True)
            return
        for model in sorted(models):
            await self._listings.look(model, asked_by)
            self._steps.try_now(model)
            self._changes.note({model})
        await self._release_rejections()
        self._changes.note(frozenset())

    async def _release_rejections(self) -> None:
        """End the rejections of versions to which the registry has moved an alias anew."""
        for model, version in tuple(self._listings.pointed_anew):
            if await self._journal.write(model, self._ledger.end_rejection, model, version):
                self._listings.pointed_anew.discard((model, version))
                _log.info("rejection.ended", model=model, version=version)

    def _begin(self, fetch: Fetch) -> None:
        """Start a fetch that no plan has decided; the next pass publishes it."""
        if self._steps.start(fetch) is StartOutcome.BEGUN:
            self._changes.note({fetch.model})
