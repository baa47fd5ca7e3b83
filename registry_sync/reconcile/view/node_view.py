"""The node as operators see it, read only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from gateway.contract import ActiveAlias, CatalogueModel, NodeState
from registry_sync.artifacts import StoreUse
from registry_sync.domain import Activation, Aspired, Attempt, Decision, LedgerView
from registry_sync.planning import DueActions, Snapshot, Subject
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.registry import Hints
from registry_sync.reconcile.steps import Failure, FetchStep, Progress, Promotion, Steps
from registry_sync.reconcile.view.snapshots import Snapshots
from registry_sync.system import DamagedFile, DamagedFiles


class NodeView:
    """Reads what is listed, served, remembered and under way. Event loop only."""

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
        self._fetch_step = fetch_step
        self._promotion = promotion
        self._steps = steps
        self._due = due
        self._hints = hints
        self._snapshots = snapshots
        self._damaged_files = damaged_files
        self._listings = context.listings
        self._observation = context.observation
        self._announcer = context.announcer
        self._journal = context.journal
        self._ledger = context.ledger
        self._store = context.store
        self._changes = context.changes
        self._clock = context.clock

    def now(self) -> float:
        """Return the time, in epoch seconds."""
        return self._clock()

    def snapshot(self, model: str) -> Snapshot:
        """Return the input of the next decision about a model."""
        return self._snapshots.of(model)

    # --- the registry -----------------------------------------------------------------------------

    @property
    def aspired(self) -> Aspired:
        """The listing in force."""
        return self._listings.aspired

    @property
    def listed_at(self) -> float | None:
        """Epoch seconds of the newest answer of the registry, or None."""
        return self._listings.listed_at

    @property
    def source_error(self) -> str | None:
        """Why the registry is not followed now, or None."""
        return self._listings.error

    @property
    def is_listed(self) -> bool:
        """Whether the registry has been listed since the start, and answers."""
        return self._listings.error is None and self._listings.count > 0

    # --- the gateway ------------------------------------------------------------------------------

    @property
    def gateway(self) -> NodeState | None:
        """The newest state of the gateway, or None before its first answer."""
        return self._observation.node

    @property
    def gateway_error(self) -> str | None:
        """Why the gateway does not answer, or None."""
        return self._observation.unreachable

    @property
    def generation(self) -> int | None:
        """The generation of the route table, or None before the gateway's first answer."""
        return self._observation.generation if self._observation.heard else None

    def active_of(self, model: str) -> Mapping[str, ActiveAlias]:
        """Return the active entry of each alias of a model."""
        return self._observation.active_of(model)

    def served(self) -> Collection[str]:
        """Return the models with an active alias."""
        return self._observation.serves()

    @property
    def described(self) -> Mapping[str, CatalogueModel]:
        """The newest description of each model, by name."""
        return self._announcer.models

    # --- the ledger -------------------------------------------------------------------------------

    @property
    def ledger(self) -> LedgerView:
        """The records in force of all models."""
        return self._journal.view

    def ledger_of(self, model: str) -> LedgerView:
        """Return the records in force of one model."""
        return self._journal.view_of(model)

    @property
    def ledger_error(self) -> str | None:
        """Why the newest use of the ledger failed, or None."""
        return self._journal.trouble

    def backlog(self) -> str | None:
        """Return what the ledger has not recorded yet, and where it is kept, or None."""
        return self._journal.backlog()

    async def activations(
        self, model: str | None, alias: str | None = None, *, limit: int
    ) -> Sequence[Activation]:
        """Return the moves of aliases, newest first.

        Raises:
            LedgerError: The ledger does not answer.
        """
        work = self._ledger.activations_of
        return await self._journal.read(work, model, alias, limit=limit)

    async def attempts(self, model: str | None, *, limit: int) -> Sequence[Attempt]:
        """Return the attempts at steps, newest first.

        Raises:
            LedgerError: The ledger does not answer.
        """
        return await self._journal.read(self._ledger.attempts_of, model, limit=limit)

    async def decisions(self, model: str | None, *, limit: int) -> Sequence[Decision]:
        """Return the decisions, newest first.

        Raises:
            LedgerError: The ledger does not answer.
        """
        return await self._journal.read(self._ledger.decisions_of, model, limit=limit)

    # --- the work ---------------------------------------------------------------------------------

    @property
    def busy(self) -> Collection[Subject]:
        """The steps under way."""
        return self._steps.busy.keys()

    def doing(self, model: str) -> list[Subject]:
        """Return the steps of a model that are under way or requested by an operator."""
        return [one for one in {*self._steps.busy, *self._due.requested()} if one[1] == model]

    def unfinished(self, model: str) -> list[str]:
        """Return what may soon change what is known of a model; as `ExplainAnswer.doing`."""
        found = {
            "list": self._hints.pending,
            "decide": self._changes.is_undecided(model),
            "move": model in self._promotion.moving(),
        }
        return [what for what, is_so in found.items() if is_so]

    def moving(self) -> list[str]:
        """Return the models of which an alias is being moved now."""
        return self._promotion.moving()

    def failure(self, *subject: str | int) -> Failure | None:
        """Return the last failure of a step, or None."""
        return self._steps.backoff.get(subject)

    def failures(self) -> Mapping[Subject, Failure]:
        """Return the last failure of every step that waits for its next try."""
        return self._steps.backoff.failures()

    @property
    def fetches(self) -> Sequence[Progress]:
        """The progress of the fetches under way, oldest first."""
        return self._fetch_step.fetches

    # --- the disk ---------------------------------------------------------------------------------

    def store_use(self) -> StoreUse:
        """Return how full the artifact store is."""
        return self._store.use()

    def damaged_copies(self) -> Mapping[str, str]:
        """Return what is wrong with each damaged artifact, by digest."""
        return self._store.damaged()

    def damaged_files(self) -> Sequence[DamagedFile]:
        """Return the files of this node that were found damaged, or could not be written."""
        return self._damaged_files.all()

    def not_yet_written(self) -> Sequence[DamagedFile]:
        """Return the files of this node that could not be written, and are still to be."""
        return self._damaged_files.not_yet_written()
