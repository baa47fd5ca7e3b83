"""Describes models to the gateway: their versions on this node, and why some do not serve."""

from __future__ import annotations

from collections.abc import Mapping, Set as AbstractSet
from dataclasses import dataclass, field

import structlog

from gateway.contract import CatalogueModel
from gateway.system.logs import remember_location
from registry_sync.domain import AspiredModel
from registry_sync.planning import (
    BuildEnvironment,
    Cause,
    Fetch,
    KnownState,
    RememberedListing,
    Snapshot,
    describe_model,
    explain,
    signature_change,
)
from registry_sync.reconcile.context import Context
from registry_sync.reconcile.gateway import SentModel
from registry_sync.reconcile.steps import EnvironmentStep, Steps
from registry_sync.reconcile.view.pauses import with_pauses
from registry_sync.reconcile.view.snapshots import Snapshots
from registry_sync.system import ModelFaults

_FETCH_STEPS = frozenset({"fetch", "environment"})
_LOAD_STEPS = frozenset({"stage", "activate"})
_DELAYS = frozenset({Cause.FAILING, Cause.AWAITS_WINDOW})
_log = structlog.get_logger("registry_sync.reconcile.view.description")


@dataclass
class Descriptions:
    """Describes models, and publishes changed descriptions. Event loop only."""

    context: Context
    environment_step: EnvironmentStep
    steps: Steps
    snapshots: Snapshots
    faults: ModelFaults
    _remembered: RememberedListing = field(default_factory=RememberedListing)
    _published: Mapping[str, AspiredModel] | None = None
    _signature_changes: dict[str, dict[str, str]] = field(default_factory=dict)

    async def publish(self, models: AbstractSet[str]) -> None:
        """Describe some models as they are now, and send the gateway the changes."""
        node = self.context.observation.heard
        if node is None:
            return
        aspired = self.context.listings.aspired
        if self.context.listings.complete:
            remembered: AbstractSet[str] = frozenset()
        else:
            aspired, remembered = self._remembered.beside(aspired, self.context.journal.view)
            if aspired.models is not self._published:
                models = {*models, *aspired.models}
            self._published = aspired.models
        async for name in with_pauses(models):
            with self.faults.isolate(name, "description"):
                model = self._describe(name, aspired.models.get(name))
                if model is not None and name in remembered:
                    model = model.model_copy(update={"remembered": True})
                self.context.announcer.describe(name, model)
        listed = SentModel(
            self.context.listings.listed_at,
            self.context.listings.error,
            self.context.listings.complete,
        )
        await self.context.announcer.publish(node, listed)

    def _describe(self, name: str, listed: AspiredModel | None) -> CatalogueModel | None:
        model = describe_model(name, listed, self.context.journal.view_of(name), self._known(name))
        if model is not None and listed is not None:
            _remember_locations(model, listed)
        return model

    def _known(self, model: str) -> KnownState:
        """Return the state of one model's versions on this node."""
        backoff = self.steps.backoff
        failures = {
            int(subject[2]): failure
            for subject, failure in backoff.failures(model).items()
            if subject[0] in _FETCH_STEPS and backoff.waits(subject, goal=failure.goal)
        }
        fetching = (one for one in self.steps.doing() if isinstance(one, Fetch | BuildEnvironment))
        artifacts = self.context.artifacts
        digests = {one.digest for one in self.context.journal.view_of(model).accepted.values()}
        snapshot = self.snapshots.of(model)
        changes, refused = self._compare_signatures(model, snapshot)
        return KnownState(
            descriptions={
                digest: self.environment_step.described(artifacts[digest])
                for digest in digests
                if digest in artifacts
            },
            fetching={one.version for one in fetching if one.model == model},
            failures=failures,
            environments=self.environment_step.built,
            signature_changes=changes,
            notes=self._delayed(model, snapshot) | refused,
            damaged=self.context.store.damaged(),
        )

    def _delayed(self, model: str, snapshot: Snapshot) -> dict[str, str]:
        """Return why aliases do not mean their target yet, although its bytes are stored."""
        fails = any(one[0] in _LOAD_STEPS for one in self.steps.backoff.failures(model))
        listed = snapshot.aspired.models.get(model)
        if listed is None or not (fails or snapshot.promotions_act_at):
            return {}
        active = self.context.observation.active_of(model)
        found = {
            alias: explain(snapshot, model, alias, active.get(alias)) for alias in listed.aliases
        }
        return {alias: one.reason for alias, one in found.items() if one.why in _DELAYS}

    def _compare_signatures(
        self, model: str, snapshot: Snapshot
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Return the signature changes of aliases, and those refused; log new ones."""
        changes, refusals = dict[str, str](), dict[str, str]()
        for active in snapshot.node.active:
            hold = snapshot.ledger.holds.get(active.alias_ref)
            target = snapshot.target(model, active.alias, hold)
            if target and (refused := snapshot.why_refused_signature(active, target)):
                refusals[active.alias] = refused
            if change := signature_change(snapshot, active, target):
                changes[active.alias] = change
        reasons = changes | refusals
        before = self._signature_changes.pop(model, {})
        for alias, reason in reasons.items():
            if before.get(alias) != reason:
                _log.warning("signature.changed", model=model, alias=alias, reason=reason)
        if reasons:
            self._signature_changes[model] = reasons
        return changes, refusals


def _remember_locations(model: CatalogueModel, listed: AspiredModel) -> None:
    """Withhold the locations of versions with a reason, which callers can read."""
    for one in model.versions:
        if one.reason is not None and one.version in listed.versions:
            remember_location(listed.versions[one.version].location)
