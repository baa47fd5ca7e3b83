"""The ledger's present content, whole and by model. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Any, Self

from gateway.contract import AliasRef, ArtifactRef
from registry_sync.domain.records import (
    AcceptedDigest,
    AcceptedDigestChange,
    Activation,
    Freeze,
    Hold,
    HoldChange,
    Initiator,
    Quarantine,
    Rejection,
    Rollback,
    ends_by_operator,
)


@dataclass(frozen=True, slots=True)
class LedgerView:
    """A snapshot of the records in force.

    Attributes:
        accepted: Accepted digests by (model, version).
        quarantines: Quarantines by (model, version).
        last_active: The newest activation of each alias.
        freeze: The freeze in force, or None.
        automatic_rollbacks: Alias and time of each recorded automatic rollback.
    """

    accepted: Mapping[tuple[str, int], AcceptedDigest] = field(default_factory=dict)
    quarantines: Mapping[tuple[str, int], Quarantine] = field(default_factory=dict)
    rejections: Mapping[ArtifactRef, Rejection] = field(default_factory=dict)
    holds: Mapping[AliasRef, Hold] = field(default_factory=dict)
    last_active: Mapping[AliasRef, Activation] = field(default_factory=dict)
    freeze: Freeze | None = None
    automatic_rollbacks: AbstractSet[tuple[AliasRef, float]] = frozenset()

    def with_accepted_changes(self, changes: Sequence[AcceptedDigestChange]) -> Self:
        """Return the view after changes of accepted digests."""
        accepted = dict(self.accepted)
        for one in changes:
            key = (one.after.model, one.after.version)
            if accepted.get(key) == one.before:
                accepted[key] = one.after
        return replace(self, accepted=accepted)

    def with_change(self, change: HoldChange) -> Self:
        """Return the view after a decision; unchanged if a newer decision has replaced its hold."""
        hold = change.hold
        if hold is None:
            begins = change.what == "freeze"
            return self.with_freeze(Freeze(change.asked_by, change.at) if begins else None)
        current = self.holds.get(hold.alias_ref)
        if change.what == "hold":
            return self.with_hold(hold)
        if not hold.is_same(current):
            return self
        view = self.without_hold(hold.alias_ref)
        if not ends_by_operator(hold, change.asked_by):
            return view
        return view.without_live_rejection(hold.model, hold.aspired_version)

    def with_activation(self, moved: Activation) -> Self:
        """Return the view after a move of an alias."""
        return replace(self, last_active={**self.last_active, moved.alias_ref: moved})

    def with_hold(self, hold: Hold) -> Self:
        """Return the view with a hold in place of any other on the alias."""
        return replace(self, holds={**self.holds, hold.alias_ref: hold})

    def without_hold(self, alias: AliasRef) -> Self:
        """Return the view without the hold on an alias."""
        kept = {key: hold for key, hold in self.holds.items() if key != alias}
        return replace(self, holds=kept)

    def with_rollback(self, done: Rollback) -> Self:
        """Return the view after an automatic rollback; an operator's hold stays in force."""
        alias = done.hold.alias_ref
        view = replace(
            self,
            rejections={**self.rejections, done.rejection.ref: done.rejection},
            last_active={**self.last_active, alias: done.activation},
            automatic_rollbacks=self.automatic_rollbacks | {(alias, done.hold.at)},
        )
        current = self.holds.get(alias)
        by_operator = current is not None and current.asked_by != Initiator.GATEWAY
        return view if by_operator else view.with_hold(done.hold)

    def without_live_rejection(self, model: str, version: int | None) -> Self:
        """Return the view without a version's rejections on live traffic."""
        return self._without(
            lambda one: (one.model, one.version) == (model, version) and one.on_live_traffic
        )

    def without_rejection(self, model: str, version: int, digest: str | None = None) -> Self:
        """Return the view without a version's rejections, of one digest or, with None, of all."""
        return self._without(
            lambda one: (
                (one.model, one.version) == (model, version) and digest in (None, one.digest)
            )
        )

    def _without(self, is_ended: Callable[[Rejection], bool]) -> Self:
        kept = {key: one for key, one in self.rejections.items() if not is_ended(one)}
        return replace(self, rejections=kept)

    def with_freeze(self, freeze: Freeze | None) -> Self:
        """Return the view with a freeze, unless one is in force, or, with None, without any."""
        return replace(self, freeze=freeze and (self.freeze or freeze))


