"""What operators decide: each decision counts at once, and is recorded as soon as it can be."""

from __future__ import annotations

from functools import partial
from typing import Literal

from registry_sync.domain import AskedBy, Hold, HoldChange, LedgerView
from registry_sync.planning import Due, Fetch, Urgency, subject_of
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.registry import Hints
from registry_sync.reconcile.steps import Steps
from registry_sync.reconcile.view import Snapshots


class Operators:
    """Takes the decisions of operators. Event loop only.

    What keeps an alias, or the node, is in force when it is decided: `hold`, `unhold`, `freeze` and
    `unfreeze` return why it is not recorded yet, or None if it is.
    """

    def __init__(
        self,
        context: Context,
        steps: Steps,
        due: Due,
        hints: Hints,
        snapshots: Snapshots,
    ) -> None:
        self._steps = steps
        self._due = due
        self._hints = hints
        self._snapshots = snapshots
        self._journal = context.journal
        self._ledger = context.ledger
        self._changes = context.changes
        self._clock = context.clock

    async def hold(self, hold: Hold) -> str | None:
        """Keep an alias where an operator wants it, from now on."""
        self._steps.backoff.succeeded(("activate", hold.model, hold.alias))
        # What takes down what serves pauses for up to an hour: who decides does not wait for that.
        target = (hold.target_version, hold.target_digest)
        self._steps.backoff.succeeded(("stage", hold.model, *target))
        return await self._carry_out("hold", hold)

    async def unhold(self, hold: Hold) -> str | None:
        """Let an alias follow the registry again, if it is this that holds it."""
        return await self._carry_out("end_hold", hold)

    async def freeze(self) -> str | None:
        """Let no alias follow the registry; those that are moving already arrive."""
        return await self._carry_out("freeze")

    async def unfreeze(self) -> str | None:
        """Let aliases follow the registry again."""
        return await self._carry_out("unfreeze")

    async def _carry_out(
        self, what: Literal["hold", "end_hold", "freeze", "unfreeze"], hold: Hold | None = None
    ) -> str | None:
        change = HoldChange(what, str(AskedBy.OPERATOR), self._clock(), hold)
        return await self._journal.carry_out(change)

    async def retry(self, model: str, version: int) -> bool:
        """Let a rejected version be tried again, now; whether that is recorded."""
        written = await self._journal.decide(
            model,
            partial(LedgerView.without_rejection, model=model, version=version),
            self._ledger.end_rejection,
            *(model, version),
            ended_by=AskedBy.OPERATOR,
        )
        self.try_now(model)
        return written

    async def end_quarantine(self, model: str, version: int) -> bool:
        """End a quarantine; whether the ledger took that, else it stands."""
        by = str(AskedBy.OPERATOR)
        work = self._ledger.end_quarantine
        return await self._journal.write(model, work, model, version, by)

    def fetch(self, model: str, version: int, accepts: str | None = None) -> None:
        """Have a version fetched and checked as soon as there is a slot.

        ``accepts`` is the digest that an operator accepts; None: whichever is expected.
        """
        of = self._snapshots.of(model).creation_of(model, version)
        by, urgency = AskedBy.OPERATOR, Urgency.WANTED
        fetch = Fetch(model, version, urgency, by, creation=of, accepts=accepts)
        subject = subject_of(fetch)
        doing = (one for one in self._steps.doing() if subject_of(one) == subject)
        if any(isinstance(one, Fetch) and one.accepts == accepts for one in doing):
            return
        self._steps.backoff.succeeded(subject)
        self._due.request(fetch)
        self._changes.note({model})

    def sync(self, model: str) -> None:
        """Have the registry listed, and nothing of a model wait for its next try."""
        self._hints.add(None, AskedBy.SYNC)
        self.try_now(model)

    def try_now(self, model: str) -> None:
        """Let nothing of a model wait for its next try."""
        self._steps.try_now(model)
        self._changes.note({model})
