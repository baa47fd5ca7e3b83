"""The node as operators see it, read only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from gateway.contract import CatalogueModel, NodeState
from registry_sync.domain import Activation, Aspired, Attempt, Decision, FetchState, LedgerView
from registry_sync.planning import DueActions, Failure, Subject
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.registry import Hints
from registry_sync.reconcile.steps import FetchStep, Promotion, Steps
from registry_sync.reconcile.view.snapshots import Snapshots
from registry_sync.system import DamagedFiles


class NodeView:
    """Reads the listing, the gateway's state, the ledger and the steps. Event loop only.

    Attributes:
        now: Returns the time, in epoch seconds.
        snapshot: Returns the input of a model's next plan.
        active_of: Returns the active entry of each alias of a model.
        served: Returns the models with an active alias.
        ledger_of: Returns the records in force of one model.
        backlog: Returns how much the ledger has not recorded, and where it waits, or None.
        moving: Returns the models with an alias that is being moved.
        failures: Returns the last failure of every step that waits for its next try.
        store_use: Returns how full the artifact store is.
        damaged_copies: Returns the damage of each damaged artifact, by digest.
        damaged_files: Returns the files of this node that were found damaged, or not written.
        not_yet_written: Returns the files of this node that are still to be written.
    """

    def __init__(
        self,
        context: Context,
        *,
        fetch_step: FetchStep,
        promotion: Promotion,
        steps: Steps,
        due: DueActions,
        hints: Hints,
        snapshots: Snapshots,
        damaged_files: DamagedFiles,
    ) -> None:
        self._context = context
        self._fetch_step = fetch_step
        self._steps = steps
        self._due = due
        self._hints = hints
        self.now = context.clock
        self.snapshot = snapshots.of
        self.active_of = context.observation.active_of
        self.served = context.observation.serves
        self.ledger_of = context.journal.view_of
        self.backlog = context.journal.backlog
        self.moving = promotion.moving
        self.failures = steps.backoff.failures
        self.store_use = context.store.use
        self.damaged_copies = context.store.damaged
        self.damaged_files = damaged_files.all
        self.not_yet_written = damaged_files.not_yet_written

    # --- the registry -----------------------------------------------------------------------------

    @property
    def aspired(self) -> Aspired:
        """The listing in force."""
        return self._context.listings.aspired

    @property
    def listed_at(self) -> float | None:
        """Epoch seconds of the newest answer of the registry, or None."""
        return self._context.listings.listed_at

    @property
    def source_error(self) -> str | None:
        """Why the registry is not followed now, or None."""
        return self._context.listings.error

    @property
    def is_listed(self) -> bool:
        """Whether the registry has been listed since the start, and answers."""
        return self.source_error is None and self._context.listings.count > 0

    # --- the gateway ------------------------------------------------------------------------------

    @property
    def gateway(self) -> NodeState | None:
        """The newest state of the gateway, or None before its first answer."""
        return self._context.observation.node

    @property
    def gateway_error(self) -> str | None:
        """Why the gateway does not answer, or None."""
        return self._context.observation.unreachable

    @property
    def generation(self) -> int | None:
        """The generation of the route table, or None before the gateway's first answer."""
        observation = self._context.observation
        return observation.generation if observation.heard else None

    @property
    def described(self) -> Mapping[str, CatalogueModel]:
        """The newest description of each model, by name."""
        return self._context.announcer.models

    # --- the ledger; a `LedgerError` says that it does not answer ---------------------------------

    @property
    def ledger(self) -> LedgerView:
        """The records in force of all models."""
        return self._context.journal.view

    @property
    def ledger_error(self) -> str | None:
        """Why the newest use of the ledger failed, or None."""
        return self._context.journal.trouble

    async def activations(
        self, model: str | None, alias: str | None = None, *, limit: int
    ) -> Sequence[Activation]:
        """Return the moves of aliases, newest first."""
        work = self._context.ledger.activations_of
        return await self._context.journal.read(work, model, alias, limit=limit)

    async def attempts(self, model: str | None, *, limit: int) -> Sequence[Attempt]:
        """Return the attempts at steps, newest first."""
        work = self._context.ledger.attempts_of
        return await self._context.journal.read(work, model, limit=limit)

    async def decisions(self, model: str | None, *, limit: int) -> Sequence[Decision]:
        """Return the decisions, newest first."""
        work = self._context.ledger.decisions_of
        return await self._context.journal.read(work, model, limit=limit)

    # --- the work ---------------------------------------------------------------------------------

    @property
    def busy(self) -> Collection[Subject]:
        """The steps under way."""
        return self._steps.busy.keys()

    def doing(self, model: str) -> list[Subject]:
        """Return the steps of a model that are under way or requested by an operator."""
        return [one for one in {*self._steps.busy, *self._due.requested()} if one[1] == model]

    def unfinished(self, model: str) -> list[str]:
        """Return the work that may soon change a model's state; as `ExplainAnswer.doing`."""
        found = {
            "list": self._hints.pending,
            "decide": self._context.changes.is_undecided(model),
            "move": model in self.moving(),
        }
        return [what for what, is_so in found.items() if is_so]

    def failure(self, *subject: str | int) -> Failure | None:
        """Return the last failure of a step, or None."""
        return self._steps.backoff.get(subject)

    @property
    def fetches(self) -> Sequence[FetchState]:
        """The progress of the fetches under way, oldest first."""
        return self._fetch_step.fetches