_MAPPINGS = ("accepted", "quarantines", "rejections", "holds", "last_active")
"""The fields of a view whose keys begin with the model."""
_EMPTY = LedgerView()


class ViewsByModel:
    """The ledger's view, by model and as a whole. Event loop only."""

    def __init__(self) -> None:
        self._of: dict[str, LedgerView] = {}
        self._by_creation: dict[str, dict[tuple[str, int], AcceptedDigest]] = {}
        self._whole: LedgerView | None = _EMPTY
        self._freeze: Freeze | None = None

    def whole(self) -> LedgerView:
        """Return the view of all models."""
        if self._whole is None:
            joined: dict[str, dict[Any, Any]] = {name: {} for name in _MAPPINGS}
            rollbacks: set[tuple[AliasRef, float]] = set()
            for view in self._of.values():
                rollbacks |= view.automatic_rollbacks
                for name, found in joined.items():
                    found.update(getattr(view, name))
            self._whole = LedgerView(
                **joined, freeze=self._freeze, automatic_rollbacks=frozenset(rollbacks)
            )
        return self._whole

    def of(self, model: str) -> LedgerView:
        """Return the view of one model, with the freeze."""
        found = self._of.get(model, _EMPTY)
        return found if self._freeze is None else replace(found, freeze=self._freeze)

    def models(self) -> AbstractSet[str]:
        """Return the models that have records."""
        return self._of.keys()

    def accepted_for(self, creation: str) -> AcceptedDigest | None:
        """Return the digest accepted last for a creation, under any name, or None."""
        found = self._by_creation.get(creation, {}).values()
        return max(found, key=lambda one: one.accepted_at or 0.0, default=None)

    def put(self, model: str, view: LedgerView) -> bool:
        """Replace the view of one model; return whether it changed."""
        before = self._of.get(model, _EMPTY)
        after = replace(view, freeze=None)
        self._index(before.accepted.values(), after.accepted.values())
        self._of[model] = after
        if after == _EMPTY:
            del self._of[model]
        self._whole = None
        return after != before

    def take(self, view: LedgerView) -> frozenset[str] | None:
        """Replace everything; return the models that changed, or None if the freeze did."""
        freeze, self._freeze = self._freeze, view.freeze
        found = view_by_model(view)
        names = {*self._of, *found}
        changed = {name for name in names if self.put(name, found.get(name, _EMPTY))}
        self._whole = view
        return frozenset(changed) if freeze == self._freeze else None

    def change(self, model: str, change: Callable[[LedgerView], LedgerView]) -> bool:
        """Apply a change to the view of one model; return whether it changed."""
        return self.put(model, view_of_model(model, change(self.of(model))))

    def _index(self, before: Iterable[AcceptedDigest], after: Iterable[AcceptedDigest]) -> None:
        for one in before:
            of_creation = self._by_creation.get(one.creation or "", {})
            of_creation.pop((one.model, one.version), None)
            if not of_creation:
                self._by_creation.pop(one.creation or "", None)
        for one in after:
            if one.creation is not None:
                of_creation = self._by_creation.setdefault(one.creation, {})
                of_creation[one.model, one.version] = one


def view_of_model(model: str, view: LedgerView) -> LedgerView:
    """Return one model's part of a view, with the freeze."""
    return replace(view_by_model(view).get(model, _EMPTY), freeze=view.freeze)


def view_by_model(view: LedgerView) -> dict[str, LedgerView]:
    """Return a view's parts by model, without the freeze."""
    parts: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for name in _MAPPINGS:
        for key, one in getattr(view, name).items():
            parts[key[0]].setdefault(name, {})[key] = one
    for rollback in view.automatic_rollbacks:
        parts[rollback[0].model].setdefault("automatic_rollbacks", set()).add(rollback)
    return {model: LedgerView(**part) for model, part in parts.items()}
