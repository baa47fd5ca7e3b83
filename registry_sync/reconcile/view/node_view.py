"""The node as operators see it: everything can be read here, and nothing changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from gateway.contract import ActiveAlias, CatalogueModel, NodeState
from registry_sync.artifacts import StoreUse
from registry_sync.domain import Activation, Aspired, Attempt, Decision, LedgerView
from registry_sync.planning import Due, Snapshot, Subject
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.registry import Hints
from registry_sync.reconcile.steps import Arrival, Failure, Progress, Promotion, Steps
from registry_sync.reconcile.view.snapshots import Snapshots
from registry_sync.system import DamagedFile, DamagedFiles


class NodeView:
    """Reads what is listed, served, remembered and under way. Event loop only."""

    def __init__(
        self,
        context: Context,
        *,
        arrival: Arrival,
        promotion: Promotion,
        steps: Steps,
        due: Due,
        hints: Hints,
        snapshots: Snapshots,
        damaged_files: DamagedFiles,
    ) -> None:
        self._arrival = arrival
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
        """Return what the next decision about a model is made of."""
        return self._snapshots.of(model)

    # --- the registry -----------------------------------------------------------------------------

    @property
    def aspired(self) -> Aspired:
        """The listing that counts."""
        return self._listings.aspired

    @property
    def listed_at(self) -> float | None:
        """When the registry answered last, in epoch seconds; None: never."""
        return self._listings.listed_at

    @property
    def source_error(self) -> str | None:
        """Why the registry is not followed now; None: it is."""
        return self._listings.error

    @property
    def is_listed(self) -> bool:
        """Whether the registry has been listed since the start, and answers."""
        return self._listings.error is None and self._listings.count > 0

    # --- the gateway ------------------------------------------------------------------------------

    @property
    def gateway(self) -> NodeState | None:
        """What the gateway said last, as far as it counts; None: it was not heard."""
        return self._observation.node

    @property
    def gateway_error(self) -> str | None:
        """Why the gateway does not answer; None: it does."""
        return self._observation.unreachable

    @property
    def generation(self) -> int | None:
        """The generation of the gateway's table; None: it was not heard."""
        return self._observation.generation if self._observation.heard else None

    def active_of(self, model: str) -> Mapping[str, ActiveAlias]:
        """Return what each alias of a model means on the gateway."""
        return self._observation.active_of(model)

    def served(self) -> Collection[str]:
        """Return the models that the gateway serves."""
        return self._observation.serves()

    @property
    def described(self) -> Mapping[str, CatalogueModel]:
        """How each model was described last, by name."""
        return self._announcer.models

    # --- the ledger -------------------------------------------------------------------------------

    @property
    def ledger(self) -> LedgerView:
        """What counts of all models."""
        return self._journal.view

    def ledger_of(self, model: str) -> LedgerView:
        """Return what counts of one model."""
        return self._journal.view_of(model)

    @property
    def ledger_error(self) -> str | None:
        """Why the ledger could not be used last time; None: it could."""
        return self._journal.trouble

    def backlog(self) -> str | None:
        """Say what the ledger has not taken yet, and where it waits, or return None."""
        return self._journal.backlog()

    async def activations(
        self, model: str | None, alias: str | None = None, *, limit: int
    ) -> Sequence[Activation]:
        """Return where aliases have moved, newest first.

        Raises:
            LedgerError: The ledger does not answer.
        """
        work = self._ledger.activations_of
        return await self._journal.read(work, model, alias, limit=limit)

    async def attempts(self, model: str | None, *, limit: int) -> Sequence[Attempt]:
        """Return how steps have ended, newest first.

        Raises:
            LedgerError: The ledger does not answer.
        """
        return await self._journal.read(self._ledger.attempts_of, model, limit=limit)

    async def decisions(self, model: str | None, *, limit: int) -> Sequence[Decision]:
        """Return what was decided, newest first.

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
        """Return the steps of a model that are under way, or that an operator has asked for."""
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
        """Return the models of which an alias is being moved, as was decided before."""
        return self._promotion.moving()

    def failure(self, *subject: str | int) -> Failure | None:
        """Return how a step failed last, or None."""
        return self._steps.backoff.get(subject)

    def failures(self) -> Mapping[Subject, Failure]:
        """Return the last failure of every step that waits for its next try."""
        return self._steps.backoff.failures()

    @property
    def fetches(self) -> Sequence[Progress]:
        """How far the fetches under way are, the oldest first."""
        return self._arrival.fetches

    # --- the disk ---------------------------------------------------------------------------------

    def store_use(self) -> StoreUse:
        """Return how full the artifact store is."""
        return self._store.use()

    def damaged_copies(self) -> Mapping[str, str]:
        """Return the artifacts that were found damaged, and what is wrong with each."""
        return self._store.damaged()

    def damaged_files(self) -> Sequence[DamagedFile]:
        """Return the files of this node that were found damaged, or could not be written."""
        return self._damaged_files.all()

    def not_yet_written(self) -> Sequence[DamagedFile]:
        """Return the files of this node that could not be written, and are still to be."""
        return self._damaged_files.not_yet_written()
