"""The listing that the ledger gives before the registry has answered. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Set as AbstractSet
from dataclasses import replace

from registry_sync.domain import Aspired, AspiredModel, AspiredVersion, LedgerView, as_remembered


class RememberedListing:
    """Completes a listing from the ledger; returns the same objects while nothing changes."""

    def __init__(self) -> None:
        self._of: tuple[object, ...] = ()
        self._models: Mapping[str, AspiredModel] = {}
        self._remembered: AbstractSet[str] = frozenset()

    def beside(self, aspired: Aspired, view: LedgerView) -> tuple[Aspired, AbstractSet[str]]:
        """Return the completed listing, and the models that only the ledger knows."""
        of = (aspired.models, view)
        if not self._of or any(now is not before for now, before in zip(of, self._of, strict=True)):
            known = from_ledger(view)
            self._of, self._models = of, {**known, **aspired.models}
            self._remembered = known.keys() - aspired.models.keys()
        return replace(aspired, models=self._models), self._remembered


def from_ledger(view: LedgerView) -> dict[str, AspiredModel]:
    """Return the models of a view, by its accepted digests and activations."""
    models: dict[str, AspiredModel] = {}
    for (name, number), accepted in sorted(view.accepted.items()):
        known = models.get(name) or AspiredModel(name=name, versions={})
        version = AspiredVersion(
            model=name,
            version=number,
            location="",
            expected_digest=accepted.expected_digest if accepted.stamped else None,
            creation=accepted.creation,
        )
        version = as_remembered(version, view)
        models[name] = replace(known, versions={**known.versions, number: version})
    for (name, alias), last in view.last_active.items():
        if last.retired_at is not None:
            continue
        if name in models and last.version in models[name].versions:
            aliases = {**models[name].aliases, alias: last.version}
            models[name] = replace(models[name], aliases=aliases)
    return models
