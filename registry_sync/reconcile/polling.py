"""Lists the registry at each poll, and single models after hints."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from registry_sync.domain import Initiator
from registry_sync.planning import StartOutcome
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.steps import FetchStep, Steps

_MODELS_LOOKED_AT = 10
_log = structlog.get_logger("registry_sync.reconcile.polling")


@dataclass
class Polls:
    """Lists the registry, then ends outdated rejections and quarantines. Event loop only."""

    context: Context
    fetch_step: FetchStep
    steps: Steps

    async def poll(self, asked_by: str = Initiator.POLL, *, thorough: bool = False) -> None:
        """List the registry; the listing applies from the next pass on."""
        if await self.context.listings.poll(asked_by, thorough=thorough):
            await self._end_rejections()
            for action in await self.fetch_step.look_at_quarantined():
                if self.steps.start(action) is StartOutcome.BEGUN:
                    self.context.changes.note({action.model})  # the next pass publishes it
        self.context.changes.note(frozenset())

    async def look(self, models: frozenset[str] | None, asked_by: str) -> None:
        """List a few models one by one, or else the whole registry."""
        if models is None or len(models) > _MODELS_LOOKED_AT:
            await self.poll(asked_by, thorough=True)
            return
        for model in sorted(models):
            await self.context.listings.look(model, asked_by)
            self.steps.try_now(model)
            self.context.changes.note({model})
        await self._end_rejections()
        self.context.changes.note(frozenset())

    async def _end_rejections(self) -> None:
        """End the rejections of versions to which the registry has moved an alias since."""
        for model, version in tuple(self.context.listings.pointed_anew):
            if await self.context.journal.write(
                model, self.context.ledger.end_rejection, model, version
            ):
                self.context.listings.pointed_anew.discard((model, version))
                _log.info("rejection.ended", model=model, version=version)
