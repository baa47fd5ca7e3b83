"""Decisions of operators: in force at once, recorded as soon as the ledger answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from registry_sync.domain import Hold, HoldChange, Initiator, LedgerView
from registry_sync.planning import DueActions, Fetch, Urgency, subject_of
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.registry import Hints
from registry_sync.reconcile.steps import Steps
from registry_sync.reconcile.view import Snapshots


@dataclass
class Operators:
    """Takes the decisions of operators. Event loop only.

    `hold`, `unhold`, `freeze` and `unfreeze` are in force at once, and return why the decision is
    not recorded yet, or None.
    """

    context: Context
    steps: Steps
    due: DueActions
    hints: Hints
    snapshots: Snapshots

    async def hold(self, hold: Hold) -> str | None:
        """Begin a hold."""
        self.steps.backoff.succeeded(("activate", hold.model, hold.alias))
        # A stage that displaces may pause for an hour; an operator does not wait for that.
        target = (hold.target_version, hold.target_digest)
        self.steps.backoff.succeeded(("stage", hold.model, *target))
        return await self._carry_out("hold", hold)

    async def unhold(self, hold: Hold) -> str | None:
        """End a hold, unless another decision has replaced it."""
        return await self._carry_out("end_hold", hold)

    async def freeze(self) -> str | None:
        """Stop all aliases from following the registry; moves under way are completed."""
        return await self._carry_out("freeze")

    async def unfreeze(self) -> str | None:
        """Let aliases follow the registry again."""
        return await self._carry_out("unfreeze")

    async def _carry_out(
        self, what: Literal["hold", "end_hold", "freeze", "unfreeze"], hold: Hold | None = None
    ) -> str | None:
        change = HoldChange(what, str(Initiator.OPERATOR), self.context.clock(), hold)
        return await self.context.journal.carry_out(change)

    async def retry(self, model: str, version: int) -> bool:
        """End the rejections of a version and try again now; return whether it is recorded."""
        written = await self.context.journal.decide(
            model,
            partial(LedgerView.without_rejection, model=model, version=version),
            self.context.ledger.end_rejection,
            *(model, version),
            ended_by=Initiator.OPERATOR,
        )
        self.try_now(model)
        return written

    async def end_quarantine(self, model: str, version: int) -> bool:
        """End a quarantine and return True, or False if the ledger does not record it."""
        by = str(Initiator.OPERATOR)
        work = self.context.ledger.end_quarantine
        return await self.context.journal.write(model, work, model, version, by)

    def fetch(self, model: str, version: int, accepts: str | None = None) -> None:
        """Fetch and verify a version as soon as there is a slot.

        ``accepts`` is the digest that an operator accepts, or None for the expected one.
        """
        of = self.snapshots.of(model).creation_of(model, version)
        by, urgency = Initiator.OPERATOR, Urgency.WANTED
        fetch = Fetch(model, version, urgency, by, creation=of, accepts=accepts)
        subject = subject_of(fetch)
        doing = (one for one in self.steps.doing() if subject_of(one) == subject)
        if any(isinstance(one, Fetch) and one.accepts == accepts for one in doing):
            return
        self.steps.backoff.succeeded(subject)
        self.due.request(fetch)
        self.context.changes.note({model})

    def sync(self, model: str) -> None:
        """List the registry, and try the failed steps of a model now."""
        self.hints.add(None, Initiator.SYNC)
        self.try_now(model)

    def try_now(self, model: str) -> None:
        """Try the failed steps of a model now."""
        self.steps.try_now(model)
        self.context.changes.note({model})
