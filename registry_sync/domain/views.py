"""What counts of the ledger, model by model: what one model needs costs what that model has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from registry_sync.domain.records import (
    Activation,
    Freeze,
    Hold,
    LedgerView,
    PinnedVersion,
    Quarantine,
    Rejection,
)

_NOTHING = LedgerView()


class Views:
    """The view of a ledger, by model and as a whole. Event loop only."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._of: dict[str, LedgerView] = {}
        self._by_creation: dict[str, dict[tuple[str, int], PinnedVersion]] = {}
        self._whole: LedgerView | None = _NOTHING
        self._freeze: Freeze | None = None

    def whole(self) -> LedgerView:
        """Return what counts of all models."""
        if self._whole is None:
            views = self._of.values()
            self._whole = LedgerView(
                pins={key: one for view in views for key, one in view.pins.items()},
                quarantines={key: one for view in views for key, one in view.quarantines.items()},
                rejections={key: one for view in views for key, one in view.rejections.items()},
                holds={key: one for view in views for key, one in view.holds.items()},
                last_active={key: one for view in views for key, one in view.last_active.items()},
                freeze=self._freeze,
                went_back=frozenset(one for view in views for one in view.went_back),
            )
        return self._whole

    def of(self, model: str) -> LedgerView:
        """Return what counts of one model, and the freeze."""
        found = self._of.get(model, _NOTHING)
        return found if self._freeze is None else replace(found, freeze=self._freeze)

    def models(self) -> AbstractSet[str]:
        """Return the models of which something counts."""
        return self._of.keys()

    def pin_of(self, creation: str) -> PinnedVersion | None:
        """Return what was accepted last for a creation, under any name; None: nothing was."""
        found = self._by_creation.get(creation, {}).values()
        return max(found, key=lambda one: one.accepted_at or 0.0, default=None)

    def put(self, model: str, view: LedgerView) -> bool:
        """Let this count of one model; return whether that is news."""
        before = self._of.get(model, _NOTHING)
        after = replace(view, freeze=None)
        self._index(before.pins.values(), after.pins.values())
        self._of[model] = after
        if after == _NOTHING:
            del self._of[model]
        self._whole = None
        return after != before

    def take(self, view: LedgerView) -> frozenset[str] | None:
        """Let this count of all models; return of which that is news, None: perhaps of all."""
        frozen, self._freeze = self._freeze, view.freeze
        found = view_by_model(view)
        names = {*self._of, *found}
        changed = {name for name in names if self.put(name, found.get(name, _NOTHING))}
        self._whole = view
        return frozenset(changed) if frozen == self._freeze else None

    def change(self, model: str, change: Callable[[LedgerView], LedgerView]) -> bool:
        """Let a change count of one model; return whether that is news."""
        return self.put(model, view_of_model(model, change(self.of(model))))

    def _index(self, before: Iterable[PinnedVersion], after: Iterable[PinnedVersion]) -> None:
        for pin in before:
            if pin.creation is not None:
                self._by_creation.get(pin.creation, {}).pop((pin.model, pin.version), None)
        for pin in after:
            if pin.creation is not None:
                of_creation = self._by_creation.setdefault(pin.creation, {})
                of_creation[pin.model, pin.version] = pin
        for pin in before:
            if pin.creation is not None and not self._by_creation.get(pin.creation, True):
                del self._by_creation[pin.creation]


def view_of_model(model: str, view: LedgerView) -> LedgerView:
    """Return what a view has of one model."""
    return LedgerView(
        pins={key: one for key, one in view.pins.items() if key[0] == model},
        quarantines={key: one for key, one in view.quarantines.items() if key[0] == model},
        rejections={key: one for key, one in view.rejections.items() if key[0] == model},
        holds={key: one for key, one in view.holds.items() if key[0] == model},
        last_active={key: one for key, one in view.last_active.items() if key[0] == model},
        freeze=view.freeze,
        went_back=frozenset(one for one in view.went_back if one[0] == model),
    )


@dataclass(slots=True)
class _Part:
    """What a view has of one model, while it is being collected."""

    pins: dict[tuple[str, int], PinnedVersion] = field(default_factory=dict)
    quarantines: dict[tuple[str, int], Quarantine] = field(default_factory=dict)
    rejections: dict[tuple[str, int, str], Rejection] = field(default_factory=dict)
    holds: dict[tuple[str, str], Hold] = field(default_factory=dict)
    last_active: dict[tuple[str, str], Activation] = field(default_factory=dict)
    went_back: set[tuple[str, str, float]] = field(default_factory=set)

    def view(self) -> LedgerView:
        return LedgerView(
            pins=self.pins,
            quarantines=self.quarantines,
            rejections=self.rejections,
            holds=self.holds,
            last_active=self.last_active,
            went_back=frozenset(self.went_back),
        )


def view_by_model(view: LedgerView) -> dict[str, LedgerView]:
    """Return what a view has, by model; without the freeze, which is no model's."""
    parts: defaultdict[str, _Part] = defaultdict(_Part)
    for version, pin in view.pins.items():
        parts[version[0]].pins[version] = pin
    for version, wrong in view.quarantines.items():
        parts[version[0]].quarantines[version] = wrong
    for bytes_, rejected in view.rejections.items():
        parts[bytes_[0]].rejections[bytes_] = rejected
    for alias, hold in view.holds.items():
        parts[alias[0]].holds[alias] = hold
    for alias, last in view.last_active.items():
        parts[alias[0]].last_active[alias] = last
    for rollback in view.went_back:
        parts[rollback[0]].went_back.add(rollback)
    return {name: found.view() for name, found in parts.items()}
